//! What the control side publishes: all routes, services and endpoints as one value.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use sampan_core::{name::ServiceKey, object::Route};

use tokio::{sync::Notify, time::Instant};

use crate::{
    budget::RetryBudget,
    buffers::Buffers,
    endpoint::Endpoint,
    queue::{Queue, Slot},
    route::Table,
    stats::Counters,
};

/// How the gateway treats a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The service's name.
    pub name: ServiceKey,
    /// Which requests from outside reach it. None: only other services do.
    pub routes: Vec<Route>,
    /// Requests that may wait for a pod.
    pub queue: u32,
    /// How long one may wait.
    pub queue_timeout: Duration,
    /// Largest request body, in bytes.
    pub body: u64,
    /// Whether responses say `Sampan-Revision` and `Sampan-Pod`.
    pub debug_headers: bool,
    /// Whether other pods may come than those that are published with it. If not, and none of these
    /// can become ready in time, a request does not wait.
    pub expects_pods: bool,
}

/// What stays of a service from one snapshot to the next.
///
/// The counters come first, beside the counts of the `Arc`: each request writes both, most likely
/// on one cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Service {
    pub(crate) counters: Counters,
    pub(crate) queue: Arc<Queue>,
    retries: Mutex<RetryBudget>,
}

impl Service {
    /// A service that has had no request. It says on `parked` when a request waits that
    /// no pod could ever take.
    fn new(parked: &Arc<Notify>, buffers: &Arc<Buffers>) -> Self {
        Self {
            counters: Counters::default(),
            queue: Arc::new(Queue::new(parked, buffers)),
            retries: Mutex::default(),
        }
    }

    /// Whether a request may be tried a second time.
    pub(crate) fn may_retry(&self) -> bool {
        let mut budget = self.retries.lock();
        budget.take(Instant::now(), self.counters.requests())
    }

    /// Notes how the pod of a slot did.
    pub(crate) fn judge(&self, slot: &Slot, has_answered: bool) {
        if has_answered {
            slot.endpoint().succeeded();
        } else if slot.failed() {
            self.counters.ejected();
        }
    }
}

/// A service in one snapshot.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) config: ServiceConfig,
    pub(crate) service: Arc<Service>,
    pub(crate) endpoints: Arc<[Arc<Endpoint>]>,
}

/// Everything a request needs to find its way. Never changed, only replaced.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    routes: Table<Arc<Backend>>,
    services: HashMap<ServiceKey, Arc<Backend>>,
    /// Services that are gone but still have requests in flight. Should one come back, its slots
    /// must find the queue that waits for them.
    retired: HashMap<ServiceKey, Weak<Service>>,
}

impl Snapshot {
    /// The successor of `self` with these services. Its endpoints are open for requests. A service
    /// that is new says on `parked` when a request waits that no pod could ever take.
    pub(crate) fn next(
        &self,
        published: Vec<(ServiceConfig, Arc<[Arc<Endpoint>]>)>,
        parked: &Arc<Notify>,
        buffers: &Arc<Buffers>,
    ) -> Self {
        let mut next = Self::default();
        for (config, endpoints) in published {
            if next.services.contains_key(&config.name) {
                tracing::warn!(service = %config.name, "published twice at once; the first stays");
                continue;
            }
            let same = self.services.get(&config.name);
            let same = same.filter(|it| it.config == config && is_same(&it.endpoints, &endpoints));
            let backend = same.cloned().unwrap_or_else(|| {
                let service = self.identity(&config.name);
                let service = service.unwrap_or_else(|| Arc::new(Service::new(parked, buffers)));
                for endpoint in endpoints.iter() {
                    endpoint.attach(&service.queue, &service.counters);
                }
                Arc::new(Backend {
                    config,
                    service,
                    endpoints,
                })
            });
            for route in &backend.config.routes {
                if !next.routes.insert(route, backend.clone()) {
                    let service = &backend.config.name;
                    tracing::warn!(%service, ?route, "another service has the route already");
                }
            }
            next.services.insert(backend.config.name.clone(), backend);
        }
        let gone = self
            .services
            .iter()
            .map(|(name, backend)| (name, Arc::downgrade(&backend.service)));
        let retired = self
            .retired
            .iter()
            .map(|(name, service)| (name, service.clone()));
        next.retired = gone
            .chain(retired)
            .filter(|(name, service)| {
                !next.services.contains_key(*name) && service.strong_count() > 0
            })
            .map(|(name, service)| (name.clone(), service))
            .collect();
        next
    }

    /// What is to stay of a service, if anything is.
    fn identity(&self, name: &ServiceKey) -> Option<Arc<Service>> {
        let current = self
            .services
            .get(name)
            .map(|backend| backend.service.clone());
        current.or_else(|| self.retired.get(name)?.upgrade())
    }

    /// Makes the queues follow this snapshot, which has just replaced `old`: those that wait go to
    /// its endpoints, and what is not in it any more is closed.
    pub(crate) fn settle(&self, old: &Self) {
        let changed = |of: &Self, name: &ServiceKey, backend: &Arc<Backend>| {
            !of.services
                .get(name)
                .is_some_and(|it| Arc::ptr_eq(it, backend))
        };
        let new = self.services.iter();
        let new: Vec<_> = new.filter(|(name, it)| changed(old, name, it)).collect();
        for (_, backend) in &new {
            backend.service.queue.install(
                backend.endpoints.clone(),
                backend.config.queue,
                backend.config.expects_pods,
            );
        }
        let kept = new.iter().flat_map(|(_, it)| it.endpoints.iter());
        let kept: HashSet<_> = kept.map(Arc::as_ptr).collect();
        let gone = old.services.iter();
        for (name, backend) in gone.filter(|(name, it)| changed(self, name, it)) {
            for endpoint in backend.endpoints.iter() {
                if !kept.contains(&Arc::as_ptr(endpoint)) {
                    endpoint.detach();
                }
            }
            if !self.services.contains_key(name) {
                backend.service.queue.close();
            }
        }
    }

    /// The service for a request from outside.
    pub(crate) fn route(&self, authority: Option<&str>, path: &str) -> Option<&Arc<Backend>> {
        self.routes.find(authority, path)
    }

    /// The service of this name.
    pub(crate) fn service(&self, name: &ServiceKey) -> Option<&Arc<Backend>> {
        self.services.get(name)
    }

    /// The services with requests that wait and that no pod could ever take, in the order of names.
    pub(crate) fn parked_services(&self) -> Vec<ServiceKey> {
        let mut parked: Vec<_> = self
            .services
            .iter()
            .filter(|(_, backend)| backend.service.queue.is_parked())
            .map(|(name, _)| name.clone())
            .collect();
        parked.sort_unstable();
        parked
    }
}

/// Whether these are the same endpoints, in the same order.
fn is_same(some: &Arc<[Arc<Endpoint>]>, others: &Arc<[Arc<Endpoint>]>) -> bool {
    let each = || some.iter().zip(others.iter());
    let same = |(one, other): (&Arc<Endpoint>, &Arc<Endpoint>)| Arc::ptr_eq(one, other);
    Arc::ptr_eq(some, others) || some.len() == others.len() && each().all(same)
}
