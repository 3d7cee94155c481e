//! Does what the rollout planner says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sampan_core::{
    event::Reason,
    name::{Name, PodName, ServiceKey},
    plan::{
        autoscale::{self, Decision},
        gate::{self, Gate},
        rollout::{self, Action, Readiness},
        stop::{Deletions, Turn},
    },
    record::{Boots, Key, Pod, Service, cluster::ClusterKey},
    time::Timestamp,
};
use sampan_store::Transaction;

use super::{
    placing::{Placed, Placements, Placing, keep},
    reconciled::{Plan, Told, stop},
};
use crate::{
    clock::LocalNode,
    events::{Change, Subject},
    mirror::{Mirror, Stored, text},
};

/// What is remembered of services in this run of the node.
#[derive(Default)]
pub(super) struct Memory {
    /// Where pods run, if there are several nodes.
    pub(super) placing: Option<Placing>,
    /// Since when pods have been ready.
    readiness: Readiness,
    /// Since when services are being deleted.
    deletions: Deletions,
}

impl Memory {
    /// Nothing is remembered yet.
    pub(super) fn new(placing: Option<Placing>) -> Self {
        Self {
            placing,
            ..Self::default()
        }
    }

    /// The service is gone.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.readiness.forget(service);
        self.deletions.forget(service);
        if let Some(placing) = &mut self.placing {
            placing.forget(service);
        }
    }
}

/// `scaling` is what the autoscaler has decided, and is carried out if it still holds.
pub(super) fn reconcile(
    stored: &Stored<Service>,
    mirror: &Mirror,
    node: &LocalNode,
    memory: &mut Memory,
    scaling: Option<&Decision>,
) -> Plan {
    let boots = node.boots();
    if let Some(plan) = lost(stored, mirror, &boots) {
        return plan;
    }
    let moment = node.clock.moment();
    let turn = turn(&stored.value, mirror, &mut memory.deletions, moment.now);
    let scaled = scaling.and_then(|decision| {
        let scaled = autoscale::carry_out(&stored.value, decision, moment.wall_ms)?;
        Some((scaled, decision.clone()))
    });
    let service = scaled.as_ref().map_or(&*stored.value, |(scaled, _)| scaled);
    let pods = mirror.pods_of(&stored.value.key);
    let pods = pods.map(|it| (&*it.value, it.created.0));
    let readiness = &mut memory.readiness;
    let mut pods = readiness.observe(&stored.value.key, pods, &boots, moment.now);
    let placing = memory.placing.as_mut();
    let leaving = placing.map(|it| it.leaving(service, mirror, moment.now));
    let (leaving, balanced_at) = leaving.unwrap_or_default();
    for pod in &mut pods {
        pod.leaving = leaving.get(&pod.pod.name()).map(String::as_str);
    }
    let planned = match &turn {
        Some(turn) => rollout::delete(service, &pods, turn, moment),
        None => rollout::plan(service, &pods, &gate(service, mirror), moment),
    };
    let mut next = service.clone();
    next.status = planned.status;
    let mut writes = Writes {
        node: &node.name,
        mirror,
        stored,
        drain: drain(service, turn.as_ref()),
        told: Vec::new(),
        transaction: Transaction::new(),
        created: Vec::new(),
        stopped: BTreeSet::new(),
    };
    if let Some((_, decision)) = &scaled {
        writes.tell(Reason::Scaled, decision.to_string());
    }
    for action in planned.actions {
        // That is told by the decision, which says why.
        if scaled.is_none() || !is_scaling(&action) {
            writes.take(action, &mut next);
        }
    }
    let placed = writes.make(&next, memory.placing.as_mut());
    Plan {
        wake_at: earlier(planned.wake_at, balanced_at).and_then(|at| node.clock.instant(at)),
        told: std::mem::take(&mut writes.told),
        transaction: writes.finish(&next),
        scaled: scaled.map(|(_, decision)| decision),
        ended: planned.ended,
        placed,
    }
}

/// The earlier one of two times, if there is one.
fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// Whether it tells of another number of pods.
fn is_scaling(action: &Action) -> bool {
    let reason = match action {
        Action::Announce { reason, .. } => Some(reason),
        Action::Create { .. }
        | Action::Stop { .. }
        | Action::RollBack { .. }
        | Action::Pause { .. } => None,
    };
    reason == Some(&Reason::Scaled)
}

/// Removes the pods of nodes that do not run any more, as the store must find when it does so. What
/// takes their place is planned when they have gone: a pod of the same name is another pod. A node
/// that was only cut off ends what it finds gone when it is back.
fn lost(stored: &Stored<Service>, mirror: &Mirror, boots: &Boots) -> Option<Plan> {
    let mut transaction = Transaction::new();
    let mut nodes = BTreeSet::new();
    let mut told = Vec::new();
    for pod in mirror.pods_of(&stored.value.key) {
        let Some(node) = pod.value.lost(boots) else {
            continue;
        };
        if nodes.insert(node) {
            transaction = transaction.absent(ClusterKey::Session(node.clone()).to_string());
        }
        let name = pod.value.name();
        let key = Key::Pod(name.clone()).to_string();
        transaction = transaction.compare(key.as_str(), pod.modified).delete(key);
        told.push(Told {
            subject: Subject::Service(stored.value.key.clone()),
            change: Change::Announced {
                reason: Reason::PodStopped,
                message: format!("{name}: its node {node} is lost"),
            },
        });
    }
    (!nodes.is_empty()).then(|| Plan {
        transaction,
        told,
        ..Plan::default()
    })
}

/// Whether what the service depends on is as far as it must be.
fn gate(service: &Service, mirror: &Mirror) -> Gate {
    let key = |name: &Name| ServiceKey::new(&service.key.app, name);
    gate::gate(
        &service.spec.depends_on,
        &|name| mirror.services.get(&key(name)).map(|it| &*it.value),
        &|name| mirror.jobs.get(&key(name)).map(|it| &*it.value),
    )
}

/// Whether a service that is being deleted stops now. `None` for one that stays.
fn turn(
    service: &Service,
    mirror: &Mirror,
    deletions: &mut Deletions,
    now: Timestamp,
) -> Option<Turn> {
    let key = &service.key;
    if !service.spec.deleting {
        deletions.forget(key);
        return None;
    }
    let contents = mirror.contents(&key.app);
    let deletion = deletions.of(key, &contents, now);
    Some(contents.turn(key, deletion, now))
}

/// How long the pods of a service whose turn it is may drain, if that is less than it says itself.
fn drain(service: &Service, turn: Option<&Turn>) -> Option<Duration> {
    match turn {
        Some(Turn::Now { drain }) => Some(*drain).filter(|it| *it < service.spec.rollout.drain),
        Some(Turn::After { .. }) | None => None,
    }
}

struct Writes<'a> {
    /// The node that runs what is made where there is one node only.
    node: &'a Name,
    mirror: &'a Mirror,
    stored: &'a Stored<Service>,
    /// How long pods that are stopped may drain, if not as long as they say.
    drain: Option<Duration>,
    told: Vec<Told>,
    transaction: Transaction,
    /// Pods to be made, and why.
    created: Vec<(PodName, String)>,
    /// Pods that go.
    stopped: BTreeSet<PodName>,
}

impl Writes<'_> {
    fn take(&mut self, action: Action, next: &mut Service) {
        match action {
            Action::Create { pod, reason } => self.created.push((pod, reason)),
            Action::Stop { pod, reason } => {
                if let Some(found) = self.mirror.pods.get(&pod) {
                    let transaction = std::mem::take(&mut self.transaction);
                    self.transaction = stop(transaction, found, &reason, self.drain);
                    self.stopped.insert(pod.clone());
                    self.tell(Reason::PodStopped, format!("{pod}: {reason}"));
                }
            }
            Action::RollBack { from, to, .. } => {
                next.spec.revision = to;
                next.spec.previous = Some(from);
                respecified(next);
            }
            Action::Pause { .. } => {
                next.spec.paused = true;
                respecified(next);
            }
            Action::Announce { reason, message } => self.tell(reason, message),
        }
    }

    /// Makes the pods that are to be made, on this node or, where there are several, where there is
    /// room; and gives those nodes that have waited for one. Returns the pods that were placed.
    fn make(&mut self, service: &Service, placing: Option<&mut Placing>) -> Vec<PodName> {
        let created = std::mem::take(&mut self.created);
        let Some(placing) = placing else {
            for (pod, reason) in created {
                let record = Pod {
                    node: Some(self.node.clone()),
                    ..Pod::new(pod.service(), pod.revision(), pod.slot())
                };
                self.create(&record, &reason);
            }
            return Vec::new();
        };
        let waiting = self.mirror.pods_of(&service.key);
        let waiting = waiting
            .filter(|pod| pod.value.is_unplaced())
            .map(|pod| pod.value.name())
            .filter(|pod| !self.stopped.contains(pod));
        let waiting: Vec<_> = waiting.collect();
        let reasons: BTreeMap<_, _> = created.into_iter().collect();
        let pods = waiting.into_iter().chain(reasons.keys().cloned());
        let Placements { pods, volumes } = placing.place(service, pods, self.mirror);
        let transaction = std::mem::take(&mut self.transaction);
        self.transaction = keep(transaction, &service.key.app, &volumes);
        let mut placed = Vec::new();
        for decision in pods {
            if decision.node.is_ok() {
                placed.push(decision.pod.clone());
            }
            let reason = reasons.get(&decision.pod);
            self.place(decision, reason.map(String::as_str));
        }
        placed
    }

    /// Puts a pod on its node, or says why it waits. It is made now if there is a reason for that.
    fn place(&mut self, decision: Placed, made: Option<&str>) {
        let Placed {
            pod,
            node,
            reserved,
        } = decision;
        let before = self.mirror.pods.get(&pod);
        let mut record = match (made, before) {
            (None, Some(before)) => Pod::clone(&before.value),
            (Some(_), _) | (None, None) => Pod::new(pod.service(), pod.revision(), pod.slot()),
        };
        record.reserved = reserved;
        let (node, why) = match node {
            Ok(node) => (Some(node), None),
            Err(why) => (None, Some(why)),
        };
        record.status.reason.clone_from(&why);
        record.node.clone_from(&node);
        match (made, before) {
            (Some(reason), _) => self.create(&record, reason),
            (None, Some(before)) if *before.value == record => return,
            (None, Some(before)) => {
                let key = Key::Pod(pod.clone()).to_string();
                let transaction = std::mem::take(&mut self.transaction);
                self.transaction = transaction
                    .compare(key.as_str(), before.modified)
                    .put(key, text(&record));
            }
            (None, None) => return,
        }
        match (why, node) {
            (Some(why), _) => self.tell(Reason::FailedScheduling, why),
            (None, Some(node)) if made.is_none() => {
                self.tell(
                    Reason::Scheduled,
                    format!("{pod}: node {node} has room for it"),
                );
            }
            (None, _) => {}
        }
    }

    fn create(&mut self, record: &Pod, reason: &str) {
        let pod = record.name();
        let key = Key::Pod(pod.clone()).to_string();
        let transaction = std::mem::take(&mut self.transaction);
        self.transaction = transaction.absent(key.as_str()).put(key, text(record));
        self.tell(Reason::PodCreated, format!("{pod}: {reason}"));
    }

    fn tell(&mut self, reason: Reason, message: String) {
        self.told.push(Told {
            subject: Subject::Service(self.stored.value.key.clone()),
            change: Change::Announced { reason, message },
        });
    }

    /// Everything is decided by the service as it was seen: if that has changed, nothing is done.
    fn finish(self, next: &Service) -> Transaction {
        let key = Key::Service(next.key.clone()).to_string();
        let transaction = self.transaction.compare(key.as_str(), self.stored.modified);
        match *next == *self.stored.value {
            true => transaction,
            false => transaction.put(key, text(next)),
        }
    }
}

/// The planner itself has changed what is wanted, and knows it.
fn respecified(service: &mut Service) {
    service.generation += 1;
    service.status.observed_generation = service.generation;
}
