//! What is to be written to the store about pods: the last word on each, written together.
//!
//! Reporting never waits. While the store takes one lot, later reports of a pod replace its earlier
//! ones; a store that is full or slow delays what others know, and no pod.
//!
//! A word is about one pod: the one that this node runs and that was created by the revision of the
//! store which the word names. Another pod of the same name is not written to.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use sampan_core::{
    name::PodName,
    plan::pod::PodState,
    provoke,
    record::{Boot, Key, Pod, PodPhase, PodStatus},
};
use sampan_store::{Outcome, Revision, Store, StoreError, Transaction};
use tokio::sync::Notify;

use crate::mirror::{self, Mirror, Reader};

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

/// By pod, with the revision that created it.
type Words = BTreeMap<PodName, (Revision, Word)>;

/// Words that wait to be written.
#[derive(Default)]
pub(super) struct Reports {
    words: Mutex<Words>,
    arrived: Notify,
}

impl Reports {
    /// A pod is as its status says.
    pub(super) fn is(&self, pod: &PodName, created: Revision, status: PodStatus) {
        self.say(pod, created, Word::Is(status));
    }

    /// A pod that was to stop has gone.
    pub(super) fn gone(&self, pod: &PodName, created: Revision) {
        self.say(pod, created, Word::Gone);
    }

    fn say(&self, pod: &PodName, created: Revision, word: Word) {
        self.words.lock().insert(pod.clone(), (created, word));
        self.arrived.notify_one();
    }

    /// Writes what comes, until the store is closed.
    pub(super) async fn write(&self, store: &dyn Store, reader: &Reader) {
        loop {
            let lot = self.take();
            if lot.is_empty() {
                self.arrived.notified().await;
                continue;
            }
            provoke::panic_in(provoke::Task::Reports);
            let transaction = transaction(&reader.mirror(), &lot);
            let written = match transaction.writes.is_empty() {
                true => continue,
                false => store.commit(transaction).await,
            };
            let written = match written {
                Ok(Outcome::Committed(_)) => continue,
                // Another component wrote to one of them, say its `stop`: the mirror is behind.
                Ok(Outcome::Conflict(_)) => reader.catch_up(store).await,
                Err(error) => Err(error),
            };
            self.put_back(lot);
            match written {
                Ok(()) => {}
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot write how pods are, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn take(&self) -> Words {
        let mut words = self.words.lock();
        let Some(rest) = words.keys().nth(PODS_AT_ONCE).cloned() else {
            return std::mem::take(&mut *words);
        };
        let later = words.split_off(&rest);
        std::mem::replace(&mut *words, later)
    }

    /// What has been said meanwhile is newer.
    fn put_back(&self, lot: Words) {
        let mut words = self.words.lock();
        for (pod, word) in lot {
            words.entry(pod).or_insert(word);
        }
    }
}

fn transaction(mirror: &Mirror, lot: &Words) -> Transaction {
    let known = lot.iter().filter_map(|(name, (created, word))| {
        // One that is not there any more is followed by no component.
        let stored = mirror.pods.get(name)?;
        (stored.created == *created).then_some((name, stored, word))
    });
    known.fold(Transaction::new(), |transaction, (name, stored, word)| {
        let key = Key::Pod(name.clone()).to_string();
        let transaction = transaction.compare(key.as_str(), stored.modified);
        match word {
            Word::Gone => transaction.delete(key),
            Word::Is(status) => {
                let status = status.clone();
                let pod = Pod::clone(&stored.value);
                transaction.put(key, mirror::text(&Pod { status, ..pod }))
            }
        }
    })
}

/// Puts the states of one pod in the words of its object.
pub(super) struct StatusReporter {
    boot: Boot,
    /// Restarts in earlier runs of the node.
    earlier: u32,
    /// How often the pod has become ready in this run.
    ready: u32,
    last: Option<PodStatus>,
}

impl StatusReporter {
    pub(super) fn new(boot: Boot, earlier: u32) -> Self {
        Self {
            boot,
            earlier,
            ready: 0,
            last: None,
        }
    }

    /// What to say of a pod in this state, if it is something new.
    pub(super) fn tell(&mut self, state: &PodState) -> Option<PodStatus> {
        match state {
            // Its stop is told when it is gone.
            PodState::Stopped { end: None, .. } => None,
            state => {
                let last = self.last.as_ref().map(|status| status.phase);
                let was_ready = matches!(last, Some(PodPhase::Ready { .. }));
                self.ready += u32::from(state.is_ready() && !was_ready);
                self.status(state.status(self.boot, self.ready, self.earlier))
            }
        }
    }

    /// What to say of a pod that cannot be started.
    pub(super) fn stuck(&mut self, reason: String) -> Option<PodStatus> {
        self.status(PodStatus {
            boot: self.boot,
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
}
