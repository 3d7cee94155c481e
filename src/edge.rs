//! The edge: tells the gateway which pods answer for which service.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use sampan_core::{name::Name, object::Service};
use sampan_gateway::{Endpoint, EndpointState, Gateway, ServiceConfig};

/// The services of this node and their endpoints, published to the gateway whole.
pub(crate) struct Edge {
    gateway: Gateway,
    services: Mutex<BTreeMap<Name, Entry>>,
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
        }
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Makes a service known, with the endpoints it has. Its requests wait until one is ready.
    pub(crate) fn declare<'a>(&self, services: impl IntoIterator<Item = &'a Service>) {
        self.change(|entries| {
            for service in services {
                let config = config(service);
                match entries.get_mut(&service.name) {
                    Some(entry) => entry.config = config,
                    None => {
                        let entry = Entry {
                            config,
                            endpoints: Vec::new(),
                        };
                        entries.insert(service.name.clone(), entry);
                    }
                }
            }
        });
    }

    /// Puts new endpoints in place of a service's old ones, in one step: no request finds neither.
    /// The old ones come back, terminating.
    pub(crate) fn replace(&self, service: &Name, new: Vec<Arc<Endpoint>>) -> Vec<Arc<Endpoint>> {
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

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Name, Entry>)) {
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

fn config(service: &Service) -> ServiceConfig {
    ServiceConfig {
        name: service.name.clone(),
        routes: service.routes.clone(),
        queue: service.limits.queue,
        queue_timeout: service.limits.queue_timeout,
        body: service.limits.body.0,
        debug_headers: service.debug_headers,
    }
}
