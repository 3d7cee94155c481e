//! The state of a daemon on disk.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use sampan_store::{OpenError, Sqlite, Store};

use crate::artifacts::Artifacts;

/// Why there is no state to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// The directory cannot be used.
    #[error("cannot keep state in `{path}`; `--data` names another place")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// Opens the database and the components below a directory, which is made if need be.
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
    let store = Sqlite::open(&directory.join("sampan.db"))?;
    let artifacts = Artifacts::open(&directory.join("artifacts")).map_err(failed)?;
    Ok((Arc::new(store), artifacts))
}
