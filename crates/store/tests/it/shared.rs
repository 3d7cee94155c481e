//! A store that is not alone: below a prefix of a larger one to which others write, so that its
//! revisions begin anywhere and have gaps, as in etcd.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use sampan_store::{
    Batch, Compare, Entry, Listing, Memory, Outcome, Revision, Session, Store, StoreError,
    Transaction, Turns, Watch, WatchError, WatchSource, Write,
};

const PREFIX: &str = "/s";

/// The part of a store in memory that is below [`PREFIX`].
#[derive(Debug, Default)]
pub(crate) struct Prefixed {
    memory: Memory,
    commits: AtomicU64,
}

fn inner(key: &str) -> String {
    format!("{PREFIX}{key}")
}

fn outer(mut entry: Entry) -> Entry {
    entry.key = entry.key[PREFIX.len()..].into();
    entry
}

#[async_trait]
impl Store for Prefixed {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.memory.get(&inner(key)).await?.map(outer))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let Listing { entries, revision } = self.memory.list(&inner(prefix)).await?;
        let entries = entries.into_iter().map(outer).collect();
        Ok(Listing { entries, revision })
    }

    async fn commit(&self, mut transaction: Transaction) -> Result<Outcome, StoreError> {
        transaction.check()?;
        for Compare { key, .. } in &mut transaction.compares {
            *key = inner(key).into();
        }
        for write in &mut transaction.writes {
            let (Write::Put { key, .. } | Write::Delete { key }) = write;
            *key = inner(key).into();
        }
        // Not so often that history is over before a test has looked at it.
        if self
            .commits
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(3)
        {
            let others = Transaction::new().put("/before", "1").put("/zzz", "1");
            let _ = self.memory.commit(others).await?;
        }
        Ok(match self.memory.commit(transaction).await? {
            Outcome::Conflict(key) => Outcome::Conflict(key[PREFIX.len()..].into()),
            committed => committed,
        })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let watch = self.memory.watch(&inner(prefix), after).await?;
        Ok(Watch::new(Following(watch)))
    }

    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        self.memory.open_session(ttl).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.memory.compact(through).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.memory.revision().await
    }

    fn turns(&self) -> &Turns {
        self.memory.turns()
    }
}

struct Following(Watch);

#[async_trait]
impl WatchSource for Following {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        let mut batch = self.0.next().await?;
        for change in &mut batch.changes {
            change.key = change.key[PREFIX.len()..].into();
            change.entry = change.entry.take().map(outer);
        }
        Ok(batch)
    }
}
