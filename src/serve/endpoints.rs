//! The endpoints of pods in the gateway, as the agent sees them.

use std::{pin::Pin, sync::Arc};

use futures::future::BoxFuture;
use sampan_core::name::{PodName, ServiceKey};
use sampan_gateway::{Endpoint, EndpointState, Gateway, Upstream};
use tokio::time::Instant;

use crate::{
    agent::{node::EndpointRegistry, rotation::Rotation},
    controllers::autoscale::Callers,
    edge::Edge,
};

/// A pod's endpoint, as its worker sees it.
pub(super) struct InRotation {
    pub(super) endpoint: Arc<Endpoint>,
    /// Where it is published, unless it has been.
    pub(super) edge: Option<Arc<Edge>>,
}

impl Rotation for InRotation {
    fn set_ready(&self, ready: bool) {
        if let (true, Some(edge)) = (ready, &self.edge) {
            edge.place(&self.endpoint);
        }
        self.endpoint.set_state(match ready {
            true => EndpointState::Ready,
            false => EndpointState::Unready,
        });
    }

    fn renew(&self) {
        self.endpoint.renew();
    }

    fn rest_until(&self, until: Option<Instant>) {
        self.endpoint.rest_until(until);
    }

    fn leave(&self) {
        self.endpoint.set_state(EndpointState::Terminating);
        if let Some(edge) = &self.edge {
            edge.leave(self.endpoint.pod());
        }
    }

    fn in_flight(&self) -> u32 {
        self.endpoint.in_flight()
    }

    fn idle(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let endpoint = Arc::clone(&self.endpoint);
        Box::pin(async move { endpoint.drained().await })
    }
}

/// The gateway of this node.
pub(super) struct GatewayEndpoints(pub(super) Arc<Edge>);

impl EndpointRegistry for GatewayEndpoints {
    fn opened<'a>(&'a self, service: &'a ServiceKey) -> BoxFuture<'a, ()> {
        Box::pin(self.0.opened(service))
    }

    fn enter(
        &self,
        pod: &PodName,
        home: usize,
        capacity: u32,
        upstream: Arc<dyn Upstream>,
    ) -> Arc<dyn Rotation> {
        let endpoint = Endpoint::on_thread(home, pod.clone(), pod.revision(), capacity, upstream);
        self.0.enter(Arc::clone(&endpoint));
        let edge = Some(Arc::clone(&self.0));
        Arc::new(InRotation { endpoint, edge })
    }

    fn exit(&self, pod: &PodName) {
        self.0.exit(pod);
    }
}

/// Who waits in the gateway of this node.
pub(super) struct GatewayCallers(pub(super) Gateway);

impl Callers for GatewayCallers {
    fn called(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.parked())
    }

    fn waiting(&self) -> Vec<ServiceKey> {
        self.0.parked_services()
    }
}

#[cfg(test)]
mod tests;
