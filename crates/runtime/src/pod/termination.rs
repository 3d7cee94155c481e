//! How an instance ended, and who is told.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sampan_core::{fault::Fault, name::PodName};

use super::Coredump;
use crate::{report::Deadlock, symbols::ComponentFile};

/// The end of one instance, explained.
#[derive(Clone, Debug)]
pub struct Termination {
    /// Whose instance it was.
    pub pod: PodName,
    /// What the host saw.
    pub verdict: Fault,
    /// The same in a sentence.
    pub reason: String,
    /// When.
    pub at: SystemTime,
    /// What the instance was at and what it had used, unless so many of the pod's instances end
    /// that only some are looked at.
    pub evidence: Option<Box<Evidence>>,
}

/// What the host knew about an instance when it ended.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The requests it was answering, the oldest first.
    pub requests: Vec<RequestReport>,
    /// Where in the guest it ended, the innermost function first.
    pub backtrace: Vec<Frame>,
    /// Where it was at some moments before, if it ran for long.
    pub samples: Vec<Sample>,
    /// CPU time of its last request.
    pub cpu: Duration,
    /// The `request_cpu` it had; zero if any.
    pub cpu_budget: Duration,
    /// How often it had to wait in that request.
    pub waits_ended: u64,
    /// For how long in all.
    pub waited: Duration,
    /// CPU time since it last waited.
    pub cpu_since_wait: Duration,
    /// About how long after the budget was spent it was stopped: it is looked at every few
    /// milliseconds of its own time, and may wait for a processor in between.
    pub late: Option<Duration>,
    /// Fuel it used of how much, if it was metered.
    pub fuel: Option<(u64, u64)>,
    /// Bytes of linear memory and tables it held.
    pub memory_bytes: u64,
    /// The most that it may hold.
    pub memory_limit_bytes: u64,
    /// Bytes it wanted more when it was refused, if it was.
    pub memory_refused_bytes: Option<u64>,
    /// Calls into the host that were recorded.
    pub host_calls: usize,
    /// The last of them, the oldest first.
    pub last_host_calls: Vec<HostCall>,
    /// What it was waiting for.
    pub waits: Vec<OpenWait>,
    /// The last lines of the pod's log, the oldest first.
    pub log: Vec<String>,
    /// The deadlock it was a victim of.
    pub deadlock: Option<Arc<Deadlock>>,
    /// Where its component is to be found, if it came from a file.
    pub component: Option<Arc<ComponentFile>>,
    /// Its core dump, if its service asks for them.
    pub coredump: Option<Coredump>,
}

/// A request that an instance was answering.
#[derive(Clone, Debug)]
pub struct RequestReport {
    /// Its id; a probe has none.
    pub id: Option<Arc<str>>,
    /// Method and target.
    pub line: String,
    /// How long ago the pod was asked.
    pub since: Duration,
}

/// One function on the guest's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its name, demangled; without a name section its number.
    pub function: String,
    /// The core module it is in, if that has a name.
    pub module: Option<String>,
    /// Bytes from the start of the component, which is what `wasm-tools` shows and takes too.
    pub component_offset: Option<usize>,
}

/// Where a guest was that ran for long.
#[derive(Clone, Debug)]
pub struct Sample {
    /// CPU time of the request by then.
    pub cpu: Duration,
    /// Calls into the host by then.
    pub host_calls: usize,
    /// The innermost function first.
    pub backtrace: Vec<Frame>,
}

/// A call into the host.
#[derive(Clone, Debug)]
pub struct HostCall {
    /// Which.
    pub function: &'static str,
    /// How long before the end.
    pub before: Duration,
}

/// A wait that had not ended.
#[derive(Clone, Debug)]
pub struct OpenWait {
    /// The host function the guest was in, or that its wait came from.
    pub function: &'static str,
    /// For what.
    pub on: String,
    /// For how long.
    pub since: Duration,
}

impl Evidence {
    /// Whether the guest called the host while it ran for long: it asked again and again whether
    /// something was ready.
    pub fn is_busy_polling(&self) -> bool {
        let last = self.samples.last();
        last.is_some_and(|sample| self.host_calls > sample.host_calls)
    }
}

impl Termination {
    /// An instance whose pod was ended from outside: see [`super::Pod::killed`].
    pub(super) fn unhealthy(pod: PodName, reason: String, evidence: Evidence) -> Arc<Self> {
        Arc::new(Self {
            pod,
            verdict: Fault::Unhealthy,
            reason,
            at: SystemTime::now(),
            evidence: Some(Box::new(evidence)),
        })
    }

    /// A deadlock that a call of this pod's instance failed for, so that the instance lives on.
    pub fn of_deadlock(deadlock: &Arc<Deadlock>) -> Arc<Self> {
        let victim = &deadlock.members[deadlock.victim];
        Arc::new(Self {
            pod: victim.pod.clone(),
            verdict: Fault::Deadlocked,
            reason: deadlock.to_string(),
            at: deadlock.at,
            evidence: Some(Box::new(Evidence {
                deadlock: Some(Arc::clone(deadlock)),
                ..Evidence::default()
            })),
        })
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.verdict, self.reason)
    }
}

/// Who is told what becomes of a pod.
///
/// The calls come from the task that runs the guest, so they must be quick and must not wait.
pub trait PodWatch: Send + Sync + 'static {
    /// The pod's only instance has ended, and the pod with it: it takes no more requests. Whoever
    /// waits for an answer hears of it after this call.
    fn terminated(&self, termination: &Arc<Termination>);

    /// An instance has ended, and the pod goes on with another one.
    fn instance_failed(&self, termination: &Arc<Termination>);
}

/// Tells nobody.
pub struct Unwatched;

impl PodWatch for Unwatched {
    fn terminated(&self, _: &Arc<Termination>) {}

    fn instance_failed(&self, _: &Arc<Termination>) {}
}
