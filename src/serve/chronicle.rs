//! Keeps events in the store, so that they outlive the node.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sampan_core::{
    name::Name,
    provoke,
    record::{Key, Kind},
};
use sampan_store::{Outcome, Store, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    events::{Change, Event, Journal, MAX_EVENTS, Subject},
    mirror::text,
};

/// Events written in one transaction: each may remove another.
const EVENTS_AT_ONCE: usize = 60;
/// How long to wait before a store that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// An event as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    seq: u64,
    /// Milliseconds since the beginning of 1970.
    at_ms: u64,
    app: Name,
    object: String,
    reason: String,
    message: String,
}

/// The events of earlier runs, the oldest first.
pub(super) async fn read(store: &Arc<dyn Store>) -> Result<Vec<Event>, StoreError> {
    let listing = store.list(Kind::Event.prefix()).await?;
    let stored = listing.entries.iter().filter_map(|entry| {
        let stored = serde_json::from_slice::<Stored>(&entry.value);
        let unreadable =
            |error| tracing::warn!(key = %entry.key, %error, "an event cannot be read");
        stored.map_err(unreadable).ok()
    });
    Ok(stored.map(event).collect())
}

fn event(stored: Stored) -> Event {
    Event {
        seq: stored.seq,
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(stored.at_ms),
        subject: Subject::App(stored.app),
        change: Change::Past {
            object: stored.object,
            reason: stored.reason,
            message: stored.message,
        },
    }
}

/// Writes events after the one with this number as they come, until the store is closed, or it is
/// told to finish and there are no more. From then on nothing is tried again.
pub(super) async fn write(
    store: Arc<dyn Store>,
    journal: Arc<Journal>,
    mut seq: u64,
    finish: Arc<Notify>,
) {
    let mut is_last = false;
    loop {
        let news = tokio::select! {
            biased;
            news = journal.follow(seq) => news,
            () = finish.notified(), if !is_last => {
                is_last = true;
                continue;
            }
            // There are no more.
            () = std::future::ready(()), if is_last => return,
        };
        provoke::panic_in(provoke::Task::Chronicle);
        if news.missed > 0 {
            tracing::warn!(
                missed = news.missed,
                "events were not kept: the store is too slow"
            );
        }
        for lot in news.events.chunks(EVENTS_AT_ONCE) {
            loop {
                match store.commit(transaction(lot)).await {
                    Ok(Outcome::Committed(_) | Outcome::Conflict(_)) => break,
                    Err(StoreError::Closed) => return,
                    Err(error) if is_last => {
                        tracing::warn!(%error, "the last events are not kept");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot keep events, trying again");
                        tokio::select! {
                            () = finish.notified() => is_last = true,
                            () = tokio::time::sleep(RETRY) => {}
                        }
                    }
                }
            }
            seq = lot.last().map_or(seq, |event| event.seq);
        }
    }
}

fn transaction(lot: &[Arc<Event>]) -> Transaction {
    let mut transaction = Transaction::new();
    for event in lot {
        let since = event.at.duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.unwrap_or_default().as_millis();
        let stored = Stored {
            seq: event.seq,
            at_ms: u64::try_from(millis).unwrap_or(u64::MAX),
            app: event.subject.app().clone(),
            object: event.object(),
            reason: event.change.reason().to_owned(),
            message: event.change.message(),
        };
        transaction = transaction.put(Key::Event(event.seq).to_string(), text(&stored));
        if let Some(old) = event.seq.checked_sub(MAX_EVENTS as u64) {
            transaction = transaction.delete(Key::Event(old).to_string());
        }
    }
    transaction
}
