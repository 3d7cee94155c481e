//! The events of this node: the latest in memory, and more of them in its log.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sampan_core::{name::Name, provoke, time::Utc};
use sampan_runtime::off_thread;
use sampan_store::{EventLog, EventLogError, LoggedEvent};
use tokio::sync::Notify;

use crate::events::{Change, Event, Events, Journal, Subject};

/// How long to wait before a log that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The journal, and the log that keeps what is recorded in it.
pub(crate) struct EventHistory {
    pub(crate) journal: Arc<Journal>,
    /// None where events end with the process.
    log: Option<Arc<EventLog>>,
    /// The number of the last event of earlier runs.
    begin: u64,
}

impl EventHistory {
    /// One that goes on where the log ends. Without a log that can be read there are only the
    /// events in memory.
    pub(crate) fn new(log: Option<EventLog>) -> Self {
        let last = log.as_ref().map_or(Ok(0), EventLog::last);
        let (log, begin) = match last {
            Ok(begin) => (log, begin),
            Err(error) => {
                tracing::warn!(%error, "events are not kept");
                (None, 0)
            }
        };
        Self {
            journal: Arc::new(Journal::after_runs(begin)),
            log: log.map(Arc::new),
            begin,
        }
    }

    /// The events after the one with this number. For those that are no more in memory it waits for
    /// the disk.
    pub(crate) fn after(&self, seq: u64) -> Events {
        self.completed(seq, self.journal.after(seq))
    }

    /// Like [`Self::after`], and waits until there is one.
    pub(crate) async fn follow(self: Arc<Self>, seq: u64) -> Events {
        let events = self.journal.follow(seq).await;
        match events.missed {
            0 => events,
            _ => off_thread(move || self.completed(seq, events)).await,
        }
    }

    /// With what is missing at the beginning, as far as it is in the log.
    fn completed(&self, seq: u64, mut events: Events) -> Events {
        let Some(log) = self.log.as_ref().filter(|_| events.missed > 0) else {
            return events;
        };
        match log.read(seq, seq.saturating_add(events.missed)) {
            Ok(kept) => {
                let kept = kept.into_iter().filter_map(event).map(Arc::new);
                let kept: Vec<_> = kept.collect();
                events.missed -= kept.len() as u64;
                events.events.splice(..0, kept);
            }
            Err(error) => tracing::warn!(%error, "the events before the latest cannot be read"),
        }
        events
    }

    /// Keeps events as they come, until it is told to finish and there are no more. From then on
    /// nothing is tried again.
    pub(crate) async fn write(self: Arc<Self>, finish: Arc<Notify>) {
        let Some(log) = &self.log else {
            return finish.notified().await;
        };
        let (mut seq, mut is_last) = (self.begin, false);
        loop {
            let news = tokio::select! {
                biased;
                news = self.journal.follow(seq) => news,
                () = finish.notified(), if !is_last => {
                    is_last = true;
                    continue;
                }
                // There are no more.
                () = std::future::ready(()), if is_last => return,
            };
            provoke::panic_in(provoke::Task::EventHistory);
            if news.missed > 0 {
                tracing::warn!(
                    missed = news.missed,
                    "events were not kept: the disk is too slow"
                );
            }
            let rows: Arc<[_]> = news.events.iter().map(|event| row(event)).collect();
            seq = rows.last().map_or(seq, |event| event.seq);
            let mut is_retry = false;
            while let Err(error) = append(log, &rows).await {
                if is_last {
                    tracing::warn!(%error, "the last events are not kept");
                    return;
                }
                if !is_retry {
                    tracing::warn!(%error, "cannot keep events, trying again");
                }
                is_retry = true;
                tokio::select! {
                    () = finish.notified() => is_last = true,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }
}

async fn append(log: &Arc<EventLog>, rows: &Arc<[LoggedEvent]>) -> Result<(), EventLogError> {
    let (log, rows) = (Arc::clone(log), Arc::clone(rows));
    off_thread(move || log.append(&rows)).await
}

fn row(event: &Event) -> LoggedEvent {
    let Utc(since) = event.at.into();
    LoggedEvent {
        seq: event.seq,
        time_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        app: event.subject.app().to_string(),
        object: event.object(),
        reason: event.change.reason().to_owned(),
        message: event.change.message(),
    }
}

/// None if another version has written what is no name here.
fn event(row: LoggedEvent) -> Option<Event> {
    Some(Event {
        seq: row.seq,
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(row.time_ms),
        subject: Subject::App(Name::parse(&row.app).ok()?),
        change: Change::Past {
            object: row.object,
            reason: row.reason,
            message: row.message,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::MAX_EVENTS;

    fn numbers(events: &Events) -> (Vec<u64>, u64) {
        let numbers = events.events.iter().map(|event| event.seq);
        (numbers.collect(), events.missed)
    }

    fn record(history: &EventHistory, count: usize) {
        for _ in 0..count {
            let subject = Subject::App(Name::parse("shop").expect("a name"));
            history.journal.record(subject, Change::Compiling);
        }
    }

    /// Writes what has been recorded, as at the end of a daemon.
    async fn finish(history: &Arc<EventHistory>) {
        let finish = Arc::<Notify>::default();
        finish.notify_one();
        Arc::clone(history).write(finish).await;
    }

    #[tokio::test]
    async fn what_has_left_the_memory_is_read_from_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || {
            let log = EventLog::open(&folder.path().join("events.db")).expect("a log");
            Arc::new(EventHistory::new(Some(log)))
        };
        let history = open();
        record(&history, 600);
        finish(&history).await;
        drop(history);
        let history = open();
        assert_eq!(numbers(&history.after(0)), ((1..=600).collect(), 0));
        record(&history, 1);
        let all: Vec<u64> = (1..=601).collect();
        assert_eq!(numbers(&history.after(0)), (all.clone(), 0));
        let followed = Arc::clone(&history).follow(0).await;
        assert_eq!(numbers(&followed), (all, 0));
        assert_eq!(numbers(&history.after(598)), ((599..=601).collect(), 0));
        assert_eq!(numbers(&history.after(601)), (vec![], 0));
        let event = &followed.events[0];
        assert_eq!(event.object(), "app/shop");
        assert_eq!(event.to_string(), "compiling");
    }

    #[tokio::test]
    async fn events_that_were_not_kept_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EventLog::open(&folder.path().join("events.db")).expect("a log");
        let history = Arc::new(EventHistory::new(Some(log)));
        record(&history, 10);
        finish(&history).await;
        record(&history, MAX_EVENTS + 5);
        let (found, missed) = numbers(&history.after(0));
        let end = MAX_EVENTS as u64 + 15;
        assert_eq!((found, missed), ((1..=10).chain(16..=end).collect(), 5));
        // Nor are they without a log.
        let history = Arc::new(EventHistory::new(None));
        record(&history, MAX_EVENTS + 5);
        finish(&history).await;
        let (found, missed) = numbers(&history.after(0));
        assert_eq!((found.len(), missed), (MAX_EVENTS, 5));
    }
}
