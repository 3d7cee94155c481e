//! The events of a node, in a file of its own: they are no part of the store, because each node
//! keeps what it has seen.
//!
//! They are not vital. A file that is damaged or something else is moved away and begun anew. What
//! has been appended survives the end of the process; when the machine ends, the last may be gone.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use crate::own_file::{self, Fault, Form};

/// Events that a log keeps. The oldest make room for the newest.
pub const LOGGED_EVENTS: u64 = 10_000;

/// What the file looks like. It is not vital: only the end of the machine may take what has been
/// written since the last checkpoint, and nothing before it.
const FORM: Form = Form {
    what: "an event log",
    // "smpe"
    application_id: 0x736d_7065,
    schema_version: 1,
    schema: &["CREATE TABLE events (seq INTEGER NOT NULL PRIMARY KEY, \
         time_ms INTEGER NOT NULL, app TEXT NOT NULL, object TEXT NOT NULL, reason TEXT NOT NULL, \
         message TEXT NOT NULL) STRICT"],
    read_whole: true,
    synchronous: "NORMAL",
    cache_kib: 256,
};

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Its number. Each later event of the node has a higher one.
    pub seq: u64,
    /// When it was, in milliseconds since the beginning of 1970.
    pub time_ms: u64,
    /// The app that it belongs to.
    pub app: String,
    /// What it is about, with its kind: `pod/web-1-0`.
    pub object: String,
    /// What has happened, in one word.
    pub reason: String,
    /// What has happened, in a sentence whose subject is the object.
    pub message: String,
}

/// Why an event log cannot be used. The same may work later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the event log `{}`: {reason}", path.display())]
pub struct EventLogError {
    /// The file.
    pub path: PathBuf,
    /// What SQLite or the system says.
    pub reason: String,
}

/// The last [`LOGGED_EVENTS`] events of a node, by one process at a time. Each method waits for the
/// disk.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl EventLog {
    /// Opens the log in the file `path`, which is created if it is missing.
    pub fn open(path: &Path) -> Result<Self, EventLogError> {
        let connect = || own_file::connect(path, &FORM);
        let opened = match connect() {
            Err(Fault::Unusable(what)) => own_file::move_away(path, &what).and_then(|()| connect()),
            opened => opened,
        };
        let failed = |fault: Fault| EventLogError {
            path: path.to_owned(),
            reason: fault.reason(),
        };
        Ok(Self {
            connection: Mutex::new(opened.map_err(failed)?),
            path: path.to_owned(),
        })
    }

    /// The number of the last event; 0 if there is none.
    pub fn last(&self) -> Result<u64, EventLogError> {
        let last = self.connection.lock().query_row(
            "SELECT coalesce(max(seq), 0) FROM events",
            [],
            |row| row.get(0),
        );
        last.map(i64::cast_unsigned)
            .map_err(|error| self.failed(&error))
    }

    /// Keeps events, all or none, and forgets the oldest. One whose number is there is left out.
    pub fn append(&self, events: &[LoggedEvent]) -> Result<(), EventLogError> {
        append(&mut self.connection.lock(), events).map_err(|error| self.failed(&error))
    }

    /// The events that are kept with numbers after `after`, up to and including `through`, in their
    /// order.
    pub fn read(&self, after: u64, through: u64) -> Result<Vec<LoggedEvent>, EventLogError> {
        read(&self.connection.lock(), after, through).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &rusqlite::Error) -> EventLogError {
        EventLogError {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}

/// Numbers beyond what SQLite can hold are the largest that it can.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn append(connection: &mut Connection, events: &[LoggedEvent]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO events (seq, time_ms, app, object, reason, message) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for it in events {
        let (seq, time_ms) = (signed(it.seq), signed(it.time_ms));
        insert.execute(params![
            seq, time_ms, it.app, it.object, it.reason, it.message
        ])?;
    }
    drop(insert);
    transaction.execute(
        "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?1",
        [signed(LOGGED_EVENTS)],
    )?;
    transaction.commit()
}

fn read(connection: &Connection, after: u64, through: u64) -> rusqlite::Result<Vec<LoggedEvent>> {
    let mut select = connection.prepare_cached(
        "SELECT seq, time_ms, app, object, reason, message FROM events \
         WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
    )?;
    let events = select.query_map([signed(after), signed(through)], |row| {
        Ok(LoggedEvent {
            seq: row.get::<_, i64>(0)?.cast_unsigned(),
            time_ms: row.get::<_, i64>(1)?.cast_unsigned(),
            app: row.get(2)?,
            object: row.get(3)?,
            reason: row.get(4)?,
            message: row.get(5)?,
        })
    })?;
    events.collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;

    fn event(seq: u64) -> LoggedEvent {
        LoggedEvent {
            seq,
            time_ms: 1_000 + seq,
            app: "shop".to_owned(),
            object: format!("pod/web-{seq}"),
            reason: "Ready".to_owned(),
            message: "ready \u{1f6a2}".to_owned(),
        }
    }

    fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<LoggedEvent> {
        numbers.into_iter().map(event).collect()
    }

    fn file(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("events.db")
    }

    #[test]
    fn what_was_appended_is_there_for_the_next_one_who_opens_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let log = EventLog::open(&file(&folder)).expect("a log");
        assert_eq!((log.last(), log.read(0, u64::MAX)), (Ok(0), Ok(Vec::new())));
        log.append(&events(1..=5)).expect("written");
        // Again, as after a failure that was none.
        log.append(&events(4..=6)).expect("written");
        for file in fs::read_dir(folder.path()).expect("a folder") {
            let file = file.expect("a file");
            let mode = file.metadata().expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.path().display());
        }
        EventLog::open(&file(&folder)).expect_err("it is in use");
        drop(log);
        let log = EventLog::open(&file(&folder)).expect("a log");
        assert_eq!(log.last(), Ok(6));
        assert_eq!(log.read(0, u64::MAX), Ok(events(1..=6)));
        assert_eq!(log.read(2, 4), Ok(events(3..=4)));
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EventLog::open(&file(&folder)).expect("a log");
        let count = LOGGED_EVENTS + 500;
        for first in (1..=count).step_by(1_500) {
            log.append(&events(first..first + 1_500)).expect("written");
        }
        assert_eq!(log.last(), Ok(count));
        let kept = log.read(0, u64::MAX).expect("read");
        assert_eq!(kept, events(count - LOGGED_EVENTS + 1..=count));
    }

    /// Opens the log after something was done to its files, and says what it still has.
    fn after(spoil: impl FnOnce(&Path)) -> (tempfile::TempDir, Vec<LoggedEvent>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file(&folder);
        let log = EventLog::open(&path).expect("a log");
        log.append(&events(1..=500)).expect("written");
        drop(log);
        spoil(&path);
        let log = EventLog::open(&path).expect("a log");
        let kept = log.read(0, u64::MAX).expect("read");
        log.append(&events(501..=501)).expect("written");
        assert_eq!(log.last(), Ok(501));
        (folder, kept)
    }

    #[test]
    fn what_is_no_log_is_moved_away_and_begun_anew() {
        let execute = |path: &Path, statement: &str| {
            let connection = Connection::open(path).expect("a database");
            connection.execute_batch(statement).expect("done");
        };
        let spoils: [&dyn Fn(&Path); 6] = [
            &|path| fs::write(path, "events").expect("written"),
            &|path| {
                let mut bytes = fs::read(path).expect("a file");
                let end = bytes.len();
                bytes[4096..end].fill(7);
                fs::write(path, bytes).expect("written");
            },
            &|path| {
                let file = OpenOptions::new().write(true).open(path).expect("a file");
                file.set_len(8192).expect("cut off");
            },
            &|path| execute(path, "PRAGMA user_version = 2"),
            &|path| execute(path, "ALTER TABLE events ADD COLUMN more TEXT"),
            &|path| {
                fs::remove_file(path).expect("there");
                execute(path, "CREATE TABLE other (a); INSERT INTO other VALUES (1)");
            },
        ];
        for (number, spoil) in spoils.into_iter().enumerate() {
            let mut spoilt = Vec::new();
            let (folder, kept) = after(|path| {
                spoil(path);
                spoilt = fs::read(path).expect("a file");
            });
            assert_eq!(kept, [], "{number}");
            let away = fs::read(folder.path().join("events.db.damaged"));
            assert!(away.expect("a file") == spoilt, "{number}");
        }
        assert_eq!(after(|_| {}).1, events(1..=500));
    }

    #[test]
    fn a_write_ahead_log_goes_with_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |ending: &str| folder.path().join(format!("events.db{ending}"));
        let other = Connection::open(name("")).expect("a database");
        let made = other.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE other (a)");
        made.expect("a table");
        let files = ["", "-wal"].map(|ending| (ending, fs::read(name(ending)).expect("a file")));
        drop(other);
        for (ending, bytes) in &files {
            fs::write(name(ending), bytes).expect("written");
        }
        let log = EventLog::open(&name("")).expect("a log");
        assert_eq!(log.read(0, u64::MAX), Ok(Vec::new()));
        for (ending, bytes) in files {
            let away = fs::read(name(&format!(".damaged{ending}")));
            assert!(away.expect("a file") == bytes, "`{ending}`");
        }
    }

    #[test]
    fn a_full_disk_refuses_events_until_there_is_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EventLog::open(&file(&folder)).expect("a log");
        log.append(&events(1..=5)).expect("written");
        let limit = |pages: u32| {
            let limited = log
                .connection
                .lock()
                .pragma_update(None, "max_page_count", pages);
            limited.expect("a limit");
        };
        limit(1);
        for _ in 0..3 {
            let full = log.append(&events(6..=1_000)).expect_err("no room");
            assert!(full.reason.contains("full"), "{full}");
            assert_eq!(log.read(0, u64::MAX), Ok(events(1..=5)));
        }
        limit(u32::MAX);
        log.append(&events(6..=1_000)).expect("written");
        assert_eq!(log.read(0, u64::MAX), Ok(events(1..=1_000)));
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = EventLog::open(&folder.path().join("missing/events.db"));
        let error = error.expect_err("no folder").to_string();
        assert!(error.contains("missing/events.db"), "{error}");
    }
}
