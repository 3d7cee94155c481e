//! The laws of sessions, on every implementation.

use std::time::Duration;

use futures::FutureExt;
use sampan_store::{
    BootInstant, Memory, Outcome, Revision, SESSION_MARGIN, Sqlite, Store, StoreError, Transaction,
};

use crate::{
    contract::Shared,
    fixture::{assert_quiet, child, commit, contents, get, next, put, revision, within},
};

const TTL: Duration = Duration::from_secs(10);

async fn entries_of_a_session_go_in_one_revision_when_it_ends(store: Shared) {
    let session = store.open_session(TTL).await.unwrap();
    let other = store.open_session(TTL).await.unwrap();
    assert_ne!(session.id(), other.id());
    put(&*store, "/stays", "1").await;
    let first = Transaction::new()
        .put_in(session.id(), "/a", "1")
        .put_in(other.id(), "/b", "1");
    commit(&*store, first).await;
    let more = Transaction::new().put_in(session.id(), "/c", "1");
    let before = commit(&*store, more).await;
    let entry = get(&*store, "/a").await;
    assert_eq!(
        (&entry.value[..], entry.session),
        (&b"1"[..], Some(session.id()))
    );
    assert_eq!(get(&*store, "/stays").await.session, None);
    let mut watch = store.watch("", before).await.unwrap();
    session.end().await.unwrap();
    let batch = next(&mut watch).await;
    let changes = batch.changes.iter();
    let gone: Vec<_> = changes.map(|it| (&*it.key, it.entry.is_none())).collect();
    assert_eq!(gone, [("/a", true), ("/c", true)]);
    assert_eq!(store.get("/a").await.unwrap(), None);
    get(&*store, "/b").await;
    get(&*store, "/stays").await;
    assert_quiet(&*store, &mut watch, "").await;
    other.end().await.unwrap();
    assert_eq!(&*next(&mut watch).await.changes[0].key, "/b");
}

async fn the_last_put_says_in_which_session_an_entry_is(store: Shared) {
    let one = store.open_session(TTL).await.unwrap();
    let two = store.open_session(TTL).await.unwrap();
    for key in ["/a", "/b", "/c"] {
        commit(&*store, Transaction::new().put_in(one.id(), key, "1")).await;
    }
    put(&*store, "/a", "2").await;
    commit(&*store, Transaction::new().put_in(two.id(), "/b", "2")).await;
    commit(&*store, Transaction::new().delete("/c")).await;
    put(&*store, "/c", "2").await;
    let start = revision(&*store).await;
    let mut watch = store.watch("", start).await.unwrap();
    one.end().await.unwrap();
    assert_quiet(&*store, &mut watch, "").await;
    assert_eq!(get(&*store, "/b").await.session, Some(two.id()));
    two.end().await.unwrap();
    let batch = next(&mut watch).await;
    assert_eq!(batch.changes.len(), 1);
    assert_eq!(&*batch.changes[0].key, "/b");
    assert_eq!(get(&*store, "/a").await.value, "2");
    assert_eq!(get(&*store, "/c").await.value, "2");
}

async fn nothing_is_put_in_a_session_that_has_ended(store: Shared) {
    let session = store.open_session(TTL).await.unwrap();
    let id = session.id();
    session.end().await.unwrap();
    let late = Transaction::new().put("/a", "1").put_in(id, "/b", "1");
    assert_eq!(store.commit(late).await, Err(StoreError::SessionOver(id)));
    assert_eq!(store.list("").await.unwrap().entries, []);
}

async fn a_session_is_valid_while_it_is_held(store: Shared) {
    let session = store.open_session(TTL).await.unwrap();
    commit(&*store, Transaction::new().put_in(session.id(), "/a", "1")).await;
    assert!(session.valid_until() > BootInstant::now());
    assert_eq!(session.lost().now_or_never(), None);
    get(&*store, "/a").await;
}

async fn a_session_of_a_closed_store_is_lost(store: Shared) {
    let session = store.open_session(TTL).await.unwrap();
    drop(store);
    within(session.lost()).await;
}

mod laws {
    contract! { memory sqlite shared etcd etcd_minus_one: [
        entries_of_a_session_go_in_one_revision_when_it_ends
        the_last_put_says_in_which_session_an_entry_is
        nothing_is_put_in_a_session_that_has_ended
        a_session_is_valid_while_it_is_held
        a_session_of_a_closed_store_is_lost
    ] }
}

#[tokio::test(start_paused = true)]
async fn in_memory_a_session_that_is_not_renewed_ends_after_its_time() {
    let store = Memory::new();
    let session = store.open_session(TTL).await.unwrap();
    let two = Transaction::new()
        .put_in(session.id(), "/a", "1")
        .put_in(session.id(), "/b", "1");
    let before = commit(&store, two).await;
    // As long as it is held it is renewed.
    tokio::time::sleep(10 * TTL).await;
    get(&store, "/a").await;
    assert!(session.valid_until() <= BootInstant::now().after(TTL - SESSION_MARGIN));
    drop(session);
    let mut watch = store.watch("", before).await.unwrap();
    tokio::time::sleep(TTL - Duration::from_millis(1)).await;
    get(&store, "/b").await;
    let batch = next(&mut watch).await;
    assert_eq!(batch.changes.len(), 2, "{batch:?}");
    assert_eq!(store.list("").await.unwrap().entries, []);
}

const STORE: &str = "SAMPAN_TEST_SESSIONS";

#[tokio::test]
async fn in_a_file_a_session_lasts_as_long_as_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    // The child ends without closing the store.
    let status = child("sessions::holder", STORE, &path).status().unwrap();
    assert!(status.success(), "{status}");
    let store = Sqlite::open(&path).unwrap();
    let (listing, history) = contents(&store).await;
    let keys: Vec<_> = listing.entries.iter().map(|entry| &*entry.key).collect();
    assert_eq!((keys, listing.revision), (vec!["/stays"], Revision(3)));
    let last = history.last().unwrap();
    let gone: Vec<_> = last
        .changes
        .iter()
        .map(|it| (&*it.key, it.entry.is_none()))
        .collect();
    assert_eq!(gone, [("/a", true), ("/b", true)]);
    // A session that is not ended is over when the store is opened again, and once only.
    let session = store.open_session(TTL).await.unwrap();
    commit(&store, Transaction::new().put_in(session.id(), "/a", "1")).await;
    drop(session);
    get(&store, "/a").await;
    drop(store);
    for _ in 0..2 {
        let store = Sqlite::open(&path).unwrap();
        assert_eq!(store.list("").await.unwrap().entries.len(), 1);
        assert_eq!(store.revision().await, Ok(Revision(5)));
    }
    let store = Sqlite::open(&path).unwrap();
    let session = store.open_session(TTL).await.unwrap();
    let again = Transaction::new()
        .put_in(session.id(), "/a", "1")
        .absent("/a");
    assert!(matches!(
        store.commit(again).await,
        Ok(Outcome::Committed(_))
    ));
}

/// Not a test of its own: the process that ends.
#[tokio::test]
async fn holder() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let store = Sqlite::open(path.as_ref()).unwrap();
    let session = store.open_session(TTL).await.unwrap();
    put(&store, "/stays", "1").await;
    let two = Transaction::new()
        .put_in(session.id(), "/a", "1")
        .put_in(session.id(), "/b", "1");
    commit(&store, two).await;
    // Its process ends, and it is not closed.
    std::mem::forget(store);
}
