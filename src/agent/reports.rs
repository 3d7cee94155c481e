//! What is to be written to the store about pods: the last word on each, written together.
//!
//! Reporting never waits. While the store takes one lot, later reports of a pod replace its earlier
//! ones; a store that is full or slow delays what others know, and no pod.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sampan_core::{
    name::PodName,
    plan::pod::PodState,
    provoke,
    record::{Key, Pod, PodPhase, PodStatus},
    time::Timestamp,
};
use sampan_store::{Outcome, Store, StoreError, Transaction};
use tokio::sync::Notify;

use crate::{clock::Clock, mirror};

/// Pods written in one transaction.
const PODS_AT_ONCE: usize = 100;
/// How long to wait before a store that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// The last word on a pod.
#[derive(Clone, Debug, PartialEq)]
enum Word {
    Is(PodStatus),
    /// It has been stopped: nothing of it is left.
    Gone,
}

/// Words that wait to be written.
#[derive(Default)]
pub(super) struct Reports {
    words: Mutex<BTreeMap<PodName, Word>>,
    arrived: Notify,
}

impl Reports {
    /// A pod is as its status says.
    pub(super) fn is(&self, pod: &PodName, status: PodStatus) {
        self.say(pod, Word::Is(status));
    }

    /// A pod that was to stop has gone.
    pub(super) fn gone(&self, pod: &PodName) {
        self.say(pod, Word::Gone);
    }

    fn say(&self, pod: &PodName, word: Word) {
        self.words.lock().insert(pod.clone(), word);
        self.arrived.notify_one();
    }

    /// Writes what comes, until the store is closed.
    pub(super) async fn write(&self, store: &Arc<dyn Store>) {
        loop {
            let lot = self.take();
            if lot.is_empty() {
                self.arrived.notified().await;
                continue;
            }
            provoke::panic_in(provoke::Task::Reports);
            match write(store, &lot).await {
                Ok(Outcome::Committed(_)) => {}
                // Another component wrote to one of them, say its `stop`: it is read again first.
                Ok(Outcome::Conflict(_)) => self.put_back(lot),
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot write how pods are, trying again");
                    self.put_back(lot);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn take(&self) -> BTreeMap<PodName, Word> {
        let mut words = self.words.lock();
        let Some(rest) = words.keys().nth(PODS_AT_ONCE).cloned() else {
            return std::mem::take(&mut *words);
        };
        let later = words.split_off(&rest);
        std::mem::replace(&mut *words, later)
    }

    /// What has been said meanwhile is newer.
    fn put_back(&self, lot: BTreeMap<PodName, Word>) {
        let mut words = self.words.lock();
        for (pod, word) in lot {
            words.entry(pod).or_insert(word);
        }
    }
}

async fn write(
    store: &Arc<dyn Store>,
    lot: &BTreeMap<PodName, Word>,
) -> Result<Outcome, StoreError> {
    let mut transaction = Transaction::new();
    for (name, word) in lot {
        let key = Key::Pod(name.clone()).to_string();
        // The object is gone: no component follows this pod any more.
        let Some(entry) = store.get(&key).await? else {
            continue;
        };
        let Ok(mut pod) = serde_json::from_slice::<Pod>(&entry.value) else {
            continue;
        };
        transaction = transaction.compare(key.as_str(), entry.modified);
        transaction = match word {
            Word::Gone => transaction.delete(key),
            Word::Is(status) => {
                pod.status = status.clone();
                transaction.put(key, mirror::text(&pod))
            }
        };
    }
    store.commit(transaction).await
}

/// Puts the states of one pod in the words of its object.
pub(super) struct StatusReporter {
    clock: Clock,
    /// Restarts in earlier runs of the node.
    earlier: u32,
    last: Option<PodStatus>,
}

impl StatusReporter {
    pub(super) fn new(clock: Clock, earlier: u32) -> Self {
        Self {
            clock,
            earlier,
            last: None,
        }
    }

    /// What to say of a pod in this state, if it is something new.
    pub(super) fn tell(&mut self, state: &PodState) -> Option<PodStatus> {
        match state {
            // Its stop is told when it is gone.
            PodState::Stopped { end: None, .. } => None,
            state => {
                let boot = self.clock.boot();
                self.status(state.status(boot, self.ready_since(), self.earlier))
            }
        }
    }

    /// What to say of a pod that cannot be started.
    pub(super) fn stuck(&mut self, reason: String) -> Option<PodStatus> {
        self.status(PodStatus {
            boot: self.clock.boot(),
            phase: PodPhase::BackOff,
            restarts: self.earlier,
            reason: Some(reason),
        })
    }

    fn status(&mut self, status: PodStatus) -> Option<PodStatus> {
        let is_new = self.last.as_ref() != Some(&status);
        self.last = Some(status.clone());
        is_new.then_some(status)
    }

    /// Since when a pod that is ready now has been so.
    fn ready_since(&self) -> Timestamp {
        match self.last.as_ref().map(|status| status.phase) {
            Some(PodPhase::Ready { since }) => since,
            _ => self.clock.now(),
        }
    }
}
