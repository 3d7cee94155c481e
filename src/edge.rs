//! The edge: tells the gateway which pods answer for which service.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::{Service, ServiceKind},
    provoke,
    record::{self, Key},
};
use sampan_gateway::{
    Endpoint, EndpointState, Gateway, NodeEndpoint, Published, ServiceConfig, Targets,
};
use tokio::sync::{Notify, watch};

use crate::mirror::{Follower, Mirror};

/// The services of this node and their endpoints, of which the gateway is told what has changed.
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
    /// The other nodes that have ready pods, by service.
    nodes: BTreeMap<ServiceKey, BTreeMap<Name, Arc<NodeEndpoint>>>,
    /// The pods of other nodes, ready or not, by service.
    elsewhere: BTreeMap<ServiceKey, BTreeSet<PodName>>,
    /// The services of which anything has changed since they were published last.
    changed: BTreeSet<ServiceKey>,
    /// Endpoints that were looked at to publish them.
    #[cfg(test)]
    gathered: usize,
}

impl Known {
    /// Knows which pods of the store are on other nodes than this.
    fn locate(&mut self, mirror: &Mirror, keys: Option<&BTreeSet<Key>>, own: &Name) {
        let changed: Vec<_> = match keys {
            Some(keys) => keys.iter().filter_map(pod_of).collect(),
            None => {
                self.elsewhere.clear();
                mirror.pods.keys().collect()
            }
        };
        for pod in changed {
            let stored = mirror.pods.get(pod);
            let service = pod.service().clone();
            if stored.is_some_and(|stored| stored.value.node.as_ref() != Some(own)) {
                let pods = self.elsewhere.entry(service).or_default();
                pods.insert(pod.clone());
            } else {
                drop_from(&mut self.elsewhere, service, |pods| {
                    pods.remove(pod);
                    pods.is_empty()
                });
            }
        }
    }

    /// Whether a service is known as it is in the store now.
    fn take(&mut self, name: &ServiceKey, service: Option<&record::Service>) -> bool {
        match service {
            Some(service) if !service.is_settled() => drop(self.unsettled.insert(name.clone())),
            Some(_) | None => drop(self.unsettled.remove(name)),
        }
        let (wanted, demand) = (service.map(stored_config), service.map(demand));
        if self.services.get(name) == wanted.as_ref() && self.demands.get(name) == demand.as_ref() {
            return true;
        }
        self.changed.insert(name.clone());
        match demand {
            Some(demand) => drop(self.demands.insert(name.clone(), demand)),
            None => drop(self.demands.remove(name)),
        }
        match wanted {
            Some(config) => drop(self.services.insert(name.clone(), config)),
            None => drop(self.services.remove(name)),
        }
        false
    }

    /// The endpoints of a service, and how it is to be published with them.
    fn gather(&mut self, name: &ServiceKey) -> Option<Published> {
        let config = self.services.get(name)?;
        let first = PodName::new(name, 0, 0);
        let endpoints = self.endpoints.range(first..);
        let own = endpoints.take_while(|(pod, _)| pod.service() == name);
        let mut own: Vec<_> = own.map(|(_, it)| Arc::clone(it)).collect();
        // As the gateway wants them; those of one thread in the order of their names.
        own.sort_by_key(|endpoint| endpoint.home());
        let own: Arc<[_]> = own.into();
        let nodes = self.nodes.get(name).map(BTreeMap::values);
        let nodes = nodes.into_iter().flatten().cloned().collect();
        #[cfg(test)]
        {
            self.gathered += own.len();
        }
        let expects_pods = self.demands.get(name).is_none_or(|demand| {
            let stays = |it: &&Arc<Endpoint>| it.state() != EndpointState::Terminating;
            demand.others_come || own.iter().filter(stays).count() < demand.replicas as usize
        });
        let config = ServiceConfig {
            expects_pods,
            ..config.clone()
        };
        Some((config, Targets::new(own, nodes)))
    }
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
    /// [`Gateway::occupied`]. `None` also if other pods are on their way, or if another node has some.
    pub(crate) fn occupied(&self, service: &ServiceKey) -> Option<Vec<(PodName, u32)>> {
        let known = self.known.lock();
        match known.unsettled.contains(service) || known.elsewhere.contains_key(service) {
            true => None,
            false => self.gateway.occupied(service),
        }
    }

    /// Endpoints that were looked at so far to publish them.
    #[cfg(test)]
    pub(crate) fn gathered(&self) -> usize {
        self.known.lock().gathered
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
        for config in configs {
            known.changed.insert(config.name.clone());
            known.services.insert(config.name.clone(), config);
        }
        self.publish(&mut known);
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
        let mut known = self.known.lock();
        known.changed.insert(pod.service().clone());
        known.endpoints.insert(pod, endpoint);
        drop(known);
        self.changed.notify_one();
    }

    /// A pod is to be ready now. Another one may be taken out because of that, at once: so it is
    /// published, if that has not been done yet.
    pub(crate) fn place(&self, endpoint: &Endpoint) {
        if endpoint.is_published() {
            return;
        }
        let mut known = self.known.lock();
        if known.endpoints.contains_key(endpoint.pod()) {
            self.publish(&mut known);
        }
    }

    /// A pod has no place any more. It gets no requests long since.
    pub(crate) fn exit(&self, pod: &PodName) {
        let mut known = self.known.lock();
        known.changed.insert(pod.service().clone());
        known.endpoints.remove(pod);
        drop(known);
        self.changed.notify_one();
    }

    /// A pod only ends what it has. Whether others are expected is said with the next change.
    pub(crate) fn leave(&self, pod: &PodName) {
        let mut known = self.known.lock();
        known.changed.insert(pod.service().clone());
    }

    /// Requests to these services go to this node as well, or do no more.
    pub(crate) fn hear(
        &self,
        node: &Name,
        changes: impl IntoIterator<Item = (ServiceKey, Option<Arc<NodeEndpoint>>)>,
    ) {
        let mut known = self.known.lock();
        for (service, endpoint) in changes {
            known.changed.insert(service.clone());
            match endpoint {
                Some(endpoint) => {
                    let nodes = known.nodes.entry(service).or_default();
                    nodes.insert(node.clone(), endpoint);
                }
                None => drop_from(&mut known.nodes, service, |nodes| {
                    nodes.remove(node);
                    nodes.is_empty()
                }),
            }
        }
        self.publish(&mut known);
    }

    /// Keeps the services those that it follows, and publishes what changes, until the store is
    /// closed. Many changes at once are published together. Of several nodes this is `own`, and it
    /// follows pods as well.
    pub(crate) async fn follow(&self, mut follower: Follower, own: Option<Name>) {
        let own = own.as_ref();
        self.take(&follower.mirror(), None, own);
        self.followed.send_replace(true);
        loop {
            provoke::panic_in(provoke::Task::Edge);
            tokio::select! {
                keys = follower.next() => match keys {
                    Some(keys) => self.take(&follower.mirror(), Some(&keys), own),
                    None => return,
                },
                () = self.changed.notified() => {}
            }
            // Tasks that are ready now may report their changes first.
            tokio::task::yield_now().await;
            self.publish(&mut self.known.lock());
        }
    }

    /// Knows the services of the store, or those of these keys, as they are now.
    fn take(&self, mirror: &Mirror, keys: Option<&BTreeSet<Key>>, own: Option<&Name>) {
        let mut known = self.known.lock();
        if let Some(own) = own {
            known.locate(mirror, keys, own);
        }
        let names: BTreeSet<_> = match keys {
            Some(keys) => keys.iter().filter_map(service_of).cloned().collect(),
            None => {
                let there = mirror.services.keys().chain(known.services.keys());
                there.cloned().collect()
            }
        };
        let mut same = true;
        for name in &names {
            let stored = mirror.services.get(name);
            same &= known.take(name, stored.map(|stored| &*stored.value));
        }
        if !same {
            self.publish(&mut known);
            self.opened.send_replace(());
        }
    }

    /// Publishes what has changed: what costs anything is the services and endpoints of that.
    fn publish(&self, known: &mut Known) {
        let changed = std::mem::take(&mut known.changed);
        if changed.is_empty() {
            return;
        }
        let changes = changed.into_iter().map(|name| {
            let published = known.gather(&name);
            (name, published)
        });
        self.gateway.change(changes.collect());
    }
}

/// Takes something from what is kept of a service, and forgets the service if nothing is left.
fn drop_from<T>(
    all: &mut BTreeMap<ServiceKey, T>,
    service: ServiceKey,
    take: impl FnOnce(&mut T) -> bool,
) {
    if let Entry::Occupied(mut kept) = all.entry(service)
        && take(kept.get_mut())
    {
        kept.remove();
    }
}

fn pod_of(key: &Key) -> Option<&PodName> {
    match key {
        Key::Pod(name) => Some(name),
        Key::Service(_) | Key::App(_) | Key::Revision(..) | Key::Job(_) | Key::Secret(..) => None,
    }
}

fn service_of(key: &Key) -> Option<&ServiceKey> {
    match key {
        Key::Service(name) => Some(name),
        Key::App(_) | Key::Revision(..) | Key::Pod(_) | Key::Job(_) | Key::Secret(..) => None,
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
    // One that is being deleted gets nothing more from outside. What depends on it and still ends its
    // requests may call it until it stops.
    let routes = match (spec.deleting, spec.kind) {
        (false, ServiceKind::Http | ServiceKind::Static) => spec.routes.clone(),
        // Or it is of a revision that answered requests, to which this one was undone: it answers none.
        (true, _) | (false, ServiceKind::Command) => Vec::new(),
    };
    ServiceConfig {
        name: service.key.clone(),
        routes,
        queue: spec.queue,
        queue_timeout: spec.queue_timeout,
        body: spec.body_bytes,
        debug_headers: spec.debug_headers,
        expects_pods: true,
    }
}

/// Which pods it shall have.
fn demand(service: &record::Service) -> Demand {
    if service.spec.deleting {
        return Demand {
            replicas: 0,
            others_come: false,
        };
    }
    let replicas = service.spec.replicas;
    let wakes = replicas == 0 && service.spec.autoscale.is_some();
    Demand {
        replicas,
        others_come: wakes || !service.has_all_pods(),
    }
}
