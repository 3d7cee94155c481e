//! The whole control loop, with a store that fails and lags, pods that crash, users who change
//! their minds, loads that jump, a clock on the wall that steps, and a node that dies between any two writes: on a
//! paused clock, from a seed.
//!
//! `SAMPAN_SEEDS=10000` runs as many seeds, `SAMPAN_SEED=7` only that one. A seed that fails is
//! printed with the state in which it got stuck. Tasks run in one thread, and what they do depends
//! on the seed alone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::{Autoscale, OnFailure, Rollout, Strategy},
    quantity::Amount,
    record::{
        Component, Key, Kind, Pod, PodPhase, Revision, RolloutState, Service, ServiceSpec,
        ServiceStatus, Template,
    },
};
use sampan_gateway::Upstream;
use sampan_runtime::threads::DataThreads;
use sampan_store::{
    Batch, Entry, Listing, Memory, Outcome, Session, Store, StoreError, Transaction, Turns, Watch,
    WatchError, WatchSource,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{
    agent::{
        fake::{FakeMaker, FakeRotation, Stage, spec},
        loader::{Prepared, TemplateLoader},
        node::{Agent, EndpointRegistry},
        rotation::Rotation,
    },
    clock::{LOCAL, LocalNode},
    controllers::{
        Controllers,
        autoscale::{Autoscaling, Callers},
    },
    events::Journal,
    load::MergedLoads,
    mirror::{Reflector, text},
};

mod day;
mod doom;
mod lead;
mod nodes;
mod own;
mod schedule;
mod silent;

const DEFAULT_SEEDS: u64 = 1000;
/// Time on the paused clock in which everything must have settled once nothing fails any more.
const SETTLE: Duration = Duration::from_secs(120);
const MAX_SURGE: u32 = 1;

type Chance = Arc<Mutex<fastrand::Rng>>;

/// A store in memory that fails by chance.
struct Faulty {
    memory: Arc<Memory>,
    chance: Chance,
    faults: AtomicBool,
    /// Writes until the node dies.
    fuse: Mutex<Option<u32>>,
    burnt: Notify,
    broken: Mutex<Option<String>>,
}

impl Faulty {
    fn new(seed: u64, faults: bool) -> Arc<Self> {
        Arc::new(Self {
            memory: Arc::default(),
            chance: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            faults: AtomicBool::new(faults),
            fuse: Mutex::default(),
            burnt: Notify::new(),
            broken: Mutex::default(),
        })
    }

    fn one_in(&self, n: u32) -> bool {
        self.faults.load(SeqCst) && self.chance.lock().u32(0..n) == 0
    }

    fn failed(&self) -> StoreError {
        StoreError::Failed {
            place: "the simulation".to_owned(),
            reason: "by chance".to_owned(),
        }
    }

    /// Looks at the pods of the one service, where there is only that, after each write.
    async fn inspect(&self) {
        let key = Key::Service(web()).to_string();
        if matches!(self.memory.get(&key).await, Ok(None)) {
            return;
        }
        let service = service(&self.memory).await;
        let pods = pods(&self.memory).await;
        let replaces = pods.iter().any(|pod| pod.revision != pods[0].revision);
        let counted = |pod: &&Pod| replaces || pod.stop.is_none();
        let alive = pods.iter().filter(counted).count();
        let alive = u32::try_from(alive).expect("few pods");
        let mut broken = self.broken.lock();
        let highest = MAX_REPLICAS + MAX_SURGE;
        if alive > highest {
            *broken = Some(format!("{alive} pods are alive, more than {highest}"));
        }
        if let Some(pod) = pods.iter().find(|pod| pod.revision > service.spec.latest) {
            *broken = Some(format!("{} is of no revision", pod.name()));
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        match self.one_in(50) {
            true => Err(self.failed()),
            false => self.memory.get(key).await,
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.memory.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        if self.one_in(10) {
            let key = transaction.compares.first().map(|it| it.key.clone());
            if let Some(key) = key {
                return Ok(Outcome::Conflict(key));
            }
        }
        if self.one_in(20) {
            return Err(self.failed());
        }
        let outcome = self.memory.commit(transaction).await?;
        self.inspect().await;
        let dies = match &mut *self.fuse.lock() {
            Some(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            None => false,
        };
        if dies {
            self.burnt.notify_one();
            // The process is killed before the answer comes.
            std::future::pending::<()>().await;
        }
        match self.one_in(20) {
            // It is written, and the writer is told that it failed.
            true => Err(self.failed()),
            false => Ok(outcome),
        }
    }

    async fn watch(
        &self,
        prefix: &str,
        after: sampan_store::Revision,
    ) -> Result<Watch, StoreError> {
        let watch = self.memory.watch(prefix, after).await?;
        Ok(Watch::new(Late {
            watch,
            chance: Arc::clone(&self.chance),
            next: None,
        }))
    }

    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        self.memory.open_session(ttl).await
    }

    async fn compact(&self, through: sampan_store::Revision) -> Result<(), StoreError> {
        self.memory.compact(through).await
    }

    async fn revision(&self) -> Result<sampan_store::Revision, StoreError> {
        self.memory.revision().await
    }

    fn turns(&self) -> &Turns {
        self.memory.turns()
    }
}

/// A watch that tells late, so that what is read is old.
struct Late {
    watch: Watch,
    chance: Chance,
    next: Option<(Batch, tokio::time::Instant)>,
}

#[async_trait]
impl WatchSource for Late {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        if self.next.is_none() {
            let batch = self.watch.next().await?;
            let late = Duration::from_millis(self.chance.lock().u64(0..40));
            self.next = Some((batch, tokio::time::Instant::now() + late));
        }
        if let Some((_, at)) = &self.next {
            tokio::time::sleep_until(*at).await;
        }
        match self.next.take() {
            Some((batch, _)) => Ok(batch),
            None => Err(WatchError::Closed),
        }
    }
}

/// Makes pods without guests, some of which crash.
struct FakeLoader {
    chance: Chance,
    faults: Arc<AtomicBool>,
}

impl TemplateLoader for FakeLoader {
    type Maker = FakeMaker;

    async fn prepare(
        &self,
        _: &ServiceKey,
        wanted: &Template,
    ) -> Result<Prepared<FakeMaker>, String> {
        let bad = wanted.component.digest.starts_with("bad");
        let (chance, faults) = (Arc::clone(&self.chance), Arc::clone(&self.faults));
        Ok(Prepared {
            spec: Arc::new(spec()),
            capacity: 1,
            maker: Box::new(move |_: &PodName| {
                let stage = Stage::default();
                if bad {
                    *stage.unmakeable.lock() = Some("it traps at once".to_owned());
                }
                let mut chance = chance.lock();
                if faults.load(SeqCst) && chance.u32(0..4) == 0 {
                    let lifetime = Duration::from_millis(chance.u64(0..3000));
                    *stage.lifetime.lock() = Some(lifetime);
                }
                Arc::new(FakeMaker(Arc::new(stage)))
            }),
        })
    }
}

struct Nowhere;

impl EndpointRegistry for Nowhere {
    fn opened<'a>(&'a self, _: &'a ServiceKey) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn enter(&self, _: &PodName, _: usize, _: u32, _: Arc<dyn Upstream>) -> Arc<dyn Rotation> {
        Arc::new(FakeRotation::default())
    }

    fn exit(&self, _: &PodName) {}
}

/// Callers of services at zero: there are none.
struct NoCallers;

impl Callers for NoCallers {
    fn called(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn waiting(&self) -> Vec<ServiceKey> {
        Vec::new()
    }
}

const MAX_REPLICAS: u32 = 4;

fn web() -> ServiceKey {
    ServiceKey::parse("shop/web").expect("a key")
}

fn template(digest: &str) -> Template {
    let text = "app = 'shop'\n[service.web]\ncomponent = 'web.wasm'\n";
    let app = sampan_core::spec::load(&sampan_core::spec::Input {
        path: "sampan.toml",
        text,
        environment: &|_| None,
        read_file: &|_| Err("there are no files".to_owned()),
        profiles: &[],
    });
    let Ok(app) = app else {
        panic!("the spec is good")
    };
    let name = Name::parse("web").expect("a name");
    let component = Component {
        digest: digest.to_owned(),
        path: "web.wasm".to_owned(),
    };
    Template::new(&app.services[&name], component)
}

async fn service(store: &Memory) -> Service {
    let key = Key::Service(web()).to_string();
    let entry = store.get(&key).await.expect("memory does not fail");
    serde_json::from_slice(&entry.expect("it is there").value).expect("a service")
}

async fn pods(store: &Memory) -> Vec<Pod> {
    let listing = store.list(Kind::Pod.prefix()).await;
    let entries = listing.expect("memory does not fail").entries;
    let pod = |entry: &Entry| serde_json::from_slice(&entry.value).expect("a pod");
    entries.iter().map(pod).collect()
}

async fn put_revision(store: &Memory, number: u64, digest: &str) {
    let template = template(digest);
    let revision = Revision {
        number,
        hash: template.hash(),
        template,
        created_ms: 0,
        cause: String::new(),
    };
    let key = Key::Revision(web(), number).to_string();
    let put = Transaction::new().put(key, text(&revision));
    let _ = store.commit(put).await.expect("memory does not fail");
}

async fn begin(store: &Memory, replicas: u32) {
    put_revision(store, 1, "good-1").await;
    let service = Service {
        key: web(),
        generation: 1,
        spec: ServiceSpec {
            revision: 1,
            kind: sampan_core::object::ServiceKind::Http,
            previous: None,
            latest: 1,
            replicas,
            paused: false,
            deleting: false,
            rollout: Rollout {
                strategy: Strategy::Rolling,
                max_surge: Amount::Count(MAX_SURGE),
                max_unavailable: Amount::Count(0),
                min_ready: Duration::from_millis(50),
                progress_deadline: Duration::from_secs(20),
                on_failure: OnFailure::Rollback,
                history: 2,
                drain: Duration::from_secs(1),
            },
            routes: Vec::new(),
            depends_on: BTreeMap::new(),
            calls: Default::default(),
            queue: 1,
            queue_timeout: Duration::from_secs(1),
            body_bytes: 1,
            debug_headers: false,
            autoscale: None,
            placement: Default::default(),
        },
        status: ServiceStatus::default(),
    };
    let put = Transaction::new().put(Key::Service(web()).to_string(), text(&service));
    let _ = store.commit(put).await.expect("memory does not fail");
}

async fn autoscale(store: &Memory, bounds: Autoscale) {
    let mut next = service(store).await;
    next.spec.autoscale = Some(bounds);
    next.generation += 1;
    let put = Transaction::new().put(Key::Service(web()).to_string(), text(&next));
    let _ = store.commit(put).await.expect("memory does not fail");
}

/// A user changes what is wanted.
async fn meddle(store: &Memory, chance: &Chance) {
    let choice = chance.lock().u32(0..6);
    let mut next = service(store).await;
    next.generation += 1;
    let spec = &mut next.spec;
    match choice {
        0 | 1 => {
            let good = chance.lock().u32(0..3) > 0;
            spec.latest += 1;
            let kind = if good { "good" } else { "bad" };
            put_revision(store, spec.latest, &format!("{kind}-{}", spec.latest)).await;
            spec.previous = Some(spec.revision);
            spec.revision = spec.latest;
        }
        // Not to none: with nothing to run, any revision has taken over.
        2 => spec.replicas = chance.lock().u32(1..=MAX_REPLICAS),
        3 => spec.paused = true,
        4 => spec.paused = false,
        _ => {
            if let Some(previous) = spec.previous {
                let key = Key::Revision(web(), previous).to_string();
                if store
                    .get(&key)
                    .await
                    .expect("memory does not fail")
                    .is_some()
                {
                    spec.previous = Some(spec.revision);
                    spec.revision = previous;
                }
            }
        }
    }
    let put = Transaction::new().put(Key::Service(web()).to_string(), text(&next));
    let _ = store.commit(put).await.expect("memory does not fail");
}

/// A wall clock that keeps being set, years to and fro.
fn stepping_clock() -> u64 {
    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    let looks = LOOKS.fetch_add(1, SeqCst);
    (looks % 7) * 10 * YEAR_MS + looks
}

/// The parts of one run of a node.
fn node(
    store: &Arc<Faulty>,
    faults: &Arc<AtomicBool>,
    loads: &MergedLoads,
) -> (Agent<FakeLoader>, Controllers) {
    let mut node = LocalNode::start();
    node.clock = node.clock.with_wall(stepping_clock);
    let journal = Arc::new(Journal::default());
    let dynamic: Arc<dyn Store> = store.clone();
    let agent = Agent {
        store: Arc::clone(&dynamic),
        node: node.clone(),
        loader: Arc::new(FakeLoader {
            chance: Arc::clone(&store.chance),
            faults: Arc::clone(faults),
        }),
        endpoints: Arc::new(Nowhere),
        journal: Arc::clone(&journal),
        registry: Arc::default(),
        threads: Arc::new(DataThreads::here()),
        jobs: Arc::default(),
    };
    let controllers = Controllers {
        store: dynamic,
        journal,
        node,
        lead: None,
        autoscaling: Autoscaling {
            loads: loads.clone(),
            callers: Arc::new(NoCallers),
            decisions: watch::Sender::default(),
        },
        rollouts: Arc::default(),
        looked: watch::Sender::default(),
        nodes: None,
        nodes_changed: Arc::default(),
        finish: Arc::default(),
    };
    (agent, controllers)
}

/// One run of a node.
fn start(store: &Arc<Faulty>, faults: &Arc<AtomicBool>, loads: &MergedLoads) -> JoinSet<()> {
    let (agent, controllers) = node(store, faults, loads);
    let dynamic: Arc<dyn Store> = store.clone();
    let mut tasks = JoinSet::new();
    // Each with a mirror of its own, which lags in its own way.
    let followed = Arc::clone(&dynamic);
    tasks.spawn(async move {
        let mirror = mirror(&followed).await;
        agent.run(mirror.follow(&Kind::ALL), Arc::default()).await;
    });
    tasks.spawn(async move {
        let mirror = mirror(&dynamic).await;
        controllers.run(mirror.follow(&Kind::ALL)).await;
    });
    tasks
}

async fn mirror(store: &Arc<dyn Store>) -> Reflector {
    let threads = tokio::runtime::Handle::current();
    let started = Reflector::start(store, &threads).await;
    started.expect("lists do not fail")
}

async fn simulate(seed: u64) -> Result<(), String> {
    let faults = Arc::new(AtomicBool::new(true));
    let store = Faulty::new(seed, true);
    let chance = Arc::clone(&store.chance);
    let replicas = chance.lock().u32(1..=MAX_REPLICAS);
    begin(&store.memory, replicas).await;
    let runs = chance.lock().u32(1..6);
    let (measured, loads) = watch::channel(Arc::default());
    if seed % 2 == 1 {
        autoscale(&store.memory, day::bounds(1, MAX_REPLICAS)).await;
    }
    for _ in 0..runs {
        let node = start(&store, &faults, &loads);
        let writes = chance.lock().u32(1..60);
        *store.fuse.lock() = Some(writes);
        for _ in 0..4 {
            let wait = Duration::from_millis(chance.lock().u64(0..4000));
            let load = chance.lock().f64() * 2.0 * f64::from(MAX_REPLICAS);
            measured.send_replace(day::measured(&pods(&store.memory).await, load));
            tokio::select! {
                () = store.burnt.notified() => break,
                () = tokio::time::sleep(wait) => meddle(&store.memory, &chance).await,
            }
        }
        *store.fuse.lock() = None;
        drop(node);
    }
    faults.store(false, SeqCst);
    store.faults.store(false, SeqCst);
    let mut last = service(&store.memory).await;
    last.spec.paused = false;
    last.generation += 1;
    let put = Transaction::new().put(Key::Service(web()).to_string(), text(&last));
    let _ = store
        .memory
        .commit(put)
        .await
        .expect("memory does not fail");
    let _node = start(&store, &faults, &loads);
    let deadline = tokio::time::Instant::now() + SETTLE;
    while !is_settled(&store.memory).await {
        if tokio::time::Instant::now() >= deadline {
            let (service, pods) = (service(&store.memory).await, pods(&store.memory).await);
            return Err(format!("not settled: {service:#?}\n{pods:#?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    match store.broken.lock().take() {
        Some(broken) => Err(broken),
        None => Ok(()),
    }
}

/// Whether nothing is left to do: all pods are ready and of the wanted revision, or the rollout has
/// failed with nothing to go back to.
async fn is_settled(store: &Memory) -> bool {
    let (service, pods) = (service(store).await, pods(store).await);
    let all = pods.len() == service.spec.replicas as usize;
    let ready = |pod: &Pod| {
        matches!(pod.status.phase, PodPhase::Ready { .. })
            && pod.stop.is_none()
            && pod.revision == service.spec.revision
    };
    match service.rollout() {
        RolloutState::Complete | RolloutState::RolledBack { .. } => all && pods.iter().all(ready),
        RolloutState::Failed { .. } => true,
        RolloutState::UnderWay | RolloutState::Waiting | RolloutState::Held { .. } => false,
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs what has to hold for each seed that was asked for.
fn for_each_seed<F: Future<Output = Result<(), String>>>(simulate: impl Fn(u64) -> F) {
    let seeds: Vec<u64> = match setting("SAMPAN_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("SAMPAN_SEEDS").unwrap_or(DEFAULT_SEEDS)).collect(),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        if let Err(what) = runtime.block_on(simulate(seed)) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn whatever_fails_the_wanted_pods_are_there_in_the_end() {
    for_each_seed(simulate);
}
