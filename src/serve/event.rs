//! What happens to an app, one event for each change of state.

use std::{fmt, net::SocketAddr, time::Duration};

use sampan_core::{
    name::{Name, PodName},
    time::Took,
};
use sampan_runtime::Origin;

/// A change of state, of what, and why.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The service, job or app it is about.
    pub(crate) subject: Name,
    pub(crate) change: Change,
}

/// A change of state.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Its component is being compiled.
    Compiling,
    /// Its component can be instantiated.
    Loaded { origin: Origin },
    /// It waits for another one.
    Waiting { on: Name },
    /// A pod answers requests.
    Ready { pod: PodName, took: Duration },
    /// A pod could not start.
    Failed { pod: PodName, reason: String },
    /// A job has begun, for the n-th time.
    Started { attempt: u32 },
    /// A job has ended well.
    Completed { took: Duration },
    /// A job has ended badly, and is tried again or not.
    JobFailed { reason: String, again: bool },
    /// It cannot run, because something it depends on does not.
    Blocked { on: Name },
    /// Pods of a new revision have taken the place of the old ones.
    Replaced { revision: u64 },
    /// The new component was refused, and the old one stays.
    Refused { reason: String },
    /// Everything of the app has started, and the gateway answers at this address.
    Up { address: SocketAddr },
    /// A pod takes no more requests.
    Draining { pod: PodName, in_flight: u32 },
    /// A pod is gone.
    Stopped { pod: PodName },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiling => f.write_str("compiling"),
            Self::Loaded {
                origin: Origin::Cache,
            } => f.write_str("loaded from the cache"),
            Self::Loaded {
                origin: Origin::Compiled(took),
            } => {
                write!(f, "compiled in {:.2} s", took.as_secs_f64())
            }
            Self::Waiting { on } => write!(f, "waiting for {on}"),
            Self::Ready { pod, took } => write!(f, "{pod} ready after {}", Took(*took)),
            Self::Failed { pod, reason } => write!(f, "{pod} cannot start: {reason}"),
            Self::Started { attempt: 1 } => f.write_str("started"),
            Self::Started { attempt } => write!(f, "started for the {attempt}. time"),
            Self::Completed { took } => write!(f, "completed after {}", Took(*took)),
            Self::JobFailed {
                reason,
                again: true,
            } => write!(f, "failed, trying again: {reason}"),
            Self::JobFailed {
                reason,
                again: false,
            } => write!(f, "failed: {reason}"),
            Self::Blocked { on } => write!(f, "not started, because {on} did not"),
            Self::Replaced { revision } => write!(f, "revision {revision} has taken over"),
            Self::Refused { reason } => {
                write!(f, "change refused, the old version stays: {reason}")
            }
            Self::Up { address } => write!(f, "up, answering at http://{address}"),
            Self::Draining { pod, in_flight } => {
                write!(f, "{pod} draining, {in_flight} requests in flight")
            }
            Self::Stopped { pod } => write!(f, "{pod} stopped"),
        }
    }
}
