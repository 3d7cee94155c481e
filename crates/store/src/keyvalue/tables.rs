//! The tables of a database, and what is done with them.

use rusqlite::{Connection, OptionalExtension as _, params};
use sampan_core::{name::Name, spec::node::KeyValueLimits};

use super::error::{KeyValueError, failure};
use crate::own_file::Form;

/// Keys of a page.
pub(super) const PAGE_KEYS: usize = 1000;
/// One key more tells whether there are more.
const LOOK_KEYS: i64 = PAGE_KEYS as i64 + 1;
/// Keys that are read or written at once.
pub(super) const BATCH_KEYS: usize = 10_000;
/// Bytes of values that are read at once.
pub(super) const BATCH_BYTES: usize = 16 << 20;

/// What the file looks like. `stores` has of each store what its entries come to, and how many
/// changes there were: the number of the change that wrote an entry is the entry's version. The
/// index over `entries` has them in the order of their numbers, which stay as long as an entry does.
pub(super) const FORM: Form = Form {
    what: "a database of key-value stores",
    // "smpk"
    application_id: 0x736d_706b,
    schema_version: 1,
    schema: &[
        "CREATE TABLE stores (id INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, \
         keys INTEGER NOT NULL, bytes INTEGER NOT NULL, changes INTEGER NOT NULL) STRICT",
        "CREATE TABLE entries (id INTEGER NOT NULL PRIMARY KEY, store INTEGER NOT NULL, \
         key TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, UNIQUE (store, key)) \
         STRICT",
        "CREATE INDEX entries_in_order ON entries (store)",
    ],
    // It may be a GiB, and its first request waits.
    read_whole: false,
    synchronous: "FULL",
    cache_kib: 2048,
};

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its bytes.
    pub value: Vec<u8>,
    /// Which change has written it; never 0.
    pub version: u64,
}

/// Some keys of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage<N> {
    /// The keys.
    pub keys: Vec<String>,
    /// What to ask for the next ones with; `None` if there are no more.
    pub next: Option<N>,
}

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSummary {
    /// Its name.
    pub name: String,
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values together.
    pub bytes: u64,
}

/// A store, as the row of it says.
#[derive(Clone, Copy, Debug)]
struct Row {
    id: i64,
    keys: u64,
    bytes: u64,
    changes: u64,
}

/// A database, in the thread that owns it.
pub(super) struct Tables<'a> {
    connection: &'a Connection,
    place: &'a str,
}

type Told<T> = Result<T, KeyValueError>;

impl<'a> Tables<'a> {
    pub(super) fn new(connection: &'a Connection, place: &'a str) -> Self {
        Self { connection, place }
    }

    fn told<T>(&self, result: rusqlite::Result<T>) -> Told<T> {
        result.map_err(|error| failure(self.place, &error))
    }

    fn row(&self, store: &Name) -> rusqlite::Result<Option<Row>> {
        let text = "SELECT id, keys, bytes, changes FROM stores WHERE name = ?1";
        let mut select = self.connection.prepare_cached(text)?;
        let row = select.query_row([store.as_str()], |row| {
            Ok(Row {
                id: row.get(0)?,
                keys: row.get::<_, i64>(1)?.cast_unsigned(),
                bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                changes: row.get::<_, i64>(3)?.cast_unsigned(),
            })
        });
        row.optional()
    }

    /// The row of a store, which is made if there is none.
    fn made(&self, store: &Name) -> rusqlite::Result<Row> {
        if let Some(row) = self.row(store)? {
            return Ok(row);
        }
        let text = "INSERT INTO stores (name, keys, bytes, changes) VALUES (?1, 0, 0, 0)";
        let mut insert = self.connection.prepare_cached(text)?;
        let id = insert.insert([store.as_str()])?;
        Ok(Row {
            id,
            keys: 0,
            bytes: 0,
            changes: 0,
        })
    }

    fn found(&self, store: &Row, key: &str) -> rusqlite::Result<Option<Found>> {
        let text = "SELECT value, version FROM entries WHERE store = ?1 AND key = ?2";
        let mut select = self.connection.prepare_cached(text)?;
        let found = select.query_row(params![store.id, key], |row| {
            Ok(Found {
                value: row.get(0)?,
                version: row.get::<_, i64>(1)?.cast_unsigned(),
            })
        });
        found.optional()
    }

    /// The version and the bytes of a value.
    fn version_of(&self, store: &Row, key: &str) -> rusqlite::Result<Option<(u64, u64)>> {
        let text = "SELECT version, length(value) FROM entries WHERE store = ?1 AND key = ?2";
        let mut select = self.connection.prepare_cached(text)?;
        let found = select.query_row(params![store.id, key], |row| {
            let (version, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok((version.cast_unsigned(), bytes.cast_unsigned()))
        });
        found.optional()
    }

    pub(super) fn get(&self, store: &Name, keys: &[String]) -> Told<Vec<Option<Found>>> {
        let Some(row) = self.told(self.row(store))? else {
            return Ok(vec![None; keys.len()]);
        };
        let mut bytes = 0;
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            let found = self.told(self.found(&row, key))?;
            bytes += found.as_ref().map_or(0, |it| it.value.len());
            if bytes > BATCH_BYTES && keys.len() > 1 {
                return Err(KeyValueError::TooLargeAtOnce { most: BATCH_BYTES });
            }
            all.push(found);
        }
        Ok(all)
    }

    /// Which change has written the value of a key; 0 if there is none.
    pub(super) fn version(&self, store: &Name, key: &str) -> Told<u64> {
        let Some(row) = self.told(self.row(store))? else {
            return Ok(0);
        };
        let found = self.told(self.version_of(&row, key))?;
        Ok(found.map_or(0, |(version, _)| version))
    }

    /// Keys in the order in which they were first written, after the one with this number.
    pub(super) fn in_order(&self, store: &Name, after: u64) -> Told<KeyPage<u64>> {
        let page = || {
            let Some(row) = self.row(store)? else {
                return Ok(KeyPage::default());
            };
            let text = "SELECT id, key FROM entries WHERE store = ?1 AND id > ?2 \
                        ORDER BY id LIMIT ?3";
            let mut select = self.connection.prepare_cached(text)?;
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let found = select.query_map(params![row.id, after, LOOK_KEYS], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
            })?;
            let found = found.collect::<rusqlite::Result<Vec<(u64, String)>>>()?;
            let last = found.get(PAGE_KEYS - 1).map(|(id, _)| *id);
            let next = last.filter(|_| found.len() > PAGE_KEYS);
            let keys = found.into_iter().map(|(_, key)| key);
            let keys = keys.take(PAGE_KEYS).collect();
            Ok(KeyPage { keys, next })
        };
        self.told(page())
    }

    /// Keys in their own order, after this one.
    pub(super) fn sorted(&self, store: &Name, after: Option<&str>) -> Told<KeyPage<String>> {
        let page = || {
            let Some(row) = self.row(store)? else {
                return Ok(KeyPage::default());
            };
            // The second says the same without an end of the index, for a key that is empty.
            let text = "SELECT key FROM entries WHERE store = ?1 AND key >= ?2 \
                        AND key IS NOT ?3 ORDER BY key LIMIT ?4";
            let mut select = self.connection.prepare_cached(text)?;
            let from = after.unwrap_or_default();
            let found =
                select.query_map(params![row.id, from, after, LOOK_KEYS], |row| row.get(0))?;
            let mut keys = found.collect::<rusqlite::Result<Vec<String>>>()?;
            let more = keys.len() > PAGE_KEYS;
            keys.truncate(PAGE_KEYS);
            let next = keys.last().filter(|_| more).cloned();
            Ok(KeyPage { keys, next })
        };
        self.told(page())
    }

    /// All stores that have been written to, by name.
    pub(super) fn stores(&self) -> Told<Vec<StoreSummary>> {
        let all = || {
            let text = "SELECT name, keys, bytes FROM stores ORDER BY name";
            let mut select = self.connection.prepare_cached(text)?;
            let all = select.query_map([], |row| {
                Ok(StoreSummary {
                    name: row.get(0)?,
                    keys: row.get::<_, i64>(1)?.cast_unsigned(),
                    bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                })
            })?;
            all.collect()
        };
        self.told(all())
    }

    /// Sets keys to values, or deletes those without one: all, or none.
    pub(super) fn write(
        &self,
        limits: &KeyValueLimits,
        store: &Name,
        writes: &[(String, Option<Vec<u8>>)],
    ) -> Told<()> {
        let mut row = self.told(self.made(store))?;
        for (key, value) in writes {
            match value {
                Some(value) => self.set(limits, store, &mut row, key, value)?,
                None => self.delete(&mut row, key)?,
            }
        }
        self.note(&row)
    }

    /// Adds to the number at a key, which is 0 if there is none. Returns the sum.
    pub(super) fn add(
        &self,
        limits: &KeyValueLimits,
        store: &Name,
        key: &str,
        delta: i64,
    ) -> Told<i64> {
        let mut row = self.told(self.made(store))?;
        let number = match self.told(self.found(&row, key))? {
            None => 0,
            Some(found) => std::str::from_utf8(&found.value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .ok_or_else(|| KeyValueError::NotANumber(key.to_owned()))?,
        };
        let sum = number.checked_add(delta);
        let sum = sum.ok_or_else(|| KeyValueError::Overflow(key.to_owned()))?;
        self.set(limits, store, &mut row, key, sum.to_string().as_bytes())?;
        self.note(&row)?;
        Ok(sum)
    }

    /// Sets a key if this change has written its value; 0 is for one that is not there. Says
    /// whether it was so.
    pub(super) fn swap(
        &self,
        limits: &KeyValueLimits,
        store: &Name,
        key: &str,
        (version, value): (u64, &[u8]),
    ) -> Told<bool> {
        let mut row = self.told(self.made(store))?;
        let found = self.told(self.version_of(&row, key))?;
        if found.map_or(0, |(version, _)| version) != version {
            return Ok(false);
        }
        self.set(limits, store, &mut row, key, value)?;
        self.note(&row)?;
        Ok(true)
    }

    fn set(
        &self,
        limits: &KeyValueLimits,
        store: &Name,
        row: &mut Row,
        key: &str,
        value: &[u8],
    ) -> Told<()> {
        let before = self.told(self.version_of(row, key))?;
        row.changes += 1;
        let own = key.len() as u64;
        match before {
            Some((_, bytes)) => row.bytes = row.bytes.saturating_sub(bytes),
            None => {
                row.keys += 1;
                row.bytes += own;
            }
        }
        let grown = before.is_none_or(|(_, bytes)| value.len() as u64 > bytes);
        row.bytes += value.len() as u64;
        if before.is_none() && row.keys > limits.keys {
            return Err(KeyValueError::TooManyKeys {
                store: store.clone(),
                most: limits.keys,
            });
        }
        // What makes a store smaller is never refused.
        if grown && row.bytes > limits.bytes {
            return Err(KeyValueError::TooManyBytes {
                store: store.clone(),
                bytes: row.bytes,
                most: limits.bytes,
            });
        }
        let text = "INSERT INTO entries (store, key, value, version) VALUES (?1, ?2, ?3, ?4) \
                    ON CONFLICT (store, key) DO UPDATE SET value = ?3, version = ?4";
        let set = self.connection.prepare_cached(text).and_then(|mut set| {
            set.execute(params![row.id, key, value, row.changes.cast_signed()])
        });
        self.told(set).map(drop)
    }

    fn delete(&self, row: &mut Row, key: &str) -> Told<()> {
        let Some((_, bytes)) = self.told(self.version_of(row, key))? else {
            return Ok(());
        };
        row.changes += 1;
        row.keys = row.keys.saturating_sub(1);
        row.bytes = row.bytes.saturating_sub(bytes + key.len() as u64);
        let text = "DELETE FROM entries WHERE store = ?1 AND key = ?2";
        let deleted = self.connection.prepare_cached(text);
        let deleted = deleted.and_then(|mut delete| delete.execute(params![row.id, key]));
        self.told(deleted).map(drop)
    }

    /// Writes what a store comes to.
    fn note(&self, row: &Row) -> Told<()> {
        let text = "UPDATE stores SET keys = ?2, bytes = ?3, changes = ?4 WHERE id = ?1";
        let noted = self.connection.prepare_cached(text).and_then(|mut note| {
            let [keys, bytes, changes] = [row.keys, row.bytes, row.changes].map(u64::cast_signed);
            note.execute(params![row.id, keys, bytes, changes])
        });
        self.told(noted).map(drop)
    }
}
