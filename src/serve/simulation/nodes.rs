//! Several nodes on one store: nodes that die, come back, are cut off from the store, are cordoned,
//! drained and labelled, while users change what is wanted. One leads, and the pods are where they may
//! be.
//!
//! `SAMPAN_SEEDS` and `SAMPAN_SEED` choose seeds, as for the simulation of one node.

use std::net::SocketAddr;

use sampan_core::record::{
    Boots,
    cluster::{self, Capacity, ClusterKey, NodeSession, NodeSpec, NodeStatus},
};
use sampan_store::{BootInstant, Revision, SessionId, SessionSource, Write};
use tokio::time::{sleep, timeout};

use super::*;
use crate::{
    clock::Clock,
    cluster::{Departure, Members, Presence, Roster, Standing},
};

/// How long the store takes to find a node gone, and a second more than the node takes itself.
const SESSION: Duration = Duration::from_secs(10);
/// When a node that is cut off takes its session for lost.
const OWN_END: Duration = Duration::from_secs(9);
/// Pods that there may be at once: all nodes together have room for so many.
const MOST_PODS: u32 = MAX_REPLICAS + MAX_SURGE;

fn name(at: usize) -> Name {
    Name::parse(&format!("n{at}")).expect("a name")
}

/// What one node sees of the store: what it writes is checked, and it may be cut off.
struct View {
    store: Arc<Faulty>,
    node: Name,
    cut: watch::Sender<bool>,
}

impl View {
    fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.is_cut() {
            true => Err(self.store.failed()),
            false => Ok(()),
        }
    }

    /// What is wrong with a write of this node, if it comes about.
    async fn fault(&self, transaction: &Transaction) -> Option<String> {
        let compares = |key: &str| transaction.compares.iter().any(|it| &*it.key == key);
        for write in &transaction.writes {
            let Write::Put { key, value, .. } = write else {
                continue;
            };
            let Some(Key::Pod(pod)) = Key::parse(key) else {
                continue;
            };
            let now: Pod = serde_json::from_slice(value).expect("a pod");
            let before = self.store.memory.get(key).await.expect("memory");
            let before = before.map(|it| serde_json::from_slice::<Pod>(&it.value).expect("a pod"));
            let own = now.node.as_ref() == Some(&self.node);
            let Some(before) = before else {
                if !compares("/leader") {
                    return Some(format!("{} makes {pod} and compares no leader", self.node));
                }
                continue;
            };
            if before.node.is_some() && before.node != now.node {
                return Some(format!("{} moves {pod}", self.node));
            }
            let is_report = before.status != now.status && before.node.is_some();
            if is_report && !own {
                return Some(format!("{} says how {pod} of another node is", self.node));
            }
            if before.stop != now.stop && !compares("/leader") {
                return Some(format!("{} stops {pod} and compares no leader", self.node));
            }
        }
        None
    }
}

#[async_trait]
impl Store for View {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.check()?;
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        // A node begins only where the store answers.
        let _ = self.cut.subscribe().wait_for(|cut| !*cut).await;
        self.store.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        self.check()?;
        let fault = self.fault(&transaction).await;
        let outcome = self.store.commit(transaction).await?;
        if let (Some(fault), Outcome::Committed(_)) = (fault, &outcome) {
            *self.store.broken.lock() = Some(fault);
        }
        overfull(&self.store).await;
        Ok(outcome)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let watch = self.store.watch(prefix, after).await?;
        Ok(Watch::new(Reached {
            watch,
            cut: self.cut.subscribe(),
        }))
    }

    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        self.check()?;
        let session = self.store.memory.open_session(ttl).await?;
        let id: SessionId = session.id();
        Ok(Session::new(
            id,
            Renewed {
                session: tokio::sync::Mutex::new(Some(session)),
                cut: self.cut.subscribe(),
            },
        ))
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.store.compact(through).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.check()?;
        self.store.revision().await
    }

    fn turns(&self) -> &Turns {
        self.store.turns()
    }
}

/// A watch that says nothing while its node is cut off.
struct Reached {
    watch: Watch,
    cut: watch::Receiver<bool>,
}

#[async_trait]
impl WatchSource for Reached {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        // In this order: a batch that was taken must not be lost with this future.
        let _ = self.cut.wait_for(|cut| !*cut).await;
        self.watch.next().await
    }
}

/// A session that is not renewed any more once its node was cut off.
struct Renewed {
    session: tokio::sync::Mutex<Option<Session>>,
    cut: watch::Receiver<bool>,
}

#[async_trait]
impl SessionSource for Renewed {
    fn valid_until(&self) -> BootInstant {
        BootInstant::NEVER
    }

    async fn lost(&self) {
        if self.cut.clone().wait_for(|cut| *cut).await.is_err() {
            std::future::pending::<()>().await;
        }
        drop(self.session.lock().await.take());
        sleep(OWN_END).await;
    }

    async fn end(self: Box<Self>) -> Result<(), StoreError> {
        match self.session.lock().await.take() {
            Some(session) => session.end().await,
            None => Ok(()),
        }
    }
}

/// Looks whether a node has more pods than it has room for.
async fn overfull(store: &Faulty) {
    let mut counts = BTreeMap::<Name, u32>::new();
    for pod in pods(&store.memory).await {
        if let Some(node) = pod.node {
            *counts.entry(node).or_default() += 1;
        }
    }
    for (node, count) in counts {
        let key = ClusterKey::Node(node.clone()).to_string();
        let Some(entry) = store.memory.get(&key).await.expect("memory") else {
            continue;
        };
        let record: cluster::Node = serde_json::from_slice(&entry.value).expect("a node");
        let room = record.status.capacity.pods;
        if count > room {
            let message = format!("{node} has {count} pods and room for {room}");
            *store.broken.lock() = Some(message);
        }
    }
}

/// A node, which runs or does not.
struct Site {
    name: Name,
    capacity: Capacity,
    cut: watch::Sender<bool>,
    running: Option<JoinSet<()>>,
}

/// All nodes of a run.
struct World {
    store: Arc<Faulty>,
    faults: Arc<AtomicBool>,
    sites: Vec<Site>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let store = Faulty::new(seed, true);
        let nodes = store.chance.lock().usize(1..=5);
        let least = MOST_PODS.div_ceil(u32::try_from(nodes).expect("few"));
        let mut sites = Vec::new();
        let mut put = Transaction::new();
        for at in 0..nodes {
            let capacity = Capacity {
                pods: store.chance.lock().u32(least..=2 * MAX_REPLICAS),
                memory: 1 << 40,
                cpu_millis: 1000,
            };
            let record = cluster::Node {
                spec: NodeSpec::default(),
                status: NodeStatus {
                    address: address(),
                    version: String::new(),
                    joined_ms: 0,
                    capacity,
                },
            };
            let name = name(at);
            put = put.put(ClusterKey::Node(name.clone()).to_string(), text(&record));
            sites.push(Site {
                name,
                capacity,
                cut: watch::Sender::new(false),
                running: None,
            });
        }
        let _ = store.memory.commit(put).await.expect("memory");
        let replicas = store.chance.lock().u32(1..=MAX_REPLICAS);
        begin(&store.memory, replicas).await;
        Self {
            store,
            faults: Arc::new(AtomicBool::new(true)),
            sites,
        }
    }

    fn start(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let view: Arc<dyn Store> = Arc::new(View {
            store: Arc::clone(&self.store),
            node: site.name.clone(),
            cut: site.cut.clone(),
        });
        let (name, capacity) = (site.name.clone(), site.capacity);
        let (store, faults) = (Arc::clone(&self.store), Arc::clone(&self.faults));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { live(view, name, capacity, store, faults).await });
        site.running = Some(tasks);
    }

    /// Something happens to a node.
    async fn happen(&mut self) {
        let (at, what) = {
            let mut chance = self.store.chance.lock();
            (chance.usize(0..self.sites.len()), chance.u32(0..8))
        };
        match what {
            0 | 1 => self.sites[at].running = None,
            2 | 3 if self.sites[at].running.is_none() => self.start(at),
            4 => drop(self.sites[at].cut.send_replace(true)),
            5 => drop(self.sites[at].cut.send_replace(false)),
            6 => self.respecify(at, true).await,
            7 => self.respecify(at, false).await,
            _ => meddle(&self.store.memory, &self.store.chance).await,
        }
    }

    /// Cordons or drains a node, or has it take pods again.
    async fn respecify(&self, at: usize, out: bool) {
        let key = ClusterKey::Node(self.sites[at].name.clone()).to_string();
        let entry = self.store.memory.get(&key).await.expect("memory");
        let entry = entry.expect("the node");
        let mut record: cluster::Node = serde_json::from_slice(&entry.value).expect("a node");
        record.spec.cordoned_ms = out.then_some(1);
        record.spec.draining = out && self.store.chance.lock().bool();
        let put = Transaction::new().put(key, text(&record));
        let _ = self.store.memory.commit(put).await.expect("memory");
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// One run of a node.
async fn live(
    view: Arc<dyn Store>,
    name: Name,
    capacity: Capacity,
    store: Arc<Faulty>,
    faults: Arc<AtomicBool>,
) {
    let members = Members::follow(&view).await.expect("lists do not fail");
    let members = Arc::new(members);
    let known = Arc::clone(&members);
    let boots = Arc::new(move || -> Boots { known.with(Roster::boots) });
    let clock = Clock::start().with_wall(stepping_clock);
    let local = LocalNode::member(name.clone(), clock, boots);
    let presence = Presence {
        store: Arc::clone(&view),
        members: Arc::clone(&members),
        node: name,
        boot: clock.boot(),
        address: address(),
        since_ms: 0,
        capacity,
        standing: watch::Sender::default(),
        seen: watch::Sender::default(),
    };
    let (_departure, departing) = watch::channel(Departure::Stays);
    let standing = presence.standing.subscribe();
    let mirror = mirror(&view).await;
    let (_, loads) = watch::channel(Arc::default());
    let (mut agent, _) = node(&store, &faults, &loads);
    agent.store = Arc::clone(&view);
    agent.node = local.clone();
    let planning = plan(&view, &local, &members, standing, &mirror, &store, &faults);
    tokio::join!(
        presence.run(departing),
        agent.run(mirror.follow(&Kind::ALL), Arc::default()),
        planning,
    );
}

/// The controllers, while the node leads.
async fn plan(
    view: &Arc<dyn Store>,
    local: &LocalNode,
    members: &Arc<Members>,
    mut standing: watch::Receiver<Standing>,
    mirror: &Reflector,
    store: &Arc<Faulty>,
    faults: &Arc<AtomicBool>,
) {
    loop {
        let Ok(term) = standing.wait_for(|it| it.leads()).await.map(|it| it.term) else {
            return;
        };
        let leader = term.map(|term| (ClusterKey::Leader.to_string(), term));
        let (_, loads) = watch::channel(Arc::default());
        let (_, mut controllers) = node(store, faults, &loads);
        controllers.store = Arc::clone(view);
        controllers.node = local.clone();
        controllers.lead = leader;
        let known = Arc::clone(members);
        controllers.nodes = Some(Arc::new(move || known.with(Roster::for_placing)));
        let changed = Arc::clone(&controllers.nodes_changed);
        let mut changes = members.changes();
        let watching = async {
            while changes.changed().await.is_ok() {
                changed.notify_one();
            }
        };
        tokio::select! {
            () = controllers.run(mirror.follow(&Kind::ALL)) => return,
            () = watching => return,
            _ = standing.wait_for(|it| it.term != term) => {}
        }
    }
}

/// Whether all is as wanted, on nodes that run and take pods.
async fn is_placed(store: &Memory) -> bool {
    if !is_settled(store).await {
        return false;
    }
    let listing = store.list(ClusterKey::SESSIONS).await.expect("memory");
    let session = |entry: &Entry| {
        let name = entry.key.strip_prefix(ClusterKey::SESSIONS)?;
        let session: NodeSession = serde_json::from_slice(&entry.value).ok()?;
        Some((Name::parse(name).ok()?, session.boot))
    };
    let boots: BTreeMap<_, _> = listing.entries.iter().filter_map(session).collect();
    let is_here = |pod: &Pod| {
        let node = pod.node.as_ref();
        node.is_some_and(|node| boots.get(node) == Some(&pod.status.boot))
    };
    pods(store).await.iter().all(is_here)
}

async fn simulate_nodes(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed).await;
    for at in 0..world.sites.len() {
        world.start(at);
    }
    let events = world.store.chance.lock().u32(3..20);
    for _ in 0..events {
        let wait = Duration::from_millis(world.store.chance.lock().u64(0..6000));
        sleep(wait).await;
        world.happen().await;
    }
    world.faults.store(false, SeqCst);
    world.store.faults.store(false, SeqCst);
    for at in 0..world.sites.len() {
        world.sites[at].cut.send_replace(false);
        world.respecify(at, false).await;
        if world.sites[at].running.is_none() {
            world.start(at);
        }
    }
    sleep(2 * SESSION).await;
    for at in 0..world.sites.len() {
        // Pods that were made while there were faults would go on to crash.
        world.sites[at].running = None;
        world.start(at);
    }
    let mut last = service(&world.store.memory).await;
    last.spec.paused = false;
    last.generation += 1;
    let put = Transaction::new().put(Key::Service(web()).to_string(), text(&last));
    let _ = world.store.memory.commit(put).await.expect("memory");
    let settled = async {
        while !is_placed(&world.store.memory).await {
            sleep(Duration::from_millis(100)).await;
        }
    };
    if timeout(SETTLE + SESSION, settled).await.is_err() {
        let memory = &world.store.memory;
        let (service, pods) = (service(memory).await, pods(memory).await);
        let listing = memory.list("/").await.expect("memory");
        let keys: Vec<_> = listing.entries.iter().map(|it| &it.key).collect();
        return Err(format!("not settled: {service:#?}\n{pods:#?}\n{keys:?}"));
    }
    let broken = world.store.broken.lock().take();
    broken.map_or(Ok(()), Err)
}

#[test]
fn whatever_happens_to_nodes_the_wanted_pods_are_on_those_that_run() {
    for_each_seed(simulate_nodes);
}
