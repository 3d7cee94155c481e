//! Where pods run, on the node that plans for several: what is reserved on each of them, and which
//! services wait for room.
//!
//! | state | written | read |
//! |---|---|---|
//! | `nodes` | when nodes come, go or change | by each reconcile of a service |
//! | `tally` | as pods of the mirror come and go, and by each plan for the pods that it places | the same |
//! | `waiting` | by each reconcile of a service | when a pod goes or nodes change: these are looked at again |
//!
//! All of it belongs to the one task that plans. A plan counts its pods in before they are written, so
//! that the next plan does not give their room to others. If they are not written, they are counted as
//! the mirror has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::Spread,
    plan::place::{self, Decision, Demand, Node, Tally, misplaced, place, uneven},
    record::{
        Job, JobPhase, Needs, Pod, Reserved, Service,
        cluster::{ClusterKey, VolumeKeeper},
    },
    time::Timestamp,
};
use sampan_store::Transaction;

use super::{balance::Balance, object::Object};
use crate::mirror::{Mirror, Stored, text};

/// The nodes of a cluster as they are known now.
pub(crate) type NodesOf = Arc<dyn Fn() -> Vec<Node> + Send + Sync>;

/// What is known of nodes, and of what is reserved there.
pub(super) struct Placing {
    source: NodesOf,
    nodes: Vec<Node>,
    tally: Tally,
    balance: Balance,
    /// Services with pods, and jobs with attempts, for which no node has room.
    waiting: BTreeSet<Object>,
}

/// What was decided of a pod that has no node yet.
pub(super) struct Placed {
    pub(super) pod: PodName,
    /// The node on which it runs, or why there is none.
    pub(super) node: Result<Name, String>,
    /// What it takes of the node.
    pub(super) reserved: Reserved,
}

/// What was decided of the pods of one service, and the volumes of its app that come to a node with
/// them.
#[derive(Default)]
pub(super) struct Placements {
    pub(super) pods: Vec<Placed>,
    pub(super) volumes: BTreeMap<Name, Name>,
}

impl Placing {
    pub(super) fn new(source: NodesOf) -> Self {
        let nodes = source();
        Self {
            source,
            nodes,
            tally: Tally::default(),
            balance: Balance::default(),
            waiting: BTreeSet::new(),
        }
    }

    /// Looks at the nodes again.
    pub(super) fn refresh(&mut self) {
        self.nodes = (self.source)();
        self.tally.forget_volumes();
    }

    /// Counts a pod as the mirror has it.
    pub(super) fn count(&mut self, pod: &PodName, stored: Option<&Stored<Pod>>) {
        match stored {
            Some(stored) => self.tally.take(&stored.value),
            None => self.tally.remove(pod),
        }
    }

    /// Counts the attempt of a job as the mirror has it.
    pub(super) fn count_job(&mut self, key: &ServiceKey, job: Option<&Job>) {
        let attempt = Self::attempt(key);
        let running = job.filter(|job| job.status.phase == JobPhase::Running);
        match running.and_then(|job| Some((job, job.status.node.as_ref()?))) {
            Some((job, node)) => {
                let demand = demand(job);
                self.tally
                    .add(&place::Reserved::new(&attempt, node, &demand));
            }
            None => self.tally.remove(&attempt),
        }
    }

    /// Counts anew what was given a node by a plan that was not written.
    pub(super) fn count_again(&mut self, pod: &PodName, mirror: &Mirror) {
        let key = pod.service();
        match *pod == Self::attempt(key) {
            true => self.count_job(key, mirror.jobs.get(key).map(|job| &*job.value)),
            false => self.count(pod, mirror.pods.get(pod)),
        }
    }

    /// What an attempt of a job is called where pods are counted. Revisions of services begin at 1.
    pub(super) fn attempt(job: &ServiceKey) -> PodName {
        PodName::new(job, 0, 0)
    }

    /// What waits for room.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Object> {
        self.waiting.iter()
    }

    /// Forgets a service that is gone.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.waiting.remove(&Object::Service(service.clone()));
        self.balance.forget(service);
    }

    /// Forgets a job that is gone.
    pub(super) fn forget_job(&mut self, job: &ServiceKey) {
        self.waiting.remove(&Object::Job(job.clone()));
    }

    /// Finds a node for the next attempt of a job, or says why there is none; and the volumes that
    /// come to the node with it.
    pub(super) fn place_job(&mut self, job: &Job) -> (Result<Name, String>, BTreeMap<Name, Name>) {
        let (demand, attempt) = (demand(job), Self::attempt(&job.key));
        // An attempt before this one is over.
        self.tally.remove(&attempt);
        let decisions = place(&[attempt], &demand, &self.nodes, &mut self.tally);
        let object = Object::Job(job.key.clone());
        match decisions.into_iter().next() {
            Some(Decision::Placed { node, .. }) => {
                self.waiting.remove(&object);
                let volumes = self.moved_in(&demand, &node);
                (Ok(node), volumes)
            }
            Some(Decision::Unplaced { why, .. }) => {
                self.waiting.insert(object);
                let why = why.to_string();
                let reason = why.split_once(": ").map_or(&*why, |(_, reason)| reason);
                (Err(reason.to_owned()), BTreeMap::new())
            }
            None => (Err(String::new()), BTreeMap::new()),
        }
    }

    /// The volumes that a pod mounts and no node keeps yet, which come to its node.
    fn moved_in(&self, demand: &Demand, node: &Name) -> BTreeMap<Name, Name> {
        let new = demand.volumes.iter().filter(|it| !self.has(demand, it));
        new.map(|volume| (volume.clone(), node.clone())).collect()
    }

    /// Why pods should run on other nodes, by pod; and when to look again.
    pub(super) fn leaving(
        &mut self,
        service: &Service,
        mirror: &Mirror,
        now: Timestamp,
    ) -> (BTreeMap<PodName, String>, Option<Timestamp>) {
        let key = &service.key;
        let needs = mirror.needs(key, service.spec.revision);
        let demand = Demand::of(service, &needs.unwrap_or_default());
        let reason = |pod: &Stored<Pod>| {
            let node = pod.value.node.as_ref()?;
            let node = self.nodes.iter().find(|it| it.name == *node);
            Some((pod.value.name(), misplaced(node, &demand)?))
        };
        let mut leaving: BTreeMap<_, _> = mirror.pods_of(key).filter_map(reason).collect();
        let uneven = match leaving.is_empty() {
            true => uneven(&demand, &self.nodes, &self.tally),
            false => None,
        };
        let on_nodes: Vec<_> = mirror
            .pods_of(key)
            .filter_map(|pod| Some((pod.value.name(), pod.value.node.as_ref()?)))
            .collect();
        let pods = on_nodes.iter().map(|(pod, node)| (pod, *node));
        let moves = self
            .balance
            .look(service, pods, uneven.map(|(from, _)| from), now);
        if let Some(pod) = moves.pod {
            leaving.insert(pod, "other nodes have fewer pods of its service".to_owned());
        }
        (leaving, moves.wake_at)
    }

    /// Finds nodes for pods of one service that have none.
    pub(super) fn place(
        &mut self,
        service: &Service,
        pods: impl IntoIterator<Item = PodName>,
        mirror: &Mirror,
    ) -> Placements {
        let mut revisions: BTreeMap<u64, Vec<PodName>> = BTreeMap::new();
        for pod in pods {
            revisions.entry(pod.revision()).or_default().push(pod);
        }
        let mut placements = Placements::default();
        for (revision, pods) in revisions {
            let needs = mirror.needs(&service.key, revision).unwrap_or_default();
            let demand = Demand::of(service, &needs);
            let reserved = demand.reserved();
            for decision in place(&pods, &demand, &self.nodes, &mut self.tally) {
                let (pod, node) = match decision {
                    Decision::Placed { pod, node } => (pod, Ok(node)),
                    Decision::Unplaced { pod, why } => (pod, Err(why.to_string())),
                };
                if let Ok(node) = &node {
                    placements.volumes.extend(self.moved_in(&demand, node));
                }
                placements.pods.push(Placed {
                    pod,
                    node,
                    reserved,
                });
            }
        }
        match placements.pods.iter().any(|placed| placed.node.is_err()) {
            true => self.waiting.insert(Object::Service(service.key.clone())),
            false => self.waiting.remove(&Object::Service(service.key.clone())),
        };
        placements
    }

    /// Whether a node keeps a volume of the app, as the store says.
    fn has(&self, demand: &Demand, volume: &Name) -> bool {
        let key = (demand.service.app.clone(), volume.clone());
        self.nodes.iter().any(|node| node.volumes.contains(&key))
    }
}

/// What an attempt of a job asks of its node.
fn demand(job: &Job) -> Demand {
    let needs = Needs::of(&job.spec.limits, &job.spec.grants);
    Demand {
        service: job.key.clone(),
        memory: needs.memory,
        cpu_millis: needs.cpu_millis.into(),
        labels: BTreeMap::new(),
        spread: Spread::Node,
        volumes: needs.volumes,
    }
}

/// Says in the store on which node volumes of an app are from now on.
pub(super) fn keep(
    mut transaction: Transaction,
    app: &Name,
    volumes: &BTreeMap<Name, Name>,
) -> Transaction {
    for (volume, node) in volumes {
        let key = ClusterKey::Volume(app.clone(), volume.clone()).to_string();
        let keeper = VolumeKeeper { node: node.clone() };
        transaction = transaction.absent(key.as_str()).put(key, text(&keeper));
    }
    transaction
}
