//! The laws of key-value stores, with real files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::tables::{BATCH_KEYS, PAGE_KEYS};
use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn limited(limits: KeyValueLimits) -> (TempDir, KeyValues) {
    let folder = tempfile::tempdir().expect("a folder");
    let databases = KeyValues::new(Some(folder.path().join("keyvalue")), limits);
    (folder, databases)
}

fn databases() -> (TempDir, KeyValues) {
    limited(KeyValueLimits::default())
}

fn set(key: &str, value: &str) -> (String, Option<Vec<u8>>) {
    (key.to_owned(), Some(value.into()))
}

async fn text(stores: &AppStores, store: &Name, key: &str) -> Option<String> {
    let found = stores.get(store, vec![key.to_owned()]).await;
    let found = found.expect("read").pop().flatten();
    found.map(|found| String::from_utf8(found.value).expect("text"))
}

async fn summary(stores: &AppStores) -> Vec<(String, u64, u64)> {
    let stores = stores.stores().await.expect("read");
    let stores = stores.into_iter();
    stores.map(|it| (it.name, it.keys, it.bytes)).collect()
}

#[tokio::test]
async fn what_was_written_is_there_for_the_next_one_who_opens_it() {
    let (folder, databases) = databases();
    let (shop, carts) = (name("shop"), name("carts"));
    assert!(databases.find(&shop).is_none() && !databases.has(&shop));
    let stores = databases.open(&shop).expect("a database");
    let writes = vec![set("a", "1"), set("", "empty"), set("b\0c", "nul")];
    stores.write(&carts, writes).await.expect("written");
    stores
        .write(&carts, vec![set("a", "22")])
        .await
        .expect("written");
    let gone = vec![("b\0c".to_owned(), None), ("none".to_owned(), None)];
    stores.write(&carts, gone).await.expect("deleted");
    let path = folder.path().join("keyvalue");
    for file in fs::read_dir(&path).expect("a folder") {
        let mode = file
            .expect("a file")
            .metadata()
            .expect("a file")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
    let mode = fs::metadata(&path).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop((stores, databases));
    let databases = KeyValues::new(Some(path), KeyValueLimits::default());
    assert!(databases.has(&shop) && !databases.has(&name("other")));
    let stores = databases.open(&shop).expect("a database");
    assert_eq!(text(&stores, &carts, "a").await.as_deref(), Some("22"));
    assert_eq!(text(&stores, &carts, "").await.as_deref(), Some("empty"));
    assert_eq!(text(&stores, &carts, "b\0c").await, None);
    assert_eq!(summary(&stores).await, [("carts".to_owned(), 2, 8)]);
    assert_eq!(stores.version(&carts, "none".to_owned()).await, Ok(0));
}

#[tokio::test]
async fn stores_and_apps_are_apart() {
    let (_folder, databases) = databases();
    let (a, b) = (name("a"), name("b"));
    for (app, value) in [("shop", "1"), ("blog", "2")] {
        let stores = databases.open(&name(app)).expect("a database");
        stores
            .write(&a, vec![set("k", value)])
            .await
            .expect("written");
        stores
            .write(&b, vec![set("k", "other")])
            .await
            .expect("written");
    }
    for (app, value) in [("shop", "1"), ("blog", "2")] {
        let stores = databases.find(&name(app)).expect("it is open");
        assert_eq!(text(&stores, &a, "k").await.as_deref(), Some(value));
        assert_eq!(text(&stores, &b, "k").await.as_deref(), Some("other"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_of_many_lose_none_and_texts_are_no_numbers() {
    let (_folder, databases) = databases();
    let (stores, store) = (databases.open(&name("shop")).expect("open"), name("counts"));
    let adders = (0..32).map(|_| {
        let (stores, store) = (Arc::clone(&stores), store.clone());
        tokio::spawn(async move {
            let mut sums = Vec::new();
            for _ in 0..50 {
                sums.push(stores.add(&store, "n".to_owned(), 1).await.expect("added"));
            }
            sums
        })
    });
    let mut sums: Vec<_> = futures::future::join_all(adders)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .expect("no panic")
        .concat();
    sums.sort_unstable();
    assert!(sums.iter().copied().eq(1..=1600), "each sum is given once");
    assert_eq!(stores.add(&store, "n".to_owned(), -1700).await, Ok(-100));
    assert_eq!(text(&stores, &store, "n").await.as_deref(), Some("-100"));
    stores
        .write(&store, vec![set("t", "ten")])
        .await
        .expect("written");
    let no = stores.add(&store, "t".to_owned(), 1).await;
    assert_eq!(no, Err(KeyValueError::NotANumber("t".to_owned())));
    let most = i64::MAX.to_string();
    stores
        .write(&store, vec![set("m", &most)])
        .await
        .expect("written");
    let over = stores.add(&store, "m".to_owned(), 1).await;
    assert_eq!(over, Err(KeyValueError::Overflow("m".to_owned())));
    assert_eq!(text(&stores, &store, "m").await, Some(most));
}

#[tokio::test]
async fn a_swap_holds_only_where_nothing_was_written_meanwhile() {
    let (_folder, databases) = databases();
    let (stores, store) = (databases.open(&name("shop")).expect("open"), name("s"));
    let key = || "k".to_owned();
    let version = || stores.version(&store, key());
    let swap = |version, value: &str| stores.swap(&store, key(), version, value.into());
    assert_eq!(swap(7, "no").await, Ok(false));
    assert_eq!(swap(0, "one").await, Ok(true));
    assert_eq!(swap(0, "no").await, Ok(false));
    let first = version().await.expect("read");
    // The same value, written again, is another one.
    stores
        .write(&store, vec![set("k", "one")])
        .await
        .expect("written");
    assert_eq!(swap(first, "no").await, Ok(false));
    let second = version().await.expect("read");
    // So is one that was deleted in between.
    stores
        .write(&store, vec![(key(), None)])
        .await
        .expect("deleted");
    assert_eq!(version().await, Ok(0));
    stores
        .write(&store, vec![set("k", "one")])
        .await
        .expect("written");
    assert_eq!(swap(second, "no").await, Ok(false));
    let third = version().await.expect("read");
    assert_eq!(swap(third, "two").await, Ok(true));
    assert_eq!(text(&stores, &store, "k").await.as_deref(), Some("two"));
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let (_folder, databases) = limited(KeyValueLimits {
        key_bytes: 4,
        value_bytes: 10,
        keys: 3,
        bytes: 20,
    });
    let (stores, store) = (databases.open(&name("shop")).expect("open"), name("s"));
    let write = |writes| stores.write(&store, writes);
    let (key, value) = (
        write(vec![set("12345", "")]),
        write(vec![set("k", "12345678901")]),
    );
    let error = KeyValueError::KeyTooLong { bytes: 5, most: 4 };
    assert_eq!(key.await, Err(error));
    let error = KeyValueError::ValueTooLarge {
        bytes: 11,
        most: 10,
    };
    assert_eq!(value.await, Err(error));
    write(vec![set("a", "1"), set("b", "2")])
        .await
        .expect("written");
    // The first of these would have had room.
    let many = write(vec![set("c", "3"), set("d", "4")]).await;
    let error = KeyValueError::TooManyKeys {
        store: store.clone(),
        most: 3,
    };
    assert_eq!(many, Err(error));
    let large = write(vec![set("a", "1234567890"), set("b", "1234567890")]).await;
    let error = KeyValueError::TooManyBytes {
        store: store.clone(),
        bytes: 22,
        most: 20,
    };
    assert_eq!(large, Err(error));
    assert_eq!(summary(&stores).await, [("s".to_owned(), 2, 4)]);
    assert_eq!(text(&stores, &store, "a").await.as_deref(), Some("1"));
    write(vec![set("a", "1234567890"), set("b", "12345678")])
        .await
        .expect("it fits");
    // What makes it smaller goes, at the limit too.
    write(vec![set("b", "1")]).await.expect("it is smaller");
    let keys: Vec<_> = (0..=BATCH_KEYS).map(|it| it.to_string()).collect();
    let error = KeyValueError::TooManyAtOnce {
        keys: BATCH_KEYS + 1,
        most: BATCH_KEYS,
    };
    assert_eq!(stores.get(&store, keys).await, Err(error));
}

#[tokio::test]
async fn values_that_are_large_together_are_not_read_at_once() {
    let (_folder, databases) = databases();
    let (stores, store) = (databases.open(&name("shop")).expect("open"), name("s"));
    let value = vec![7; 1 << 20];
    for number in 0..17 {
        let writes = vec![(number.to_string(), Some(value.clone()))];
        stores.write(&store, writes).await.expect("written");
    }
    let keys = |count: u32| (0..count).map(|it| it.to_string()).collect();
    let found = stores.get(&store, keys(16)).await.expect("read");
    assert!(found.iter().flatten().all(|found| found.value == value));
    let error = stores.get(&store, keys(17)).await;
    assert!(
        matches!(error, Err(KeyValueError::TooLargeAtOnce { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_key_that_stays_is_on_one_page_whatever_is_written_meanwhile() {
    let (_folder, databases) = databases();
    let (stores, store) = (databases.open(&name("shop")).expect("open"), name("s"));
    let count = 2 * PAGE_KEYS + 10;
    let key = |number: usize| format!("key-{number:05}");
    let all: Vec<_> = (0..count)
        .rev()
        .map(|number| set(&key(number), "v"))
        .collect();
    stores.write(&store, all).await.expect("written");
    let (mut found, mut sorted) = (Vec::new(), Vec::new());
    let (mut after, mut last) = (None, None);
    loop {
        let page = stores.keys(&store, after).await.expect("read");
        let other = stores.sorted_keys(&store, last).await.expect("read");
        assert!(page.keys.len() <= PAGE_KEYS && other.keys.len() <= PAGE_KEYS);
        found.extend(page.keys);
        sorted.extend(other.keys);
        // Two that were seen go, one comes, and one is written again.
        let gone = found.len() / 2;
        let writes = vec![
            (found[gone].clone(), None),
            (sorted[gone].clone(), None),
            set(&format!("0-{gone}"), "v"),
            set(&key(count / 2), "again"),
        ];
        stores.write(&store, writes).await.expect("written");
        (after, last) = (page.next, other.next);
        if after.is_none() && last.is_none() {
            break;
        }
    }
    for list in [&mut found, &mut sorted] {
        let own: Vec<_> = list
            .iter()
            .filter(|key| key.starts_with("key-"))
            .cloned()
            .collect();
        let mut seen = BTreeMap::new();
        own.iter()
            .for_each(|key| *seen.entry(key.clone()).or_insert(0) += 1);
        assert!(
            seen.values().all(|times| *times == 1),
            "no key is there twice"
        );
        assert!(own.len() + 6 >= count, "{} of {count}", own.len());
    }
    assert!(sorted.is_sorted());
}

#[tokio::test]
async fn as_many_are_open_as_may_be_and_those_in_use_stay() {
    let (_folder, databases) = databases();
    let app = |number: usize| name(&format!("app-{number}"));
    let first = databases.open(&app(0)).expect("open");
    for number in 1..MAX_OPEN + 5 {
        let stores = databases.open(&app(number)).expect("open");
        let store = name("s");
        stores
            .write(&store, vec![set("k", "v")])
            .await
            .expect("written");
    }
    assert_eq!(databases.open.lock().apps.len(), MAX_OPEN);
    assert!(databases.find(&app(0)).is_some(), "it is in use");
    assert!(
        databases.find(&app(1)).is_none(),
        "it was used before all others"
    );
    let again = databases.open(&app(1)).expect("open");
    assert_eq!(text(&again, &name("s"), "k").await.as_deref(), Some("v"));
    let held: Vec<_> = (0..MAX_OPEN + 5)
        .filter_map(|it| databases.find(&app(it)))
        .collect();
    assert_eq!(held.len(), MAX_OPEN);
    assert_eq!(
        databases.open(&name("more")).err(),
        Some(KeyValueError::Busy)
    );
    drop((held, first, again));
    databases.open(&name("more")).expect("there is room again");
}

#[tokio::test]
async fn one_in_use_is_not_removed_and_one_that_is_removed_is_begun_anew() {
    let (folder, databases) = databases();
    let shop = name("shop");
    assert_eq!(databases.remove(&shop), Ok(false));
    let stores = databases.open(&shop).expect("open");
    stores
        .write(&name("s"), vec![set("k", "v")])
        .await
        .expect("written");
    assert_eq!(
        databases.remove(&shop),
        Err(KeyValueError::InUse(shop.clone()))
    );
    drop(stores);
    assert_eq!(databases.remove(&shop), Ok(true));
    let left = fs::read_dir(folder.path().join("keyvalue")).expect("a folder");
    assert_eq!(left.count(), 0);
    let stores = databases.open(&shop).expect("open");
    assert_eq!(text(&stores, &name("s"), "k").await, None);
}

#[tokio::test]
async fn what_is_no_database_is_left_as_it_is_and_named() {
    let (folder, databases) = databases();
    let path = folder.path().join("keyvalue/shop.db");
    fs::create_dir(path.parent().expect("a folder")).expect("made");
    fs::write(&path, "carts").expect("written");
    let error = databases
        .open(&name("shop"))
        .expect_err("no database")
        .to_string();
    assert!(
        error.contains("keyvalue/shop.db") && error.contains("damaged"),
        "{error}"
    );
    assert_eq!(fs::read(&path).expect("a file"), b"carts");
    let nowhere = KeyValues::new(None, KeyValueLimits::default());
    let error = nowhere.open(&name("shop")).expect_err("no place");
    assert_eq!(error, KeyValueError::NoPlace);
    // Another process, or here another handle, has it.
    let (folder, databases) = self::databases();
    let _held = databases.open(&name("shop")).expect("open");
    let path = folder.path().join("keyvalue");
    let other = KeyValues::new(Some(path), KeyValueLimits::default());
    let error = other.open(&name("shop")).expect_err("in use").to_string();
    assert!(error.contains("locked"), "{error}");
}

#[tokio::test]
async fn a_change_that_fails_takes_back_nothing_of_others_in_its_group() {
    let (_folder, databases) = limited(KeyValueLimits {
        keys: 10,
        ..KeyValueLimits::default()
    });
    let (stores, store) = (databases.open(&name("shop")).expect("open"), name("s"));
    let writes = (0..100).map(|number| {
        let (stores, store) = (&stores, &store);
        async move {
            stores
                .write(store, vec![set(&number.to_string(), "v")])
                .await
        }
    });
    let written = futures::future::join_all(writes).await;
    assert_eq!(written.iter().filter(|it| it.is_ok()).count(), 10);
    for (number, written) in written.iter().enumerate() {
        let there = text(&stores, &store, &number.to_string()).await.is_some();
        assert_eq!(there, written.is_ok(), "{number}");
    }
    assert_eq!(summary(&stores).await[0].1, 10);
}
