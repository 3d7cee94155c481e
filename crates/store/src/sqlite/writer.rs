//! The thread that writes: group commit.

use std::fmt;
use std::sync::Arc;

use sampan_core::provoke;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::database::Database;
use super::witness::{Testimony, Witness};
use crate::error::StoreError;
use crate::own_file::is_full;
use crate::published::Published;
use crate::state::Draft;
use crate::transaction::{Outcome, Transaction};
use crate::value::{Revision, SessionId};

/// Transactions that become durable together.
const GROUP_TRANSACTIONS: usize = 256;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked to do.
pub(super) enum Request {
    Commit(Waiting),
    Compact {
        through: Revision,
        answer: Answer<()>,
    },
    /// The end of a session.
    End {
        session: SessionId,
        answer: Answer<()>,
    },
    /// For tests: anything, between two groups.
    #[cfg(test)]
    Run(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// A transaction that has been checked.
pub(super) struct Waiting {
    pub(super) transaction: Transaction,
    pub(super) answer: Answer<Outcome>,
    /// Its bytes in the queue.
    pub(super) _room: OwnedSemaphorePermit,
}

/// All that the thread owns.
pub(super) struct Writer {
    database: Database,
    witness: Witness,
    published: Arc<Published>,
    /// For tests: called before each group becomes durable.
    #[cfg(test)]
    pub(super) before_write: Option<Box<dyn FnMut() + Send>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(database: Database, witness: Witness, published: Arc<Published>) -> Self {
        Self {
            database,
            witness,
            published,
            #[cfg(test)]
            before_write: None,
        }
    }

    /// Works until all senders of requests are gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut group = Vec::new();
        while let Some(request) = requests.blocking_recv() {
            provoke::panic_in(provoke::Task::Store);
            let mut next = Some(request);
            while let Some(request) = next.take() {
                match request {
                    Request::Commit(waiting) => group.push(waiting),
                    Request::Compact { through, answer } => {
                        self.commit(&mut group);
                        let _ = answer.send(self.compact(through));
                    }
                    Request::End { session, answer } => {
                        self.commit(&mut group);
                        let _ = answer.send(self.end(session));
                    }
                    #[cfg(test)]
                    Request::Run(run) => {
                        self.commit(&mut group);
                        run(&mut self);
                    }
                }
                if group.len() < GROUP_TRANSACTIONS {
                    next = requests.try_recv().ok();
                }
            }
            self.commit(&mut group);
            self.prune();
        }
        self.database.close();
    }

    /// Evaluates a group one after another, makes it durable at once, shows it, acknowledges it.
    fn commit(&mut self, group: &mut Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        // Only this thread changes the state: it is the same until the draft is applied.
        let state = self.published.read();
        let mut draft = Draft::new(&state);
        let outcomes: Vec<_> = group
            .iter()
            .map(|waiting| draft.add(&state, &waiting.transaction))
            .collect();
        drop(state);
        if let Err(error) = self.persist(draft) {
            // Not even a conflict is certain: it may be one with a member of the group.
            for waiting in group.drain(..) {
                let _ = waiting.answer.send(Err(error.clone()));
            }
            return;
        }
        for (waiting, outcome) in group.drain(..).zip(outcomes) {
            // The caller may have dropped its future.
            let _ = waiting.answer.send(outcome);
        }
    }

    fn persist(&mut self, draft: Draft) -> Result<(), StoreError> {
        #[cfg(test)]
        if let Some(before_write) = &mut self.before_write {
            before_write();
        }
        if draft.batches().is_empty() {
            return Ok(());
        }
        // Readers share this lock, and only this thread writes under it.
        let written = self.database.write(&self.published.read(), &draft);
        written.map_err(|error| self.failure(&error))?;
        let testimony = Testimony {
            id: self.database.id(),
            revision: draft.revision(),
        };
        if let Err(error) = self.witness.note(testimony) {
            // The transaction is durable all the same.
            tracing::warn!(%error, "cannot write the lock file of the store");
        }
        self.published.apply(draft);
        Ok(())
    }

    fn end(&mut self, session: SessionId) -> Result<(), StoreError> {
        let state = self.published.read();
        let mut draft = Draft::new(&state);
        draft.end(&state, session);
        drop(state);
        self.persist(draft)?;
        self.published.change(|state| state.close_session(session));
        Ok(())
    }

    fn compact(&mut self, through: Revision) -> Result<(), StoreError> {
        let revision = self.published.read().revision();
        if through > revision {
            return Err(StoreError::Future {
                asked: through,
                revision,
            });
        }
        let compacted = self.database.compact(through);
        compacted.map_err(|error| self.failure(&error))?;
        self.published.change(|state| state.compact(through));
        Ok(())
    }

    /// Keeps the history within its bounds. That it fails is no harm: where there is no room for
    /// this, there is none for more history either, and it is tried again with the next group.
    fn prune(&mut self) {
        let due = self.published.read().due();
        if let Some(through) = due
            && let Err(error) = self.compact(through)
        {
            tracing::warn!(%error, "cannot forget the history of the store");
        }
    }

    fn failure(&self, error: &rusqlite::Error) -> StoreError {
        let place = self.database.place().to_owned();
        let reason = error.to_string();
        match is_full(error) {
            true => StoreError::Full { place, reason },
            false => StoreError::Failed { place, reason },
        }
    }

    /// For tests that make SQLite fail.
    #[cfg(test)]
    pub(super) fn connection(&self) -> &rusqlite::Connection {
        self.database.connection()
    }
}
