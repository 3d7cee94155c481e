//! A change is whole or has not happened, whenever the process dies.
//!
//! `SAMPAN_SEEDS=1000` runs as many seeds, `SAMPAN_SEED=7` only that one.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use sampan_core::name::Name;
use sampan_store::{
    Entry, Listing, Outcome, Revision, Session, Store, StoreError, Transaction, Turns, Watch,
};
use tokio::sync::Notify;

use super::*;

const DEFAULT_SEEDS: u64 = 4;
/// Changes of one app in a seed.
const CHANGES: usize = 12;

/// A store after so many writes to which the process dies.
struct Mortal {
    below: Arc<Memory>,
    /// Writes that are left.
    left: AtomicU32,
    /// Whether the last one still happens.
    last_happens: bool,
    died: Notify,
}

#[async_trait]
impl Store for Mortal {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.below.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.below.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        let left = self.left.fetch_sub(1, SeqCst);
        if left > 1 {
            return self.below.commit(transaction).await;
        }
        if self.last_happens {
            let _ = self.below.commit(transaction).await?;
        }
        self.died.notify_one();
        std::future::pending().await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.below.watch(prefix, after).await
    }

    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        self.below.open_session(ttl).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.below.compact(through).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.below.revision().await
    }

    fn turns(&self) -> &Turns {
        self.below.turns()
    }
}

impl Rig {
    /// The same node, whose process dies after so many writes.
    fn mortal(&self, writes: u32, last_happens: bool) -> (Self, Arc<Mortal>) {
        let store = Arc::new(Mortal {
            below: Arc::clone(&self.store),
            left: AtomicU32::new(writes),
            last_happens,
            died: Notify::new(),
        });
        let parts = &self.api.0.parts;
        let api = Api::new(Parts {
            cluster: None,
            keyvalue: nothing_kept(),
            secrets: Arc::new(Secrets::in_memory(Arc::clone(&store) as _)),
            store: Arc::clone(&store) as _,
            reach: None,
            artifacts: parts.artifacts.clone(),
            views: parts.views.clone(),
            lines: parts.lines.clone(),
            ending: None,
            kept: parts.kept.clone(),
            admission: parts.admission.clone(),
            volumes: parts.volumes.clone(),
            quota: parts.quota,
            looked: parts.looked.clone(),
            threads: parts.threads.clone(),
            connections: parts.connections,
        });
        let rig = Self {
            router: api.local(),
            api,
            fake: self.fake.clone(),
            store: self.store.clone(),
            home: tempfile::tempdir().expect("a directory"),
        };
        (rig, store)
    }
}

/// What there is of the app.
#[derive(Clone, Debug, Default, PartialEq)]
enum Now {
    #[default]
    Nothing,
    /// It goes, with all that it has.
    Doomed,
    /// So many services, all of this version, and a job for each ten.
    Is { services: usize, version: u32 },
}

fn app() -> Name {
    Name::parse("shop").expect("a name")
}

fn spec(services: usize, version: u32) -> String {
    let mut text = "app = 'shop'\n".to_owned();
    for number in 0..services {
        let env = format!("env = {{ V = '{version}' }}\n");
        text += &format!("[service.s{number}]\ncomponent = 'x.wasm'\n{env}");
        if number % 10 == 0 {
            text += &format!("[job.j{number}]\ncomponent = 'x.wasm'\n{env}");
        }
    }
    text
}

/// Reads what there is, and fails if that is half of something.
async fn look(store: &Memory) -> Now {
    let objects = objects::AppObjects::read(store, &app()).await;
    let present = objects
        .map_err(|error| error.message)
        .expect("a store")
        .present;
    let Some(app) = &present.app else {
        assert!(present.services.is_empty() && present.jobs.is_empty());
        assert!(present.revisions.is_empty(), "revisions of nothing");
        return Now::Nothing;
    };
    let kept = |deleting: bool| !deleting;
    let services: BTreeMap<_, _> = present
        .services
        .iter()
        .filter(|(_, it)| kept(it.spec.deleting))
        .collect();
    let jobs: BTreeMap<_, _> = present
        .jobs
        .iter()
        .filter(|(_, it)| kept(it.deleting))
        .collect();
    if app.deleting {
        assert!(services.is_empty() && jobs.is_empty(), "half of it goes");
        return Now::Doomed;
    }
    assert!(services.keys().copied().eq(&app.services));
    assert!(jobs.keys().copied().eq(&app.jobs));
    let of_services = services.iter().map(|(name, it)| {
        let key = ((*name).clone(), it.spec.revision);
        present.revisions[&key].template.grants.env["V"].clone()
    });
    let of_jobs = jobs.values().map(|it| it.spec.grants.env["V"].clone());
    let versions: BTreeSet<String> = of_services.chain(of_jobs).collect();
    assert_eq!(versions.len(), 1, "several versions at once");
    Now::Is {
        services: services.len(),
        version: versions.first().expect("one").parse().expect("a number"),
    }
}

/// One change with a process that may die in it. Says whether it was acknowledged.
async fn change(rig: &Rig, chance: &mut fastrand::Rng, digest: &str, next: &Now) -> bool {
    let (mortal, store) = rig.mortal(chance.u32(1..3), chance.bool());
    let asked = async {
        match next {
            Now::Is { services, version } => mortal.apply(&spec(*services, *version), digest).await,
            Now::Nothing | Now::Doomed => mortal.ask(Method::DELETE, "/v1/apps/shop", None).await,
        }
    };
    tokio::select! {
        reply = asked => {
            assert_eq!(reply.status, 200, "{:?}", reply.bytes);
            true
        }
        () = store.died.notified() => false,
    }
}

async fn simulate(seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let rig = Rig::new();
    let digest = rig.upload(b"component").await;
    let mut now = Now::Nothing;
    for version in 0..CHANGES {
        let next = match now {
            Now::Is { .. } if chance.u8(0..3) == 0 => Now::Doomed,
            _ => Now::Is {
                services: chance.usize(90..260),
                version: u32::try_from(version).expect("few"),
            },
        };
        let acknowledged = change(&rig, &mut chance, &digest, &next).await;
        let found = look(&rig.store).await;
        assert!(
            found == next || (found == now && !acknowledged),
            "{found:?} after a change from {now:?} to {next:?}"
        );
        now = found;
    }
    // And a node that lives comes through.
    let last = Now::Is {
        services: 7,
        version: 100,
    };
    assert_eq!(rig.apply(&spec(7, 100), &digest).await.status, 200);
    assert_eq!(look(&rig.store).await, last);
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn a_change_is_whole_whenever_the_process_dies() {
    let seeds: Vec<u64> = match setting("SAMPAN_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("SAMPAN_SEEDS").unwrap_or(DEFAULT_SEEDS)).collect(),
    };
    for seed in seeds {
        println!("SAMPAN_SEED={seed}");
        simulate(seed).await;
    }
}

#[tokio::test]
async fn what_was_left_behind_without_its_app_can_be_deleted() {
    for leave in [Kind::Service, Kind::Job, Kind::Revision] {
        let rig = Rig::new();
        let digest = rig.upload(b"component").await;
        assert_eq!(rig.apply(&spec(11, 1), &digest).await.status, 200);
        leave_only(&rig, leave).await;
        let reply = rig.ask(Method::DELETE, "/v1/apps/shop", None).await;
        assert_eq!(reply.status, 200, "{leave:?}: {:?}", reply.bytes);
        assert_eq!(look(&rig.store).await, Now::Doomed);
        // Or applied again, as if nothing had been.
        assert_eq!(rig.apply(&spec(11, 2), &digest).await.status, 200);
        let services = 11;
        assert_eq!(
            look(&rig.store).await,
            Now::Is {
                services,
                version: 2
            }
        );
    }
    let rig = Rig::new();
    let reply = rig.ask(Method::DELETE, "/v1/apps/shop", None).await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn a_start_removes_what_is_half_made_and_nothing_else() {
    for leave in [Kind::Service, Kind::Job, Kind::Revision] {
        let rig = Rig::new();
        let digest = rig.upload(b"component").await;
        assert_eq!(rig.apply(&spec(11, 1), &digest).await.status, 200);
        let whole = rig.store.revision().await.expect("a store");
        rig.api.delete_left_behind().await;
        assert_eq!(rig.store.revision().await.expect("a store"), whole);
        leave_only(&rig, leave).await;
        rig.api.delete_left_behind().await;
        assert_eq!(look(&rig.store).await, Now::Doomed, "{leave:?}");
        let told = rig.fake.told.lock().expect("whole").pop();
        let told = told.expect("an event");
        assert_eq!(
            told,
            "app/shop Deleted: was left half made by an earlier run, and is being deleted"
        );
    }
    // An app that this version cannot read is there all the same.
    let rig = Rig::new();
    let digest = rig.upload(b"component").await;
    assert_eq!(rig.apply(&spec(1, 1), &digest).await.status, 200);
    let newer = Transaction::new().put(Key::App(app()).to_string(), "{\"later\":1}");
    let _ = rig.store.commit(newer).await.expect("a store");
    let before = rig.store.revision().await.expect("a store");
    rig.api.delete_left_behind().await;
    assert_eq!(rig.store.revision().await.expect("a store"), before);
}

/// Removes all but one kind of object, as an earlier version of the program left it when it was
/// killed.
async fn leave_only(rig: &Rig, leave: Kind) {
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != leave) {
        let found = rig.store.list(kind.prefix()).await.expect("a store");
        let keys = found.entries.into_iter().map(|entry| entry.key);
        let gone = keys.fold(Transaction::new(), Transaction::delete);
        let _ = rig.store.commit(gone).await.expect("a store");
    }
}

#[tokio::test]
async fn an_app_that_is_too_large_to_be_changed_can_be_deleted() {
    let rig = Rig::new();
    let digest = rig.upload(b"component").await;
    assert_eq!(rig.apply(&spec(1, 1), &digest).await.status, 200);
    // As an earlier version of the program let it grow, which wrote in several transactions.
    let first = rig.service("s0").await;
    let mut number = 1;
    for _ in 0..2 {
        let mut lot = Transaction::new();
        for _ in 0..6000 {
            let mut service = first.clone();
            service.key = ServiceKey::parse(&format!("shop/s{number}")).expect("a key");
            let key = Key::Service(service.key.clone()).to_string();
            lot = lot.put(key, objects::encode(&service));
            number += 1;
        }
        let _ = rig.store.commit(lot).await.expect("a store");
    }
    let before = rig.store.revision().await.expect("a store");
    let changed = rig.apply(&spec(2, 2), &digest).await;
    insta::assert_snapshot!(changed.error(), @"
    422 Invalid: too much to change at once: `12005` compares or writes in a transaction, at most `10000` are possible
    hint: split the app into several apps, or change it in several steps
    ");
    assert_eq!(rig.store.revision().await.expect("a store"), before);
    let reply = rig.ask(Method::DELETE, "/v1/apps/shop", None).await;
    assert_eq!(reply.status, 200, "{:?}", reply.bytes);
    let found = objects::get::<record::App>(&*rig.store, &Key::App(app())).await;
    let found = found.map_err(|error| error.message).expect("a store");
    assert!(found.is_some_and(|(app, _)| app.deleting), "the intent");
    // What belongs to it follows: `serve::simulation::doom`.
    assert!(!rig.service("s0").await.spec.deleting);
}

#[tokio::test]
async fn an_undo_to_a_revision_that_is_pruned_meanwhile_is_refused() {
    let rig = Rig::new();
    let digest = rig.upload(b"component").await;
    for version in 1..=2 {
        assert_eq!(rig.apply(&spec(1, version), &digest).await.status, 200);
    }
    let first = ServiceKey::parse("shop/s0").expect("a key");
    let store = rig.store.clone();
    *rig.fake.meanwhile.lock().expect("whole") = Some(Box::new(move || {
        let gone = Transaction::new().delete(Key::Revision(first, 1).to_string());
        let committed = futures::FutureExt::now_or_never(store.commit(gone));
        assert!(matches!(committed, Some(Ok(_))), "memory never waits");
    }));
    let path = "/v1/apps/shop/services/s0/rollout/undo";
    let reply = rig.ask(Method::POST, path, None).await;
    insta::assert_snapshot!(reply.error(), @"409 Impossible: `s0` has no revision `1`; there are `2`");
    let app = rig.service("s0").await;
    assert_eq!(app.spec.revision, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_change_gets_through_among_many_small_ones() {
    let rig = Rig::new();
    let digest = rig.upload(b"component").await;
    assert_eq!(rig.apply(&spec(150, 1), &digest).await.status, 200);
    // As controllers do: another service's status every moment.
    let store = rig.store.clone();
    let busy = tokio::spawn(async move {
        for number in (0..150).cycle() {
            let _turn = store.turns().shared("shop").await;
            let key = Key::Service(ServiceKey::parse(&format!("shop/s{number}")).expect("a key"));
            let found = objects::get::<record::Service>(&*store, &key).await;
            let found = found.map_err(|error| error.message).expect("a store");
            let (mut service, at) = found.expect("it is there");
            service.status.counts.alive += 1;
            let key = key.to_string();
            let put = Transaction::new()
                .compare(key.as_str(), at)
                .put(key, objects::encode(&service));
            let _ = store.commit(put).await.expect("a store");
            tokio::task::yield_now().await;
        }
    });
    for version in 2..5 {
        let reply = rig.apply(&spec(150, version), &digest).await;
        assert_eq!(reply.status, 200, "{:?}", reply.bytes);
    }
    busy.abort();
    let services = 150;
    let now = look(&rig.store).await;
    assert_eq!(
        now,
        Now::Is {
            services,
            version: 4
        }
    );
}
