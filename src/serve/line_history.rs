//! What guests have printed: the latest lines in memory, and more of them in a log on disk.
//!
//! A line has the same number in both: that of the last line of earlier runs, and its place in the
//! ring of this run. So a reader goes from one to the other without losing a line or seeing one
//! twice.

mod keeper;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use sampan_core::{name::PodName, time::Utc, view::LineKind};
use sampan_runtime::{
    logs::{self, Level, Line, Ring},
    off_thread,
};
use sampan_store::{LineLog, LineLogError, LinesBack, LinesOf, LogSource, LoggedLine};
use tokio::{sync::watch, time::timeout};

use crate::api::{KeptLines, LineFilter, LinePart, Lines};

/// Lines of the ring that are read at once.
const PART_LINES: usize = 1_000;
/// How long a reader waits for the keeper to keep what has left the ring.
const WAIT: Duration = Duration::from_secs(2);

/// The ring, and the log that keeps what is in it.
pub(crate) struct LineHistory {
    ring: Arc<Ring>,
    /// None where lines end with the process.
    log: Option<Arc<LineLog>>,
    /// The number of the last line of earlier runs. The first of this run has the next one.
    begin: u64,
    /// The number of the last line that the keeper is done with: it is kept, or lost.
    kept: watch::Sender<u64>,
    /// Lines of this run that are not kept.
    lost: AtomicU64,
}

impl LineHistory {
    /// One that goes on where the log ends. Without a log that can be read there are only the lines
    /// in memory.
    pub(crate) fn new(ring: Arc<Ring>, log: Option<LineLog>) -> Self {
        let last = log.as_ref().map_or(Ok(0), LineLog::last);
        let (log, begin) = match last {
            Ok(begin) => (log, begin),
            Err(error) => {
                tracing::warn!(%error, "lines are not kept");
                (None, 0)
            }
        };
        Self {
            ring,
            log: log.map(Arc::new),
            begin,
            kept: watch::Sender::new(begin),
            lost: AtomicU64::new(0),
        }
    }

    /// Lines that could not be kept so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The number of the line at a position of the ring.
    fn number(&self, position: u64) -> u64 {
        self.begin + position + 1
    }

    /// The position in the ring of the line with this number.
    fn position(&self, number: u64) -> u64 {
        number.saturating_sub(self.begin + 1)
    }

    fn kept(&self) -> u64 {
        *self.kept.borrow()
    }

    /// Lines of the ring, as they would be kept.
    fn of_ring(&self, batch: logs::Batch) -> Vec<LoggedLine> {
        let first = batch.next - batch.lines.len() as u64;
        let mut sources = Sources::default();
        let lines = (first..).zip(batch.lines);
        lines
            .map(|(at, line)| logged(self.number(at), line, &mut sources))
            .collect()
    }

    /// What passes of these lines.
    fn passing(
        &self,
        of: &LinesOf,
        through: u64,
        batch: logs::Batch,
        filter: &LineFilter,
    ) -> LinePart {
        let (missed, next) = (batch.missed, self.number(batch.next));
        let mut lines = self.of_ring(batch);
        lines.retain(|line| {
            let is_asked = line.source.as_ref().is_some_and(|source| of.is(source));
            line.seq <= through && is_asked && filter(line)
        });
        LinePart {
            lines,
            missed,
            next: next.min(through.saturating_add(1)),
        }
    }

    /// The last lines that pass, of those that only the ring has.
    fn back_in_ring(
        &self,
        of: &LinesOf,
        range: &RangeInclusive<u64>,
        wanted: usize,
        filter: &LineFilter,
    ) -> LinesBack {
        let from = self.position(*range.start());
        let mut lines = self.of_ring(self.ring.read(from, usize::MAX));
        lines.retain(|line| range.contains(&line.seq));
        let (mut found, mut at) = (0, *range.start());
        for line in lines.iter().rev() {
            let is_asked = line.source.as_ref().is_some_and(|source| of.is(source));
            found += usize::from(is_asked && filter(line));
            at = line.seq;
            if found == wanted {
                return LinesBack {
                    found,
                    at,
                    is_all: false,
                };
            }
        }
        LinesBack {
            found,
            at: at.min(*range.start()),
            is_all: self.log.is_none(),
        }
    }
}

/// The pods of a batch, each of which has one source.
#[derive(Default)]
struct Sources(BTreeMap<PodName, Arc<LogSource>>);

impl Sources {
    fn of(&mut self, pod: &PodName) -> Arc<LogSource> {
        if let Some(source) = self.0.get(pod) {
            return Arc::clone(source);
        }
        let source = Arc::new(LogSource {
            app: pod.service().app.to_string(),
            service: pod.service().name.to_string(),
            pod: pod.to_string(),
        });
        self.0.insert(pod.clone(), Arc::clone(&source));
        source
    }
}

fn millis(time: SystemTime) -> u64 {
    let Utc(since) = time.into();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn logged(seq: u64, line: Line, sources: &mut Sources) -> LoggedLine {
    let kind = match line.stream {
        logs::Stream::Stdout => LineKind::Stdout,
        logs::Stream::Stderr => LineKind::Stderr,
        logs::Stream::Host => LineKind::Host,
        logs::Stream::Logged(Level::Trace) => LineKind::Trace,
        logs::Stream::Logged(Level::Debug) => LineKind::Debug,
        logs::Stream::Logged(Level::Info) => LineKind::Info,
        logs::Stream::Logged(Level::Warn) => LineKind::Warn,
        logs::Stream::Logged(Level::Error) => LineKind::Error,
        logs::Stream::Logged(Level::Critical) => LineKind::Critical,
    };
    LoggedLine {
        seq,
        time_ms: millis(line.time),
        source: Some(sources.of(&line.pod)),
        kind: kind.code(),
        request: line.request.map(|request| request.to_string()),
        text: line.text,
        partial: line.partial,
    }
}

/// A line about all pods.
fn note(seq: u64, text: String) -> LoggedLine {
    LoggedLine {
        seq,
        time_ms: millis(SystemTime::now()),
        source: None,
        kind: LineKind::Host.code(),
        request: None,
        text,
        partial: false,
    }
}

/// What is shown in the place of lines that cannot be read.
fn unreadable(range: &RangeInclusive<u64>, error: &LineLogError) -> LinePart {
    let text = format!("lines are missing here: {error}");
    LinePart {
        lines: vec![note(*range.start(), text)],
        missed: 0,
        next: range.end().saturating_add(1),
    }
}

#[async_trait]
impl Lines for LineHistory {
    fn span(&self) -> RangeInclusive<u64> {
        let (first, end) = self.ring.span();
        let first = match self.log {
            Some(_) => 1,
            None => self.number(first),
        };
        first..=self.begin + end
    }

    fn since(&self, time_ms: u64) -> u64 {
        let found = self.log.as_ref().and_then(|log| {
            let kept = self.kept();
            let since = log.since(time_ms);
            let warn = |error: &LineLogError| tracing::warn!(%error, "lines cannot be looked up");
            since.inspect_err(warn).ok().map(|it| it.min(kept + 1))
        });
        found.unwrap_or(0)
    }

    fn part(&self, of: &LinesOf, range: RangeInclusive<u64>, filter: &LineFilter) -> LinePart {
        let (from, through) = range.into_inner();
        loop {
            let kept = self.kept();
            if let Some(log) = self.log.as_ref().filter(|_| from <= kept) {
                let range = from..=through.min(kept);
                return match log.page(of, range.clone(), &**filter) {
                    Ok(page) => LinePart {
                        lines: page.lines,
                        missed: 0,
                        next: page.next,
                    },
                    Err(error) => unreadable(&range, &error),
                };
            }
            let batch = self.ring.read(self.position(from), PART_LINES);
            // They have left the ring because they are kept by now.
            if batch.missed > 0 && self.kept() > kept {
                continue;
            }
            if batch.lines.is_empty() {
                return LinePart {
                    lines: Vec::new(),
                    missed: batch.missed,
                    next: through.saturating_add(1),
                };
            }
            return self.passing(of, through, batch, filter);
        }
    }

    fn back(
        &self,
        of: &LinesOf,
        range: RangeInclusive<u64>,
        wanted: usize,
        filter: &LineFilter,
    ) -> LinesBack {
        let kept = self.kept();
        let (from, through) = (*range.start(), *range.end());
        let Some(log) = self.log.as_ref().filter(|_| through <= kept) else {
            let of_ring = from.max(kept + 1)..=through;
            let back = self.back_in_ring(of, &of_ring, wanted, filter);
            return LinesBack {
                is_all: back.is_all || (back.found < wanted && back.at <= from),
                ..back
            };
        };
        log.back(of, range, wanted, &**filter)
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "lines cannot be looked up");
                LinesBack {
                    found: 0,
                    at: from,
                    is_all: true,
                }
            })
    }

    async fn next(self: Arc<Self>, of: LinesOf, from: u64, filter: LineFilter) -> LinePart {
        let batch = self.ring.follow(self.position(from), PART_LINES).await;
        if batch.missed == 0 || self.log.is_none() {
            return self.passing(&of, u64::MAX, batch, &filter);
        }
        // What has left the ring is kept, or will be in a moment.
        let last = from + batch.missed - 1;
        let mut kept = self.kept.subscribe();
        let waited = timeout(WAIT, kept.wait_for(|kept| *kept >= last));
        if waited.await.is_err() {
            return self.passing(&of, u64::MAX, batch, &filter);
        }
        off_thread(move || self.part(&of, from..=last, &filter)).await
    }

    fn pods(&self, of: &LinesOf) -> Vec<KeptLines> {
        let kept = self.log.as_ref().map(|log| log.sources(of));
        let kept = kept.unwrap_or_else(|| Ok(Vec::new()));
        let kept = kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "the pods of which there are lines cannot be read");
            Vec::new()
        });
        let mut pods: BTreeMap<_, _> = kept
            .into_iter()
            .map(|it| {
                let lines = KeptLines {
                    source: Arc::clone(&it.source),
                    bytes: it.bytes,
                    last_ms: (it.last_ms > 0).then_some(it.last_ms),
                    begins: it.begins.into_iter().collect(),
                };
                (it.source, lines)
            })
            .collect();
        let begins = self.ring.begins(0).into_iter();
        let begins = begins.map(|(at, pod)| (pod, Some(self.number(at))));
        let printed = self.ring.pods().into_iter().map(|pod| (pod, None));
        let mut sources = Sources::default();
        for (pod, begin) in begins.chain(printed) {
            let source = sources.of(&pod);
            if of.is(&source) {
                let lines = pods.entry(source).or_insert_with_key(|source| KeptLines {
                    source: Arc::clone(source),
                    bytes: 0,
                    last_ms: None,
                    begins: BTreeSet::new(),
                });
                lines.begins.extend(begin);
            }
        }
        pods.into_values().collect()
    }
}

#[cfg(test)]
mod tests;
