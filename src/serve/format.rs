//! The version of what is in the store, and how an earlier one is carried over.
//!
//! | version | what is different |
//! |---|---|
//! | 1 | there is no key `/format`; events are objects below `/events/` |
//! | 2 | events are in the log of their node; pods have no node, and say since when they are ready |
//! | 3 | pods have a node, and say how often they have become ready |

use sampan_core::record::Kind;
use sampan_store::{Entry, EventLog, LoggedEvent, MAX_OPERATIONS, Store, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{clock::LOCAL, mirror::text};

const KEY: &str = "/format";
/// What this program writes.
const VERSION: u32 = 3;
/// Where events were in version 1.
const EVENTS: &str = "/events/";

#[derive(Serialize, Deserialize)]
struct Format {
    version: u32,
}

/// An event as it was in version 1.
#[derive(Deserialize)]
struct Event {
    seq: u64,
    at_ms: u64,
    app: String,
    object: String,
    reason: String,
    message: String,
}

/// Why what is in the store cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    /// A newer Sampan has written it.
    #[error(
        "the objects in the store have version `{0}`, and this sampan knows those up to \
         `{VERSION}`: use the newer sampan that wrote them"
    )]
    Newer(u32),
    /// The key that says the version says something else.
    #[error("the version of the objects in the store, at `{KEY}`, cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// The store fails.
    #[error("cannot carry over what is in the store from an earlier version")]
    Store(#[from] StoreError),
}

/// Brings what is in the store to the present version. If the process ends on the way, or there is
/// no log to take the events, the next start does it: each step can be done again.
pub(super) async fn carry_over(
    store: &dyn Store,
    log: Option<&EventLog>,
) -> Result<(), FormatError> {
    let found = match store.get(KEY).await? {
        None => 1,
        Some(entry) => {
            let format = serde_json::from_slice(&entry.value);
            let Format { version } = format.map_err(FormatError::Unreadable)?;
            version
        }
    };
    if found > VERSION {
        return Err(FormatError::Newer(found));
    }
    if found == VERSION {
        return Ok(());
    }
    give_pods_a_node(store).await?;
    if found == 1 && !take_events(store, log).await? {
        return Ok(());
    }
    let format = Format { version: VERSION };
    let _ = store
        .commit(Transaction::new().put(KEY, text(&format)))
        .await?;
    Ok(())
}

/// From version 2 to 3. How a pod was holds no more in this run of the node, but that it has ended.
async fn give_pods_a_node(store: &dyn Store) -> Result<(), StoreError> {
    let pods = store.list(Kind::Pod.prefix()).await?.entries;
    for lot in pods.chunks(MAX_OPERATIONS) {
        let mut transaction = Transaction::new();
        for entry in lot {
            let Ok(mut pod) = serde_json::from_slice::<Value>(&entry.value) else {
                continue;
            };
            pod["node"] = LOCAL.into();
            if pod["status"]["phase"] != "Ended" {
                pod["status"]["phase"] = "Pending".into();
            }
            transaction = transaction.put(entry.key.as_ref(), text(&pod));
        }
        let _ = store.commit(transaction).await?;
    }
    Ok(())
}

/// From version 1 to 2. Says whether there was a log to take them.
async fn take_events(store: &dyn Store, log: Option<&EventLog>) -> Result<bool, StoreError> {
    let Some(log) = log else {
        return Ok(false);
    };
    let entries = store.list(EVENTS).await?.entries;
    let events: Vec<_> = entries.iter().filter_map(event).collect();
    if let Err(error) = log.append(&events) {
        tracing::warn!(%error, "the events of earlier runs stay in the store for now");
        return Ok(false);
    }
    for lot in entries.chunks(MAX_OPERATIONS) {
        let keys = lot.iter().map(|entry| entry.key.clone());
        let deleting = keys.fold(Transaction::new(), Transaction::delete);
        let _ = store.commit(deleting).await?;
    }
    Ok(true)
}

fn event(entry: &Entry) -> Option<LoggedEvent> {
    match serde_json::from_slice::<Event>(&entry.value) {
        Ok(event) => Some(LoggedEvent {
            seq: event.seq,
            time_ms: event.at_ms,
            app: event.app,
            object: event.object,
            reason: event.reason,
            message: event.message,
        }),
        Err(error) => {
            tracing::warn!(key = %entry.key, %error, "an event cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use sampan_core::record::{Boot, Pod, PodPhase};
    use sampan_store::Memory;

    use super::*;

    async fn put(store: &Memory, key: &str, value: &str) {
        let put = Transaction::new().put(key, value.to_owned());
        let _ = store.commit(put).await.expect("memory does not fail");
    }

    #[tokio::test]
    async fn events_are_taken_from_the_store_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EventLog::open(&folder.path().join("events.db")).expect("a log");
        let store = Memory::new();
        for seq in 1..=3 {
            let event = format!(
                r#"{{"seq":{seq},"at_ms":7,"app":"shop","object":"app/shop","reason":"Applied","message":"x"}}"#
            );
            put(&store, &format!("/events/{seq:020}"), &event).await;
        }
        put(&store, "/events/x", "none").await;
        put(&store, "/apps/shop", "an app").await;
        // Without a log they stay.
        carry_over(&store, None).await.expect("nothing fails");
        assert_eq!(store.list("/").await.expect("a list").entries.len(), 5);
        for _ in 0..2 {
            carry_over(&store, Some(&log)).await.expect("nothing fails");
            let left = store.list("/").await.expect("a list").entries;
            let keys: Vec<_> = left.iter().map(|entry| &*entry.key).collect();
            assert_eq!(keys, ["/apps/shop", "/format"]);
            let kept = log.read(0, u64::MAX).expect("read");
            let numbers: Vec<_> = kept
                .iter()
                .map(|event| (event.seq, event.time_ms))
                .collect();
            assert_eq!(numbers, [(1, 7), (2, 7), (3, 7)]);
        }
        // What has the present version is looked at no more.
        put(&store, "/events/x", "none").await;
        carry_over(&store, Some(&log)).await.expect("nothing fails");
        assert!(store.get("/events/x").await.expect("a read").is_some());
    }

    #[tokio::test]
    async fn pods_of_an_earlier_version_are_of_this_node() {
        let store = Memory::new();
        let pod = |phase: &str| {
            format!(
                r#"{{"service":{{"app":"shop","name":"web"}},"revision":1,"slot":0,"stop":null,"status":{{"boot":7,"phase":{phase},"restarts":2,"reason":null}}}}"#
            )
        };
        let ready = r#"{"Ready":{"since":{"secs":3,"nanos":0}}}"#;
        for (slot, phase) in [ready, r#""Ended""#].into_iter().enumerate() {
            put(&store, &format!("/pods/shop/web/1/{slot}"), &pod(phase)).await;
        }
        put(&store, KEY, r#"{"version":2}"#).await;
        carry_over(&store, None).await.expect("nothing fails");
        let pods = store.list("/pods/").await.expect("a list").entries;
        let pods = pods
            .iter()
            .map(|entry| serde_json::from_slice::<Pod>(&entry.value));
        let pods: Vec<_> = pods.map(|pod| pod.expect("it is read")).collect();
        let phases: Vec<_> = pods.iter().map(|pod| pod.status.phase).collect();
        assert_eq!(phases, [PodPhase::Pending, PodPhase::Ended]);
        for pod in pods {
            assert_eq!(pod.node.as_ref().map(|it| it.as_str()), Some(LOCAL));
            assert_eq!((pod.status.restarts, pod.status.boot), (2, Boot(7)));
        }
        let format = store.get(KEY).await.expect("a read").expect("there");
        assert_eq!(format.value, r#"{"version":3}"#);
    }

    #[tokio::test]
    async fn what_a_newer_version_has_written_is_refused() {
        let store = Memory::new();
        put(&store, KEY, r#"{"version":4,"more":true}"#).await;
        let refused = carry_over(&store, None).await.expect_err("it is newer");
        assert_eq!(
            refused.to_string(),
            "the objects in the store have version `4`, and this sampan knows those up to `3`: use \
             the newer sampan that wrote them"
        );
        put(&store, KEY, "3").await;
        let refused = carry_over(&store, None).await.expect_err("no version");
        assert!(matches!(refused, FormatError::Unreadable(_)), "{refused}");
    }
}
