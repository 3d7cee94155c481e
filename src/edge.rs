//! The edge: tells the gateway which pods answer for which service.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::{Service, ServiceKind},
    provoke, record,
};
use sampan_gateway::{Endpoint, EndpointState, Gateway, ServiceConfig};
use tokio::sync::{Notify, watch};

use crate::mirror::{Follower, Mirror};

/// The services of this node and their endpoints, published to the gateway whole.
pub(crate) struct Edge {
    gateway: Gateway,
    known: Mutex<Known>,
    /// Something is to be published.
    changed: Notify,
    /// Other services are known.
    opened: watch::Sender<()>,
    /// Those of the store are.
    followed: watch::Sender<bool>,
}

#[derive(Default)]
struct Known {
    services: BTreeMap<ServiceKey, ServiceConfig>,
    endpoints: BTreeMap<PodName, Arc<Endpoint>>,
    /// Services of the store whose pods are not all there yet.
    unsettled: BTreeSet<ServiceKey>,
    /// How many pods the services of the store shall have, and whether others may come.
    demands: BTreeMap<ServiceKey, Demand>,
}

/// The pods that a service shall have.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Demand {
    replicas: u32,
    /// Whether others are certain to come: a change is still to be carried out, or a request to the
    /// service makes one.
    others_come: bool,
}

impl Edge {
    pub(crate) fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            known: Mutex::default(),
            changed: Notify::new(),
            opened: watch::Sender::default(),
            followed: watch::Sender::default(),
        }
    }

    /// The pods for a slot of which a request to this service has to wait: see
    /// [`Gateway::occupied`]. `None` also if other pods are on their way.
    pub(crate) fn occupied(&self, service: &ServiceKey) -> Option<Vec<(PodName, u32)>> {
        match self.known.lock().unsettled.contains(service) {
            true => None,
            false => self.gateway.occupied(service),
        }
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The services that requests can reach.
    pub(crate) fn services(&self) -> Vec<ServiceKey> {
        self.known.lock().services.keys().cloned().collect()
    }

    /// Makes services known, with the endpoints they have. Their requests wait until one is ready.
    pub(crate) fn declare<'a>(&self, app: &Name, services: impl IntoIterator<Item = &'a Service>) {
        let configs = services.into_iter().map(|service| config(app, service));
        let mut known = self.known.lock();
        known
            .services
            .extend(configs.map(|config| (config.name.clone(), config)));
        self.publish(&known);
        self.opened.send_replace(());
    }

    /// Resolves when requests to the service are taken.
    pub(crate) async fn opened(&self, service: &ServiceKey) {
        let mut opened = self.opened.subscribe();
        while !self.known.lock().services.contains_key(service) {
            // The sender is here as long as this is.
            let _ = opened.changed().await;
        }
    }

    /// Resolves when the services of the store are known. A request that is taken before that is
    /// told that there is no such service.
    pub(crate) async fn followed(&self) {
        let mut followed = self.followed.subscribe();
        // The sender is here as long as this is.
        let _ = followed.wait_for(|followed| *followed).await;
    }

    /// A pod has a place now. It is published soon, and gets no request before it is ready.
    pub(crate) fn enter(&self, endpoint: Arc<Endpoint>) {
        let pod = endpoint.pod().clone();
        self.known.lock().endpoints.insert(pod, endpoint);
        self.changed.notify_one();
    }

    /// A pod is to be ready now. Another one may be taken out because of that, at once: so it is
    /// published, if that has not been done yet.
    pub(crate) fn place(&self, endpoint: &Endpoint) {
        if endpoint.is_published() {
            return;
        }
        let known = self.known.lock();
        if known.endpoints.contains_key(endpoint.pod()) {
            self.publish(&known);
        }
    }

    /// A pod has no place any more. It gets no requests long since.
    pub(crate) fn exit(&self, pod: &PodName) {
        self.known.lock().endpoints.remove(pod);
        self.changed.notify_one();
    }

    /// Keeps the services those that it follows, and publishes what changes, until the store is
    /// closed. Many changes at once are published together.
    pub(crate) async fn follow(&self, mut follower: Follower) {
        self.take(&follower.mirror());
        self.followed.send_replace(true);
        loop {
            provoke::panic_in(provoke::Task::Edge);
            tokio::select! {
                keys = follower.next() => match keys {
                    Some(_) => self.take(&follower.mirror()),
                    None => return,
                },
                () = self.changed.notified() => {}
            }
            // Tasks that are ready now may report their changes first.
            tokio::task::yield_now().await;
            self.publish(&self.known.lock());
        }
    }

    fn take(&self, mirror: &Mirror) {
        let services = || mirror.services.values().map(|stored| &*stored.value);
        let wanted = services().filter(|service| !service.spec.deleting);
        let wanted: BTreeMap<_, _> = wanted
            .map(|service| (service.key.clone(), stored_config(service)))
            .collect();
        let unsettled = services().filter(|service| !service.is_settled());
        let unsettled = unsettled.map(|service| service.key.clone()).collect();
        let demands = services().map(|service| (service.key.clone(), demand(service)));
        let demands = demands.collect();
        let mut known = self.known.lock();
        let same = known.services == wanted && known.demands == demands;
        known.unsettled = unsettled;
        known.demands = demands;
        if !same {
            known.services = wanted;
            self.publish(&known);
            self.opened.send_replace(());
        }
    }

    fn publish(&self, known: &Known) {
        let services = known.services.values();
        let published = services.map(|config| {
            let first = PodName::new(&config.name, 0, 0);
            let endpoints = known.endpoints.range(first..);
            let own = endpoints.take_while(|(pod, _)| *pod.service() == config.name);
            let own: Vec<_> = own.map(|(_, it)| Arc::clone(it)).collect();
            let expects_pods = known.demands.get(&config.name).is_none_or(|demand| {
                let stays = |it: &&Arc<Endpoint>| it.state() != EndpointState::Terminating;
                demand.others_come || own.iter().filter(stays).count() < demand.replicas as usize
            });
            let config = ServiceConfig {
                expects_pods,
                ..config.clone()
            };
            (config, own)
        });
        self.gateway.publish(published.collect());
    }
}

/// A service of an app as the gateway has it, while pods are to be expected.
pub(crate) fn config(app: &Name, service: &Service) -> ServiceConfig {
    ServiceConfig {
        name: ServiceKey::new(app, &service.name),
        routes: service.routes.clone(),
        queue: service.limits.queue,
        queue_timeout: service.limits.queue_timeout,
        body: service.limits.body.0,
        debug_headers: service.debug_headers,
        expects_pods: true,
    }
}

fn stored_config(service: &record::Service) -> ServiceConfig {
    let spec = &service.spec;
    ServiceConfig {
        name: service.key.clone(),
        // Of a revision that answered requests, to which this one was undone: it answers none.
        routes: match spec.kind {
            ServiceKind::Http | ServiceKind::Static => spec.routes.clone(),
            ServiceKind::Command => Vec::new(),
        },
        queue: spec.queue,
        queue_timeout: spec.queue_timeout,
        body: spec.body_bytes,
        debug_headers: spec.debug_headers,
        expects_pods: true,
    }
}

/// Which pods it shall have.
fn demand(service: &record::Service) -> Demand {
    let replicas = service.spec.replicas;
    let wakes = replicas == 0 && service.spec.autoscale.is_some();
    Demand {
        replicas,
        others_come: wakes || !service.has_all_pods(),
    }
}
