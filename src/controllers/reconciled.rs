//! What a reconcile comes to.

use sampan_core::plan::{autoscale::Decision, rollout::Ended};
use sampan_store::Transaction;
use tokio::time::Instant;

use crate::events::{Change, Subject};

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
}
