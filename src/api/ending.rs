//! What ends a node with its last app.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether a node is to end.
#[derive(Default)]
pub(crate) struct Ending {
    asked: Notify,
    begun: AtomicBool,
}

impl Ending {
    /// Resolves when the node is to end.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Whether the node takes no more apps, because it ends if it has none.
    pub(super) fn is_set(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, begun: bool) {
        self.begun.store(begun, Ordering::SeqCst);
    }

    /// Ends the node.
    pub(super) fn go(&self) {
        self.asked.notify_one();
    }
}
