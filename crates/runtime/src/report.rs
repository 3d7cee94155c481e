//! What is reported of instances: how they ended, and why.

mod explain;
pub(crate) mod stack;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use sampan_core::{digest::Digest, fault::Fault, name::PodName};

/// Members of a deadlock that a text names.
const MAX_SHOWN: usize = 10;

/// One instance of a deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its pod.
    pub pod: PodName,
    /// The request it answers: `GET /path`, if it is one.
    pub request: Option<String>,
    /// The id of that request.
    pub request_id: Option<Arc<str>>,
    /// The host function it waits in.
    pub function: &'static str,
    /// For what.
    pub waits_for: String,
    /// For how long already.
    pub since: Duration,
}

/// A proven deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    /// When it was proven.
    pub at: SystemTime,
    /// The instances in it.
    pub members: Vec<Member>,
    /// Which of them was made to fail so that the others can go on.
    pub victim: usize,
    /// Whether a call of the victim failed, or the victim itself.
    pub failed_call: bool,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.pod)?;
        if let Some(request) = &self.request {
            write!(f, " ({request})")?;
        }
        let Self {
            function,
            waits_for,
            since,
            ..
        } = self;
        write!(
            f,
            " waits in `{function}` for {waits_for}, since {} ms",
            since.as_millis()
        )
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("proven deadlock: ")?;
        for (n, member) in self.members.iter().take(MAX_SHOWN).enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{member}")?;
        }
        if self.members.len() > MAX_SHOWN {
            write!(f, "; and {} more", self.members.len() - MAX_SHOWN)?;
        }
        let victim = &self.members[self.victim];
        match self.failed_call {
            true => write!(f, "; the call of `{}` fails", victim.pod),
            false => write!(f, "; `{}` is stopped", victim.pod),
        }
    }
}

/// The end of one instance, explained.
#[derive(Clone, Debug)]
pub struct Termination {
    /// Whose instance it was.
    pub pod: PodName,
    /// What the host saw.
    pub verdict: Fault,
    /// With what a command has ended by itself, if it has.
    pub exit_code: Option<i32>,
    /// The same in a sentence.
    pub reason: String,
    /// When it ended.
    pub at: SystemTime,
    /// What the instance was doing and what it had used, unless so many of the pod's instances end
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
    /// The name of the function.
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
    /// An instance whose pod was ended from outside: see [`crate::pod::Pod::killed`].
    pub fn unhealthy(pod: PodName, reason: String, evidence: Evidence) -> Arc<Self> {
        Arc::new(Self {
            pod,
            verdict: Fault::Unhealthy,
            exit_code: None,
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
            exit_code: None,
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

/// Where the bytes of a component are to be found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentFile {
    /// The file it was read from.
    pub path: PathBuf,
    /// What was in it.
    pub digest: Digest,
}

/// A core dump that was wanted, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct Coredump(Arc<OnceLock<Result<PathBuf, String>>>);

impl Coredump {
    /// The file, or why there is none. Nothing while it is being written.
    pub fn outcome(&self) -> Option<&Result<PathBuf, String>> {
        self.0.get()
    }

    pub(crate) fn set(&self, outcome: Result<PathBuf, String>) {
        // There is one writer.
        let _ = self.0.set(outcome);
    }
}
