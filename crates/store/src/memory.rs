//! A store in memory, for apps that begin anew with the process.

use async_trait::async_trait;

use crate::published::Published;
use crate::state::{Draft, State};
use crate::store::{Store, StoreError};
use crate::transaction::{Outcome, Transaction};
use crate::turns::Turns;
use crate::value::{Entry, Listing, Revision};
use crate::watch::Watch;

/// A store that lives as long as it is held. It has no thread and never waits.
#[derive(Debug)]
pub struct Memory {
    published: Published,
    turns: Turns,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            published: Published::new(State::default()),
            turns: Turns::default(),
        }
    }

    /// How many watches there are.
    pub fn watches(&self) -> usize {
        self.published.watches()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.published.read().get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        Ok(self.published.read().list(prefix))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        transaction.check()?;
        Ok(self.published.change(|state| {
            let mut draft = Draft::new(state);
            let outcome = draft.add(state, &transaction);
            state.apply(draft);
            if let Some(through) = state.due() {
                state.compact(through);
            }
            outcome
        }))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        Ok(self.published.watch(prefix, after))
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.published.change(|state| {
            let revision = state.revision();
            if through > revision {
                return Err(StoreError::Future {
                    asked: through,
                    revision,
                });
            }
            state.compact(through);
            Ok(())
        })
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.published.read().revision())
    }
    fn turns(&self) -> &Turns {
        &self.turns
    }
}
