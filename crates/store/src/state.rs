//! The state machine that every store of this crate runs: entries, transactions and history.
//!
//! It is changed in two steps, so that something can stand between them: [`Draft`] works out what
//! transactions do without doing it, and [`State::apply`] does it, when it is durable.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::error::StoreError;
use crate::transaction::{MAX_OPERATIONS, MAX_TRANSACTION_BYTES, Outcome, Transaction, Write};
use crate::value::{Batch, Change, Entry, Key, Listing, Revision, SessionId};

/// Transactions that a store remembers for watches. Beyond it the oldest are forgotten.
pub const HISTORY_TRANSACTIONS: usize = 1_000;

/// Bytes of keys and values that a store remembers for watches. Beyond it the oldest are forgotten.
pub const HISTORY_BYTES: usize = 16 << 20;

/// What a change costs beside its bytes, roughly.
const CHANGE_BYTES: usize = 64;

// The largest transaction is remembered: who watches is told of it.
const _: () =
    assert!(MAX_TRANSACTION_BYTES + MAX_OPERATIONS * CHANGE_BYTES <= HISTORY_BYTES / 10 * 9);

/// All entries, and the transactions that led to them as far as they are remembered.
#[derive(Debug, Default)]
pub(crate) struct State {
    entries: BTreeMap<Key, Entry>,
    revision: Revision,
    /// The last transaction that is forgotten.
    compacted: Revision,
    /// The transactions after `compacted`, without a gap.
    history: VecDeque<Arc<Batch>>,
    history_bytes: usize,
    /// The sessions that are open, with the keys of their entries.
    sessions: HashMap<SessionId, BTreeSet<Key>>,
    /// The last session that was opened.
    last_session: u64,
}

impl State {
    /// One that has been read back. `history` ends at `revision` and has no gap.
    pub(crate) fn restore(
        entries: BTreeMap<Key, Entry>,
        revision: Revision,
        history: VecDeque<Arc<Batch>>,
    ) -> Self {
        let mut sessions = HashMap::<_, BTreeSet<_>>::new();
        for entry in entries.values() {
            if let Some(session) = entry.session {
                sessions
                    .entry(session)
                    .or_default()
                    .insert(entry.key.clone());
            }
        }
        Self {
            entries,
            revision,
            compacted: Revision(revision.0 - history.len() as u64),
            history_bytes: history.iter().map(|batch| bytes(batch)).sum(),
            history,
            sessions,
            last_session: 0,
        }
    }

    /// Opens a session.
    pub(crate) fn open_session(&mut self) -> SessionId {
        self.last_session += 1;
        let id = SessionId(self.last_session);
        self.sessions.insert(id, BTreeSet::new());
        id
    }

    /// Whether a session is open.
    pub(crate) fn has_session(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Closes a session whose entries have gone.
    pub(crate) fn close_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(crate) fn list(&self, prefix: &str) -> Listing {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let entries = self
            .entries
            .range::<str, _>(from)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry.clone())
            .collect();
        Listing {
            entries,
            revision: self.revision,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The last transaction that is forgotten.
    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The remembered transactions after `after`, which is not before [`State::compacted`].
    pub(crate) fn after(&self, after: Revision) -> impl Iterator<Item = &Arc<Batch>> {
        let skipped = after.0.saturating_sub(self.compacted.0);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        self.history.range(skipped.min(self.history.len())..)
    }

    /// Does what a draft has worked out from this very state.
    pub(crate) fn apply(&mut self, draft: Draft) {
        for (key, entry) in draft.changed {
            let session = entry.as_ref().and_then(|entry| entry.session);
            let before = match entry {
                Some(entry) => self.entries.insert(key.clone(), entry),
                None => self.entries.remove(&key),
            };
            let before = before.and_then(|entry| entry.session);
            if let Some(keys) = before.and_then(|session| self.sessions.get_mut(&session)) {
                keys.remove(&key);
            }
            if let Some(keys) = session.and_then(|session| self.sessions.get_mut(&session)) {
                keys.insert(key);
            }
        }
        for batch in draft.batches {
            debug_assert_eq!(batch.revision, self.revision.next());
            self.revision = batch.revision;
            self.history_bytes += bytes(&batch);
            self.history.push_back(batch);
        }
    }

    /// Forgets the transactions up to and including `through`.
    pub(crate) fn compact(&mut self, through: Revision) {
        while self.compacted < through {
            let Some(batch) = self.history.pop_front() else {
                break;
            };
            self.history_bytes -= bytes(&batch);
            self.compacted = batch.revision;
        }
    }

    /// Through which transaction history must be forgotten to be within its bounds. It leaves a
    /// tenth of them free, so that this is rare.
    pub(crate) fn due(&self) -> Option<Revision> {
        if self.history.len() <= HISTORY_TRANSACTIONS && self.history_bytes <= HISTORY_BYTES {
            return None;
        }
        let (mut left, mut left_bytes) = (self.history.len(), self.history_bytes);
        let mut through = self.compacted;
        for batch in &self.history {
            if left <= HISTORY_TRANSACTIONS / 10 * 9 && left_bytes <= HISTORY_BYTES / 10 * 9 {
                break;
            }
            left -= 1;
            left_bytes -= bytes(batch);
            through = batch.revision;
        }
        Some(through)
    }
}

fn bytes(batch: &Batch) -> usize {
    let change = |change: &Change| {
        let value = change.entry.as_ref().map_or(0, |entry| entry.value.len());
        CHANGE_BYTES + change.key.len() + value
    };
    CHANGE_BYTES + batch.changes.iter().map(change).sum::<usize>()
}

/// What transactions do, one after another, to a state that stays as it is for now.
#[derive(Debug)]
pub(crate) struct Draft {
    revision: Revision,
    /// What becomes of the keys that are written.
    changed: HashMap<Key, Option<Entry>>,
    batches: Vec<Arc<Batch>>,
}

impl Draft {
    pub(crate) fn new(state: &State) -> Self {
        Self {
            revision: state.revision,
            changed: HashMap::new(),
            batches: Vec::new(),
        }
    }

    /// The revision after it.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// What becomes of each key that is written.
    pub(crate) fn changed(&self) -> &HashMap<Key, Option<Entry>> {
        &self.changed
    }

    /// The transactions that change something.
    pub(crate) fn batches(&self) -> &[Arc<Batch>] {
        &self.batches
    }

    /// Adds a transaction that has been checked. `state` is the one that the draft began with.
    pub(crate) fn add(
        &mut self,
        state: &State,
        transaction: &Transaction,
    ) -> Result<Outcome, StoreError> {
        let mut sessions = transaction.writes.iter().filter_map(Write::session);
        if let Some(over) = sessions.find(|session| !state.has_session(*session)) {
            return Err(StoreError::SessionOver(over));
        }
        for compare in &transaction.compares {
            let entry = self.look(state, &compare.key);
            if entry.map_or(Revision(0), |entry| entry.modified) != compare.modified {
                return Ok(Outcome::Conflict(compare.key.clone()));
            }
        }
        let revision = self.revision.next();
        let changes: Vec<_> = transaction
            .writes
            .iter()
            .filter_map(|write| self.change(state, write, revision))
            .collect();
        if changes.is_empty() {
            return Ok(Outcome::Committed(self.revision));
        }
        for change in &changes {
            self.changed
                .insert(change.key.clone(), change.entry.clone());
        }
        self.revision = revision;
        self.batches.push(Arc::new(Batch { revision, changes }));
        Ok(Outcome::Committed(revision))
    }

    /// Adds the end of a session: its entries go.
    pub(crate) fn end(&mut self, state: &State, session: SessionId) {
        let keys = state.sessions.get(&session).into_iter().flatten().cloned();
        let deleting = keys.fold(Transaction::new(), Transaction::delete);
        let deleted = self.add(state, &deleting);
        debug_assert!(deleted.is_ok(), "{deleted:?}");
    }

    fn look<'a>(&'a self, state: &'a State, key: &str) -> Option<&'a Entry> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => state.get(key),
        }
    }

    /// What a write changes; `None` if it deletes what does not exist.
    fn change(&self, state: &State, write: &Write, revision: Revision) -> Option<Change> {
        let before = self.look(state, write.key());
        let entry = match write {
            Write::Put {
                key,
                value,
                session,
            } => Some(Entry {
                key: key.clone(),
                value: value.clone(),
                created: before.map_or(revision, |entry| entry.created),
                modified: revision,
                session: *session,
            }),
            Write::Delete { .. } => before.map(|_| None)?,
        };
        let key = write.key().clone();
        Some(Change { key, entry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(state: &mut State, transaction: Transaction) -> Outcome {
        let mut draft = Draft::new(state);
        let outcome = draft.add(state, &transaction);
        state.apply(draft);
        outcome.expect("no session")
    }

    #[test]
    fn a_draft_sees_its_own_transactions_and_the_state_does_not() {
        let state = State::default();
        let mut draft = Draft::new(&state);
        let create = Transaction::new().absent("/a").put("/a", "1");
        let conflict = Outcome::Conflict("/a".into());
        let delete = Transaction::new().compare("/a", Revision(1)).delete("/a");
        for (transaction, outcome) in [
            (&create, Outcome::Committed(Revision(1))),
            (&create, conflict),
            (&delete, Outcome::Committed(Revision(2))),
            (&create, Outcome::Committed(Revision(3))),
        ] {
            assert_eq!(draft.add(&state, transaction), Ok(outcome));
        }
        assert_eq!(state.get("/a"), None);
        assert_eq!(state.revision(), Revision(0));
    }

    #[test]
    fn history_is_bounded_by_transactions() {
        let mut state = State::default();
        for _ in 0..HISTORY_TRANSACTIONS {
            let _ = commit(&mut state, Transaction::new().put("/a", "1"));
            assert_eq!(state.due(), None);
        }
        let _ = commit(&mut state, Transaction::new().put("/a", "1"));
        let through = Revision(HISTORY_TRANSACTIONS as u64 / 10 + 1);
        assert_eq!(state.due(), Some(through));
        state.compact(through);
        assert_eq!(state.compacted(), through);
        assert_eq!(state.history.len(), HISTORY_TRANSACTIONS / 10 * 9);
        assert_eq!(state.due(), None);
        assert_eq!(state.after(through).count(), state.history.len());
    }

    #[test]
    fn history_is_bounded_by_bytes() {
        let mut state = State::default();
        let value = vec![0; 1 << 20];
        for number in 0..40 {
            let _ = commit(
                &mut state,
                Transaction::new().put(format!("/{number}"), value.clone()),
            );
            if let Some(through) = state.due() {
                state.compact(through);
            }
            assert!(state.history_bytes <= HISTORY_BYTES);
            assert_eq!(
                state.history_bytes,
                state
                    .history
                    .iter()
                    .map(|batch| bytes(batch))
                    .sum::<usize>()
            );
        }
        assert!(state.history.len() >= 13, "{}", state.history.len());
        assert_eq!(state.revision(), Revision(40));
    }

    #[test]
    fn compacting_beyond_the_end_keeps_the_revision() {
        let mut state = State::default();
        let _ = commit(&mut state, Transaction::new().put("/a", "1"));
        state.compact(Revision(9));
        assert_eq!(state.compacted(), Revision(1));
        assert_eq!(state.after(Revision(1)).count(), 0);
        assert_eq!(state.after(Revision(7)).count(), 0);
    }
}
