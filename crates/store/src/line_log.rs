//! The lines that the guests of a node have printed, in a file of its own, which is a ring: the oldest
//! lines make room for the newest, of each pod and of all pods together.
//!
//! Like the event log it is no part of the store, and not vital: a file that is damaged is moved
//! away and begun anew, when it is opened and whenever that is found out. What has been appended
//! survives the end of the process; when the machine ends, the last may be gone.

mod line;
mod read;
#[cfg(test)]
mod tests;
mod trim;

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, params};
use sampan_core::{quantity::ByteSize, spec::node::LogLimits};

use crate::own_file::{self, Fault, Form};

use line::{NO_POD, signed};
use read::Filter;

pub use line::{LogBegin, LogSource, LoggedLine};
pub use read::{KeptSource, LinePage, LinesBack, LinesOf};

/// What the file looks like. Tables come before indices, as `VACUUM` leaves them. It is not read as
/// a whole when it is opened: it may be large.
const FORM: Form = Form {
    what: "a log of lines",
    // "smpl"
    application_id: 0x736d_706c,
    schema_version: 1,
    schema: &[
        "CREATE TABLE pods (id INTEGER NOT NULL PRIMARY KEY, app TEXT NOT NULL, \
         service TEXT NOT NULL, pod TEXT NOT NULL, bytes INTEGER NOT NULL, first INTEGER NOT NULL, \
         last INTEGER NOT NULL, last_ms INTEGER NOT NULL, UNIQUE (app, pod)) STRICT",
        // `order_ms` is the greatest `time_ms` so far: by it lines can be looked up.
        "CREATE TABLE lines (seq INTEGER NOT NULL PRIMARY KEY, pod INTEGER NOT NULL, \
         order_ms INTEGER NOT NULL, time_ms INTEGER NOT NULL, kind INTEGER NOT NULL, request TEXT, \
         text TEXT NOT NULL, partial INTEGER NOT NULL) STRICT",
        "CREATE TABLE begins (pod INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (pod, seq)) \
         STRICT, WITHOUT ROWID",
        "CREATE INDEX lines_of_pods ON lines (pod, seq)",
    ],
    read_whole: false,
    synchronous: "NORMAL",
    cache_kib: 2048,
};

/// Beginnings that are kept of a pod: the last ones.
const KEPT_BEGINS: i64 = 4;
/// What is left free of the disk: it is for the state of the node.
const RESERVE_BYTES: u64 = 64 << 20;
/// The write-ahead log is cut back to this when its content is in the file.
const JOURNAL_BYTES: i64 = 4 << 20;

/// Why a log of lines cannot be used. The same may work later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the log of lines `{}`: {reason}", path.display())]
pub struct LineLogError {
    /// The file.
    pub path: PathBuf,
    /// What SQLite or the system says.
    pub reason: String,
}

/// The lines of a node, by one process at a time. Each method waits for the disk.
#[derive(Debug)]
pub struct LineLog {
    path: PathBuf,
    limits: LogLimits,
    reserve_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    /// The greatest time so far.
    order_ms: u64,
}

impl LineLog {
    /// Opens the log in the file `path`, which is created if it is missing.
    pub fn open(path: &Path, limits: LogLimits) -> Result<Self, LineLogError> {
        let opened = State::open(path).and_then(|state| {
            state.shrink(&limits)?;
            Ok(state)
        });
        let failed = |fault: Fault| LineLogError {
            path: path.to_owned(),
            reason: fault.reason(),
        };
        Ok(Self {
            state: Mutex::new(opened.map_err(failed)?),
            path: path.to_owned(),
            limits,
            reserve_bytes: RESERVE_BYTES,
        })
    }

    /// The number of the last line; 0 if there is none.
    pub fn last(&self) -> Result<u64, LineLogError> {
        self.with(|state| {
            let last = "SELECT max((SELECT coalesce(max(seq), 0) FROM lines), \
                 (SELECT coalesce(max(seq) - 1, 0) FROM begins))";
            let last = state.connection.query_row(last, [], |row| row.get(0));
            last.map(i64::cast_unsigned)
        })
    }

    /// Keeps lines and where pods begin, all or nothing. A line whose number is there is left out.
    /// The oldest lines of pods that have more than they may are forgotten.
    /// Refused while less than 64 MiB of its disk are free.
    pub fn append(&self, lines: &[LoggedLine], begins: &[LogBegin]) -> Result<(), LineLogError> {
        let disk = rustix::fs::statvfs(&self.path);
        let free = disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if free.is_ok_and(|free| free < self.reserve_bytes) {
            let reserve = ByteSize(self.reserve_bytes);
            return Err(LineLogError {
                path: self.path.clone(),
                reason: format!("less than {reserve} of its disk are free"),
            });
        }
        self.with(|state| state.append(lines, begins, self.limits.pod_bytes))
    }

    /// Forgets the oldest lines, as far as they are more than the node may keep, or older. `now_ms`
    /// is the time.
    pub fn trim(&self, now_ms: u64) -> Result<(), LineLogError> {
        self.with(|state| {
            let oldest = now_ms.saturating_sub(millis(self.limits.keep));
            trim::older(&state.connection, oldest)?;
            trim::node(&state.connection, self.limits.bytes)
        })
    }

    /// What the file takes of the disk, without what is free in it.
    pub fn bytes(&self) -> Result<u64, LineLogError> {
        self.with(|state| trim::used_bytes(&state.connection))
    }

    /// The pods of which there are lines, in the order of their names.
    pub fn sources(&self, of: &LinesOf) -> Result<Vec<KeptSource>, LineLogError> {
        self.with(|state| read::sources(&state.connection, of))
    }

    /// The number of the first line that is not older than this, in milliseconds since the beginning
    /// of 1970: no earlier line is.
    pub fn since(&self, time_ms: u64) -> Result<u64, LineLogError> {
        self.with(|state| read::since(&state.connection, time_ms))
    }

    /// Lines in their order, of these pods and within this range, that pass the filter: a part of
    /// them. What the node says of all pods is among them.
    pub fn page(
        &self,
        of: &LinesOf,
        range: RangeInclusive<u64>,
        filter: Filter<'_>,
    ) -> Result<LinePage, LineLogError> {
        self.with(|state| read::page(&state.connection, of, &range, filter))
    }

    /// Looks for the last lines of these pods within this range that pass the filter, up to `wanted`
    /// of them: a part of the range.
    pub fn back(
        &self,
        of: &LinesOf,
        range: RangeInclusive<u64>,
        wanted: usize,
        filter: Filter<'_>,
    ) -> Result<LinesBack, LineLogError> {
        self.with(|state| read::back(&state.connection, of, &range, wanted, filter))
    }

    /// Does something, and begins the file anew if it turns out to be damaged.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut State) -> rusqlite::Result<T>,
    ) -> Result<T, LineLogError> {
        let mut state = self.state.lock();
        let error = match work(&mut state) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let reason = error.to_string();
        if let Fault::Unusable(what) = Fault::from(error) {
            // The lock of the file goes with the connection.
            let closed = Connection::open_in_memory();
            let begun = closed.map_err(Fault::from).and_then(|closed| {
                state.connection = closed;
                own_file::move_away(&self.path, &what)?;
                State::open(&self.path)
            });
            match begun {
                Ok(begun) => *state = begun,
                Err(fault) => {
                    let reason = fault.reason();
                    tracing::warn!("the log of lines cannot be begun anew: {reason}");
                }
            }
        }
        Err(LineLogError {
            path: self.path.clone(),
            reason,
        })
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a batch adds to a pod.
struct Added {
    bytes: u64,
    first: u64,
    last: u64,
    last_ms: u64,
}

impl State {
    /// Opens the file. One that cannot be used is moved away, and begun anew.
    fn open(path: &Path) -> Result<Self, Fault> {
        match Self::connect(path) {
            Err(Fault::Unusable(what)) => {
                own_file::move_away(path, &what)?;
                Self::connect(path)
            }
            opened => opened,
        }
    }

    fn connect(path: &Path) -> Result<Self, Fault> {
        let connection = own_file::connect(path, &FORM)?;
        connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES)?;
        let last = "SELECT order_ms FROM lines ORDER BY seq DESC LIMIT 1";
        let order_ms = match connection.query_row(last, [], |row| row.get::<_, i64>(0)) {
            Err(rusqlite::Error::QueryReturnedNoRows) => 0,
            order_ms => order_ms?.cast_unsigned(),
        };
        Ok(Self {
            connection,
            order_ms,
        })
    }

    /// Gives back to the disk what lower limits than before leave free in the file. It only saves
    /// space, so what goes wrong is said and no more.
    fn shrink(&self, limits: &LogLimits) -> rusqlite::Result<()> {
        if trim::file_bytes(&self.connection)? <= limits.bytes.saturating_add(limits.bytes / 4) {
            return Ok(());
        }
        let mut error = trim::node(&self.connection, limits.bytes).err();
        error = error.or_else(|| self.connection.execute_batch("VACUUM").err());
        if let Some(error) = error {
            tracing::warn!(%error, "the log of lines stays larger than it need be");
        }
        Ok(())
    }

    fn append(
        &mut self,
        lines: &[LoggedLine],
        begins: &[LogBegin],
        pod_bytes: u64,
    ) -> rusqlite::Result<()> {
        let mut order_ms = self.order_ms;
        let transaction = self.connection.transaction()?;
        let ids = pods(&transaction, lines, begins)?;
        let mut insert = transaction.prepare_cached(
            "INSERT OR IGNORE INTO lines (seq, pod, order_ms, time_ms, kind, request, text, partial) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for it in lines {
            order_ms = order_ms.max(it.time_ms);
            let id = it.source.as_ref().and_then(|source| ids.get(source));
            insert.execute(params![
                signed(it.seq),
                id.map_or(NO_POD, |(id, _)| *id),
                signed(order_ms),
                signed(it.time_ms),
                it.kind,
                it.request,
                it.text,
                it.partial
            ])?;
        }
        drop(insert);
        for (seq, source) in begins {
            if let Some((id, _)) = ids.get(source) {
                begin(&transaction, *id, *seq)?;
            }
        }
        for (id, bytes) in ids.into_values() {
            if bytes > pod_bytes {
                trim::pod(&transaction, id, bytes - pod_bytes + pod_bytes / 8)?;
            }
        }
        transaction.commit()?;
        self.order_ms = order_ms;
        Ok(())
    }
}

/// The number of each pod of a batch, and how much is kept of it with the batch.
fn pods(
    transaction: &Transaction<'_>,
    lines: &[LoggedLine],
    begins: &[LogBegin],
) -> rusqlite::Result<HashMap<Arc<LogSource>, (i64, u64)>> {
    let mut added = HashMap::<&Arc<LogSource>, Added>::new();
    for line in lines {
        let Some(source) = &line.source else {
            continue;
        };
        let pod = added.entry(source).or_insert(Added {
            bytes: 0,
            first: line.seq,
            last: line.seq,
            last_ms: line.time_ms,
        });
        pod.bytes += line.bytes();
        (pod.last, pod.last_ms) = (line.seq, line.time_ms);
    }
    for (seq, source) in begins {
        added.entry(source).or_insert(Added {
            bytes: 0,
            first: *seq,
            last: *seq,
            last_ms: 0,
        });
    }
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO pods (app, service, pod, bytes, first, last, last_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (app, pod) DO UPDATE SET \
         bytes = bytes + excluded.bytes, last = max(last, excluded.last), \
         last_ms = max(last_ms, excluded.last_ms) RETURNING id, bytes",
    )?;
    let mut ids = HashMap::new();
    for (source, it) in added {
        let (bytes, first) = (signed(it.bytes), signed(it.first));
        let (last, last_ms) = (signed(it.last), signed(it.last_ms));
        let LogSource { app, service, pod } = &**source;
        let row = params![app, service, pod, bytes, first, last, last_ms];
        let found = upsert.query_row(row, |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        ids.insert(Arc::clone(source), found);
    }
    Ok(ids)
}

/// Keeps where an incarnation of a pod begins.
fn begin(transaction: &Transaction<'_>, pod: i64, seq: u64) -> rusqlite::Result<()> {
    let insert = "INSERT OR IGNORE INTO begins (pod, seq) VALUES (?1, ?2)";
    transaction
        .prepare_cached(insert)?
        .execute(params![pod, signed(seq)])?;
    let forget = "DELETE FROM begins WHERE pod = ?1 AND seq <= \
         (SELECT seq FROM begins WHERE pod = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)";
    let mut forget = transaction.prepare_cached(forget)?;
    forget.execute(params![pod, KEPT_BEGINS]).map(drop)
}
