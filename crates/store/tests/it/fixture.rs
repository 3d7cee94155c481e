//! What the tests share.

use std::any::Any;
use std::fmt::Debug;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sampan_store::{
    Batch, Entry, Listing, Memory, Outcome, Revision, Sqlite, Store, Transaction, Watch, WatchError,
};

use crate::{
    members::{Cluster, Pace},
    shared::Prefixed,
};

/// A test that waits for longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A store, and what must stay while it is used.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kept: Box<dyn Any + Send>,
}

/// `None` where what it needs is not installed.
type Made = Option<Fixture>;

fn made(store: impl Store, kept: impl Any + Send) -> Made {
    Some(Fixture {
        store: Arc::new(store),
        kept: Box::new(kept),
    })
}

pub(crate) async fn memory() -> Made {
    made(Memory::new(), ())
}

pub(crate) async fn sqlite() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("store")).unwrap();
    made(store, folder)
}

/// A store below a prefix of one that others write to as well.
pub(crate) async fn shared() -> Made {
    made(Prefixed::default(), ())
}

/// An etcd with one member.
pub(crate) async fn etcd() -> Made {
    let cluster = Cluster::start(1, Pace::Fast)?;
    made(cluster.open(0).await, cluster)
}

/// An etcd with three members, of which the one is killed that the store asks.
pub(crate) async fn etcd_minus_one() -> Made {
    let mut cluster = Cluster::start(3, Pace::Fast)?;
    let first = fastrand::usize(..3);
    let store = cluster.open(first).await;
    cluster.kill(first);
    // Once it asks another one, and there is a leader, the laws hold as before.
    store.revision().await.unwrap();
    made(store, cluster)
}

/// Commits what must not conflict.
pub(crate) async fn commit(store: &dyn Store, transaction: Transaction) -> Revision {
    match store.commit(transaction).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict(key) => panic!("a conflict at `{key}`"),
    }
}

pub(crate) async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    commit(store, Transaction::new().put(key, value.to_owned())).await
}

pub(crate) async fn get(store: &dyn Store, key: &str) -> Entry {
    let entry = store.get(key).await.unwrap();
    entry.unwrap_or_else(|| panic!("no `{key}`"))
}

/// The next batch, which must come.
pub(crate) async fn next(watch: &mut Watch) -> Batch {
    within(watch.next()).await.unwrap()
}

/// That nothing is to be delivered: what is written now comes next. `prefix` is the watch's.
pub(crate) async fn assert_quiet(store: &dyn Store, watch: &mut Watch, prefix: &str) {
    let key = format!("{prefix}/sentinel");
    let sentinel = put(store, &key, "").await;
    let batch = next(watch).await;
    assert_eq!(batch.revision, sentinel, "the watch delivers {batch:?}");
    let deleted = commit(store, Transaction::new().delete(key)).await;
    assert_eq!(next(watch).await.revision, deleted);
}

/// The revision of the last change.
pub(crate) async fn revision(store: &dyn Store) -> Revision {
    store.revision().await.unwrap()
}

/// Waits, but not for ever.
pub(crate) async fn within<T: Debug>(future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.expect("a deadline of a minute")
}

/// Everything that a store says: its entries, and its history.
pub(crate) async fn contents(store: &dyn Store) -> (Listing, Vec<Batch>) {
    let listing = store.list("").await.unwrap();
    let mut after = Revision(0);
    let mut watch = store.watch("", after).await.unwrap();
    let mut history = Vec::new();
    while after < listing.revision {
        match within(watch.next()).await {
            Ok(batch) => {
                after = batch.revision;
                history.push(batch);
            }
            Err(WatchError::Compacted { oldest }) => {
                after = oldest;
                watch = store.watch("", after).await.unwrap();
            }
            Err(WatchError::Closed) => panic!("the store is closed"),
        }
    }
    (listing, history)
}

/// This binary again, in another process, to run one test that does something only if it finds
/// `variable` in its environment.
pub(crate) fn child(test: &str, variable: &str, value: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(variable, value);
    command
}

/// A number from the environment, for longer runs.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => default,
    }
}

/// Random numbers, the same again with `SAMPAN_SEED`.
pub(crate) fn random(test: &str) -> fastrand::Rng {
    let seed = number("SAMPAN_SEED", fastrand::u64(..));
    println!("{test}: SAMPAN_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
