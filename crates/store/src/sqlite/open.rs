//! Opening a file: the lock, what may be there and what may not, and what is said about it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::database::{self, Database, Fault, PAGE_BYTES, SCHEMA_VERSION};
use super::witness::{Testimony, Witness};
use crate::state::State;
use crate::value::Revision;

/// Why a file was not opened. Whatever the reason, it has been left as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store `{}` is in use, and only one process can have it open", .0.display())]
    InUse(PathBuf),
    /// It, or a file beside it, cannot be read or written, or not be made.
    #[error("cannot open the store `{}` for reading and writing", .0.display())]
    Access(PathBuf, #[source] io::Error),
    /// SQLite failed for another reason than the contents of the file, and says so.
    #[error("cannot open the store `{path}`: {1}", path = .0.display())]
    Failed(PathBuf, String),
    /// It is not a store, or its first bytes are damaged, and how that was seen.
    #[error(
        "`{path}` is not a store, or its beginning is damaged: {1}; name another file, put a copy of \
         the store in its place, or move it away to begin anew", path = .0.display()
    )]
    Foreign(PathBuf, String),
    /// A newer Sampan has written it, with this schema version.
    #[error(
        "the store `{path}` has schema version `{1}`, and this sampan knows those up to \
         `{SCHEMA_VERSION}`: use the newer sampan that wrote it", path = .0.display()
    )]
    Newer(PathBuf, i32),
    /// It is a store, but not as it was written, and what was found.
    #[error(
        "the store `{path}` is damaged: {1}; put a copy in its place and remove `{path}-wal` and \
         `{path}.lock`, or move all three away to begin anew", path = .0.display()
    )]
    Damaged(PathBuf, String),
    /// It is missing, and so is its write-ahead log, but it has been there, with this revision.
    #[error(
        "the store `{path}` is missing, though revision `{1}` has been acknowledged: put a copy of \
         it and of `{path}-wal` in its place, or remove `{path}.lock` to begin anew",
        path = .0.display()
    )]
    Missing(PathBuf, Revision),
    /// It is whole, but ends before what has been acknowledged: it is an older copy, or its
    /// write-ahead log is damaged or missing.
    #[error(
        "the store `{0}` ends at revision `{found}`, but revision `{acknowledged}` has been \
         acknowledged: put a newer copy of it and of `{0}-wal` in its place, or remove `{0}.lock` \
         to go on from revision `{found}`", path.display()
    )]
    Behind {
        /// The file.
        path: PathBuf,
        /// Where it ends.
        found: Revision,
        /// Where it should end.
        acknowledged: Revision,
    },
}

/// All that an open store is made of.
pub(super) struct Opened {
    pub(super) state: State,
    pub(super) database: Database,
    pub(super) witness: Witness,
}

/// Opens the store at `path`, or begins one.
pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    // The lock stands beside the file itself, whatever link leads to it; and SQLite takes a
    // relative path for a URI if it looks like one.
    let path = resolve(path).map_err(|source| access(path, source))?;
    let lock = beside(&path, ".lock");
    let witness = Witness::lock(&lock).map_err(|source| access(&lock, source))?;
    let witness = witness.ok_or_else(|| OpenError::InUse(path.clone()))?;
    let testimony = witness.read().map_err(|source| access(&lock, source))?;
    if !exists(&path)? {
        if let Some(testimony) = testimony {
            return Err(OpenError::Missing(path, testimony.revision));
        }
        create(&path)?;
    }
    let (mut database, mut state) = Database::open(&path).map_err(|fault| explain(&path, fault))?;
    check_size(&path)?;
    let id = database.id();
    let found = state.revision();
    if let Some(testimony) = testimony
        && testimony.id == id
        && testimony.revision > found
    {
        let acknowledged = testimony.revision;
        return Err(OpenError::Behind {
            path,
            found,
            acknowledged,
        });
    }
    let taken = database.take_over(&mut state);
    taken.map_err(|fault| explain(&path, fault))?;
    let testimony = Testimony {
        id,
        revision: state.revision(),
    };
    witness
        .note(testimony)
        .map_err(|source| access(&lock, source))?;
    Ok(Opened {
        state,
        database,
        witness,
    })
}

fn access(path: &Path, source: io::Error) -> OpenError {
    OpenError::Access(path.to_owned(), source)
}

fn damaged(path: &Path, what: String) -> OpenError {
    OpenError::Damaged(path.to_owned(), what)
}

fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path),
        resolved => resolved,
    }
}

/// The path with something behind its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// The size of a file; `None` if there is none.
fn size(path: &Path) -> Result<Option<u64>, OpenError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(access(path, error)),
    }
}

/// Whether there is a store. What SQLite would take for a new one, but is the rest of an old one,
/// is an error: SQLite would delete its write-ahead log.
fn exists(path: &Path) -> Result<bool, OpenError> {
    let journal = beside(path, "-journal");
    if size(&journal)?.is_some_and(|bytes| bytes > 0) {
        let what = format!(
            "`{}` is there, which is of another database",
            journal.display()
        );
        return Err(damaged(path, what));
    }
    let wal = beside(path, "-wal");
    let log = size(&wal)?.is_some_and(|bytes| bytes > 0);
    match size(path)? {
        None if log => {
            let what = format!("it is missing, but `{}` is there", wal.display());
            Err(damaged(path, what))
        }
        None => Ok(false),
        // A new one gets its name when it is whole.
        Some(0) => Err(damaged(path, "it is empty".to_owned())),
        Some(_) if !path.is_file() => {
            let what = "it is not a file".to_owned();
            Err(OpenError::Foreign(path.to_owned(), what))
        }
        Some(_) => Ok(true),
    }
}

/// That no page is cut off. SQLite does not mind if the last one is and is not in use. While there
/// is a write-ahead log, a page may be half written.
fn check_size(path: &Path) -> Result<(), OpenError> {
    let log = size(&beside(path, "-wal"))?.is_some_and(|bytes| bytes > 0);
    let bytes = size(path)?.unwrap_or(0);
    if !log && bytes % PAGE_BYTES != 0 {
        let what = format!("`{bytes}` bytes are not whole pages");
        return Err(damaged(path, what));
    }
    Ok(())
}

/// Begins a store under another name, and gives it its own when it is whole and durable.
fn create(path: &Path) -> Result<(), OpenError> {
    let new = beside(path, ".new");
    let made = || -> io::Result<()> {
        for ending in [".new", ".new-wal", ".new-journal"] {
            match fs::remove_file(beside(path, ending)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        drop(file);
        database::create(&new).map_err(io::Error::other)?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    made().map_err(|source| access(path, source))
}

/// What to say about a file that was not found good.
fn explain(path: &Path, fault: Fault) -> OpenError {
    let file = path.to_owned();
    let error = match fault {
        Fault::Sqlite(error) => error,
        Fault::Damaged(what) => return or_access(path, OpenError::Damaged(file, what)),
        Fault::Newer(found) => return OpenError::Newer(file, found),
        Fault::Foreign(what) => return OpenError::Foreign(file, what),
    };
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign(file, reason),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse(file),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            or_access(path, OpenError::Failed(file, reason))
        }
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::DiskFull
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::NoLargeFileSupport,
        ) => OpenError::Failed(file, reason),
        // Wrong types, missing tables, texts that are no texts, and what SQLite calls malformed.
        _ => OpenError::Damaged(file, reason),
    }
}

/// What the system says against opening the file, if it does, and `otherwise` if not. SQLite does
/// not tell, and opens for reading what it may not write.
fn or_access(path: &Path, otherwise: OpenError) -> OpenError {
    match OpenOptions::new().read(true).write(true).open(path) {
        Err(source) => access(path, source),
        Ok(_) => otherwise,
    }
}
