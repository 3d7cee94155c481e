//! How a request, or the instance that was to answer it, failed: one closed list for the whole
//! program, and one table of what each fault means.
//!
//! The runtime finds out which fault it was, and adds in words what it saw; the gateway answers with
//! the fault's status and detail ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)), judges pods
//! by it and counts it; reports, events and metrics use its word. To add a way to fail is to add a
//! variant and its row.

use std::fmt;

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The guest trapped by itself.
    Trapped,
    /// The guest trapped after it was refused memory over its limit.
    OutOfMemory,
    /// The guest used its `request_cpu` without a wait, or computed for far longer than it waited.
    Spinning,
    /// The guest used more than its `fuel`.
    OutOfFuel,
    /// Every wait of the guest could only be ended by guests that were blocked themselves.
    Deadlocked,
    /// The guest was blocked on something live past `request_timeout`.
    TimedOut,
    /// The guest returned without a whole response, or with one that cannot be sent.
    NoResponse,
    /// The pod was stopped while its guest was at the request.
    Stopped,
    /// The guest did not get ready for its first request in time.
    Unstartable,
    /// The command came to its end by itself; with which exit code is told beside it.
    Exited,
    /// The pod did not do what probes asked for, though it was given a processor.
    Unhealthy,
    /// The pod could not take the request, and that is no fault of its guest: it had been stopped,
    /// its instance had just ended, its slots stayed busy, or the host had no room for an instance.
    Unavailable,
    /// The service runs a command, which answers no requests.
    NoHandler,
    /// The host failed while no code of the guest ran.
    Host,
    /// The request body is larger than the service allows.
    BodyTooLarge,
    /// The request is malformed, or has no form in which a guest could be given it.
    BadRequest,
    /// The client sent its body too slowly while other requests waited.
    ClientSlow,
    /// The client went away.
    ClientGone,
    /// The node that had the request went away before it answered, or answered what no node does.
    NodeLost,
    /// No service has this name, or it was removed while the request waited.
    NoService,
    /// No pod is free, and as many requests wait as may.
    QueueFull,
    /// No pod became free in time.
    QueueTimeout,
    /// No pod is ready, and none can become so while the request may wait.
    NoPod,
}

/// What a fault means.
struct Row {
    word: &'static str,
    status: u16,
    against: Against,
    detail: &'static str,
}

/// What a fault speaks against.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Against {
    /// The pod that had the request, which gets none for a while if that comes often.
    Pod,
    /// The instance that a pod keeps: the pod is over with it.
    Instance,
    /// Both.
    Both,
    /// The client, or the host.
    Neither,
}

impl Fault {
    /// The faults that are the end of an instance.
    pub const ENDS: [Self; 10] = [
        Self::Trapped,
        Self::OutOfMemory,
        Self::Spinning,
        Self::OutOfFuel,
        Self::Deadlocked,
        Self::TimedOut,
        Self::NoResponse,
        Self::Unstartable,
        Self::Exited,
        Self::Unhealthy,
    ];

    /// All of them, in their order.
    const ALL: [Self; 23] = [
        Self::Trapped,
        Self::OutOfMemory,
        Self::Spinning,
        Self::OutOfFuel,
        Self::Deadlocked,
        Self::TimedOut,
        Self::NoResponse,
        Self::Stopped,
        Self::Unstartable,
        Self::Exited,
        Self::Unhealthy,
        Self::Unavailable,
        Self::NoHandler,
        Self::Host,
        Self::BodyTooLarge,
        Self::BadRequest,
        Self::ClientSlow,
        Self::ClientGone,
        Self::NodeLost,
        Self::NoService,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::NoPod,
    ];

    /// The fault of this [word](Self::word), by which nodes tell one another of faults.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.word() == word)
    }

    #[rustfmt::skip]
    const fn row(self) -> Row {
        use Against::{Both, Instance, Neither, Pod};
        let (word, status, against, detail) = match self {
            Self::Trapped => ("Trapped", 500, Both, "the service failed"),
            Self::OutOfMemory => ("OutOfMemory", 500, Both, "the service failed"),
            Self::Spinning => ("Spinning", 504, Both, "the service took too much CPU"),
            Self::OutOfFuel => ("OutOfFuel", 504, Both, "the service used up its fuel"),
            Self::Deadlocked => ("Deadlocked", 508, Both, "the request was part of a deadlock of services"),
            Self::TimedOut => ("TimedOut", 504, Pod, "the service did not answer in time"),
            Self::NoResponse => ("NoResponse", 500, Pod, "the service gave no answer"),
            Self::Stopped => ("Stopped", 500, Pod, "the service gave no answer"),
            Self::Unstartable => ("Unstartable", 503, Instance, "the service could not take the request"),
            Self::Exited => ("Exited", 503, Instance, "the service has ended"),
            Self::Unhealthy => ("Unhealthy", 503, Both, "the service is not healthy"),
            Self::Unavailable => ("Unavailable", 503, Neither, "the service could not take the request"),
            Self::NoHandler => ("NoHandler", 501, Neither, "the service runs a command, and answers no requests"),
            Self::Host => ("Host", 500, Neither, "the host failed"),
            Self::BodyTooLarge => ("BodyTooLarge", 413, Neither, "the request body is too large"),
            Self::BadRequest => ("BadRequest", 400, Neither, "the request is malformed"),
            Self::ClientSlow => ("ClientSlow", 408, Neither, "the request body came too slowly"),
            Self::ClientGone => ("ClientGone", 400, Neither, "the request body ended early"),
            Self::NodeLost => ("NodeLost", 502, Pod, "the node that had the request did not answer"),
            Self::NoService => ("NoService", 503, Neither, "the service is not there"),
            Self::QueueFull => ("QueueFull", 503, Neither, "no pod is free and too many requests wait"),
            Self::QueueTimeout => ("QueueTimeout", 503, Neither, "no pod became free in time"),
            Self::NoPod => ("NoPod", 503, Neither, "no pod is ready, and none will be in time"),
        };
        Row { word, status, against, detail }
    }

    /// The word that events, metrics and reports use, in the manner of Kubernetes' reasons.
    pub fn word(self) -> &'static str {
        self.row().word
    }

    /// The HTTP status of the answer.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// What the client is told. It says nothing of the inside.
    pub fn detail(self) -> &'static str {
        self.row().detail
    }

    /// Whether it speaks against the pod that had the request. What a client did wrong does not, and
    /// neither does what the host lacks.
    pub fn is_of_pod(self) -> bool {
        matches!(self.row().against, Against::Pod | Against::Both)
    }

    /// Whether a pod that keeps one instance is over with it. Otherwise the fault is of the request:
    /// the instance cannot be used any more, and the pod makes another one for the next request.
    pub fn ends_pod(self) -> bool {
        matches!(self.row().against, Against::Instance | Against::Both)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_fault_is_known_by_its_word() {
        for (index, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, index, "{fault}");
            assert_eq!(Fault::parse(fault.word()), Some(fault));
        }
        assert_eq!(Fault::NoPod as usize + 1, Fault::ALL.len(), "the last one");
        assert_eq!(Fault::parse("Nothing"), None);
    }

    #[test]
    fn each_end_of_an_instance_has_a_word_of_its_own_and_the_status_of_an_error() {
        let words: BTreeSet<_> = Fault::ENDS.map(Fault::word).into();
        assert_eq!(words.len(), Fault::ENDS.len());
        for fault in Fault::ENDS {
            assert!((500..=508).contains(&fault.status()), "{fault}");
            assert!(fault.is_of_pod() || fault.ends_pod(), "{fault}");
        }
    }
}
