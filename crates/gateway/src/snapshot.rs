//! What the control side publishes: all routes, services and endpoints as one value.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use sampan_core::{name::ServiceKey, object::Route};

use tokio::{sync::Notify, time::Instant};

use crate::{
    budget::RetryBudget,
    buffers::Buffers,
    node::Offer,
    queue::{Queue, Slot},
    route::Table,
    stats::Counters,
    targets::Targets,
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
            slot.place().succeeded();
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
    pub(crate) targets: Targets,
}

impl Backend {
    /// What its pods on this node are to other nodes. While requests wait here, none of them is free.
    pub(crate) fn offer(&self) -> Offer {
        let ready = self.targets.endpoints.iter().filter(|it| it.is_ready());
        let mut offer = ready.fold(Offer::default(), |sum, endpoint| Offer {
            ready: sum.ready + 1,
            capacity: sum.capacity.saturating_add(endpoint.capacity()),
            free: sum.free.saturating_add(endpoint.free()),
        });
        if self.service.queue.waiting() > 0 {
            offer.free = 0;
        }
        offer
    }
}

/// A service as it is published, and where its requests may go.
pub type Published = (ServiceConfig, Targets);

/// Services whose places are copied together when one of them changes.
const ROW: usize = 32;

/// Everything a request needs to find its way. Never changed, only replaced.
///
/// Where a service is stays the same while services and routes do: the next snapshot shares all but
/// the row of what has changed.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The place of each service by its routes.
    routes: Arc<Table<usize>>,
    /// And by its name.
    places: Arc<HashMap<ServiceKey, usize>>,
    rows: Vec<Arc<[Arc<Backend>]>>,
    /// Services that are gone but still have requests in flight. Should one come back, its slots
    /// must find the queue that waits for them.
    retired: HashMap<ServiceKey, Weak<Service>>,
}

/// What the services of all snapshots share.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    /// Told when a request waits that no pod could ever take.
    pub(crate) parked: &'a Arc<Notify>,
    pub(crate) buffers: &'a Arc<Buffers>,
}

impl Snapshot {
    /// The successor of `self` with these services. Their endpoints are open for requests.
    pub(crate) fn whole(&self, published: Vec<Published>, shared: Shared<'_>) -> Self {
        let mut names = HashSet::new();
        let mut backends = Vec::with_capacity(published.len());
        for published in published {
            let name = &published.0.name;
            if names.insert(name.clone()) {
                backends.push(self.backend(published, shared));
            } else {
                tracing::warn!(service = %name, "published twice at once; the first stays");
            }
        }
        self.followed_by(&backends)
    }

    /// The successor of `self` with what has changed: these services are as this says, or gone.
    pub(crate) fn next(
        &self,
        changes: BTreeMap<ServiceKey, Option<Published>>,
        shared: Shared<'_>,
    ) -> Self {
        let changes = changes.into_iter().map(|(name, published)| {
            let backend = published.map(|published| self.backend(published, shared));
            (name, backend)
        });
        let changes: BTreeMap<_, _> = changes.collect();
        if let Some(places) = self.same_places(&changes) {
            let mut rows = self.rows.clone();
            for (place, backend) in places.into_iter().zip(changes.into_values().flatten()) {
                Arc::make_mut(&mut rows[place / ROW])[place % ROW] = backend;
            }
            return Self {
                routes: Arc::clone(&self.routes),
                places: Arc::clone(&self.places),
                rows,
                retired: self.still_busy().collect(),
            };
        }
        let mut all: BTreeMap<_, _> = self
            .backends()
            .map(|backend| (&backend.config.name, backend))
            .collect();
        for (name, backend) in &changes {
            match backend {
                Some(backend) => drop(all.insert(name, backend)),
                None => drop(all.remove(name)),
            }
        }
        let all: Vec<_> = all.into_values().cloned().collect();
        self.followed_by(&all)
    }

    /// Where the services are that change, if only they do: none comes or goes, or has other routes.
    fn same_places(
        &self,
        changes: &BTreeMap<ServiceKey, Option<Arc<Backend>>>,
    ) -> Option<Vec<usize>> {
        let place = |(name, backend): (&ServiceKey, &Option<Arc<Backend>>)| {
            let (place, backend) = (*self.places.get(name)?, backend.as_ref()?);
            let is_same = self.at(place).config.routes == backend.config.routes;
            is_same.then_some(place)
        };
        changes.iter().map(place).collect()
    }

    /// The successor of `self` with these services only. Of two with one route the first counts.
    fn followed_by(&self, backends: &[Arc<Backend>]) -> Self {
        let mut routes = Table::default();
        for (place, backend) in backends.iter().enumerate() {
            let config = &backend.config;
            for route in &config.routes {
                if !routes.insert(route, place) {
                    let service = &config.name;
                    tracing::warn!(%service, ?route, "another service has the route already");
                }
            }
        }
        let names = backends.iter().map(|backend| backend.config.name.clone());
        let places: HashMap<_, _> = names.zip(0..).collect();
        let gone = self.backends().map(|backend| {
            let service = Arc::downgrade(&backend.service);
            (backend.config.name.clone(), service)
        });
        let retired = gone
            .filter(|(_, service)| service.strong_count() > 0)
            .chain(self.still_busy())
            .filter(|(name, _)| !places.contains_key(name))
            .collect();
        Self {
            routes: Arc::new(routes),
            places: Arc::new(places),
            rows: backends.chunks(ROW).map(Arc::from).collect(),
            retired,
        }
    }

    /// The services that have retired and still have requests in flight.
    fn still_busy(&self) -> impl Iterator<Item = (ServiceKey, Weak<Service>)> {
        let retired = self.retired.iter();
        let busy = retired.filter(|(_, service)| service.strong_count() > 0);
        busy.map(|(name, service)| (name.clone(), service.clone()))
    }

    /// A service as it is published now. Its endpoints are open for requests.
    fn backend(&self, (config, targets): Published, shared: Shared<'_>) -> Arc<Backend> {
        let same = self.service(&config.name);
        let same = same.filter(|it| it.config == config && it.targets.is_same(&targets));
        if let Some(same) = same {
            return Arc::clone(same);
        }
        let service = self.identity(&config.name);
        let service =
            service.unwrap_or_else(|| Arc::new(Service::new(shared.parked, shared.buffers)));
        for endpoint in targets.endpoints.iter() {
            endpoint.attach(&service.queue, &service.counters);
        }
        for node in targets.nodes.iter() {
            node.attach(&service.queue);
        }
        Arc::new(Backend {
            config,
            service,
            targets,
        })
    }

    /// What is to stay of a service, if anything is.
    fn identity(&self, name: &ServiceKey) -> Option<Arc<Service>> {
        let current = self.service(name).map(|backend| backend.service.clone());
        current.or_else(|| self.retired.get(name)?.upgrade())
    }

    /// The names of its services, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &ServiceKey> {
        self.places.keys()
    }

    /// Makes the queues of these services follow this snapshot, which has just replaced `old`: those
    /// that wait go to its endpoints, and what is not in it any more is closed.
    pub(crate) fn settle(&self, old: &Self, names: &HashSet<ServiceKey>) {
        let pairs = names
            .iter()
            .map(|name| (old.service(name), self.service(name)));
        let is_same = |(old, new): &(Option<&Arc<Backend>>, Option<&Arc<Backend>>)| match (old, new)
        {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        let changed: Vec<_> = pairs.filter(|pair| !is_same(pair)).collect();
        let new = || changed.iter().filter_map(|(_, new)| *new);
        for backend in new() {
            backend.service.queue.install(
                backend.targets.clone(),
                backend.config.queue,
                backend.config.expects_pods,
            );
        }
        let kept = new().flat_map(|it| it.targets.endpoints.iter());
        let kept: HashSet<_> = kept.map(Arc::as_ptr).collect();
        for (old, new) in &changed {
            let Some(old) = old else { continue };
            for endpoint in old.targets.endpoints.iter() {
                if !kept.contains(&Arc::as_ptr(endpoint)) {
                    endpoint.detach();
                }
            }
            if new.is_none() {
                old.service.queue.close();
            }
        }
    }

    fn at(&self, place: usize) -> &Arc<Backend> {
        &self.rows[place / ROW][place % ROW]
    }

    pub(crate) fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.rows.iter().flat_map(|row| row.iter())
    }

    /// The service for a request from outside.
    pub(crate) fn route(&self, authority: Option<&str>, path: &str) -> Option<&Arc<Backend>> {
        Some(self.at(*self.routes.find(authority, path)?))
    }

    /// The service of this name.
    pub(crate) fn service(&self, name: &ServiceKey) -> Option<&Arc<Backend>> {
        Some(self.at(*self.places.get(name)?))
    }

    /// The services with requests that wait and that no pod could ever take, in the order of names.
    pub(crate) fn parked_services(&self) -> Vec<ServiceKey> {
        let parked = self
            .backends()
            .filter(|backend| backend.service.queue.is_parked());
        let mut parked: Vec<_> = parked.map(|backend| backend.config.name.clone()).collect();
        parked.sort_unstable();
        parked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> ServiceKey {
        ServiceKey::parse(&format!("shop/s{number:04}")).expect("a key")
    }

    /// A service without pods, with a route of this host.
    fn published(number: usize, host: usize) -> Published {
        let config = ServiceConfig {
            name: key(number),
            routes: vec![Route {
                host: Some(format!("h{host}.localhost")),
                prefix: "/".to_owned(),
            }],
            queue: 1,
            queue_timeout: Duration::ZERO,
            body: 1,
            debug_headers: false,
            expects_pods: false,
        };
        (config, Targets::default())
    }

    /// What the snapshots of one gateway share.
    #[derive(Default)]
    struct Rig {
        parked: Arc<Notify>,
        buffers: Option<Arc<Buffers>>,
    }

    impl Rig {
        fn shared(&mut self) -> Shared<'_> {
            let limits = crate::Limits::default;
            Shared {
                parked: &self.parked,
                buffers: self.buffers.get_or_insert_with(|| Buffers::new(&limits())),
            }
        }
    }

    /// Where a request to each of these hosts goes, and how each of these services is.
    fn seen(snapshot: &Snapshot, count: usize) -> Vec<(Option<ServiceKey>, Option<ServiceConfig>)> {
        let seen = (0..count).map(|number| {
            let host = format!("h{number}.localhost");
            let to = snapshot.route(Some(&host), "/");
            let service = snapshot.service(&key(number));
            let (to, service) = (to.map(|it| &it.config), service.map(|it| &it.config));
            (to.map(|it| it.name.clone()), service.cloned())
        });
        seen.collect()
    }

    #[test]
    fn the_change_of_one_service_copies_its_row_alone() {
        let mut rig = Rig::default();
        let all = (0..1000).map(|number| published(number, number)).collect();
        let old = Snapshot::default().whole(all, rig.shared());
        let (mut config, endpoints) = published(500, 500);
        config.queue = 2;
        let next = old.next(
            BTreeMap::from([(key(500), Some((config, endpoints)))]),
            rig.shared(),
        );
        let copied = old.rows.iter().zip(&next.rows);
        assert_eq!(copied.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
        assert!(Arc::ptr_eq(&old.routes, &next.routes) && Arc::ptr_eq(&old.places, &next.places));
        let queue = |of: &Snapshot, number| of.service(&key(number)).map(|it| it.config.queue);
        assert_eq!((queue(&old, 500), queue(&next, 500)), (Some(1), Some(2)));
        assert_eq!(queue(&next, 501), Some(1));
    }

    #[test]
    fn many_changes_come_to_the_same_as_all_at_once() {
        const SERVICES: usize = 40;
        for seed in 0..8_usize {
            let mut rig = Rig::default();
            let mut random = seed;
            let mut next = move |below: usize| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (random >> 33) % below
            };
            let (mut all, mut snapshot) = (BTreeMap::new(), Snapshot::default());
            for _ in 0..50 {
                let mut changes = BTreeMap::new();
                for _ in 0..next(4) {
                    let number = next(SERVICES);
                    let change = match next(4) {
                        0 => None,
                        // Now and then the route of another one.
                        1 => Some(published(number, next(SERVICES))),
                        _ => Some(published(number, number)),
                    };
                    match &change {
                        Some(published) => drop(all.insert(key(number), published.clone())),
                        None => drop(all.remove(&key(number))),
                    }
                    changes.insert(key(number), change);
                }
                snapshot = snapshot.next(changes, rig.shared());
                let whole = all.values().cloned().collect();
                let whole = Snapshot::default().whole(whole, rig.shared());
                assert_eq!(
                    seen(&snapshot, SERVICES),
                    seen(&whole, SERVICES),
                    "seed {seed}"
                );
            }
        }
    }

    #[test]
    fn a_service_with_requests_in_flight_comes_back_as_it_was() {
        let mut rig = Rig::default();
        let both = vec![published(1, 1), published(2, 2)];
        let mut snapshot = Snapshot::default().whole(both, rig.shared());
        let held = snapshot.service(&key(1)).expect("it").service.clone();
        let gone = |number| BTreeMap::from([(key(number), None)]);
        snapshot = snapshot.next(gone(1), rig.shared());
        assert!(snapshot.service(&key(1)).is_none());
        snapshot = snapshot.next(gone(2), rig.shared());
        // The one before this held it, and is gone.
        snapshot = snapshot.next(BTreeMap::new(), rig.shared());
        assert_eq!(snapshot.retired.len(), 1, "nothing holds the other");
        let back = BTreeMap::from([(key(1), Some(published(1, 1)))]);
        let snapshot = snapshot.next(back, rig.shared());
        let service = &snapshot.service(&key(1)).expect("it").service;
        assert!(Arc::ptr_eq(service, &held) && snapshot.retired.is_empty());
    }
}
