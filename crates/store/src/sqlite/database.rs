//! The tables: how they are made, read and checked, and written.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::record;
use crate::state::{Draft, State};
use crate::value::{Batch, Entry, Key, Revision, SessionId};

/// In the header of the file: that it is a store of Sampan ("smpn").
pub(super) const APPLICATION_ID: i32 = 0x736d_706e;

/// In the header of the file: what the tables look like. A change of them is the next number.
pub(super) const SCHEMA_VERSION: i32 = 2;

/// A page of the file.
pub(super) const PAGE_BYTES: u64 = 4096;

/// The tables, sorted by name.
///
/// `sessions` has the keys of the entries that are in a session; version 1 is without it. `total` is
/// the sum of the checksums of all entries and sessions, so that none can be missing; a missing
/// transaction of the log leaves a gap.
const SCHEMA: [&str; 4] = [
    "CREATE TABLE entries (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, \
     created INTEGER NOT NULL, modified INTEGER NOT NULL, sum INTEGER NOT NULL) \
     STRICT, WITHOUT ROWID",
    "CREATE TABLE log (revision INTEGER NOT NULL PRIMARY KEY, changes BLOB NOT NULL, \
     sum INTEGER NOT NULL) STRICT",
    "CREATE TABLE meta (id INTEGER NOT NULL, revision INTEGER NOT NULL, \
     compacted INTEGER NOT NULL, total INTEGER NOT NULL, sum INTEGER NOT NULL) STRICT",
    "CREATE TABLE sessions (key TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID",
];

/// What stands for the sessions of earlier processes.
const EARLIER: SessionId = SessionId(0);

/// The write-ahead log is cut down to this after a large transaction.
const WAL_BYTES: usize = 8 << 20;

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Fault {
    /// Not one of ours, or no longer to be recognised.
    Foreign(String),
    /// One of ours from the future.
    Newer(i32),
    /// One of ours, but not as it was written.
    Damaged(String),
    /// SQLite says so.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn damaged(what: impl Into<String>) -> Fault {
    Fault::Damaged(what.into())
}

/// The row of `meta`.
#[derive(Clone, Copy, Debug)]
struct Meta {
    /// A random number: two stores are not taken for one another.
    id: u64,
    revision: Revision,
    compacted: Revision,
    total: u64,
}

impl Meta {
    fn sum(&self) -> u32 {
        record::numbers_sum(&[self.id, self.revision.0, self.compacted.0, self.total])
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    /// The file, as it is named in errors.
    place: String,
    meta: Meta,
}

/// Makes an empty database in the empty file `path`, which is not in use yet.
pub(super) fn create(path: &Path) -> rusqlite::Result<()> {
    let connection = connect(path)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES.cast_signed())?;
    // The caller makes the file durable as a whole.
    connection.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; BEGIN")?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    for table in SCHEMA {
        connection.execute_batch(table)?;
    }
    let id: i64 = connection.query_row("SELECT random()", [], |row| row.get(0))?;
    let meta = Meta {
        id: id.cast_unsigned(),
        revision: Revision(0),
        compacted: Revision(0),
        total: 0,
    };
    connection.execute(
        "INSERT INTO meta (id, revision, compacted, total, sum) VALUES (?1, 0, 0, 0, ?2)",
        params![id, meta.sum()],
    )?;
    connection.execute_batch("COMMIT; PRAGMA journal_mode = WAL")?;
    connection.close().map_err(|(_, error)| error)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Who finds it in use is told at once.
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(connection)
}

impl Database {
    /// Reads and checks everything. Nothing is written before it has been found good.
    pub(super) fn open(path: &Path) -> Result<(Self, State), Fault> {
        let connection = connect(path)?;
        // Closing a file that has not been found good must not write to it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // No other process gets in, and no memory is shared with one.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let version = check_header(&connection)?;
        check_structure(&connection, version)?;
        let meta = load_meta(&connection)?;
        let mut entries = load_entries(&connection, &meta)?;
        if version > 1 {
            load_sessions(&connection, &mut entries)?;
        }
        check_total(&entries, &meta)?;
        let history = load_history(&connection, &meta)?;
        if connection.is_readonly("main")? {
            return Err(damaged("its header forbids writing"));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES as i64)?;
        let state = State::restore(entries, meta.revision, history);
        let place = path.display().to_string();
        let database = Self {
            connection,
            place,
            meta,
        };
        Ok((database, state))
    }

    /// Brings the tables to the present version, and ends the sessions of earlier processes.
    pub(super) fn take_over(&mut self, state: &mut State) -> Result<(), Fault> {
        let version: i32 = pragma(&self.connection, "user_version")?;
        if version < SCHEMA_VERSION {
            let transaction = self.connection.unchecked_transaction()?;
            transaction.execute_batch(SCHEMA[3])?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
        }
        let mut draft = Draft::new(state);
        draft.end(state, EARLIER);
        if !draft.batches().is_empty() {
            self.write(state, &draft)?;
            state.apply(draft);
        }
        state.close_session(EARLIER);
        Ok(())
    }

    /// The file, as it is named in errors.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Which store this is.
    pub(super) fn id(&self) -> u64 {
        self.meta.id
    }

    /// Makes durable what `draft` has worked out from `state`, all or nothing.
    pub(super) fn write(&mut self, state: &State, draft: &Draft) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        let mut meta = self.meta;
        meta.revision = draft.revision();
        let mut put = transaction.prepare_cached(
            "REPLACE INTO entries (key, value, created, modified, sum) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut delete = transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?;
        let mut enter = transaction.prepare_cached("INSERT INTO sessions (key) VALUES (?1)")?;
        let mut leave = transaction.prepare_cached("DELETE FROM sessions WHERE key = ?1")?;
        for (key, entry) in draft.changed() {
            let before = state.get(key);
            meta.total = meta.total.wrapping_sub(before.map_or(0, record::weight));
            match (is_in_session(before), is_in_session(entry.as_ref())) {
                (false, true) => enter.execute([&**key])?,
                (true, false) => leave.execute([&**key])?,
                (true, true) | (false, false) => 0,
            };
            let Some(entry) = entry else {
                delete.execute([&**key])?;
                continue;
            };
            let sum = record::entry_sum(entry);
            meta.total = meta.total.wrapping_add(record::weight(entry));
            let (created, modified) = (signed(entry.created), signed(entry.modified));
            put.execute(params![&**key, &*entry.value, created, modified, sum])?;
        }
        let mut log = transaction
            .prepare_cached("INSERT INTO log (revision, changes, sum) VALUES (?1, ?2, ?3)")?;
        for batch in draft.batches() {
            let changes = record::encode(batch);
            let sum = record::batch_sum(batch.revision, &changes);
            log.execute(params![signed(batch.revision), changes, sum])?;
        }
        drop((put, delete, enter, leave, log));
        self.commit(transaction, meta).map(|meta| self.meta = meta)
    }

    /// Forgets history up to and including `through`.
    pub(super) fn compact(&mut self, through: Revision) -> rusqlite::Result<()> {
        if through <= self.meta.compacted {
            return Ok(());
        }
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute("DELETE FROM log WHERE revision <= ?1", [signed(through)])?;
        let mut meta = self.meta;
        meta.compacted = through;
        self.commit(transaction, meta).map(|meta| self.meta = meta)
    }

    fn commit(&self, transaction: rusqlite::Transaction, meta: Meta) -> rusqlite::Result<Meta> {
        let changed = transaction.execute(
            "UPDATE meta SET revision = ?1, compacted = ?2, total = ?3, sum = ?4 \
             WHERE revision = ?5 AND compacted = ?6",
            params![
                signed(meta.revision),
                signed(meta.compacted),
                meta.total.cast_signed(),
                meta.sum(),
                signed(self.meta.revision),
                signed(self.meta.compacted),
            ],
        )?;
        // Anything else would mean that another process has written.
        if changed != 1 {
            return Err(rusqlite::Error::StatementChangedRows(changed));
        }
        transaction.commit()?;
        Ok(meta)
    }

    /// Moves everything from the write-ahead log to the file, before it is closed.
    pub(super) fn close(self) {
        let moved = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = moved {
            tracing::warn!(%error, "the store was not tidied up; it is whole all the same");
        }
    }

    /// For tests that make SQLite fail.
    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn is_in_session(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| entry.session.is_some())
}

fn signed(revision: Revision) -> i64 {
    revision.0.cast_signed()
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> Result<T, Fault> {
    Ok(connection.pragma_query_value(None, name, |row| row.get(0))?)
}

/// That the header is that of a store, and of which schema version.
fn check_header(connection: &Connection) -> Result<i32, Fault> {
    let application: i32 = pragma(connection, "application_id")?;
    if application != APPLICATION_ID {
        let what = format!("its application id is `{application:#010x}`");
        return Err(Fault::Foreign(what));
    }
    let version: i32 = pragma(connection, "user_version")?;
    if version > SCHEMA_VERSION {
        return Err(Fault::Newer(version));
    }
    if version < 1 {
        return Err(damaged(format!("its schema version is `{version}`")));
    }
    let mode: String = pragma(connection, "journal_mode")?;
    if mode != "wal" {
        return Err(damaged(format!("its journal mode is `{mode}`")));
    }
    Ok(version)
}

/// What SQLite can say of its own structure, and that the tables are ours.
fn check_structure(connection: &Connection, version: i32) -> Result<(), Fault> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        let lines: Vec<_> = found.lines().map(str::trim).collect();
        return Err(damaged(lines.join(" ")));
    }
    let mut statement = connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name")?;
    let tables: Vec<Option<String>> = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let ours = tables.iter().map(Option::as_deref);
    let count = if version == 1 { 3 } else { SCHEMA.len() };
    if !ours.eq(SCHEMA.into_iter().take(count).map(Some)) {
        return Err(damaged("its tables are not those of a store"));
    }
    Ok(())
}

fn number(row: &Row, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn load_meta(connection: &Connection) -> Result<Meta, Fault> {
    let mut statement =
        connection.prepare("SELECT id, revision, compacted, total, sum FROM meta")?;
    let mut rows = statement.query([])?;
    let row = rows
        .next()?
        .ok_or_else(|| damaged("the row of its table `meta` is missing"))?;
    let meta = Meta {
        id: number(row, 0)?,
        revision: Revision(number(row, 1)?),
        compacted: Revision(number(row, 2)?),
        total: number(row, 3)?,
    };
    let good = meta.sum() as u64 == number(row, 4)? && meta.compacted <= meta.revision;
    if !good || rows.next()?.is_some() {
        return Err(damaged("its table `meta` does not match its checksum"));
    }
    Ok(meta)
}

fn load_entries(connection: &Connection, meta: &Meta) -> Result<BTreeMap<Key, Entry>, Fault> {
    let mut entries = BTreeMap::new();
    let mut statement =
        connection.prepare("SELECT key, value, created, modified, sum FROM entries")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (ValueRef::Text(key), ValueRef::Blob(value)) = (row.get_ref(0)?, row.get_ref(1)?)
        else {
            return Err(damaged("an entry is not what it should be"));
        };
        let key = str::from_utf8(key).map_err(|_| damaged("a key is not text"))?;
        let entry = Entry {
            key: key.into(),
            value: Bytes::copy_from_slice(value),
            created: Revision(number(row, 2)?),
            modified: Revision(number(row, 3)?),
            session: None,
        };
        let sum = record::entry_sum(&entry);
        if u64::from(sum) != number(row, 4)? {
            return Err(damaged(format!("`{key}` does not match its checksum")));
        }
        if entry.created > entry.modified || entry.modified > meta.revision {
            return Err(damaged(format!("`{key}` is from the future")));
        }
        entries.insert(entry.key.clone(), entry);
    }
    Ok(entries)
}

/// Notes which entries are in a session of an earlier process.
fn load_sessions(connection: &Connection, entries: &mut BTreeMap<Key, Entry>) -> Result<(), Fault> {
    let mut statement = connection.prepare("SELECT key FROM sessions")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key: String = row.get(0)?;
        let entry = entries.get_mut(key.as_str());
        let entry = entry.ok_or_else(|| damaged(format!("`{key}` of a session is missing")))?;
        entry.session = Some(EARLIER);
    }
    Ok(())
}

fn check_total(entries: &BTreeMap<Key, Entry>, meta: &Meta) -> Result<(), Fault> {
    let weights = entries.values().map(record::weight);
    match weights.fold(0, u64::wrapping_add) == meta.total {
        true => Ok(()),
        false => Err(damaged("entries are missing, or too many")),
    }
}

fn load_history(connection: &Connection, meta: &Meta) -> Result<VecDeque<Arc<Batch>>, Fault> {
    let mut history = VecDeque::new();
    let mut last = meta.compacted;
    let mut statement =
        connection.prepare("SELECT revision, changes, sum FROM log ORDER BY revision")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let revision = Revision(number(row, 0)?);
        let ValueRef::Blob(changes) = row.get_ref(1)? else {
            return Err(damaged(format!("transaction `{revision}` is illegible")));
        };
        if u64::from(record::batch_sum(revision, changes)) != number(row, 2)? {
            let what = format!("transaction `{revision}` does not match its checksum");
            return Err(damaged(what));
        }
        if revision != last.next() {
            let what = format!("transaction `{revision}` follows on `{last}`");
            return Err(damaged(what));
        }
        last = revision;
        let batch = record::decode(revision, changes)
            .ok_or_else(|| damaged(format!("transaction `{revision}` is illegible")))?;
        history.push_back(Arc::new(batch));
    }
    if last != meta.revision {
        let what = format!("transaction `{}` is missing", last.next());
        return Err(damaged(what));
    }
    Ok(history)
}
