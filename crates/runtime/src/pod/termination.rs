//! How an instance ended, and who is told.

use std::{fmt, sync::Arc, time::SystemTime};

use sampan_core::name::PodName;

use super::Failure;

/// What the host saw when an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The guest trapped by itself.
    Trapped,
    /// The guest trapped after it was refused memory over its limit.
    OutOfMemory,
    /// The guest ran past `request_cpu` without an end.
    Spinning,
    /// The guest ran past its `fuel`.
    OutOfFuel,
    /// Every wait of the guest could only be ended by guests that were blocked themselves.
    Deadlocked,
    /// The guest was blocked on something live past `request_timeout`.
    TimedOut,
    /// The guest returned without a whole response.
    NoResponse,
    /// No instance could be made.
    Unstartable,
}

impl Verdict {
    /// The word that events, metrics and reports use, in the manner of Kubernetes' reasons.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trapped => "Trapped",
            Self::OutOfMemory => "OutOfMemory",
            Self::Spinning => "Spinning",
            Self::OutOfFuel => "OutOfFuel",
            Self::Deadlocked => "Deadlocked",
            Self::TimedOut => "TimedOut",
            Self::NoResponse => "NoResponse",
            Self::Unstartable => "Unstartable",
        }
    }

    /// Whether a pod that keeps one instance is over with it.
    ///
    /// The others are of the request: the instance cannot be used any more, and the pod makes
    /// another one at once.
    pub fn ends_pod(self) -> bool {
        match self {
            Self::Trapped
            | Self::OutOfMemory
            | Self::Spinning
            | Self::OutOfFuel
            | Self::Deadlocked
            | Self::Unstartable => true,
            Self::TimedOut | Self::NoResponse => false,
        }
    }

    pub(super) fn of(failure: &Failure, refused_memory: bool) -> Self {
        match failure {
            Failure::Trapped(_) if refused_memory => Self::OutOfMemory,
            Failure::Trapped(_) => Self::Trapped,
            Failure::Spinning(_) => Self::Spinning,
            Failure::OutOfFuel(_) => Self::OutOfFuel,
            Failure::Deadlocked(_) => Self::Deadlocked,
            Failure::TimedOut(_) => Self::TimedOut,
            Failure::NoResponse | Failure::Unfinished | Failure::ErrorCode(_) => Self::NoResponse,
            Failure::Unavailable(_) => Self::Unstartable,
            Failure::Neighbour(failure) => Self::of(failure, refused_memory),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The end of one instance, explained.
#[derive(Clone, Debug)]
pub struct Termination {
    /// Whose instance it was.
    pub pod: PodName,
    /// What the host saw.
    pub verdict: Verdict,
    /// The same in a sentence.
    pub reason: String,
    /// When.
    pub at: SystemTime,
    /// The request that the instance was answering, if it was exactly one.
    pub request_id: Option<Arc<str>>,
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
