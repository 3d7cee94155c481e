//! A store whose reads go on while the one below is away: from a copy of all entries.
//!
//! States: etcd *answers*, and all reads go there; or it is *lost*, and the copy answers, which is
//! as it was then. A read that is under way when etcd is lost is answered from the copy too. Writes
//! always go below: they compare, so nothing is written on the strength of an old copy.
//!
//! Only the task that follows the store below writes the copy: whole transactions in their order, so
//! that a listing is one snapshot here as well. The copy is old only while nothing can be written
//! through this process; a read right after etcd is lost may miss what was acknowledged a moment
//! before.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::{sync::watch, task::AbortHandle, time::sleep};

use crate::error::StoreError;
use crate::etcd::EtcdReach;
use crate::session::Session;
use crate::store::Store;
use crate::transaction::{Outcome, Transaction};
use crate::turns::Turns;
use crate::value::{Batch, Entry, Key, Listing, Revision};
use crate::watch::{Watch, WatchError};

/// The pause before a store that failed is listed again.
const PAUSE: Duration = Duration::from_millis(200);

/// A store on top of another, which answers reads while that is away.
pub struct Standby {
    below: Arc<dyn Store>,
    reach: watch::Receiver<EtcdReach>,
    copy: Arc<RwLock<Copy>>,
    following: AbortHandle,
}

impl fmt::Debug for Standby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standby").finish_non_exhaustive()
    }
}

/// All entries, as they were at one revision.
#[derive(Default)]
struct Copy {
    entries: BTreeMap<Key, Entry>,
    revision: Revision,
}

impl Copy {
    fn of(listing: Listing) -> Self {
        let entries = listing.entries.into_iter();
        Self {
            entries: entries.map(|entry| (entry.key.clone(), entry)).collect(),
            revision: listing.revision,
        }
    }

    fn apply(&mut self, batch: Batch) {
        self.revision = batch.revision;
        for change in batch.changes {
            match change.entry {
                Some(entry) => drop(self.entries.insert(change.key, entry)),
                None => drop(self.entries.remove(&change.key)),
            }
        }
    }

    fn list(&self, prefix: &str) -> Listing {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let below = self.entries.range::<str, _>(from);
        let below = below.take_while(|(key, _)| key.starts_with(prefix));
        Listing {
            entries: below.map(|(_, entry)| entry.clone()).collect(),
            revision: self.revision,
        }
    }
}

impl Standby {
    /// Copies everything, and follows the store from then on. `reach` says whether it answers.
    pub async fn start(
        below: Arc<dyn Store>,
        reach: watch::Receiver<EtcdReach>,
    ) -> Result<Self, StoreError> {
        let (copied, watch) = read(&*below).await?;
        let copy = Arc::new(RwLock::new(copied));
        let following = follow(Arc::clone(&below), watch, Arc::clone(&copy));
        Ok(Self {
            following: tokio::spawn(following).abort_handle(),
            below,
            reach,
            copy,
        })
    }

    /// Since when reads are answered from the copy, if they are.
    pub fn lost_since(&self) -> Option<SystemTime> {
        match &*self.reach.borrow() {
            EtcdReach::Answers => None,
            EtcdReach::Lost { since, .. } => Some(*since),
        }
    }

    /// What the store below says, or the copy if that is away.
    async fn read<T>(
        &self,
        below: impl Future<Output = Result<T, StoreError>>,
        copied: impl FnOnce(&Copy) -> T,
    ) -> Result<T, StoreError> {
        let mut reach = self.reach.clone();
        let lost = async {
            let lost = reach.wait_for(|reach| *reach != EtcdReach::Answers).await;
            lost.is_ok()
        };
        tokio::select! {
            biased;
            true = lost => {}
            read = below => match read {
                Err(StoreError::Failed { .. }) if self.lost_since().is_some() => {}
                read => return read,
            },
        }
        Ok(copied(&self.copy.read()))
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn read(below: &dyn Store) -> Result<(Copy, Watch), StoreError> {
    let listing = below.list("").await?;
    let watch = below.watch("", listing.revision).await?;
    Ok((Copy::of(listing), watch))
}

/// Keeps the copy up to date, until the store below is closed.
async fn follow(below: Arc<dyn Store>, mut watch: Watch, copy: Arc<RwLock<Copy>>) {
    loop {
        match watch.next().await {
            Ok(batch) => copy.write().apply(batch),
            Err(WatchError::Closed) => return,
            Err(WatchError::Compacted { .. }) => loop {
                match read(&*below).await {
                    Ok((other, next)) => {
                        watch = next;
                        // What it was is freed without the lock.
                        let _before = std::mem::replace(&mut *copy.write(), other);
                        break;
                    }
                    Err(StoreError::Closed) => return,
                    Err(_) => sleep(PAUSE).await,
                }
            },
        }
    }
}

#[async_trait]
impl Store for Standby {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let copied = |copy: &Copy| copy.entries.get(key).cloned();
        self.read(self.below.get(key), copied).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.read(self.below.list(prefix), |copy| copy.list(prefix))
            .await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        self.below.commit(transaction).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.below.watch(prefix, after).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.below.compact(through).await
    }

    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        self.below.open_session(ttl).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.read(self.below.revision(), |copy| copy.revision).await
    }

    fn turns(&self) -> &Turns {
        self.below.turns()
    }
}
