//! The state machine as it is shared: read by many, changed by one, followed by watches.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use crate::state::{Draft, State};
use crate::value::{Batch, Key, Revision};
use crate::watch::{Watch, WatchError, WatchSource};

/// Transactions that a watch looks at before it lets go of the state for a moment.
const LOOK_TRANSACTIONS: usize = 256;

/// A state that is read by many, changed by one, and watched.
#[derive(Debug)]
pub(crate) struct Published {
    state: Arc<RwLock<State>>,
    /// Tells watches that they have something to look at. When it goes, the store is closed.
    revision: watch::Sender<Revision>,
}

impl Published {
    pub(crate) fn new(state: State) -> Self {
        Self {
            revision: watch::Sender::new(state.revision()),
            state: Arc::new(RwLock::new(state)),
        }
    }

    /// The state as it is; not to be held for long.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// Changes the state, and tells the watches.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write();
        let result = change(&mut state);
        let revision = state.revision();
        drop(state);
        self.revision.send_replace(revision);
        result
    }

    /// Does what `draft` has worked out.
    pub(crate) fn apply(&self, draft: Draft) {
        self.change(|state| state.apply(draft));
    }

    pub(crate) fn watch(&self, prefix: &str, after: Revision) -> Watch {
        Watch::new(Follower {
            state: self.state.clone(),
            revision: self.revision.subscribe(),
            prefix: prefix.into(),
            after,
        })
    }

    /// What ends when the store is closed.
    pub(crate) fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// How many watches there are.
    pub(crate) fn watches(&self) -> usize {
        self.revision.receiver_count()
    }
}

/// A watch of a [`Published`] state. It holds a position and no changes, however slow it is.
struct Follower {
    state: Arc<RwLock<State>>,
    revision: watch::Receiver<Revision>,
    prefix: Key,
    /// All up to here has been delivered or was not below the prefix.
    after: Revision,
}

enum Look {
    Found(Batch),
    /// Nothing among those looked at, but there are more.
    More,
    /// Nothing more for now.
    End,
}

impl Follower {
    fn look(&mut self) -> Result<Look, WatchError> {
        let state = self.state.read();
        if self.after < state.compacted() {
            return Err(WatchError::Compacted {
                oldest: state.compacted(),
            });
        }
        for batch in state.after(self.after).take(LOOK_TRANSACTIONS) {
            self.after = batch.revision;
            let below = batch
                .changes
                .iter()
                .filter(|change| change.key.starts_with(&*self.prefix));
            let changes: Vec<_> = below.cloned().collect();
            if !changes.is_empty() {
                return Ok(Look::Found(Batch {
                    revision: batch.revision,
                    changes,
                }));
            }
        }
        Ok(if self.after < state.revision() {
            Look::More
        } else {
            Look::End
        })
    }
}

#[async_trait]
impl WatchSource for Follower {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        loop {
            // Marked as seen before looking, so that what comes while looking wakes it.
            self.revision.mark_unchanged();
            match self.look()? {
                Look::Found(batch) => return Ok(batch),
                Look::More => {}
                Look::End => {
                    if self.revision.changed().await.is_err() {
                        return Err(WatchError::Closed);
                    }
                }
            }
        }
    }
}
