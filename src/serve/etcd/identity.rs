//! Which node it is: a mark of its directory, which one process at a time has.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Bytes of a mark, drawn once.
const MARK_BYTES: usize = 16;

/// Why a node does not know which one it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// The file cannot be used.
    #[error("cannot use `{path}`, which says which node this is")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("the directory `{0}` is in use, and only one process can work with it")]
    InUse(PathBuf),
    /// It has no mark in it.
    #[error("`{0}` has no mark of a node in it: remove it, and another one is drawn")]
    Unreadable(PathBuf),
}

/// A node, as long as this process holds its directory.
#[derive(Debug)]
pub(crate) struct Identity {
    mark: String,
    _locked: File,
}

impl Identity {
    /// That of a directory. It is drawn when the directory is used first.
    pub(crate) fn open(data: &Path) -> Result<Self, IdentityError> {
        let path = data.join("node.id");
        let failed = |source| IdentityError::File {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(IdentityError::InUse(data.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut mark = String::new();
        file.read_to_string(&mut mark).map_err(failed)?;
        if mark.is_empty() {
            let mut bytes = [0; MARK_BYTES];
            getrandom::fill(&mut bytes).map_err(|error| failed(error.into()))?;
            mark = base16ct::lower::encode_string(&bytes);
            file.write_all(mark.as_bytes()).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        if mark.len() != 2 * MARK_BYTES {
            return Err(IdentityError::Unreadable(path));
        }
        Ok(Self {
            mark,
            _locked: file,
        })
    }

    /// What tells it from other nodes.
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// The name of the machine, for people.
    pub(super) fn host(&self) -> String {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
        name.unwrap_or_default().trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_mark_and_one_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Identity::open(folder.path()).expect("drawn");
        let mark = first.mark().to_owned();
        let second = Identity::open(folder.path());
        assert!(matches!(second, Err(IdentityError::InUse(_))), "{second:?}");
        drop(first);
        let again = Identity::open(folder.path()).expect("read");
        assert_eq!(again.mark(), mark);
        drop(again);
        std::fs::write(folder.path().join("node.id"), "short").expect("written");
        let bad = Identity::open(folder.path());
        assert!(matches!(bad, Err(IdentityError::Unreadable(_))), "{bad:?}");
    }
}
