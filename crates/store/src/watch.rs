//! Following a store: what the caller holds.

use std::fmt;

use async_trait::async_trait;

use crate::value::{Batch, Revision};

/// The changes below a prefix, as they come. Dropping it ends it.
pub struct Watch {
    source: Box<dyn WatchSource>,
}

impl Watch {
    /// One that delivers what `source` does: for those who write a store.
    pub fn new(source: impl WatchSource) -> Self {
        Self {
            source: Box::new(source),
        }
    }

    /// The next transaction that changes something below the prefix; waits for it.
    ///
    /// Dropping the future loses nothing: the next call delivers the same.
    pub async fn next(&mut self) -> Result<Batch, WatchError> {
        self.source.next().await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// What stands behind a [`Watch`].
#[async_trait]
pub trait WatchSource: Send + 'static {
    /// See [`Watch::next`].
    async fn next(&mut self) -> Result<Batch, WatchError>;
}

/// Why a watch delivers no more. It says the same when it is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// What it had to deliver next is forgotten: list, and watch after the listing's revision.
    #[error("the history up to revision `{oldest}` is forgotten")]
    Compacted {
        /// The oldest revision after which a watch can begin.
        oldest: Revision,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}
