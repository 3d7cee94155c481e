//! How many pods the services with an autoscaler should have: asks its planner once a second, and
//! whenever a request comes for a service at zero.
//!
//! What is decided is carried out by the reconcile of the service, in the transaction that also
//! makes or stops the pods. Until then it is only wanted, and the next decision takes its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::BoxFuture;
use sampan_core::{
    load::Merged,
    name::ServiceKey,
    object::ServiceKind,
    plan::autoscale::{self, Decision, History, Sample},
    record::{PodPhase, Service},
    time::Timestamp,
};
use tokio::sync::watch;

use crate::{
    load::{Decided, MergedLoads},
    mirror::Mirror,
};

/// Requests that wait at services without pods, at this node and at those that have told of theirs.
pub(crate) trait Callers: Send + Sync + 'static {
    /// Resolves when one has begun to wait, at once if that was since the last call.
    fn called(&self) -> BoxFuture<'_, ()>;

    /// The services at which any waits.
    fn waiting(&self) -> Vec<ServiceKey>;

    /// Takes note that it was decided to wake a service.
    fn woken(&self, _service: &ServiceKey) {}
}

/// What the autoscaler goes by, and whom it tells.
#[derive(Clone)]
pub(crate) struct Autoscaling {
    /// What all nodes have measured.
    pub(crate) loads: MergedLoads,
    pub(crate) callers: Arc<dyn Callers>,
    pub(crate) decisions: watch::Sender<Decided>,
}

/// What has happened.
pub(super) enum News {
    /// A second has been measured.
    Measured,
    /// A request waits at a service without pods.
    Called,
}

/// What is known of each service with an autoscaler.
pub(super) struct Autoscaler {
    with: Autoscaling,
    services: BTreeMap<ServiceKey, State>,
}

struct State {
    history: History,
    decision: Decision,
    /// The service's, about which it was decided. It is another one once that has been carried out.
    generation: u64,
}

impl Autoscaler {
    pub(super) fn new(with: Autoscaling) -> Self {
        Self {
            with,
            services: BTreeMap::new(),
        }
    }

    /// Waits until there is something to decide.
    pub(super) async fn news(&mut self) -> News {
        tokio::select! {
            changed = self.with.loads.changed() => match changed {
                Ok(()) => News::Measured,
                // The sampler has stopped: the node is going down.
                Err(_) => std::future::pending().await,
            },
            () = self.with.callers.called() => News::Called,
        }
    }

    /// Decides for all services. Returns those that are to have another number of pods.
    pub(super) fn decide(&mut self, mirror: &Mirror, now: Timestamp) -> BTreeSet<ServiceKey> {
        let measured = Arc::clone(&self.with.loads.borrow_and_update());
        let is_there = |key: &ServiceKey| {
            let service = mirror.services.get(key);
            service.is_some_and(|stored| is_autoscaled(&stored.value))
        };
        self.services.retain(|key, _| is_there(key));
        let services = mirror.services.values().map(|stored| &*stored.value);
        for service in services.filter(|it| is_autoscaled(it)) {
            if let Some(sample) = sample(service, &measured, mirror) {
                self.look(service, sample, now);
            }
        }
        // Who began to wait after the measurement is not in it.
        self.rouse(mirror, now);
        self.publish();
        let changing = self.services.iter();
        let changing = changing.filter(|(_, state)| !state.decision.is_steady());
        changing.map(|(key, _)| key.clone()).collect()
    }

    /// Decides for the services at zero for which requests wait. Returns their keys.
    pub(super) fn wake(&mut self, mirror: &Mirror, now: Timestamp) -> BTreeSet<ServiceKey> {
        let woken = self.rouse(mirror, now);
        if !woken.is_empty() {
            self.publish();
        }
        woken
    }

    fn rouse(&mut self, mirror: &Mirror, now: Timestamp) -> BTreeSet<ServiceKey> {
        let mut woken = BTreeSet::new();
        for key in self.with.callers.waiting() {
            let service = mirror.services.get(&key).map(|stored| &*stored.value);
            if let Some(service) = service.filter(|it| is_autoscaled(it) && it.spec.replicas == 0) {
                let waits = Sample {
                    waiting: 1,
                    ..Sample::default()
                };
                self.look(service, waits, now);
                self.with.callers.woken(&key);
                woken.insert(key);
            }
        }
        woken
    }

    /// The decision to carry out for a service as it is now; `None` for one that was made before
    /// its spec changed.
    pub(super) fn decision(&self, service: &Service) -> Option<&Decision> {
        let state = self.services.get(&service.key)?;
        let is_due = !state.decision.is_steady() && state.generation == service.generation;
        is_due.then_some(&state.decision)
    }

    /// Notes that a decision has been carried out.
    pub(super) fn done(&mut self, key: &ServiceKey, decision: &Decision, now: Timestamp) {
        if let Some(state) = self.services.get_mut(key) {
            state
                .history
                .scaled(decision.current, decision.replicas, now);
        }
    }

    fn look(&mut self, service: &Service, mut sample: Sample, now: Timestamp) {
        let Some(mut spec) = service.spec.autoscale.clone() else {
            return;
        };
        if service.spec.kind == ServiceKind::Command {
            // It may have been undone to one: no request would ever start it again.
            spec.min = spec.min.max(1);
        }
        sample.rollout = service.is_rolling();
        let state = self.services.remove(&service.key);
        let history = state.map(|state| state.history).unwrap_or_default();
        let current = service.spec.replicas;
        let (decision, history) = autoscale::decide(&spec, current, &history, &sample, now);
        let state = State {
            history,
            decision,
            generation: service.generation,
        };
        self.services.insert(service.key.clone(), state);
    }

    fn publish(&self) {
        let decided = self.services.iter();
        let decided = decided.map(|(key, state)| (key.clone(), state.decision.clone()));
        self.with
            .decisions
            .send_replace(Arc::new(decided.collect()));
    }
}

/// What was measured of a service, if that was measured anywhere.
fn sample(service: &Service, measured: &Merged, mirror: &Mirror) -> Option<Sample> {
    let pods = mirror.pods_of(&service.key).map(|stored| &*stored.value);
    // What drains is not measured either.
    let pods = pods.filter(|pod| pod.stop.is_none()).filter_map(|pod| {
        let ready = matches!(pod.status.phase, PodPhase::Ready { .. });
        Some((pod.node.as_ref()?, ready))
    });
    Some(measured.load(&service.key, pods)?.sample())
}

pub(crate) fn is_autoscaled(service: &Service) -> bool {
    service.spec.autoscale.is_some() && !service.spec.deleting
}
