//! Random transactions, reads, watches, compactions and ends, compared with a model that is too
//! simple to be wrong.

use std::collections::BTreeMap;
use std::path::Path;

use sampan_store::{
    Batch, Change, Entry, Memory, Outcome, Revision, Sqlite, Store, StoreError, Transaction, Watch,
    WatchError, Write,
};

use crate::{
    fixture::{number, random, within},
    members::{Cluster, Pace},
    shared::Prefixed,
};

const PREFIXES: [&str; 5] = ["", "/", "/a", "/a/", "/b/1"];

/// The whole past, as it is.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, Entry>,
    history: Vec<Batch>,
    /// The last that the store has named.
    revision: Revision,
    compacted: Revision,
}

impl Model {
    /// Does what the store has done, which must have been right.
    fn commit(&mut self, transaction: &Transaction, outcome: &Outcome) {
        for compare in &transaction.compares {
            let entry = self.entries.get(&*compare.key);
            if entry.map_or(Revision(0), |entry| entry.modified) != compare.modified {
                assert_eq!(*outcome, Outcome::Conflict(compare.key.clone()));
                return;
            }
        }
        let Outcome::Committed(revision) = *outcome else {
            panic!("{outcome:?} of {transaction:?}")
        };
        let mut changes = Vec::new();
        for write in &transaction.writes {
            let before = self.entries.remove(&**write.key());
            let entry = match write {
                Write::Put { key, value, .. } => Some(Entry {
                    key: key.clone(),
                    value: value.clone(),
                    created: before.as_ref().map_or(revision, |entry| entry.created),
                    modified: revision,
                    session: None,
                }),
                Write::Delete { .. } => None,
            };
            if let Some(entry) = &entry {
                self.entries.insert(entry.key.to_string(), entry.clone());
            }
            if entry.is_some() || before.is_some() {
                let key = write.key().clone();
                changes.push(Change { key, entry });
            }
        }
        let later = revision > self.revision;
        assert!(later || changes.is_empty() && revision == self.revision);
        self.revision = revision;
        if !changes.is_empty() {
            self.history.push(Batch { revision, changes });
        }
    }

    fn list(&self, prefix: &str) -> Vec<Entry> {
        let below =
            |(key, entry): (&String, &Entry)| key.starts_with(prefix).then(|| entry.clone());
        self.entries.iter().filter_map(below).collect()
    }

    /// What a watch is to deliver next.
    fn after(&self, after: Revision, prefix: &str) -> Option<Batch> {
        let later = self.history.iter().filter(|batch| batch.revision > after);
        let mut below = later.map(|batch| {
            let mut batch = batch.clone();
            batch
                .changes
                .retain(|change| change.key.starts_with(prefix));
            batch
        });
        below.find(|batch| !batch.changes.is_empty())
    }
}

struct Follower {
    prefix: &'static str,
    after: Revision,
    watch: Watch,
}

/// A store beside the model.
struct Run<S> {
    random: fastrand::Rng,
    model: Model,
    store: S,
    followers: Vec<Follower>,
    /// Whether the store is on the other side of a network: its watches may not hear of a compaction
    /// before there is something to deliver.
    remote: bool,
}

impl<S: Store> Run<S> {
    fn key(&mut self) -> String {
        format!(
            "/{}/{}",
            ["a", "b", "a/c"][self.random.usize(..3)],
            self.random.u8(..6)
        )
    }

    fn transaction(&mut self) -> Transaction {
        let mut transaction = Transaction::new();
        for _ in 0..self.random.u8(..3) {
            let key = self.key();
            let known = self.model.entries.get(&key).map(|entry| entry.modified);
            let revision = match self.random.u8(..10) {
                0 => Revision(self.random.u64(..=self.model.revision.0)),
                _ => known.unwrap_or_default(),
            };
            transaction = transaction.compare(key, revision);
        }
        for _ in 0..self.random.u8(..5) {
            let key = self.key();
            if transaction.writes.iter().any(|write| **write.key() == *key) {
                continue;
            }
            transaction = match self.random.u8(..3) {
                0 => transaction.delete(key),
                _ => transaction.put(key, vec![self.random.u8(..); self.random.usize(..300)]),
            };
        }
        transaction
    }

    async fn step(&mut self) {
        match self.random.u8(..20) {
            0..=9 => {
                let transaction = self.transaction();
                let outcome = self.store.commit(transaction.clone()).await.unwrap();
                self.model.commit(&transaction, &outcome);
            }
            10..=11 => {
                let key = self.key();
                let wanted = self.model.entries.get(&key).cloned();
                assert_eq!(self.store.get(&key).await, Ok(wanted));
            }
            12..=13 => {
                let prefix = PREFIXES[self.random.usize(..PREFIXES.len())];
                let listing = self.store.list(prefix).await.unwrap();
                assert_eq!(listing.entries, self.model.list(prefix));
                self.has_come_to(listing.revision);
            }
            14 => self.compact().await,
            15 => self.follow().await,
            _ => self.look().await,
        }
        self.has_come_to(self.store.revision().await.unwrap());
    }

    fn has_come_to(&mut self, revision: Revision) {
        assert!(revision >= self.model.revision);
        self.model.revision = revision;
    }

    async fn compact(&mut self) {
        let revision = self.model.revision;
        // Mostly a little, so that something is left.
        let through = match self.random.u8(..4) {
            0 => Revision(self.random.u64(..=revision.0 + 2)),
            _ => Revision(self.model.compacted.0 + self.random.u64(..4)),
        };
        let wanted = match through > revision {
            true => Err(StoreError::Future {
                asked: through,
                revision,
            }),
            false => {
                self.model.compacted = self.model.compacted.max(through);
                Ok(())
            }
        };
        assert_eq!(self.store.compact(through).await, wanted);
    }

    async fn follow(&mut self) {
        if self.followers.len() > 6 {
            self.followers.swap_remove(0);
        }
        let prefix = PREFIXES[self.random.usize(..PREFIXES.len())];
        let after = Revision(self.random.u64(..=self.model.revision.0 + 3));
        let watch = self.store.watch(prefix, after).await.unwrap();
        self.followers.push(Follower {
            prefix,
            after,
            watch,
        });
    }

    async fn look(&mut self) {
        if self.followers.is_empty() {
            return;
        }
        let follower = self.random.usize(..self.followers.len());
        for _ in 0..self.random.u8(1..6) {
            if !self.next(follower).await {
                return;
            }
        }
    }

    /// Has a watch deliver what is to come, or say that it cannot; whether it has.
    async fn next(&mut self, follower: usize) -> bool {
        let Self {
            model,
            followers,
            remote,
            ..
        } = self;
        let follower = &mut followers[follower];
        let is_behind = follower.after < model.compacted;
        let wanted = model.after(follower.after, follower.prefix);
        if (!is_behind || *remote) && wanted.is_none() {
            return false;
        }
        match within(follower.watch.next()).await {
            Err(told) => {
                assert!(is_behind, "{told}");
                let WatchError::Compacted { oldest } = told else {
                    panic!("{told}");
                };
                assert!(oldest == model.compacted || *remote && oldest < model.compacted);
                false
            }
            Ok(batch) => {
                follower.after = batch.revision;
                assert_eq!(Some(batch), wanted);
                true
            }
        }
    }

    /// That no watch delivers more than it is to: a last write, below every prefix, comes next.
    async fn end(mut self) {
        let last = Transaction::new().put("/a/last", "").put("/b/1", "");
        let outcome = self.store.commit(last.clone()).await.unwrap();
        self.model.commit(&last, &outcome);
        for follower in 0..self.followers.len() {
            while self.next(follower).await {}
        }
    }
}

async fn new<S: Store>(random: &mut fastrand::Rng, store: S) -> Run<S> {
    Run {
        random: random.fork(),
        // Stores count from different numbers.
        model: Model {
            revision: store.revision().await.unwrap(),
            ..Model::default()
        },
        store,
        followers: Vec::new(),
        remote: false,
    }
}

#[tokio::test]
async fn memory_does_what_the_model_does() {
    let mut random = random("model, memory");
    for _ in 0..number("SAMPAN_RUNS", 20) {
        let mut run = new(&mut random, Memory::new()).await;
        for _ in 0..300 {
            run.step().await;
        }
        run.end().await;
    }
}

#[tokio::test]
async fn a_store_among_others_does_what_the_model_does() {
    let mut random = random("model, shared");
    for _ in 0..number("SAMPAN_RUNS", 20) {
        let mut run = new(&mut random, Prefixed::default()).await;
        for _ in 0..300 {
            run.step().await;
        }
        run.end().await;
    }
}

#[tokio::test]
async fn sqlite_does_what_the_model_does_over_its_ends() {
    let mut random = random("model, sqlite");
    for _ in 0..number("SAMPAN_RUNS", 20) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let mut run = new(&mut random, Sqlite::open(&path).unwrap()).await;
        for _ in 0..300 {
            if run.random.u8(..30) == 0 {
                run = reopened(run, &path).await;
            }
            run.step().await;
        }
        run.end().await;
    }
}

/// Ends the store, and has the watches begin again where they were.
async fn reopened(run: Run<Sqlite>, path: &Path) -> Run<Sqlite> {
    let Run {
        random,
        model,
        store,
        mut followers,
        remote,
    } = run;
    drop(store);
    let store = Sqlite::open(path).unwrap();
    for Follower {
        prefix,
        after,
        watch,
    } in &mut followers
    {
        *watch = store.watch(prefix, *after).await.unwrap();
    }
    Run {
        random,
        model,
        store,
        followers,
        remote,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_does_what_the_model_does() {
    let mut random = random("model, etcd");
    for _ in 0..number("SAMPAN_RUNS", 20).div_ceil(10) {
        let Some(cluster) = Cluster::start(1, Pace::Fast) else {
            return;
        };
        let mut run = new(&mut random, cluster.open(0).await).await;
        run.remote = true;
        for _ in 0..300 {
            run.step().await;
        }
        run.end().await;
    }
}
