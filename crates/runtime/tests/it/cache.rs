//! The compile cache: what is used again, and what is not.

use std::{fs, path::PathBuf, sync::Arc};

use bytes::Bytes;
use sampan_runtime::{Demands, Loaded, Origin, Runtime, RuntimeConfig, artifact::cache::Cache};

use super::rig::{ask, config, plan, workload};

fn runtime_at(cache: &std::path::Path) -> Arc<Runtime> {
    let config = RuntimeConfig {
        cache: Some(Cache::open(cache).expect("a cache")),
        ..config()
    };
    Runtime::new(config).expect("a runtime")
}

/// Loads a guest in a runtime of its own, as after a restart, and tells whether it was compiled.
async fn load_again(cache: &std::path::Path, name: &str) -> (Arc<Loaded>, bool) {
    let mut told = false;
    let load = runtime_at(cache);
    let bytes = workload(name);
    let loaded = load
        .load(Bytes::copy_from_slice(&bytes), Demands::default(), || {
            told = true
        })
        .await
        .expect("a good component");
    assert_eq!(told, loaded.origin != Origin::Cache);
    (loaded, told)
}

fn entries(cache: &std::path::Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache).expect("a directory");
    let mut paths: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "cwasm")
    });
    paths
}

#[tokio::test]
async fn code_is_made_once_and_made_again_when_it_is_damaged_or_foreign() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = directory.path();
    assert!(load_again(cache, "hello").await.1, "an empty cache");
    assert!(!load_again(cache, "hello").await.1, "a whole entry");
    let entry = entries(cache).pop().expect("an entry");
    let good = fs::read(&entry).expect("readable");

    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    fs::write(&entry, flipped).expect("writable");
    assert!(load_again(cache, "hello").await.1, "a flipped bit");
    assert!(!load_again(cache, "hello").await.1, "mended");

    assert!(load_again(cache, "counter").await.1, "another component");
    let mut others = entries(cache);
    others.retain(|path| *path != entry);
    fs::copy(others.pop().expect("two entries"), &entry).expect("copied");
    assert!(
        load_again(cache, "hello").await.1,
        "the entry of another component"
    );

    fs::write(&entry, b"").expect("writable");
    assert!(load_again(cache, "hello").await.1, "an empty file");
    let plan = super::rig::Plan {
        runtime: runtime_at(cache),
        ..plan(workload("hello"))
    };
    let answer = ask(&plan.start().await, "/").await;
    assert_eq!(answer, Ok((200, "Hello from Sampan!\n".to_owned())));
}

#[tokio::test]
async fn a_component_is_loaded_once_for_all_who_ask_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = runtime_at(directory.path());
    let bytes = workload("hello");
    let compilations = std::sync::atomic::AtomicUsize::new(0);
    let count = || {
        compilations.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let load = async || {
        runtime
            .load(Bytes::copy_from_slice(&bytes), Demands::default(), count)
            .await
            .expect("good")
    };
    let (one, two, three) = futures::join!(load(), load(), load());
    assert!(Arc::ptr_eq(&one, &two) && Arc::ptr_eq(&two, &three));
    assert_eq!(compilations.into_inner(), 1);
}

/// Everything runs without a cache, and with one that can keep nothing.
#[tokio::test]
async fn a_cache_is_not_needed() {
    let home = tempfile::tempdir().expect("a directory");
    let gone = home.path().join("gone");
    let lost = Cache::open(&gone).expect("a cache");
    fs::remove_dir_all(&gone).expect("removed");
    for cache in [None, Some(lost)] {
        let config = RuntimeConfig { cache, ..config() };
        let runtime = Runtime::new(config).expect("a runtime");
        let plan = super::rig::Plan {
            runtime: Arc::clone(&runtime),
            ..plan(workload("hello"))
        };
        let answer = ask(&plan.start().await, "/").await;
        assert_eq!(answer, Ok((200, "Hello from Sampan!\n".to_owned())));
        // In another engine, with another entry.
        let demands = Demands {
            metered: true,
            ..Demands::default()
        };
        let bytes = Bytes::from(workload("hello"));
        let loaded = runtime.load(bytes, demands, || {}).await.expect("good");
        assert!(matches!(loaded.origin, Origin::Compiled(_)));
    }
}

/// Bytes that are flipped, one at a time.
const FLIPS: u64 = 100;

#[tokio::test]
async fn one_flipped_byte_anywhere_is_detected() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = directory.path();
    load_again(cache, "hello").await;
    let entry = entries(cache).pop().expect("an entry");
    let good = fs::read(&entry).expect("readable");
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for flip in 0..FLIPS {
        // The first and the last byte, and others in between.
        let at = match flip {
            0 => 0,
            1 => good.len() - 1,
            _ => random.usize(..good.len()),
        };
        let mut bad = good.clone();
        bad[at] ^= random.u8(1..);
        fs::write(&entry, bad).expect("writable");
        let (loaded, compiled) = load_again(cache, "hello").await;
        assert!(compiled, "byte {at} of {}, seed {seed}", good.len());
        if flip % 10 == 0 {
            let plan = super::rig::Plan {
                runtime: runtime_at(cache),
                ..plan(workload("hello"))
            };
            let answer = ask(&plan.start().await, "/").await;
            assert_eq!(answer, Ok((200, "Hello from Sampan!\n".to_owned())));
        }
        drop(loaded);
    }
}
