//! What the tests share.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use sampan_store::{Batch, Entry, Memory, Outcome, Revision, Sqlite, Store, Transaction, Watch};
use tempfile::TempDir;

/// A test that waits for longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A store, and what must stay while it is used.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) folder: Option<TempDir>,
}

pub(crate) fn memory() -> Fixture {
    Fixture {
        store: Arc::new(Memory::new()),
        folder: None,
    }
}

pub(crate) fn sqlite() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    Fixture {
        store: Arc::new(Sqlite::open(&folder.path().join("store")).unwrap()),
        folder: Some(folder),
    }
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

/// That nothing is there to be delivered: a store tells its watches before it acknowledges.
pub(crate) fn assert_quiet(watch: &mut Watch) {
    let now = watch.next().now_or_never();
    assert!(now.is_none(), "the watch delivers {now:?}");
}

/// Waits, but not for ever.
pub(crate) async fn within<T: Debug>(future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.expect("a deadline of a minute")
}
