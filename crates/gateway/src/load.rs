//! The load of a service and of its pods at one moment, at a cost that its traffic does not change.

use sampan_core::name::PodName;
use tokio::time::Instant;

use crate::{
    busy::Reading,
    endpoint::{Endpoint, EndpointState},
    snapshot::Backend,
};

/// The load of a service, since it was first published and at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceLoad {
    /// Requests that reached the service so far, from outside and from other services.
    pub requests: u64,
    /// Those of them that have ended, in whatever way.
    pub ended: u64,
    /// Requests being worked on or waiting: each from its arrival at the gateway to the last byte
    /// of its answer, or until that was dropped.
    pub in_flight: Reading,
    /// Requests waiting for a pod: each from the moment none was free to the moment it got a slot,
    /// went away or was sent away.
    pub queued: Reading,
    /// The published pods of this node, in the order in which they were published.
    pub endpoints: Vec<EndpointLoad>,
}

/// The load of a pod, since its endpoint was made and at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointLoad {
    /// The pod.
    pub pod: PodName,
    /// The revision it runs.
    pub revision: u64,
    /// Whether it may get requests.
    pub state: EndpointState,
    /// Whether it is ready but gets no requests for now, because it failed too often.
    pub is_ejected: bool,
    /// How many requests it takes at once.
    pub capacity: u32,
    /// How often a request got a slot of it, second tries included.
    pub requests: u64,
    /// Requests that have a slot: each from the moment the balancer picked this pod to the last
    /// byte of its answer, or until that was dropped.
    pub in_flight: Reading,
}

impl ServiceLoad {
    /// The load of a service now.
    pub(crate) fn of(backend: &Backend) -> Self {
        let service = &backend.service;
        // Ends first: read the other way round, more could have ended than had begun.
        let ended = service.counters.ended();
        let requests = service.counters.requests();
        let now = Instant::now();
        let of = |endpoint: &Endpoint| EndpointLoad::of(endpoint, now);
        Self {
            requests,
            ended: ended.min(requests),
            in_flight: service.counters.busy.read(now),
            queued: service.queue.read(now),
            endpoints: backend.targets.endpoints.iter().map(|it| of(it)).collect(),
        }
    }
}

impl EndpointLoad {
    fn of(endpoint: &Endpoint, now: Instant) -> Self {
        Self {
            pod: endpoint.pod().clone(),
            revision: endpoint.revision(),
            state: endpoint.state(),
            is_ejected: endpoint.is_ejected(),
            capacity: endpoint.capacity(),
            requests: endpoint.busy().begun(),
            in_flight: endpoint.busy().read(now),
        }
    }
}
