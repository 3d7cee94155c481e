//! Reading a spec from a file, as every verb with `-f` does.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use clap::Args;
use sampan_core::{object::App, spec};

use super::{EXIT_USAGE, Stop, output::Output};
use crate::file;

/// Which spec.
#[derive(Args)]
pub(super) struct SpecArguments {
    /// The spec of the app
    #[arg(short, long, value_name = "FILE", default_value = "sampan.toml")]
    pub(super) file: PathBuf,

    /// Turn on services and jobs of this profile
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Vec<String>,
}

impl SpecArguments {
    /// Reads and checks the spec. All its problems are printed before this fails.
    pub(super) fn load(&self, output: &Output) -> Result<App, Stop> {
        let text = file::text(&self.file)
            .map_err(|error| self.unreadable(error))
            .map_err(Stop::usage)?;
        let base = self.base();
        let input = spec::Input {
            path: &self.file.to_string_lossy(),
            text: &text,
            environment: &|name| env::var(name).ok(),
            read_file: &|path| file::text(&base.join(path)).map_err(|e| e.to_string()),
            profiles: &self.profile,
        };
        spec::load(&input).map_err(|problems| {
            output.problems(&problems);
            Stop::Quiet(EXIT_USAGE)
        })
    }

    fn unreadable(&self, error: io::Error) -> anyhow::Error {
        let path = self.file.display();
        if error.kind() == io::ErrorKind::NotFound {
            return anyhow::anyhow!(
                "there is no spec `{path}`: `-f FILE` names another, `sampan init` makes one"
            );
        }
        anyhow::Error::new(error).context(format!("cannot read the spec `{path}`"))
    }

    /// The directory that paths in the spec start from.
    pub(super) fn base(&self) -> PathBuf {
        match self.file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    }
}
