//! The lines that are kept of all pods of a node, as many as there is room for.

use std::{collections::VecDeque, fmt, sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use sampan_core::name::PodName;
use tokio::sync::Notify;

/// The longest line; what is beyond it becomes a line of its own, and the first one says so.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// Text one ring keeps.
pub const MAX_RING_BYTES: usize = 10 << 20;
/// Beginnings of pods that a ring remembers.
const MAX_BEGINS: usize = 10_000;
/// Lines of all pods among which [`Ring::tail`] looks.
const MAX_TAIL_LINES: usize = 10_000;
/// Host bytes a line takes besides its text, so that empty lines are not free.
pub(super) const LINE_OVERHEAD_BYTES: usize = size_of::<Line>();

/// How important a line is, as the guest says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Each step.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What happens.
    Info,
    /// What may become a fault.
    Warn,
    /// What has failed.
    Error,
    /// What ends the work.
    Critical,
}

/// As it stands before a line.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        })
    }
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The guest's standard output.
    Stdout,
    /// The guest's standard error.
    Stderr,
    /// The guest, through `wasi:logging`: a context, if it gives one, and a message.
    Logged(Level),
    /// The host, about the guest: why it was killed, what it was denied.
    Host,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was printed.
    pub time: SystemTime,
    /// The pod that printed it.
    pub pod: Arc<PodName>,
    /// Where it comes from.
    pub stream: Stream,
    /// The request that was being answered, when that is certain.
    pub request: Option<Arc<str>>,
    /// The text, without its line end. Control characters are as the guest printed them; a byte
    /// that is no part of a character stands as `\xff`.
    pub text: String,
    /// Whether it is a part of a line that is too long: the pod's next one of this stream goes on
    /// with it.
    pub partial: bool,
}

/// A bounded ring of lines. The oldest make room for the newest.
#[derive(Debug, Default)]
pub struct Ring {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Number of lines that have left the ring: the position of its first.
    first: u64,
    /// Where incarnations of pods begin: the position of the first line that can be of it.
    begins: VecDeque<(u64, Arc<PodName>)>,
}

impl State {
    /// The position after the last line.
    fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }
}

/// What a reader got.
#[derive(Debug)]
pub struct Batch {
    /// Lines in their order.
    pub lines: Vec<Line>,
    /// Lines that had left the ring before they could be read.
    pub missed: u64,
    /// The position to read from next.
    pub next: u64,
}

impl Ring {
    /// Adds a line.
    pub fn push(&self, line: Line) {
        let mut state = self.state.lock();
        state.bytes += line.text.len() + LINE_OVERHEAD_BYTES;
        state.lines.push_back(line);
        while state.bytes > MAX_RING_BYTES
            && let Some(old) = state.lines.pop_front()
        {
            state.bytes -= old.text.len() + LINE_OVERHEAD_BYTES;
            state.first += 1;
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// Remembers that an incarnation of a pod begins.
    pub fn begin(&self, pod: &Arc<PodName>) {
        let mut state = self.state.lock();
        let position = state.end();
        if state.begins.len() == MAX_BEGINS {
            state.begins.pop_front();
        }
        state.begins.push_back((position, Arc::clone(pod)));
    }

    /// The last beginnings of pods, of those from `position` on, in their order.
    pub fn begins(&self, position: u64) -> Vec<(u64, Arc<PodName>)> {
        let state = self.state.lock();
        let since = state.begins.partition_point(|(at, _)| *at < position);
        state.begins.range(since..).cloned().collect()
    }

    /// The pods of which there are lines.
    pub fn pods(&self) -> Vec<Arc<PodName>> {
        let state = self.state.lock();
        let mut pods: Vec<_> = state.lines.iter().map(|line| &line.pod).collect();
        pods.sort();
        pods.dedup();
        pods.into_iter().cloned().collect()
    }

    /// The positions of the first line that is there, and after the last.
    pub fn span(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.first, state.end())
    }

    /// The lines from `position` on that are there now, at most `limit`.
    pub fn read(&self, position: u64, limit: usize) -> Batch {
        let state = self.state.lock();
        let missed = state.first.saturating_sub(position);
        let skip = usize::try_from(position.saturating_sub(state.first)).unwrap_or(usize::MAX);
        let lines: Vec<_> = state.lines.iter().skip(skip).take(limit).cloned().collect();
        let next = position.max(state.first) + lines.len() as u64;
        Batch {
            lines,
            missed,
            next,
        }
    }

    /// The last lines of a pod, together at most so many bytes, the oldest first. If not even the
    /// last one fits, its end and how much is missing before that.
    pub fn tail(&self, pod: &PodName, bytes: usize) -> Vec<Line> {
        let state = self.state.lock();
        let recent = state.lines.iter().rev().take(MAX_TAIL_LINES);
        let mut left = bytes;
        let mut lines: Vec<Line> = Vec::new();
        for line in recent.filter(|line| *line.pod == *pod) {
            match left.checked_sub(line.text.len() + 1) {
                Some(rest) => {
                    left = rest;
                    lines.push(line.clone());
                }
                None => {
                    if lines.is_empty() {
                        lines.push(end_of(line, bytes));
                    }
                    break;
                }
            }
        }
        lines.reverse();
        lines
    }

    /// Like [`Self::read`], and waits until there is a line.
    pub async fn follow(&self, position: u64, limit: usize) -> Batch {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // Enlisted before looking, so that a line that comes in between wakes it.
            arrived.as_mut().enable();
            let batch = self.read(position, limit);
            if !batch.lines.is_empty() || batch.missed > 0 {
                return batch;
            }
            arrived.await;
        }
    }
}

/// The last bytes of a line, after how many are missing.
fn end_of(line: &Line, bytes: usize) -> Line {
    let cut = line.text.len().saturating_sub(bytes);
    let cut = line.text.ceil_char_boundary(cut);
    let text = format!("({cut} bytes before this) {}", &line.text[cut..]);
    Line {
        text,
        ..line.clone()
    }
}
