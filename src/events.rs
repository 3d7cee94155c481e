//! What happens to an app: one event for each change of state, and the last ones in a ring.

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use sampan_core::{
    event::Reason,
    name::{Name, PodName, ServiceKey},
    plan::pod::Notice,
    time::{Took, Utc},
};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use tokio::sync::Notify;

/// Events that are kept in memory. The oldest make room for the newest.
pub(crate) const MAX_EVENTS: usize = 1000;

/// A change of state, of what, and why.
#[derive(Debug)]
pub(crate) struct Event {
    /// Its number: the first is 1, and each later one is one more.
    pub(crate) seq: u64,
    /// When, on the clock on the wall. It may go back; the number does not.
    pub(crate) at: SystemTime,
    /// The service, job or app it is about.
    pub(crate) subject: Subject,
    pub(crate) change: Change,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    App(Name),
    Service(ServiceKey),
    Job(ServiceKey),
}

impl Subject {
    /// The app that it belongs to, or is.
    pub(crate) fn app(&self) -> &Name {
        match self {
            Self::App(name) => name,
            Self::Service(key) | Self::Job(key) => &key.app,
        }
    }

    pub(crate) fn name(&self) -> &Name {
        match self {
            Self::App(name) => name,
            Self::Service(key) | Self::Job(key) => &key.name,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(name) => write!(f, "app/{name}"),
            Self::Service(key) => write!(f, "service/{}", key.name),
            Self::Job(key) => write!(f, "job/{}", key.name),
        }
    }
}

/// A change of state.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Its component is being compiled.
    Compiling,
    /// Its component can be instantiated, and was compiled for it in this time.
    Loaded { compiled: Option<Duration> },
    /// One of its pods has changed.
    Pod { pod: PodName, notice: Notice },
    /// Instances waited for each other for ever, and one of them, of this pod, had to fail.
    Deadlock { pod: PodName, report: String },
    /// A job has ended well.
    Completed { took: Duration },
    /// A job has ended badly, and is tried again or not.
    JobFailed { reason: String, again: bool },
    /// Pods of a new revision have taken the place of the old ones.
    Replaced { revision: u64 },
    /// The new component was refused, and the old one stays.
    Refused { reason: String },
    /// A user has changed it, or its rollout or job has come further: why, and in a sentence.
    Announced { reason: Reason, message: String },
    /// One that is read back from the log of the node.
    Past {
        object: String,
        reason: String,
        message: String,
    },
    /// Everything of the app has started, and the gateway answers at this address.
    Up { address: SocketAddr },
}

impl Change {
    /// The change in one word.
    pub(crate) fn reason(&self) -> &str {
        let reason = match self {
            Self::Compiling => Reason::Compiling,
            Self::Loaded { .. } => Reason::Loaded,
            Self::Pod { notice, .. } => notice.reason,
            Self::Deadlock { .. } => Reason::Deadlocked,
            Self::Completed { .. } => Reason::Completed,
            Self::JobFailed { again: true, .. } => Reason::BackOff,
            Self::JobFailed { again: false, .. } => Reason::Failed,
            Self::Replaced { .. } => Reason::Replaced,
            Self::Refused { .. } => Reason::Refused,
            Self::Announced { reason, .. } => *reason,
            Self::Past { reason, .. } => return reason,
            Self::Up { .. } => Reason::Up,
        };
        reason.as_str()
    }

    /// The change in a sentence whose subject is the event's object.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Compiling => "compiling".to_owned(),
            Self::Loaded { compiled: None } => "loaded from the cache".to_owned(),
            Self::Loaded {
                compiled: Some(took),
            } => format!("compiled in {:.2} s", took.as_secs_f64()),
            Self::Pod { notice, .. } => notice.text.clone(),
            Self::Deadlock { report, .. } => report.clone(),
            Self::Completed { took } => format!("completed after {}", Took(*took)),
            Self::JobFailed {
                reason,
                again: true,
            } => format!("failed, trying again: {reason}"),
            Self::JobFailed {
                reason,
                again: false,
            } => format!("failed: {reason}"),
            Self::Replaced { revision } => format!("revision {revision} has taken over"),
            Self::Refused { reason } => {
                format!("change refused, the old version stays: {reason}")
            }
            Self::Announced { message, .. } | Self::Past { message, .. } => message.clone(),
            Self::Up { address } => format!("up, answering at http://{address}"),
        }
    }
}

impl Event {
    /// What it is about, with its kind: `pod/web-1-0`.
    pub(crate) fn object(&self) -> String {
        match &self.change {
            Change::Pod { pod, .. } | Change::Deadlock { pod, .. } => format!("pod/{pod}"),
            Change::Past { object, .. } => object.clone(),
            Change::Compiling
            | Change::Loaded { .. }
            | Change::Completed { .. }
            | Change::JobFailed { .. }
            | Change::Replaced { .. }
            | Change::Refused { .. }
            | Change::Announced { .. }
            | Change::Up { .. } => self.subject.to_string(),
        }
    }
}

/// As a line of a service's or job's log.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Change::Pod { pod, .. } | Change::Deadlock { pod, .. } = &self.change {
            write!(f, "{pod} ")?;
        }
        f.write_str(&self.change.message())
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Event", 6)?;
        fields.serialize_field("seq", &self.seq)?;
        fields.serialize_field("time", &Utc::from(self.at).to_string())?;
        fields.serialize_field("app", self.subject.app())?;
        fields.serialize_field("object", &self.object())?;
        fields.serialize_field("reason", self.change.reason())?;
        fields.serialize_field("message", &self.change.message())?;
        fields.end()
    }
}

/// The last [`MAX_EVENTS`] events. Adding one never waits for a reader.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    inner: Mutex<Inner>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    ring: VecDeque<Arc<Event>>,
    last: u64,
}

/// What a reader got.
#[derive(Debug)]
pub(crate) struct Events {
    /// Events in their order.
    pub(crate) events: Vec<Arc<Event>>,
    /// Events that had left the ring before they could be read.
    pub(crate) missed: u64,
}

impl Journal {
    /// One whose numbers go on after those of earlier runs.
    pub(crate) fn after_runs(last: u64) -> Self {
        let ring = VecDeque::new();
        Self {
            inner: Mutex::new(Inner { ring, last }),
            arrived: Notify::new(),
        }
    }

    /// Adds an event that happens now.
    pub(crate) fn record(&self, subject: Subject, change: Change) {
        let mut inner = self.inner.lock();
        inner.last += 1;
        let event = Event {
            seq: inner.last,
            at: SystemTime::now(),
            subject,
            change,
        };
        if inner.ring.len() == MAX_EVENTS {
            inner.ring.pop_front();
        }
        inner.ring.push_back(Arc::new(event));
        drop(inner);
        self.arrived.notify_waiters();
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.inner.lock().last
    }

    /// The events after the one with this number.
    pub(crate) fn after(&self, seq: u64) -> Events {
        let inner = self.inner.lock();
        let first = inner.last + 1 - inner.ring.len() as u64;
        let later = inner.ring.iter().filter(|event| event.seq > seq);
        Events {
            events: later.cloned().collect(),
            missed: first.saturating_sub(seq.saturating_add(1)),
        }
    }

    /// Like [`Self::after`], and waits until there is one.
    pub(crate) async fn follow(&self, seq: u64) -> Events {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // Enlisted before looking, so that an event that comes in between wakes it.
            arrived.as_mut().enable();
            let events = self.after(seq);
            if !events.events.is_empty() {
                return events;
            }
            arrived.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Subject {
        Subject::Service(ServiceKey::parse("shop/web").expect("a key"))
    }

    #[test]
    fn the_ring_is_bounded_and_the_numbers_go_on() {
        let journal = Journal::default();
        assert!(journal.after(0).events.is_empty());
        for _ in 0..MAX_EVENTS + 10 {
            journal.record(web(), Change::Compiling);
        }
        let all = journal.after(0);
        assert_eq!((all.events.len(), all.missed), (MAX_EVENTS, 10));
        assert_eq!(all.events[0].seq, 11);
        let last = journal.after(journal.last() - 2);
        let numbers: Vec<_> = last.events.iter().map(|event| event.seq).collect();
        let end = MAX_EVENTS as u64 + 10;
        assert_eq!((numbers, last.missed), (vec![end - 1, end], 0));
    }

    #[tokio::test]
    async fn a_follower_hears_of_what_comes() {
        let journal = Arc::new(Journal::default());
        let follower = tokio::spawn({
            let journal = Arc::clone(&journal);
            async move { journal.follow(0).await.events.len() }
        });
        journal.record(web(), Change::Compiling);
        assert_eq!(follower.await.expect("no panic"), 1);
    }

    #[test]
    fn an_event_is_a_line_or_an_object() {
        let journal = Journal::default();
        let service = ServiceKey::parse("shop/web").expect("a key");
        let pod = PodName::new(&service, 1, 0);
        let notice = Notice {
            reason: Reason::CrashLoopBackOff,
            text: "CrashLoopBackOff: next try in 400ms".to_owned(),
        };
        journal.record(web(), Change::Pod { pod, notice });
        let event = &journal.after(0).events[0];
        assert_eq!(
            event.to_string(),
            "web-1-0 CrashLoopBackOff: next try in 400ms"
        );
        let object = serde_json::to_value(&**event).expect("JSON");
        assert_eq!(
            (&object["seq"], &object["object"], &object["reason"]),
            (&1.into(), &"pod/web-1-0".into(), &"CrashLoopBackOff".into())
        );
        assert!(
            object["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
    }
}
