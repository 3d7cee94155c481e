//! `sampan validate`: is a spec good?

use clap::Args;

use super::{End, output::Output, spec::SpecArguments};

/// Check a spec, and say everything that is wrong with it
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    spec: SpecArguments,

    /// Print the checked spec as JSON, with every default filled in
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let app = arguments.spec.load(output)?;
    if arguments.json {
        return output.json(&app);
    }
    output.talk(&format!(
        "{} is good: app `{}`, {}, {}",
        arguments.spec.file.display(),
        app.name,
        super::output::count(app.services.len(), "service"),
        super::output::count(app.jobs.len(), "job"),
    ));
    Ok(())
}
