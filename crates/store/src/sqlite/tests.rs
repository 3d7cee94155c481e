//! What only the inside of a store can show: slow disks, full disks, groups.

#![allow(clippy::unwrap_used)]

use std::sync::mpsc::sync_channel;

use futures::FutureExt;
use futures::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::state::HISTORY_TRANSACTIONS;

fn store() -> (TempDir, Sqlite) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("x")).unwrap();
    (folder, store)
}

/// Runs something on the thread that writes.
async fn run(store: &Sqlite, run: impl FnOnce(&mut Writer) + Send + 'static) {
    let (done, finished) = oneshot::channel();
    let run = Box::new(move |writer: &mut Writer| {
        run(writer);
        done.send(()).unwrap();
    });
    store.send(Request::Run(run)).await.unwrap();
    finished.await.unwrap();
}

fn put(key: &str, value: &str) -> Transaction {
    Transaction::new().put(key, value.to_owned())
}

#[tokio::test]
async fn reads_and_watches_neither_wait_for_the_disk_nor_run_ahead_of_it() {
    let (_folder, store) = store();
    let first = store.commit(put("/a", "1")).await;
    assert_eq!(first, Ok(Outcome::Committed(Revision(1))));
    let (entered, at_disk) = sync_channel(1);
    let (go, gate) = sync_channel(1);
    run(&store, move |writer| {
        writer.before_write = Some(Box::new(move || {
            entered.send(()).unwrap();
            gate.recv().unwrap();
        }));
    })
    .await;
    let mut watch = store.watch("", Revision(1)).await.unwrap();
    let mut second = store.commit(put("/a", "2"));
    assert!((&mut second).now_or_never().is_none());
    at_disk.recv().unwrap();
    // The disk is at it, and takes for ever.
    let entry = store.get("/a").now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(entry.value, "1");
    let listing = store.list("").now_or_never().unwrap().unwrap();
    assert_eq!(listing.revision, Revision(1));
    let revision = store.revision().now_or_never().unwrap().unwrap();
    assert_eq!(revision, Revision(1));
    assert!(watch.next().now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    go.send(()).unwrap();
    assert_eq!(second.await, Ok(Outcome::Committed(Revision(2))));
    let batch = watch.next().now_or_never().unwrap().unwrap();
    assert_eq!(batch.revision, Revision(2));
}

#[tokio::test]
async fn what_waits_becomes_durable_together_and_each_has_its_outcome() {
    let (_folder, store) = store();
    let (entered, at_disk) = sync_channel(8);
    let (go, gate) = sync_channel(8);
    run(&store, move |writer| {
        writer.before_write = Some(Box::new(move || {
            entered.send(()).unwrap();
            gate.recv().unwrap();
        }));
    })
    .await;
    let mut alone = store.commit(put("/alone", "1"));
    assert!((&mut alone).now_or_never().is_none());
    at_disk.recv().unwrap();
    let creating = (0..64).map(|number| {
        let key = format!("/{}", number / 2);
        store.commit(Transaction::new().absent(&*key).put(&*key, "1"))
    });
    // One poll reaches them all, however many there are.
    let mut creating = tokio::task::unconstrained(join_all(creating));
    assert!((&mut creating).now_or_never().is_none());
    go.send(()).unwrap();
    go.send(()).unwrap();
    let _ = alone.await.unwrap();
    let outcomes = creating.await;
    assert_eq!(at_disk.try_iter().count(), 1, "one group for 64");
    for (number, pair) in outcomes.chunks(2).enumerate() {
        let revision = Revision(number as u64 + 2);
        assert_eq!(pair[0], Ok(Outcome::Committed(revision)));
        let key = format!("/{number}").as_str().into();
        assert_eq!(pair[1], Ok(Outcome::Conflict(key)));
    }
}

#[tokio::test]
async fn a_full_disk_fails_writes_keeps_reads_and_heals() {
    let (folder, store) = store();
    let before = store.commit(put("/a", "1")).await;
    assert_eq!(before, Ok(Outcome::Committed(Revision(1))));
    let limit = |pages: u32| {
        run(&store, move |writer| {
            let connection = writer.connection();
            connection
                .pragma_update(None, "max_page_count", pages)
                .unwrap();
        })
    };
    limit(1).await;
    let mut watch = store.watch("", Revision(1)).await.unwrap();
    for _ in 0..3 {
        let large = Transaction::new().put("/b", vec![1; 1 << 16]).delete("/a");
        let full = store.commit(large).await;
        assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
        assert_eq!(store.get("/a").await.unwrap().unwrap().value, "1");
        assert_eq!(store.list("").await.unwrap().revision, Revision(1));
        assert!(watch.next().now_or_never().is_none());
    }
    limit(u32::MAX).await;
    let large = Transaction::new().put("/b", vec![1; 1 << 16]).delete("/a");
    let written = store.commit(large).await;
    assert_eq!(written, Ok(Outcome::Committed(Revision(2))));
    let listing = store.list("").await.unwrap();
    drop(watch);
    drop(store);
    let store = Sqlite::open(&folder.path().join("x")).unwrap();
    assert_eq!(store.list("").await.unwrap(), listing);
}

#[tokio::test]
async fn a_failure_fails_the_whole_group_and_nothing_of_it_stays() {
    let (_folder, store) = store();
    run(&store, |writer| {
        let connection = writer.connection();
        connection.pragma_update(None, "query_only", true).unwrap();
    })
    .await;
    let group = ["/a", "/a", "/b"].map(|key| Transaction::new().absent(key).put(key, "1"));
    let outcomes = join_all(group.map(|transaction| store.commit(transaction))).await;
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(StoreError::Failed { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(store.list("").await.unwrap().entries, []);
    run(&store, |writer| {
        let connection = writer.connection();
        connection.pragma_update(None, "query_only", false).unwrap();
    })
    .await;
    let written = store.commit(put("/a", "1")).await;
    assert_eq!(written, Ok(Outcome::Committed(Revision(1))));
}

#[tokio::test]
async fn the_history_in_the_file_is_bounded_and_survives() {
    let (folder, store) = store();
    let count = HISTORY_TRANSACTIONS + 200;
    let mut committed = 0;
    while committed < count {
        let group = (0..200).map(|number| store.commit(put(&format!("/{number}"), "1")));
        committed += join_all(group).await.len();
    }
    run(&store, |writer| {
        let connection = writer.connection();
        let rows = |row: &rusqlite::Row<'_>| row.get(0);
        let rows: u32 = connection
            .query_row("SELECT count(*) FROM log", [], rows)
            .unwrap();
        assert!(rows as usize <= HISTORY_TRANSACTIONS, "{rows} transactions");
    })
    .await;
    let compacted = store.published.read().compacted();
    assert!(compacted > Revision(0));
    drop(store);
    let store = Sqlite::open(&folder.path().join("x")).unwrap();
    assert_eq!(store.published.read().compacted(), compacted);
    let mut watch = store.watch("", compacted).await.unwrap();
    for revision in compacted.0 + 1..=committed as u64 {
        assert_eq!(watch.next().await.unwrap().revision, Revision(revision));
    }
}

#[tokio::test]
async fn a_watch_that_is_dropped_is_gone() {
    let (_folder, store) = store();
    let memory = crate::Memory::new();
    let stores: [&dyn Store; 2] = [&store, &memory];
    let mut watches = Vec::new();
    for store in stores {
        watches.push(store.watch("", Revision(0)).await.unwrap());
        watches.push(store.watch("", Revision(0)).await.unwrap());
    }
    assert_eq!((store.watches(), memory.watches()), (2, 2));
    drop(watches);
    assert_eq!((store.watches(), memory.watches()), (0, 0));
}
