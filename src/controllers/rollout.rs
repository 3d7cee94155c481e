//! Does what the rollout planner says.

use std::{collections::BTreeSet, time::Duration};

use sampan_core::{
    event::Reason,
    name::{Name, ServiceKey},
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

use super::reconciled::{Plan, Told, stop};
use crate::{
    clock::LocalNode,
    events::{Change, Subject},
    mirror::{Mirror, Stored, text},
};

/// What is remembered of services in this run of the node.
#[derive(Default)]
pub(super) struct Memory {
    /// Since when pods have been ready.
    readiness: Readiness,
    /// Since when services are being deleted.
    deletions: Deletions,
}

impl Memory {
    /// The service is gone.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.readiness.forget(service);
        self.deletions.forget(service);
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
    let pods = readiness.observe(&stored.value.key, pods, &boots, moment.now);
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
    };
    if let Some((_, decision)) = &scaled {
        writes.tell(Reason::Scaled, decision.to_string());
    }
    for action in planned.actions {
        let is_told = scaled.is_some()
            && matches!(
                &action,
                Action::Announce {
                    reason: Reason::Scaled,
                    ..
                }
            );
        if is_told {
            // By the decision, which says why.
            continue;
        }
        writes.take(action, &mut next);
    }
    Plan {
        wake_at: planned.wake_at.and_then(|at| node.clock.instant(at)),
        told: std::mem::take(&mut writes.told),
        transaction: writes.finish(&next),
        scaled: scaled.map(|(_, decision)| decision),
        ended: planned.ended,
    }
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
    /// The node that runs what is made.
    node: &'a Name,
    mirror: &'a Mirror,
    stored: &'a Stored<Service>,
    /// How long pods that are stopped may drain, if not as long as they say.
    drain: Option<Duration>,
    told: Vec<Told>,
    transaction: Transaction,
}

impl Writes<'_> {
    fn take(&mut self, action: Action, next: &mut Service) {
        match action {
            Action::Create { pod, reason } => {
                let record = Pod {
                    node: Some(self.node.clone()),
                    ..Pod::new(pod.service(), pod.revision(), pod.slot())
                };
                let key = Key::Pod(pod.clone()).to_string();
                let transaction = std::mem::take(&mut self.transaction);
                self.transaction = transaction.absent(key.as_str()).put(key, text(&record));
                self.tell(Reason::PodCreated, format!("{pod}: {reason}"));
            }
            Action::Stop { pod, reason } => {
                if let Some(found) = self.mirror.pods.get(&pod) {
                    let transaction = std::mem::take(&mut self.transaction);
                    self.transaction = stop(transaction, found, &reason, self.drain);
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
