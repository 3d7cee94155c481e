//! Reading a spec from a file, as every verb with `-f` does.

use std::{
    cell::{RefCell, RefMut},
    collections::BTreeMap,
    env, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use sampan_core::{
    name::Name,
    object::{App, SecretSource},
    secret::{MAX_SECRET_BYTES, SecretValue},
    spec,
};

use super::{EXIT_USAGE, Stop, output::Output};
use crate::file;

/// A spec that has been read, and what it took from its surroundings.
pub(super) struct Read {
    pub(super) app: App,
    pub(super) text: String,
    /// Variables that it refers to.
    pub(super) environment: BTreeMap<String, String>,
    /// Env files by the paths that it has for them.
    pub(super) files: BTreeMap<String, String>,
    /// The values of the secrets that it uses.
    pub(super) secrets: BTreeMap<Name, SecretValue>,
}

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
        self.read(output).map(|read| read.app)
    }

    /// Like [`Self::load`], and keeps what the spec took from its surroundings.
    pub(super) fn read(&self, output: &Output) -> Result<Read, Stop> {
        let text = file::text(&self.file)
            .map_err(|error| self.unreadable(error))
            .map_err(Stop::usage)?;
        let base = self.base();
        let (environment, files) = (RefCell::default(), RefCell::default());
        let variable = |name: &str| {
            let value = env::var(name).ok()?;
            let mut kept: RefMut<'_, BTreeMap<_, _>> = environment.borrow_mut();
            kept.insert(name.to_owned(), value.clone());
            Some(value)
        };
        let read_file = |path: &str| {
            let text = file::text(&base.join(path)).map_err(|error| error.to_string())?;
            let mut kept: RefMut<'_, BTreeMap<_, _>> = files.borrow_mut();
            kept.insert(path.to_owned(), text.clone());
            Ok(text)
        };
        let input = spec::Input {
            path: &self.file.to_string_lossy(),
            text: &text,
            environment: &variable,
            read_file: &read_file,
            profiles: &self.profile,
        };
        let secrets = RefCell::new(BTreeMap::new());
        let read_secret = |name: &Name, source: &SecretSource| {
            let value = secret(&base, source)?;
            secrets.borrow_mut().insert(name.clone(), value.clone());
            Ok(value)
        };
        let app = spec::load_with_secrets(&input, &read_secret).map_err(|problems| {
            output.problems(&problems);
            Stop::Quiet(EXIT_USAGE)
        })?;
        Ok(Read {
            app,
            text,
            environment: environment.into_inner(),
            files: files.into_inner(),
            secrets: secrets.into_inner(),
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

/// The value of a secret, in a file or in this environment.
fn secret(base: &Path, source: &SecretSource) -> Result<SecretValue, String> {
    match source {
        SecretSource::File(path) => {
            // One byte more tells one that is too long.
            let read = file::beginning(&base.join(path), MAX_SECRET_BYTES + 1);
            let bytes = read.map_err(|error| error.to_string())?;
            Ok(SecretValue::new(bytes))
        }
        SecretSource::Env(name) => {
            let value = env::var_os(name).ok_or("it is not set")?;
            Ok(SecretValue::new(value.into_vec()))
        }
    }
}
