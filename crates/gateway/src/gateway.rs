//! The [`Gateway`]: what the control side and the servers hold.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sampan_core::name::{PodName, ServiceKey};
use tokio::sync::Notify;

use crate::{
    Limits,
    buffers::Buffers,
    endpoint::{Endpoint, EndpointState},
    histogram::Latencies,
    load::ServiceLoad,
    node::Offer,
    snapshot::{Backend, Published, ServiceConfig, Shared, Snapshot},
    stats::{RevisionStats, ServiceStats},
    targets::Targets,
};

/// The load balancer. A cheap handle: clones share everything.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    snapshot: ArcSwap<Snapshot>,
    /// Held while a snapshot is built from its predecessor. Requests never take it.
    publishing: Mutex<()>,
    limits: Limits,
    /// What is kept of bodies on their way.
    buffers: Arc<Buffers>,
    unrouted: AtomicU64,
    refused: AtomicU64,
    /// Told when a request waits that no pod could ever take.
    parked: Arc<Notify>,
}

impl Gateway {
    /// A gateway without services.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            snapshot: ArcSwap::default(),
            publishing: Mutex::new(()),
            buffers: Buffers::new(&limits),
            limits,
            unrouted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            parked: Arc::default(),
        }))
    }

    /// The limits it was made with.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Replaces all services and endpoints at once.
    ///
    /// A service is the same as before if it has the same name: its queue and its statistics go
    /// on. Requests that wait go to the new endpoints. An endpoint that is missing now gets no more
    /// requests, and those in flight go on; who waits for a service that is missing now is sent
    /// away with 503. Of two services with the same name or the same route, the first one counts.
    pub fn publish(&self, services: Vec<(ServiceConfig, Vec<Arc<Endpoint>>)>) {
        let services = services.into_iter();
        let shared = services.map(|(config, mut endpoints)| {
            endpoints.sort_by_key(|endpoint| endpoint.home());
            (config, Targets::from(Arc::<[_]>::from(endpoints)))
        });
        self.replace(shared.collect());
    }

    /// The same with endpoints that the caller keeps as well.
    fn replace(&self, services: Vec<Published>) {
        let _publishing = self.0.publishing.lock();
        let old = self.0.snapshot.load_full();
        let next = Arc::new(old.whole(services, self.shared()));
        self.0.snapshot.store(next.clone());
        next.settle(&old, &old.names().chain(next.names()).cloned().collect());
    }

    /// Replaces some services and their endpoints at once, or takes them away, and leaves all others
    /// as they are. It costs
    /// what the services of `changes` cost, unless one comes or goes, or has
    /// other routes: then the places of all services are found anew, and of two with the same route
    /// the one counts whose name is first.
    pub fn change(&self, changes: BTreeMap<ServiceKey, Option<Published>>) {
        let _publishing = self.0.publishing.lock();
        let old = self.0.snapshot.load_full();
        let names = changes.keys().cloned().collect();
        let next = Arc::new(old.next(changes, self.shared()));
        self.0.snapshot.store(next.clone());
        next.settle(&old, &names);
    }

    fn shared(&self) -> Shared<'_> {
        Shared {
            parked: &self.0.parked,
            buffers: &self.0.buffers,
        }
    }

    /// Whether a service is published.
    pub fn has(&self, service: &ServiceKey) -> bool {
        self.service(service).is_some()
    }

    /// What a service has done since it was first published. `None` if it is not published.
    pub fn stats(&self, service: &ServiceKey) -> Option<ServiceStats> {
        let service = &self.service(service)?.service;
        Some(service.counters.snapshot(service.queue.waiting()))
    }

    /// The same by revision, and first what no pod got. Nothing if the service is not published.
    pub fn revision_stats(&self, service: &ServiceKey) -> Vec<RevisionStats> {
        let backend = self.service(service);
        backend.map_or_else(Vec::new, |it| it.service.counters.by_revision())
    }

    /// The load of a service and of its pods now. Two of these tell the means of the time between:
    /// [`Reading::mean_since`](crate::Reading::mean_since). The cost does not depend on traffic.
    /// `None` if the service is not published.
    pub fn load(&self, service: &ServiceKey) -> Option<ServiceLoad> {
        let backend = self.service(service)?;
        Some(ServiceLoad::of(&backend))
    }

    /// How long the answers of a service took since it was first published, of all requests that
    /// were not canceled or dropped, in time that does not depend on how many they were. Two of
    /// these make those of the time between: [`Latencies::since`]. `None` if the service is not
    /// published.
    pub fn latencies(&self, service: &ServiceKey) -> Option<Latencies> {
        let backend = self.service(service)?;
        Some(backend.service.counters.latencies())
    }

    /// The pods for a slot of which a request to this service has to wait, each with how many it
    /// has. `None` if it would not have to, or if it may get a pod that takes no requests for now:
    /// one that is not ready, or that was ejected. Also if other nodes have pods of it: what these
    /// wait for is not known here.
    pub fn occupied(&self, service: &ServiceKey) -> Option<Vec<(PodName, u32)>> {
        let backend = self.service(service)?;
        if !backend.targets.nodes.is_empty() {
            return None;
        }
        let mut pods = Vec::new();
        for endpoint in backend.targets.endpoints.iter() {
            match endpoint.state() {
                EndpointState::Terminating => {}
                EndpointState::Ready if endpoint.is_full() => {
                    pods.push((endpoint.pod().clone(), endpoint.capacity()));
                }
                EndpointState::Ready | EndpointState::Unready => return None,
            }
        }
        (!pods.is_empty()).then_some(pods)
    }

    /// What this node has of each service of which it has ready pods, for other nodes.
    pub fn offers(&self, mut tell: impl FnMut(&ServiceKey, Offer)) {
        let snapshot = self.0.snapshot.load();
        for backend in snapshot.backends() {
            let offer = backend.offer();
            if offer.ready > 0 {
                tell(&backend.config.name, offer);
            }
        }
    }

    /// Resolves when a request waits at a service that has no pod for it: none that is published
    /// and not terminating. It does so at once if that has happened since it last resolved, whether
    /// or not the request still waits; [`parked_services`](Self::parked_services) says
    /// where. Also when the last such pod goes while requests wait.
    ///
    /// It is for one task: of several that wait, one is told.
    pub async fn parked(&self) {
        self.0.parked.notified().await;
    }

    /// The services at which requests wait though none of their published pods could ever take
    /// one: there are none, or all are terminating. In the order of names.
    ///
    /// A service whose queue is 0 long is never among them: no request waits there.
    pub fn parked_services(&self) -> Vec<ServiceKey> {
        self.0.snapshot.load().parked_services()
    }

    /// Requests from outside that reached no service: malformed ones and those without a route.
    pub fn unrouted(&self) -> u64 {
        self.0.unrouted.load(Ordering::Relaxed)
    }

    /// Connections that were turned away because their client had too many.
    pub fn refused_connections(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn count_refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_unrouted(&self) {
        self.0.unrouted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn route(&self, authority: Option<&str>, path: &str) -> Option<Arc<Backend>> {
        self.0.snapshot.load().route(authority, path).cloned()
    }

    pub(crate) fn service(&self, name: &ServiceKey) -> Option<Arc<Backend>> {
        self.0.snapshot.load().service(name).cloned()
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}
