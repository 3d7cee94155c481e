//! The contract suite: every law of `Store`, on every implementation.
//!
//! A law is a function of a store. A new implementation needs one line at the end of this file.

use std::sync::Arc;

use futures::future::join_all;
use sampan_store::{
    HISTORY_BYTES, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES, Outcome, Revision,
    Store, StoreError, Transaction, TransactionError, WatchError,
};

use crate::fixture::{self, assert_quiet, commit, get, next, put, within};

type Shared = Arc<dyn Store>;

async fn a_new_store_is_empty_and_at_revision_0(store: Shared) {
    let listing = store.list("").await.unwrap();
    assert_eq!((listing.entries.len(), listing.revision), (0, Revision(0)));
    assert_eq!(store.revision().await.unwrap(), Revision(0));
    assert_eq!(store.get("/a").await.unwrap(), None);
}

async fn reads_show_what_was_acknowledged(store: Shared) {
    for number in 1..=20 {
        let revision = put(&*store, "/a", &number.to_string()).await;
        assert_eq!(revision, Revision(number));
        let entry = get(&*store, "/a").await;
        assert_eq!(entry.value, number.to_string());
        assert_eq!((entry.created, entry.modified), (Revision(1), revision));
        assert_eq!(store.list("/").await.unwrap().revision, revision);
        assert_eq!(store.revision().await.unwrap(), revision);
    }
}

async fn values_are_any_bytes_and_keys_any_text(store: Shared) {
    let bytes: Vec<u8> = (0..=255).collect();
    let keys = ["/ü/\u{1f6a2}", " ", "%_'\"\\", "/\u{0}/nul", "\u{10ffff}"];
    for key in keys {
        commit(&*store, Transaction::new().put(key, bytes.clone())).await;
        commit(&*store, Transaction::new().put(format!("{key}/empty"), "")).await;
    }
    for key in keys {
        assert_eq!(get(&*store, key).await.value, bytes);
        assert_eq!(get(&*store, &format!("{key}/empty")).await.value, "");
        assert_eq!(store.list(key).await.unwrap().entries.len(), 2);
    }
}

async fn a_listing_is_sorted_and_has_what_is_below_the_prefix(store: Shared) {
    for key in ["/b/2", "/b/10", "/b", "/a", "/c", "/bb", "/b/"] {
        put(&*store, key, key).await;
    }
    let keys = async |prefix: &str| -> Vec<String> {
        let entries = store.list(prefix).await.unwrap().entries;
        entries.iter().map(|entry| entry.key.to_string()).collect()
    };
    assert_eq!(keys("/b/").await, ["/b/", "/b/10", "/b/2"]);
    assert_eq!(keys("/b").await, ["/b", "/b/", "/b/10", "/b/2", "/bb"]);
    assert_eq!(keys("").await.len(), 7);
    assert_eq!(keys("/d").await.len(), 0);
}

async fn a_transaction_is_all_or_nothing(store: Shared) {
    let first = put(&*store, "/a", "1").await;
    let conflicting = Transaction::new()
        .compare("/a", first)
        .absent("/b")
        .compare("/c", first)
        .compare("/d", first)
        .put("/a", "2")
        .put("/b", "2")
        .delete("/a/x");
    assert_eq!(
        store.commit(conflicting).await.unwrap(),
        Outcome::Conflict("/c".into())
    );
    assert_eq!(store.revision().await.unwrap(), first);
    assert_eq!(get(&*store, "/a").await.value, "1");
    assert_eq!(store.get("/b").await.unwrap(), None);

    let agreeing = Transaction::new()
        .compare("/a", first)
        .absent("/b")
        .delete("/a")
        .put("/b", "2")
        .put("/c", "2");
    let second = commit(&*store, agreeing).await;
    assert_eq!(second, Revision(2));
    let entries = store.list("").await.unwrap().entries;
    assert_eq!(entries.len(), 2);
    assert!(
        entries
            .iter()
            .all(|entry| entry.created == second && entry.modified == second)
    );
}

async fn compares_look_at_the_last_modification(store: Shared) {
    let created = put(&*store, "/a", "1").await;
    let modified = put(&*store, "/a", "1").await;
    assert!(modified > created, "the same value again is a change");
    for (expected, agrees) in [(Revision(0), false), (created, false), (modified, true)] {
        let outcome = store.commit(Transaction::new().compare("/a", expected));
        let wanted = match agrees {
            true => Outcome::Committed(modified),
            false => Outcome::Conflict("/a".into()),
        };
        assert_eq!(outcome.await.unwrap(), wanted);
    }
}

async fn what_changes_nothing_has_no_revision(store: Shared) {
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    assert_eq!(commit(&*store, Transaction::new()).await, Revision(0));
    let delete = Transaction::new().delete("/a").delete("/b");
    assert_eq!(commit(&*store, delete.clone()).await, Revision(0));
    assert_quiet(&mut watch);
    put(&*store, "/b", "1").await;
    assert_eq!(commit(&*store, delete.clone()).await, Revision(2));
    assert_eq!(commit(&*store, delete).await, Revision(2));
    assert_eq!(next(&mut watch).await.revision, Revision(1));
    let batch = next(&mut watch).await;
    assert_eq!(batch.changes.len(), 1, "only `/b` was there: {batch:?}");
    assert_quiet(&mut watch);
}

async fn a_key_put_again_is_another_entry(store: Shared) {
    put(&*store, "/a", "1").await;
    commit(&*store, Transaction::new().delete("/a")).await;
    assert_eq!(store.get("/a").await.unwrap(), None);
    let revision = commit(&*store, Transaction::new().absent("/a").put("/a", "1")).await;
    let entry = get(&*store, "/a").await;
    assert_eq!((entry.created, entry.modified), (revision, revision));
    assert_eq!(revision, Revision(3));
}

async fn what_can_never_be_committed_is_refused(store: Shared) {
    let twice = Transaction::new().put("/a", "1").delete("/a");
    let key = "/a".into();
    assert_eq!(
        store.commit(twice).await,
        Err(StoreError::Refused(TransactionError::Twice { key }))
    );
    let large = Transaction::new()
        .put("/b", "1")
        .put("/a", vec![0; MAX_VALUE_BYTES + 1]);
    let refused = store.commit(large).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(store.revision().await.unwrap(), Revision(0));
    assert_eq!(store.get("/b").await.unwrap(), None);
}

async fn the_largest_transaction_is_whole(store: Shared) {
    let mut watch = store.watch("/", Revision(0)).await.unwrap();
    let bytes = MAX_TRANSACTION_BYTES / MAX_OPERATIONS - 20;
    let all = |value: u8, seen: Revision| {
        let writes = (0..MAX_OPERATIONS).map(|it| format!("/{it:05}"));
        writes.fold(Transaction::new(), |transaction, key| {
            let transaction = transaction.compare(key.as_str(), seen);
            transaction.put(key, vec![value; bytes])
        })
    };
    let first = commit(&*store, all(1, Revision(0))).await;
    assert_eq!(next(&mut watch).await.changes.len(), MAX_OPERATIONS);
    // One key that differs, the last of all.
    let last = format!("/{:05}", MAX_OPERATIONS - 1);
    put(&*store, &last, "other").await;
    let refused = store.commit(all(2, first)).await.unwrap();
    assert_eq!(refused, Outcome::Conflict(last.as_str().into()));
    let entries = store.list("/").await.unwrap().entries;
    assert_eq!(entries.len(), MAX_OPERATIONS);
    assert!(entries.iter().all(|entry| entry.value.first() != Some(&2)));
}

async fn a_listing_is_one_snapshot(store: Shared) {
    let mut start = Transaction::new();
    for number in 0..10 {
        start = start.put(format!("/{number}"), "10");
    }
    commit(&*store, start).await;
    let mover = store.clone();
    let moving = tokio::spawn(async move {
        for step in 0..200_u64 {
            let (from, to) = (step % 10, (step * 7 + 3) % 10);
            if from == to {
                continue;
            }
            let mut transaction = Transaction::new();
            for (number, change) in [(from, -1), (to, 1)] {
                let entry = get(&*mover, &format!("/{number}")).await;
                let held: i64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                transaction = transaction
                    .compare(entry.key.clone(), entry.modified)
                    .put(entry.key, (held + change).to_string());
            }
            commit(&*mover, transaction).await;
        }
    });
    let mut looked = 0;
    while !moving.is_finished() || looked == 0 {
        let listing = store.list("").await.unwrap();
        let held = |bytes: &[u8]| -> i64 { std::str::from_utf8(bytes).unwrap().parse().unwrap() };
        let sum: i64 = listing.entries.iter().map(|entry| held(&entry.value)).sum();
        assert_eq!(sum, 100, "{listing:?}");
        let newest = listing.entries.iter().map(|entry| entry.modified).max();
        assert_eq!(newest, Some(listing.revision));
        looked += 1;
        tokio::task::yield_now().await;
    }
    moving.await.unwrap();
}

async fn a_watch_delivers_all_once_in_order_and_whole(store: Shared) {
    let mut early = store.watch("/a/", Revision(0)).await.unwrap();
    for number in 1..=30_u64 {
        let transaction = match number % 3 {
            0 => Transaction::new().put("/b", "1").delete("/c"),
            1 => Transaction::new()
                .put("/b", "1")
                .put("/a/2", number.to_string())
                .put("/a", "not below")
                .put("/a/1", number.to_string()),
            _ => Transaction::new().delete("/a/1").put("/b", "1"),
        };
        commit(&*store, transaction).await;
    }
    let mut late = store.watch("/a/", Revision(0)).await.unwrap();
    let mut middle = store.watch("/a/", Revision(13)).await.unwrap();
    for number in (1..=30_u64).filter(|number| number % 3 != 0) {
        let batch = next(&mut early).await;
        assert_eq!(batch.revision, Revision(number));
        let keys: Vec<_> = batch.changes.iter().map(|change| &*change.key).collect();
        match number % 3 {
            1 => {
                assert_eq!(keys, ["/a/2", "/a/1"]);
                let entry = batch.changes[0].entry.as_ref().unwrap();
                assert_eq!(entry.value, number.to_string());
                assert_eq!(
                    (entry.created, entry.modified),
                    (Revision(1), Revision(number))
                );
                let entry = batch.changes[1].entry.as_ref().unwrap();
                assert_eq!(entry.created, Revision(number), "it had been deleted");
            }
            _ => {
                assert_eq!(keys, ["/a/1"]);
                assert_eq!(batch.changes[0].entry, None);
            }
        }
        assert_eq!(next(&mut late).await, batch);
        if number > 13 {
            assert_eq!(next(&mut middle).await, batch);
        }
    }
    for watch in [&mut early, &mut late, &mut middle] {
        assert_quiet(watch);
    }
}

async fn a_watch_continues_where_a_listing_ends(store: Shared) {
    put(&*store, "/a", "1").await;
    let listing = store.list("/").await.unwrap();
    let mut watch = store.watch("/", listing.revision).await.unwrap();
    assert_quiet(&mut watch);
    let revision = put(&*store, "/a", "2").await;
    assert_eq!(next(&mut watch).await.revision, revision);
}

async fn a_watch_from_the_future_waits(store: Shared) {
    let mut watch = store.watch("", Revision(3)).await.unwrap();
    for _ in 0..3 {
        put(&*store, "/a", "1").await;
        assert_quiet(&mut watch);
    }
    let revision = put(&*store, "/a", "1").await;
    assert_eq!(next(&mut watch).await.revision, revision);
}

async fn a_waiting_watch_is_woken(store: Shared) {
    let mut watch = store.watch("/a", Revision(0)).await.unwrap();
    let waiting = tokio::spawn(async move { next(&mut watch).await });
    tokio::task::yield_now().await;
    put(&*store, "/b", "1").await;
    let revision = put(&*store, "/a", "1").await;
    assert_eq!(within(waiting).await.unwrap().revision, revision);
}

async fn giving_up_on_next_loses_nothing(store: Shared) {
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    for _ in 0..3 {
        assert_quiet(&mut watch);
        let first = put(&*store, "/a", "1").await;
        let second = put(&*store, "/a", "1").await;
        drop(watch.next());
        assert_eq!(next(&mut watch).await.revision, first);
        assert_eq!(next(&mut watch).await.revision, second);
    }
}

async fn a_slow_watch_loses_nothing_until_compaction_passes_it(store: Shared) {
    let mut watch = store.watch("/a", Revision(0)).await.unwrap();
    let mut dead = store.watch("/b", Revision(0)).await.unwrap();
    let writes = (0..600).map(|_| put(&*store, "/a", "1"));
    join_all(writes).await;
    for number in 1..=300 {
        assert_eq!(next(&mut watch).await.revision, Revision(number));
    }
    store.compact(Revision(300)).await.unwrap();
    for number in 301..=500 {
        assert_eq!(next(&mut watch).await.revision, Revision(number));
    }
    store.compact(Revision(600)).await.unwrap();
    let oldest = Revision(600);
    for _ in 0..2 {
        let gone = within(watch.next()).await;
        assert_eq!(gone, Err(WatchError::Compacted { oldest }));
        let gone = within(dead.next()).await;
        assert_eq!(gone, Err(WatchError::Compacted { oldest }));
    }
    let mut again = store.watch("/a", oldest).await.unwrap();
    assert_quiet(&mut again);
}

async fn compaction_forgets_history_and_no_entries(store: Shared) {
    for key in ["/a", "/b", "/c"] {
        put(&*store, key, key).await;
    }
    commit(&*store, Transaction::new().delete("/b")).await;
    let before = store.list("").await.unwrap();
    store.compact(Revision(4)).await.unwrap();
    store.compact(Revision(2)).await.unwrap();
    store.compact(Revision(0)).await.unwrap();
    assert_eq!(store.list("").await.unwrap(), before);
    let (asked, revision) = (Revision(5), Revision(4));
    assert_eq!(
        store.compact(asked).await,
        Err(StoreError::Future { asked, revision })
    );
    let mut watch = store.watch("", Revision(1)).await.unwrap();
    let gone = within(watch.next()).await;
    assert!(
        matches!(gone, Err(WatchError::Compacted { .. })),
        "{gone:?}"
    );
    assert_eq!(put(&*store, "/a", "1").await, Revision(5));
}

async fn history_is_bounded_unasked(store: Shared) {
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    let count = HISTORY_BYTES / MAX_VALUE_BYTES + 2;
    for _ in 0..count {
        let large = Transaction::new().put("/a", vec![1; MAX_VALUE_BYTES]);
        commit(&*store, large).await;
    }
    let Err(WatchError::Compacted { oldest }) = within(watch.next()).await else {
        panic!("{count} MiB are still there");
    };
    let mut watch = store.watch("", oldest).await.unwrap();
    assert_eq!(next(&mut watch).await.revision, Revision(oldest.0 + 1));
}

async fn of_many_who_create_a_key_one_does(store: Shared) {
    for round in 0..10 {
        let key = format!("/{round}");
        let tries = (0..32).map(|number| {
            let transaction = Transaction::new()
                .absent(&*key)
                .put(&*key, number.to_string());
            store.commit(transaction)
        });
        let outcomes = join_all(tries).await;
        let won = |outcome: &Result<Outcome, _>| matches!(outcome, Ok(Outcome::Committed(_)));
        assert_eq!(outcomes.iter().filter(|outcome| won(outcome)).count(), 1);
        let lost = Ok(Outcome::Conflict(key.as_str().into()));
        assert_eq!(
            outcomes.iter().filter(|&outcome| *outcome == lost).count(),
            31
        );
    }
    assert_eq!(store.revision().await.unwrap(), Revision(10));
}

async fn concurrent_increments_lose_none(store: Shared) {
    put(&*store, "/count", "0").await;
    let tasks = (0..16).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                loop {
                    let entry = get(&*store, "/count").await;
                    let count: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                    let transaction = Transaction::new()
                        .compare("/count", entry.modified)
                        .put("/count", (count + 1).to_string());
                    match store.commit(transaction).await.unwrap() {
                        Outcome::Committed(_) => break,
                        Outcome::Conflict(_) => {}
                    }
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(get(&*store, "/count").await.value, "320");
    assert_eq!(store.revision().await.unwrap(), Revision(321));
}

async fn a_watch_of_a_closed_store_says_so(store: Shared) {
    let mut watch = store.watch("", Revision(0)).await.unwrap();
    let revision = put(&*store, "/a", "1").await;
    drop(store);
    assert_eq!(next(&mut watch).await.revision, revision);
    for _ in 0..2 {
        assert_eq!(within(watch.next()).await, Err(WatchError::Closed));
    }
}

macro_rules! contract {
    ($($fixture:ident: $laws:tt)*) => {
        $(mod $fixture { contract!(@laws $fixture $laws); })*
    };
    (@laws $fixture:ident [$($law:ident)*]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                let crate::fixture::Fixture { store, folder: _folder } = super::fixture::$fixture();
                super::$law(store).await;
            }
        )*
    };
}

macro_rules! on_each {
    ($($fixture:ident)*) => {
        contract! { $($fixture: [
            a_new_store_is_empty_and_at_revision_0
            reads_show_what_was_acknowledged
            values_are_any_bytes_and_keys_any_text
            a_listing_is_sorted_and_has_what_is_below_the_prefix
            a_transaction_is_all_or_nothing
            compares_look_at_the_last_modification
            what_changes_nothing_has_no_revision
            a_key_put_again_is_another_entry
            what_can_never_be_committed_is_refused
            the_largest_transaction_is_whole
            a_listing_is_one_snapshot
            a_watch_delivers_all_once_in_order_and_whole
            a_watch_continues_where_a_listing_ends
            a_watch_from_the_future_waits
            a_waiting_watch_is_woken
            giving_up_on_next_loses_nothing
            a_slow_watch_loses_nothing_until_compaction_passes_it
            compaction_forgets_history_and_no_entries
            history_is_bounded_unasked
            of_many_who_create_a_key_one_does
            concurrent_increments_lose_none
            a_watch_of_a_closed_store_says_so
        ])* }
    };
}

on_each! { memory sqlite }
