//! An app of any size goes once that has been noted at the app alone, whenever the node dies.

use std::path::Path;

use sampan_core::{
    plan::apply::{self, Applied, Present, Wanted},
    record::{self, App},
};

use super::*;

const SERVICES: usize = 60;

/// What an apply writes of an app with many services, one in ten with a pod, and some jobs.
fn applied() -> Applied {
    let mut text = "app = 'shop'\n".to_owned();
    for number in 0..SERVICES {
        let replicas = usize::from(number % 10 == 0);
        text += &format!("[service.s{number}]\ncomponent = 'x.wasm'\nreplicas = {replicas}\n");
        if number % 3 == 0 {
            text += &format!("[job.j{number}]\ncomponent = 'x.wasm'\n");
        }
    }
    let app = sampan_core::spec::load(&sampan_core::spec::Input {
        path: "sampan.toml",
        text: &text,
        environment: &|_| None,
        read_file: &|_| Err("there are no files".to_owned()),
        profiles: &[],
    });
    let Ok(app) = app else {
        panic!("the spec is good")
    };
    let names = app.services.keys().chain(app.jobs.keys());
    let digests = names.map(|name| (name.clone(), "a".repeat(64))).collect();
    let wanted = Wanted {
        app: &app,
        base: Path::new("/"),
        digests: &digests,
        cause: "",
        wall_ms: 0,
    };
    apply::apply(&Present::default(), &wanted).expect("it fits")
}

async fn put<T: serde::Serialize>(store: &Memory, key: Key, object: &T) {
    let put = Transaction::new().put(key.to_string(), text(object));
    let _ = store.commit(put).await.expect("memory does not fail");
}

/// Everything that is left of the app.
async fn left(store: &Memory) -> Vec<String> {
    let mut left = Vec::new();
    for kind in Kind::ALL {
        let entries = store.list(kind.prefix()).await.expect("a store").entries;
        left.extend(entries.iter().map(|entry| entry.key.to_string()));
    }
    left
}

/// Two values of a secret of the app.
async fn put_secrets(store: &Memory, app: &Name) {
    let secret = record::Secret {
        key: "0".to_owned(),
        sealed: String::new(),
    };
    for version in ["0a", "0b"] {
        let name = Name::parse("db").expect("a name");
        let key = Key::Secret(app.clone(), name, version.to_owned());
        put(store, key, &secret).await;
    }
}

async fn doom(seed: u64) {
    let faults = Arc::new(AtomicBool::new(false));
    let store = Faulty::new(seed, false);
    let (_measured, loads) = watch::channel(Arc::default());
    let applied = applied();
    for (service, revision) in &applied.revisions {
        let key = Key::Revision(service.clone(), revision.number);
        put(&store.memory, key, revision).await;
    }
    for service in &applied.services {
        put(&store.memory, Key::Service(service.key.clone()), service).await;
    }
    let app = applied.app.expect("it is new");
    put(&store.memory, Key::App(app.name.clone()), &app).await;
    let node = start(&store, &faults, &loads);
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(node);
    let began = pods(&store.memory).await.len();
    assert_eq!(began, SERVICES / 10, "SAMPAN_SEED={seed}");
    // The intent, with what a change in several transactions might have left.
    let lost = ServiceKey::parse("shop/lost").expect("a key");
    let (_, revision) = &applied.revisions[0];
    for (slot, node) in [(0, None), (1, Name::parse(LOCAL).ok())] {
        let orphan = Pod {
            node,
            ..Pod::new(&lost, 1, slot)
        };
        put(&store.memory, Key::Pod(orphan.name()), &orphan).await;
    }
    put(&store.memory, Key::Revision(lost, 1), revision).await;
    for job in &applied.jobs {
        put(&store.memory, Key::Job(job.key.clone()), job).await;
    }
    put_secrets(&store.memory, &app.name).await;
    let key = Key::App(app.name.clone());
    let doomed = App {
        deleting: true,
        ..app
    };
    put(&store.memory, key, &doomed).await;
    store.faults.store(true, SeqCst);
    for _ in 0..6 {
        let writes = store.chance.lock().u32(1..60);
        *store.fuse.lock() = Some(writes);
        let node = start(&store, &faults, &loads);
        tokio::select! {
            () = store.burnt.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        drop(node);
        *store.fuse.lock() = None;
    }
    store.faults.store(false, SeqCst);
    let _node = start(&store, &faults, &loads);
    let deadline = tokio::time::Instant::now() + SETTLE;
    loop {
        let left = left(&store.memory).await;
        if left.is_empty() {
            return;
        }
        let late = tokio::time::Instant::now() >= deadline;
        assert!(!late, "SAMPAN_SEED={seed}, left: {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_to_go_goes_whole_whenever_the_node_dies() {
    match setting("SAMPAN_SEED") {
        Some(seed) => doom(seed).await,
        None => {
            for seed in 0..setting("SAMPAN_SEEDS").unwrap_or(8) {
                doom(seed).await;
            }
        }
    }
}
