//! How a log of lines is read: a part at a time, each of a bounded size, so that what is written
//! never waits for long.

use std::{
    collections::{BTreeMap, HashMap},
    ops::{ControlFlow, RangeInclusive},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::line::{LogSource, LoggedLine, NO_POD, signed};

/// Lines that are looked at for one part.
const SCANNED_LINES: usize = 5_000;
/// Text of one part.
const PART_BYTES: usize = 1 << 20;
/// Notes about all pods in one part.
const MAX_NOTES: i64 = 1_000;

/// Of which pods lines are; of all where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinesOf {
    /// Of this app.
    pub app: Option<String>,
    /// Of this service or job.
    pub service: Option<String>,
    /// Of this pod.
    pub pod: Option<String>,
}

impl LinesOf {
    /// Whether lines of a pod are meant.
    pub fn is(&self, source: &LogSource) -> bool {
        let is = |asked: &Option<String>, name| asked.as_ref().is_none_or(|asked| asked == name);
        is(&self.app, &source.app)
            && is(&self.service, &source.service)
            && is(&self.pod, &source.pod)
    }
}

/// Some lines, in their order.
#[derive(Debug)]
pub struct LinePage {
    /// The lines.
    pub lines: Vec<LoggedLine>,
    /// The number to read from next.
    pub next: u64,
}

/// What was found from the end on.
#[derive(Debug)]
pub struct LinesBack {
    /// Lines, at most as many as were wanted.
    pub found: usize,
    /// The number of the last one that was looked at; what is before it was not.
    pub at: u64,
    /// Whether there is nothing before it.
    pub is_all: bool,
}

/// A pod of which lines are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSource {
    /// The pod.
    pub source: Arc<LogSource>,
    /// What is kept of it.
    pub bytes: u64,
    /// When it printed its last line, in milliseconds since the beginning of 1970.
    pub last_ms: u64,
    /// Where its last incarnations begin, in their order.
    pub begins: Vec<u64>,
}

/// Which of the lines.
pub(super) type Filter<'a> = &'a dyn Fn(&LoggedLine) -> bool;

/// The pods whose lines are looked for, by their numbers.
enum Pods {
    All,
    Some(BTreeMap<i64, KnownPod>),
}

struct KnownPod {
    source: Arc<LogSource>,
    first: u64,
    last: u64,
}

impl Pods {
    fn find(connection: &Connection, of: &LinesOf) -> rusqlite::Result<Self> {
        if *of == LinesOf::default() {
            return Ok(Self::All);
        }
        let select = "SELECT id, app, service, pod, first, last FROM pods WHERE \
             (?1 IS NULL OR app = ?1) AND (?2 IS NULL OR service = ?2) AND (?3 IS NULL OR pod = ?3)";
        let mut select = connection.prepare_cached(select)?;
        let pods = select.query_map(params![of.app, of.service, of.pod], |row| {
            let known = KnownPod {
                source: Arc::new(source(row, 1)?),
                first: row.get::<_, i64>(4)?.cast_unsigned(),
                last: row.get::<_, i64>(5)?.cast_unsigned(),
            };
            Ok((row.get(0)?, known))
        })?;
        Ok(Self::Some(pods.collect::<rusqlite::Result<_>>()?))
    }
}

fn source(row: &Row<'_>, at: usize) -> rusqlite::Result<LogSource> {
    Ok(LogSource {
        app: row.get(at)?,
        service: row.get(at + 1)?,
        pod: row.get(at + 2)?,
    })
}

/// Visits lines of pods in a range, from its beginning or its end on: as many as one part may have.
/// Of others that are looked at only what is said of all pods is visited. Returns the number of the
/// last one that was looked at, unless that is all or the visitor broke off.
fn scan(
    connection: &Connection,
    pods: &Pods,
    range: &RangeInclusive<u64>,
    from_end: bool,
    visit: &mut dyn FnMut(LoggedLine) -> ControlFlow<()>,
) -> rusqlite::Result<Option<u64>> {
    const COLUMNS: &str = "seq, pod, time_ms, kind, request, text, partial";
    let (mut first, mut last) = (*range.start(), *range.end());
    let mut only = None;
    if let Pods::Some(pods) = pods {
        first = first.max(pods.values().map(|it| it.first).min().unwrap_or(u64::MAX));
        last = last.min(pods.values().map(|it| it.last).max().unwrap_or(0));
        only = Some(pods).filter(|pods| pods.len() == 1);
    }
    if first > last {
        return Ok(None);
    }
    let only = only.and_then(|pods| pods.keys().next().copied());
    let one = if only.is_some() {
        "pod = ?3 AND"
    } else {
        "?3 IS NULL AND"
    };
    let order = if from_end { "DESC" } else { "ASC" };
    let select = format!(
        "SELECT {COLUMNS} FROM lines WHERE {one} seq BETWEEN ?1 AND ?2 ORDER BY seq {order}"
    );
    let mut select = connection.prepare_cached(&select)?;
    let mut rows = select.query(params![signed(first), signed(last), only])?;
    let mut known = HashMap::new();
    let (mut looked_at, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        let (seq, pod) = (row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?);
        looked_at += 1;
        let source = match pods {
            Pods::Some(pods) => pods.get(&pod).map(|it| Arc::clone(&it.source)),
            Pods::All => found(connection, &mut known, pod)?,
        };
        if source.is_some() || pod == NO_POD {
            let line = line(row, source)?;
            bytes += line.text.len();
            if visit(line).is_break() {
                return Ok(None);
            }
        }
        if looked_at >= SCANNED_LINES || bytes >= PART_BYTES {
            return Ok(Some(seq));
        }
    }
    Ok(None)
}

/// The pod with a number, among those that were asked for already.
fn found(
    connection: &Connection,
    known: &mut HashMap<i64, Option<Arc<LogSource>>>,
    pod: i64,
) -> rusqlite::Result<Option<Arc<LogSource>>> {
    if let Some(source) = known.get(&pod) {
        return Ok(source.clone());
    }
    let mut select =
        connection.prepare_cached("SELECT app, service, pod FROM pods WHERE id = ?1")?;
    let found = select.query_row([pod], |row| source(row, 0).map(Arc::new));
    let found = found.optional()?;
    known.insert(pod, found.clone());
    Ok(found)
}

fn line(row: &Row<'_>, source: Option<Arc<LogSource>>) -> rusqlite::Result<LoggedLine> {
    Ok(LoggedLine {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        time_ms: row.get::<_, i64>(2)?.cast_unsigned(),
        source,
        kind: row.get(3)?,
        request: row.get(4)?,
        text: row.get(5)?,
        partial: row.get(6)?,
    })
}

/// Lines in their order.
pub(super) fn page(
    connection: &Connection,
    of: &LinesOf,
    range: &RangeInclusive<u64>,
    filter: Filter<'_>,
) -> rusqlite::Result<LinePage> {
    let pods = Pods::find(connection, of)?;
    let mut lines = Vec::new();
    let scanned = scan(connection, &pods, range, false, &mut |line| {
        if line.source.is_none() || filter(&line) {
            lines.push(line);
        }
        ControlFlow::Continue(())
    })?;
    let end = scanned.unwrap_or(*range.end());
    // Where one pod is asked for, what is said of all of them was not looked at.
    if let Pods::Some(pods) = &pods
        && pods.len() == 1
    {
        let notes = "SELECT seq, pod, time_ms, kind, request, text, partial FROM lines \
             WHERE pod = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq LIMIT ?4";
        let mut notes = connection.prepare_cached(notes)?;
        let range = params![NO_POD, signed(*range.start()), signed(end), MAX_NOTES];
        let notes = notes.query_map(range, |row| line(row, None))?;
        for note in notes {
            lines.push(note?);
        }
        lines.sort_by_key(|line| line.seq);
    }
    Ok(LinePage {
        lines,
        next: end.saturating_add(1),
    })
}

/// Looks for lines from the end on.
pub(super) fn back(
    connection: &Connection,
    of: &LinesOf,
    range: &RangeInclusive<u64>,
    wanted: usize,
    filter: Filter<'_>,
) -> rusqlite::Result<LinesBack> {
    let pods = Pods::find(connection, of)?;
    let (mut found, mut at) = (0, *range.end());
    let scanned = scan(connection, &pods, range, true, &mut |line| {
        let is_asked = line.source.is_some() && filter(&line);
        (found, at) = (found + usize::from(is_asked), line.seq);
        match found < wanted {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(LinesBack {
        found,
        at: scanned.unwrap_or(at),
        is_all: scanned.is_none() && found < wanted,
    })
}

/// The pods of which there are lines.
pub(super) fn sources(connection: &Connection, of: &LinesOf) -> rusqlite::Result<Vec<KeptSource>> {
    let select = "SELECT app, service, pod, bytes, last_ms, id FROM pods WHERE \
         (?1 IS NULL OR app = ?1) AND (?2 IS NULL OR service = ?2) AND (?3 IS NULL OR pod = ?3) \
         ORDER BY app, service, pod";
    let mut select = connection.prepare_cached(select)?;
    let mut begins =
        connection.prepare_cached("SELECT seq FROM begins WHERE pod = ?1 ORDER BY seq")?;
    let found = select.query_map(params![of.app, of.service, of.pod], |row| {
        let begins = begins.query_map([row.get::<_, i64>(5)?], |row| row.get::<_, i64>(0))?;
        let begins = begins.map(|seq| seq.map(i64::cast_unsigned));
        Ok(KeptSource {
            source: Arc::new(source(row, 0)?),
            bytes: row.get::<_, i64>(3)?.cast_unsigned(),
            last_ms: row.get::<_, i64>(4)?.cast_unsigned(),
            begins: begins.collect::<rusqlite::Result<_>>()?,
        })
    })?;
    found.collect()
}

/// The number of the first line whose `order_ms` is at least this; one more than the last if there
/// is none. The column never falls, so it is found by halving.
pub(super) fn since(connection: &Connection, time_ms: u64) -> rusqlite::Result<u64> {
    let ends = "SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM lines";
    let ends = connection.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (mut from, end): (i64, i64) = ends?;
    let mut through = end.saturating_add(1);
    let next = "SELECT seq, order_ms FROM lines WHERE seq >= ?1 ORDER BY seq LIMIT 1";
    let mut next = connection.prepare_cached(next)?;
    while from < through {
        let middle = from + (through - from) / 2;
        let found = next.query_row([middle], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)));
        match found.optional()? {
            Some((seq, order_ms)) if order_ms < signed(time_ms) => from = i64::max(seq, middle) + 1,
            _ => through = middle,
        }
    }
    Ok(from.cast_unsigned())
}
