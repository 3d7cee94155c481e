//! A SQLite file that one process has for itself: made for its user alone, and checked to be what
//! it is taken for.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use sampan_core::locks::{self, FileId, told};

/// What a file of some sort looks like, and how it is written.
pub(crate) struct Form {
    /// What it is, for people.
    pub(crate) what: &'static str,
    /// In the header of the file: that it is one of these.
    pub(crate) application_id: i32,
    /// In the header of the file: what the tables look like. A change of them is the next number.
    pub(crate) schema_version: i32,
    /// The statements that make its tables and indices, in their order.
    pub(crate) schema: &'static [&'static str],
    /// Whether all of it is read when it is opened.
    pub(crate) read_whole: bool,
    /// What `synchronous` says: `NORMAL` where the end of the machine may take what was written
    /// last, `FULL` where it may not.
    pub(crate) synchronous: &'static str,
    /// Memory for its pages, in KiB.
    pub(crate) cache_kib: i32,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is none of this sort, or damaged.
    Unusable(String),
    /// Another process has it, which is named.
    Busy(String),
    /// SQLite or the system says so.
    Failed(String),
}

impl Fault {
    /// What is wrong, for people.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Unusable(reason) | Self::Failed(reason) => reason,
            Self::Busy(holder) => format!("{holder} uses it"),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Unusable(error.to_string())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Busy(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Whether SQLite says that there is no room on the disk.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == ErrorCode::DiskFull || error.extended_code == ffi::SQLITE_IOERR_WRITE
    })
}

/// Opens the file, which is created if it is missing.
pub(crate) fn connect(path: &Path, form: &Form) -> Result<Connection, Fault> {
    match open(path, form) {
        Err(Fault::Busy(_)) => Err(Fault::Busy(told(holder(path)))),
        opened => opened,
    }
}

/// The process that has locked a file, if it can be found out.
fn holder(path: &Path) -> Option<u32> {
    let stat = rustix::fs::stat(path).ok()?;
    let device = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let inode = stat.st_ino;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks::holder(&locks, FileId { device, inode })
}

fn open(path: &Path, form: &Form) -> Result<Connection, Fault> {
    // Made here because SQLite would let others read it.
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // One that is in use is an error at once.
    connection.busy_timeout(Duration::ZERO)?;
    // Closing a file that is something else must not write to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // No other process gets in, and no memory is shared with one.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "cache_size", -form.cache_kib)?;
    if connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
        row.get(0)
    })? {
        create(&connection, form)?;
    }
    check(&connection, form)?;
    // What the process has written is there after its end.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", form.synchronous)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

/// Gives the file another name, in the place of the one that was moved away before. The
/// write-ahead log goes with it: SQLite would take it for that of the next file.
pub(crate) fn move_away(path: &Path, what: &str) -> Result<(), Fault> {
    let name = |ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
    let away = name(".damaged");
    tracing::warn!(
        "`{}` cannot be read and is begun anew, without what earlier runs have kept in it: {what}; it \
         is kept as `{}`",
        path.display(),
        away.display()
    );
    for ending in ["-wal", "-journal", "-shm"] {
        match fs::rename(name(ending), name(&format!(".damaged{ending}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(fs::rename(path, away)?)
}

fn create(connection: &Connection, form: &Form) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.pragma_update(None, "application_id", form.application_id)?;
    transaction.pragma_update(None, "user_version", form.schema_version)?;
    for statement in form.schema {
        transaction.execute_batch(statement)?;
    }
    transaction.commit()
}

/// That the file is one of this sort, and whole.
fn check(connection: &Connection, form: &Form) -> Result<(), Fault> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let found = (number("application_id")?, number("user_version")?);
    if found != (form.application_id, form.schema_version) {
        let what = format!("its application id and schema version are `{found:x?}`");
        return Err(Fault::Unusable(what));
    }
    if form.read_whole {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Fault::Unusable(found));
        }
    }
    // Indices that SQLite makes by itself have no statement.
    let made = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid";
    let mut made = connection.prepare(made)?;
    let made = made.query_map([], |row| row.get::<_, String>(0))?;
    let made = made.collect::<rusqlite::Result<Vec<_>>>()?;
    match made == form.schema {
        true => Ok(()),
        false => Err(Fault::Unusable(format!(
            "its tables are not those of {}",
            form.what
        ))),
    }
}
