//! The contract suite: every law of `Store`, on every implementation.
//!
//! A law is a function of a store. A new implementation needs one line at the end of this file.
//! Revisions are those that the store names: it may have used others before, and in between.

use std::sync::Arc;

use futures::{FutureExt, future::join_all};
use sampan_store::{
    HISTORY_BYTES, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES, Outcome, Revision,
    Store, StoreError, Transaction, TransactionError, Watch, WatchError,
};

use crate::fixture::{assert_quiet, commit, get, next, put, revision, within};

pub(crate) type Shared = Arc<dyn Store>;

async fn a_new_store_is_empty(store: Shared) {
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.entries, []);
    assert_eq!(store.get("/a").await.unwrap(), None);
    assert!(put(&*store, "/a", "1").await > listing.revision);
}

async fn reads_show_what_was_acknowledged(store: Shared) {
    let mut last = revision(&*store).await;
    let mut created = None;
    for number in 1..=20 {
        let modified = put(&*store, "/a", &number.to_string()).await;
        assert!(modified > last, "{modified} follows on {last}");
        let entry = get(&*store, "/a").await;
        assert_eq!(entry.value, number.to_string());
        let created = *created.get_or_insert(modified);
        assert_eq!((entry.created, entry.modified), (created, modified));
        assert!(store.list("/").await.unwrap().revision >= modified);
        assert!(revision(&*store).await >= modified);
        last = modified;
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
    let mut watch = store.watch("", first).await.unwrap();
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
    assert_eq!(get(&*store, "/a").await.value, "1");
    assert_eq!(store.get("/b").await.unwrap(), None);

    let agreeing = Transaction::new()
        .compare("/a", first)
        .absent("/b")
        .delete("/a")
        .put("/b", "2")
        .put("/c", "2");
    let second = commit(&*store, agreeing).await;
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, batch.changes.len()), (second, 3));
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
        match outcome.await.unwrap() {
            Outcome::Committed(present) => assert!(agrees && present >= modified),
            Outcome::Conflict(key) => assert_eq!((&*key, agrees), ("/a", false)),
        }
    }
}

async fn what_changes_nothing_is_in_no_watch(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("", start).await.unwrap();
    assert!(commit(&*store, Transaction::new()).await >= start);
    let delete = Transaction::new().delete("/a").delete("/b");
    assert!(commit(&*store, delete.clone()).await >= start);
    assert_quiet(&*store, &mut watch, "").await;
    let put_at = put(&*store, "/b", "1").await;
    let deleted = commit(&*store, delete.clone()).await;
    assert!(commit(&*store, delete).await >= deleted);
    assert_eq!(next(&mut watch).await.revision, put_at);
    let batch = next(&mut watch).await;
    assert_eq!(batch.revision, deleted);
    assert_eq!(batch.changes.len(), 1, "only `/b` was there: {batch:?}");
    assert_quiet(&*store, &mut watch, "").await;
}

async fn a_key_put_again_is_another_entry(store: Shared) {
    let first = put(&*store, "/a", "1").await;
    commit(&*store, Transaction::new().delete("/a")).await;
    assert_eq!(store.get("/a").await.unwrap(), None);
    let again = commit(&*store, Transaction::new().absent("/a").put("/a", "1")).await;
    let entry = get(&*store, "/a").await;
    assert_eq!((entry.created, entry.modified), (again, again));
    assert!(again > first);
}

async fn what_can_never_be_committed_is_refused(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("", start).await.unwrap();
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
    assert_eq!(store.get("/b").await.unwrap(), None);
    assert_quiet(&*store, &mut watch, "").await;
}

async fn the_largest_transaction_is_whole(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("/", start).await.unwrap();
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
        let mut modified = listing.entries.iter().map(|entry| entry.modified);
        assert!(modified.all(|modified| modified <= listing.revision));
        looked += 1;
        tokio::task::yield_now().await;
    }
    moving.await.unwrap();
}

async fn a_watch_delivers_all_once_in_order_and_whole(store: Shared) {
    let start = revision(&*store).await;
    let mut early = store.watch("/a/", start).await.unwrap();
    let mut revisions = Vec::new();
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
        revisions.push(commit(&*store, transaction).await);
    }
    let mut late = store.watch("/a/", start).await.unwrap();
    let mut middle = store.watch("/a/", revisions[12]).await.unwrap();
    for (number, &revision) in (1..).zip(&revisions).filter(|(number, _)| number % 3 != 0) {
        let batch = next(&mut early).await;
        assert_eq!(batch.revision, revision);
        let keys: Vec<_> = batch.changes.iter().map(|change| &*change.key).collect();
        match number % 3 {
            1 => {
                assert_eq!(keys, ["/a/2", "/a/1"]);
                let entry = batch.changes[0].entry.as_ref().unwrap();
                assert_eq!(entry.value, number.to_string());
                assert_eq!((entry.created, entry.modified), (revisions[0], revision));
                let entry = batch.changes[1].entry.as_ref().unwrap();
                assert_eq!(entry.created, revision, "it had been deleted");
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
    let last = put(&*store, "/a/last", "1").await;
    for watch in [&mut early, &mut late, &mut middle] {
        assert_eq!(next(watch).await.revision, last);
    }
}

async fn a_watch_continues_where_a_listing_ends(store: Shared) {
    put(&*store, "/a", "1").await;
    let listing = store.list("/").await.unwrap();
    let mut watch = store.watch("/", listing.revision).await.unwrap();
    let later = put(&*store, "/a", "2").await;
    assert_eq!(next(&mut watch).await.revision, later);
}

async fn a_watch_from_the_future_waits(store: Shared) {
    let after = Revision(revision(&*store).await.0 + 3);
    let mut watch = store.watch("", after).await.unwrap();
    let first = loop {
        let written = put(&*store, "/a", "1").await;
        if written > after {
            break written;
        }
    };
    assert_eq!(next(&mut watch).await.revision, first);
}

async fn a_waiting_watch_is_woken(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("/a", start).await.unwrap();
    let waiting = tokio::spawn(async move { next(&mut watch).await });
    tokio::task::yield_now().await;
    put(&*store, "/b", "1").await;
    let written = put(&*store, "/a", "1").await;
    assert_eq!(within(waiting).await.unwrap().revision, written);
}

async fn giving_up_on_next_loses_nothing(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("", start).await.unwrap();
    for _ in 0..3 {
        // It has begun to wait.
        assert_eq!(watch.next().now_or_never(), None);
        let first = put(&*store, "/a", "1").await;
        let second = put(&*store, "/a", "1").await;
        drop(watch.next());
        assert_eq!(next(&mut watch).await.revision, first);
        assert_eq!(next(&mut watch).await.revision, second);
    }
}

async fn a_slow_watch_is_told_or_given_everything(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("/a", start).await.unwrap();
    let mut dead = store.watch("/b", start).await.unwrap();
    let writes = (0..600).map(|_| put(&*store, "/a", "1"));
    let mut written = join_all(writes).await;
    written.sort();
    for revision in &written[..300] {
        assert_eq!(next(&mut watch).await.revision, *revision);
    }
    store.compact(written[299]).await.unwrap();
    for revision in &written[300..500] {
        assert_eq!(next(&mut watch).await.revision, *revision);
    }
    store.compact(written[599]).await.unwrap();
    let mut later = written[500..].to_vec();
    later.push(put(&*store, "/a", "2").await);
    told_or_given(&mut watch, &later).await;
    let other = put(&*store, "/b", "1").await;
    told_or_given(&mut dead, &[other]).await;
    let mut again = store.watch("/a", written[599]).await.unwrap();
    assert_eq!(next(&mut again).await.revision, later[100]);
}

/// That a watch delivers all these, or says that it cannot, and stands by it.
async fn told_or_given(watch: &mut Watch, revisions: &[Revision]) {
    for revision in revisions {
        match within(watch.next()).await {
            Ok(batch) => assert_eq!(batch.revision, *revision),
            told => {
                assert!(matches!(told, Err(WatchError::Compacted { .. })));
                assert_eq!(within(watch.next()).await, told);
                return;
            }
        }
    }
}

async fn a_watch_that_compaction_has_passed_is_told_at_once(store: Shared) {
    let start = revision(&*store).await;
    let mut watches = [
        store.watch("/a", start).await.unwrap(),
        store.watch("/b", start).await.unwrap(),
    ];
    put(&*store, "/a", "1").await;
    let oldest = put(&*store, "/a", "1").await;
    store.compact(oldest).await.unwrap();
    for watch in &mut watches {
        for _ in 0..2 {
            let gone = within(watch.next()).await;
            assert_eq!(gone, Err(WatchError::Compacted { oldest }));
        }
    }
    let mut again = store.watch("/a", oldest).await.unwrap();
    assert_quiet(&*store, &mut again, "/a").await;
}

async fn compaction_forgets_history_and_no_entries(store: Shared) {
    let start = revision(&*store).await;
    let first = put(&*store, "/a", "1").await;
    let second = put(&*store, "/b", "1").await;
    put(&*store, "/c", "1").await;
    let last = commit(&*store, Transaction::new().delete("/b")).await;
    let before = store.list("").await.unwrap().entries;
    for through in [last, second, start] {
        store.compact(through).await.unwrap();
    }
    assert_eq!(store.list("").await.unwrap().entries, before);
    let future = Revision(revision(&*store).await.0 + 1000);
    let refused = store.compact(future).await;
    assert!(
        matches!(refused, Err(StoreError::Future { asked, revision }) if asked == future && revision >= last),
        "{refused:?}"
    );
    let mut watch = store.watch("", first).await.unwrap();
    let gone = within(watch.next()).await;
    assert!(
        matches!(gone, Err(WatchError::Compacted { .. })),
        "{gone:?}"
    );
    assert!(put(&*store, "/a", "1").await > last);
}

async fn history_is_bounded_unasked(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("", start).await.unwrap();
    let count = HISTORY_BYTES / MAX_VALUE_BYTES + 2;
    let mut written = Vec::new();
    for _ in 0..count {
        let large = Transaction::new().put("/a", vec![1; MAX_VALUE_BYTES]);
        written.push(commit(&*store, large).await);
    }
    let Err(WatchError::Compacted { oldest }) = within(watch.next()).await else {
        panic!("{count} MiB are still there");
    };
    let mut watch = store.watch("", oldest).await.unwrap();
    let remembered = written.iter().find(|revision| **revision > oldest);
    assert_eq!(Some(&next(&mut watch).await.revision), remembered);
}

async fn of_many_who_create_a_key_one_does(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("", start).await.unwrap();
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
        assert_eq!(&*next(&mut watch).await.changes[0].key, key);
    }
    assert_quiet(&*store, &mut watch, "").await;
}

async fn concurrent_increments_lose_none(store: Shared) {
    let start = put(&*store, "/count", "0").await;
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
    let mut watch = store.watch("", start).await.unwrap();
    for count in 1..=320 {
        let batch = next(&mut watch).await;
        let entry = batch.changes[0].entry.as_ref().unwrap();
        assert_eq!(entry.value, count.to_string());
    }
    assert_quiet(&*store, &mut watch, "").await;
}

async fn a_watch_of_a_closed_store_says_so(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("", start).await.unwrap();
    let written = put(&*store, "/a", "1").await;
    drop(store);
    if let Ok(batch) = within(watch.next()).await {
        assert_eq!(batch.revision, written);
    }
    for _ in 0..2 {
        assert_eq!(within(watch.next()).await, Err(WatchError::Closed));
    }
}

async fn a_watch_of_a_closed_store_delivers_what_was_acknowledged(store: Shared) {
    let start = revision(&*store).await;
    let mut watch = store.watch("", start).await.unwrap();
    let written = put(&*store, "/a", "1").await;
    drop(store);
    assert_eq!(next(&mut watch).await.revision, written);
}

macro_rules! contract {
    ($($fixture:ident)*: $laws:tt) => {
        $(mod $fixture { contract!(@laws $fixture $laws); })*
    };
    (@laws $fixture:ident [$($law:ident)*]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                if let Some(fixture) = crate::fixture::$fixture().await {
                    let crate::fixture::Fixture { store, kept: _kept } = fixture;
                    super::super::$law(store).await;
                }
            }
        )*
    };
}

/// What every store does.
mod laws {
    contract! { memory sqlite shared etcd etcd_minus_one: [
        a_new_store_is_empty
        reads_show_what_was_acknowledged
        values_are_any_bytes_and_keys_any_text
        a_listing_is_sorted_and_has_what_is_below_the_prefix
        a_transaction_is_all_or_nothing
        compares_look_at_the_last_modification
        what_changes_nothing_is_in_no_watch
        a_key_put_again_is_another_entry
        what_can_never_be_committed_is_refused
        the_largest_transaction_is_whole
        a_listing_is_one_snapshot
        a_watch_delivers_all_once_in_order_and_whole
        a_watch_continues_where_a_listing_ends
        a_watch_from_the_future_waits
        a_waiting_watch_is_woken
        giving_up_on_next_loses_nothing
        a_slow_watch_is_told_or_given_everything
        compaction_forgets_history_and_no_entries
        of_many_who_create_a_key_one_does
        concurrent_increments_lose_none
        a_watch_of_a_closed_store_says_so
    ] }
}

/// What the stores of this crate do besides, and one on the other side of a network cannot.
mod ours {
    contract! { memory sqlite: [
        a_watch_that_compaction_has_passed_is_told_at_once
        history_is_bounded_unasked
        a_watch_of_a_closed_store_delivers_what_was_acknowledged
    ] }
}
