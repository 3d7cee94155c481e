//! What a reconcile comes to.

use std::time::Duration;

use sampan_core::{
    name::PodName,
    plan::{autoscale::Decision, rollout::Ended},
    record::{Key, Pod},
};
use sampan_store::Transaction;
use tokio::time::Instant;

use crate::{
    events::{Change, Subject},
    mirror::{Stored, text},
};

/// Adds to `transaction` that the pod should go: its node drains, for so long if that is less than its
/// revision says, and removes it. One that no node runs yet goes at once.
pub(super) fn stop(
    transaction: Transaction,
    found: &Stored<Pod>,
    reason: &str,
    drain: Option<Duration>,
) -> Transaction {
    let key = Key::Pod(found.value.name()).to_string();
    let transaction = transaction.compare(key.as_str(), found.modified);
    match found.value.node {
        Some(_) => {
            let millis = |drain: Duration| u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
            let stopped = Pod {
                stop: Some(reason.to_owned()),
                drain_ms: drain.map(millis),
                ..Pod::clone(&found.value)
            };
            transaction.put(key, text(&stopped))
        }
        None => transaction.delete(key),
    }
}

/// Something that happened, told once it is written.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) subject: Subject,
    pub(super) change: Change,
}

/// What a reconcile came to.
#[derive(Default)]
pub(super) struct Plan {
    /// All that is written: one transaction, so that nothing is ever half done.
    pub(super) transaction: Transaction,
    /// Told when it has been written.
    pub(super) told: Vec<Told>,
    /// When to look again.
    pub(super) wake_at: Option<Instant>,
    /// The decision of the autoscaler that it carries out.
    pub(super) scaled: Option<Decision>,
    /// How the rollout has ended with it.
    pub(super) ended: Option<Ended>,
    /// The pods that it gives a node.
    pub(super) placed: Vec<PodName>,
}
