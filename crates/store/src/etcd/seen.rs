//! What the answers of etcd say of its history: which cluster it is, and how far that has come.
//!
//! A cluster is never behind what it has acknowledged. One that is was restored from a backup, or
//! is another one at the same addresses: what watches have delivered may never have happened there.
//! So the *era* ends, with all its watches, and everything is listed again.
//!
//! States: an era has a number and lasts until an answer contradicts it. All calls and watches
//! write, under one lock; watches hear of the next era through a channel. Only answers that are
//! linearizable are compared, with the highest revision that was known before the request was sent:
//! answers overtake one another, and a member that lags behind tells a watch a lower revision.

use parking_lot::Mutex;
use tokio::sync::watch;

use super::message::Header;

/// The highest revision that was known when a request was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor(i64);

#[derive(Debug)]
pub(super) struct Seen {
    known: Mutex<Known>,
    era: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    cluster: Option<u64>,
    revision: i64,
    /// Whether the history was another one before.
    restored: bool,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self {
            known: Mutex::default(),
            era: watch::Sender::new(0),
        }
    }

    /// To be taken before a request is sent whose answer goes to [`Seen::current`].
    pub(super) fn floor(&self) -> Floor {
        Floor(self.known.lock().revision)
    }

    /// Notes the head of a linearizable answer.
    pub(super) fn current(&self, floor: Floor, header: Header) {
        self.note(header, header.revision < floor.0);
    }

    /// Notes the head of any other answer.
    pub(super) fn any(&self, header: Header) {
        self.note(header, false);
    }

    fn note(&self, header: Header, is_behind: bool) {
        let mut known = self.known.lock();
        let other = known.cluster.is_some_and(|it| it != header.cluster_id);
        known.cluster = Some(header.cluster_id);
        if !other && !is_behind {
            known.revision = known.revision.max(header.revision);
            return;
        }
        tracing::warn!(
            before = known.revision,
            now = header.revision,
            "etcd has another history than before: everything is listed again"
        );
        known.revision = header.revision;
        known.restored = true;
        self.era.send_modify(|era| *era += 1);
    }

    /// Hears of the next era.
    pub(super) fn eras(&self) -> watch::Receiver<u64> {
        self.era.subscribe()
    }

    /// The highest revision of this era.
    pub(super) fn revision(&self) -> i64 {
        self.known.lock().revision
    }

    /// Whether this revision is of an era that is over: what has come after it is not known.
    pub(super) fn is_over(&self, revision: i64) -> bool {
        let known = self.known.lock();
        known.restored && revision > known.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cluster_id: u64, revision: i64) -> Header {
        Header {
            cluster_id,
            revision,
        }
    }

    #[test]
    fn an_era_ends_when_history_is_another_one_and_not_before() {
        let seen = Seen::new();
        let era = || *seen.eras().borrow();
        let early = seen.floor();
        seen.current(early, header(7, 10));
        // Two answers that overtake one another, and a member that lags.
        seen.current(early, header(7, 9));
        seen.any(header(7, 3));
        assert_eq!((era(), seen.revision()), (0, 10));
        assert!(!seen.is_over(12), "a watch may begin in the future");
        // The same cluster, from a backup.
        seen.current(seen.floor(), header(7, 4));
        assert_eq!((era(), seen.revision()), (1, 4));
        assert!(seen.is_over(10) && !seen.is_over(4));
        // Another one.
        seen.any(header(8, 20));
        assert_eq!((era(), seen.revision()), (2, 20));
        seen.current(seen.floor(), header(8, 20));
        assert_eq!(era(), 2);
    }
}
