//! The state of a daemon on disk.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use sampan_store::{OpenError, Sqlite, Store};

use crate::{artifacts::Artifacts, file};

/// Why there is no state to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// The directory cannot be used.
    #[error("cannot keep state in `{path}`; `--data` names another place")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others could put files of theirs in the place of the daemon's.
    #[error(
        "others may write to `{}`, where state is to be kept: `chmod go-w` and `chown` make it this \
         user's own, or `--data` names another place", .0.display()
    )]
    Unsafe(PathBuf),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// Opens the database and the components below a directory, which is created if missing.
pub(crate) fn open(directory: &Path) -> Result<(Arc<dyn Store>, Artifacts), DataError> {
    let failed = |source| DataError::Directory {
        path: directory.to_owned(),
        source,
    };
    let made = fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory);
    made.map_err(failed)?;
    if !file::is_safe(directory).map_err(failed)? {
        return Err(DataError::Unsafe(directory.to_owned()));
    }
    let (database, components) = (directory.join("sampan.db"), directory.join("artifacts"));
    let is_new = !database.exists();
    let store = Sqlite::open(&database)?;
    let artifacts = Artifacts::open(&components).map_err(failed)?;
    if is_new && !artifacts.list().map_err(failed)?.is_empty() {
        // To move a damaged database away is one of the remedies, so this is no error.
        let (database, components) = (database.display(), components.display());
        tracing::warn!(
            "`{database}` is missing and begun anew, without the apps whose components are in \
             `{components}`"
        );
    }
    Ok((Arc::new(store), artifacts))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn message(opened: Result<(Arc<dyn Store>, Artifacts), DataError>) -> String {
        opened
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let data = home.path().join("data");
        fs::create_dir(&data).expect("writable");
        for (mode, good) in [
            (0o777, false),
            (0o757, false),
            (0o775, false),
            (0o755, true),
        ] {
            fs::set_permissions(&data, fs::Permissions::from_mode(mode)).expect("ours");
            let error = message(open(&data));
            assert_eq!(error.is_empty(), good, "{mode:o}: {error}");
            assert!(good || error.contains("`chmod go-w`"), "{error}");
            assert_eq!(data.join("sampan.db").exists(), good, "{mode:o}");
        }
    }

    #[test]
    fn a_database_that_was_there_is_not_begun_anew_in_silence() {
        let home = tempfile::tempdir().expect("a directory");
        assert_eq!(message(open(home.path())), "");
        // One that has been closed has no log beside it.
        fs::remove_file(home.path().join("sampan.db")).expect("there");
        let error = message(open(home.path()));
        assert!(error.contains("is missing"), "{error}");
        assert!(!home.path().join("sampan.db").exists());
        // The remedy helps.
        fs::remove_file(home.path().join("sampan.db.lock")).expect("there");
        assert_eq!(message(open(home.path())), "");
    }
}
