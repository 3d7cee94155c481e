//! The edge: tells the gateway which pods answer for which service.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::Service,
};
use sampan_gateway::{Endpoint, EndpointState, Gateway, ServiceConfig};

/// The services of this node and their endpoints, published to the gateway whole.
pub(crate) struct Edge {
    gateway: Gateway,
    services: Mutex<BTreeMap<ServiceKey, Entry>>,
    /// Services that will get other pods soon, and how often that was said.
    coming: Mutex<BTreeMap<ServiceKey, u32>>,
}

/// As long as it is there, other pods of a service are on their way.
pub(crate) struct Coming<'a> {
    edge: &'a Edge,
    service: ServiceKey,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut coming = self.edge.coming();
        if let Some(count) = coming.get_mut(&self.service) {
            *count -= 1;
        }
        coming.retain(|_, count| *count > 0);
    }
}

struct Entry {
    config: ServiceConfig,
    endpoints: Vec<Arc<Endpoint>>,
}

impl Edge {
    pub(crate) fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            services: Mutex::default(),
            coming: Mutex::default(),
        }
    }

    /// Notes that other pods of the service are being started, which are not published yet.
    pub(crate) fn expect(&self, service: &ServiceKey) -> Coming<'_> {
        *self.coming().entry(service.clone()).or_default() += 1;
        Coming {
            edge: self,
            service: service.clone(),
        }
    }

    /// The pods for a slot of which a request to this service has to wait: see
    /// [`Gateway::occupied`]. `None` also if other pods are on their way.
    pub(crate) fn occupied(&self, service: &ServiceKey) -> Option<Vec<(PodName, u32)>> {
        match self.coming().contains_key(service) {
            true => None,
            false => self.gateway.occupied(service),
        }
    }

    fn coming(&self) -> MutexGuard<'_, BTreeMap<ServiceKey, u32>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Makes a service known, with the endpoints it has. Its requests wait until one is ready.
    pub(crate) fn declare<'a>(&self, app: &Name, services: impl IntoIterator<Item = &'a Service>) {
        self.change(|entries| {
            for service in services {
                let config = config(app, service);
                match entries.get_mut(&config.name) {
                    Some(entry) => entry.config = config,
                    None => {
                        let name = config.name.clone();
                        let entry = Entry {
                            config,
                            endpoints: Vec::new(),
                        };
                        entries.insert(name, entry);
                    }
                }
            }
        });
    }

    /// Puts new endpoints in place of a service's old ones, in one step: no request finds neither.
    /// The old ones come back, terminating.
    pub(crate) fn replace(
        &self,
        service: &ServiceKey,
        new: Vec<Arc<Endpoint>>,
    ) -> Vec<Arc<Endpoint>> {
        let mut old = Vec::new();
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(service) {
                old = std::mem::replace(&mut entry.endpoints, new);
            }
        });
        for endpoint in &old {
            endpoint.set_state(EndpointState::Terminating);
        }
        old
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<ServiceKey, Entry>)) {
        let mut entries = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut entries);
        let entries = entries.values();
        self.gateway.publish(
            entries
                .map(|e| (e.config.clone(), e.endpoints.clone()))
                .collect(),
        );
    }
}

fn config(app: &Name, service: &Service) -> ServiceConfig {
    ServiceConfig {
        name: ServiceKey::new(app, &service.name),
        routes: service.routes.clone(),
        queue: service.limits.queue,
        queue_timeout: service.limits.queue_timeout,
        body: service.limits.body.0,
        debug_headers: service.debug_headers,
    }
}
