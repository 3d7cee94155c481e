//! `sampan completions`: a completion script for a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{End, output::Output};

/// Print a completion script for a shell
///
/// For bash: `source <(sampan completions bash)`.
#[derive(Args)]
pub(super) struct Arguments {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let mut command = super::Arguments::command();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "sampan", &mut script);
    output.data(&String::from_utf8_lossy(&script));
    Ok(())
}
