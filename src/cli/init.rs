//! `sampan init`: a new app that runs.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use sampan_core::spec;

use super::{End, Stop, output::Output};

/// Make a new app: a sampan.toml and a component to start with
#[derive(Args)]
pub(super) struct Arguments {
    /// Directory of the app; it is made when it is not there
    #[arg(default_value = ".")]
    directory: PathBuf,
}

/// The guest a new app starts with.
const HELLO: &[u8] = include_bytes!("../../workloads/dist/hello.wasm");

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let directory = &arguments.directory;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory `{}`", directory.display()))?;
    let files = [
        ("sampan.toml", spec::example().as_bytes()),
        ("hello.wasm", HELLO),
    ];
    // Looked at before anything is written: half an app is worse than none.
    for (name, _) in files {
        let path = directory.join(name);
        if path.exists() {
            return Err(Stop::usage(anyhow::anyhow!(
                "`{}` is already there: name another directory, or remove it",
                path.display()
            )));
        }
    }
    for (name, bytes) in files {
        let path = directory.join(name);
        write_new(&path, bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
        output.talk(&format!("wrote {}", path.display()));
    }
    let go = match directory.as_os_str() == "." {
        true => String::new(),
        false => format!("cd {} && ", directory.display()),
    };
    output.talk(&format!("next: {go}sampan up"));
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?
        .write_all(bytes)
}
