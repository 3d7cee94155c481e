//! A store in memory, for apps that begin anew with the process.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;

use crate::error::StoreError;
use crate::published::Published;
use crate::session::{self, BootInstant, SESSION_MARGIN, Session, SessionSource};
use crate::state::{Draft, State};
use crate::store::Store;
use crate::transaction::{Outcome, Transaction};
use crate::turns::Turns;
use crate::value::{Entry, Listing, Revision, SessionId};
use crate::watch::Watch;

/// A store that lives as long as it is held. It has no thread and never waits. Its sessions are on
/// tokio's clock, which tests can pause.
#[derive(Debug)]
pub struct Memory {
    published: Arc<Published>,
    turns: Turns,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            published: Arc::new(Published::new(State::default())),
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
        self.published
            .change(|state| change(state, |draft, state| draft.add(state, &transaction)))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        Ok(self.published.watch(prefix, after))
    }

    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        let id = self.published.change(State::open_session);
        let held = Held {
            published: Arc::downgrade(&self.published),
            runtime: Handle::current(),
            id,
            ttl,
        };
        Ok(Session::new(id, held))
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

/// Works something out and does it.
fn change<T>(state: &mut State, work: impl FnOnce(&mut Draft, &State) -> T) -> T {
    let mut draft = Draft::new(state);
    let outcome = work(&mut draft, state);
    state.apply(draft);
    if let Some(through) = state.due() {
        state.compact(through);
    }
    outcome
}

/// A session that is held, and so is renewed at every moment.
struct Held {
    published: Weak<Published>,
    /// Where the time passes after it has been dropped.
    runtime: Handle,
    id: SessionId,
    ttl: Duration,
}

/// Ends a session, unless it has ended or the store is closed.
fn end(published: &Weak<Published>, session: SessionId) {
    if let Some(published) = published.upgrade() {
        published.change(|state| {
            change(state, |draft, state| draft.end(state, session));
            state.close_session(session);
        });
    }
}

#[async_trait]
impl SessionSource for Held {
    fn valid_until(&self) -> BootInstant {
        BootInstant::now().after(self.ttl.saturating_sub(SESSION_MARGIN))
    }

    async fn lost(&self) {
        let revisions = self.published.upgrade().map(|it| it.revisions());
        session::closed(revisions).await;
    }

    async fn end(self: Box<Self>) -> Result<(), StoreError> {
        end(&self.published, self.id);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let published = self.published.upgrade();
        if !published.is_some_and(|it| it.read().has_session(self.id)) {
            return;
        }
        let (published, id) = (self.published.clone(), self.id);
        let ends = tokio::time::Instant::now() + self.ttl;
        self.runtime.spawn(async move {
            tokio::time::sleep_until(ends).await;
            end(&published, id);
        });
    }
}
