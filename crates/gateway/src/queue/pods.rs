//! The pods that requests of a queue may wait for.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    ejection,
    endpoint::{Endpoint, EndpointState},
    node::NodeEndpoint,
    targets::{Place, Targets},
};

/// The installed endpoints.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pub(super) targets: Targets,
    /// Whether other pods may come.
    pub(super) expects_more: bool,
}

impl Pods {
    /// Whether one of them is ready or can become so until then, or others may come.
    pub(super) fn have_chance(&self, until: Instant) -> bool {
        let mut own = self.targets.endpoints.iter();
        self.expects_more
            || own.any(|it| it.may_be_ready(until))
            || self.targets.nodes.iter().any(|it| it.is_ready())
    }

    /// Whether none of them could ever take a request. One that is not ready may become so; one
    /// that terminates never takes another.
    pub(super) fn are_gone(&self) -> bool {
        let is_gone = |it: &Arc<Endpoint>| it.state() == EndpointState::Terminating;
        self.targets.endpoints.iter().all(is_gone)
            && !self.targets.nodes.iter().any(|it| it.is_ready())
    }

    /// Whether this one may be ejected: of the pods at least half stay, and another node is left, or a
    /// pod of this one.
    pub(super) fn may_eject(&self, place: &Place) -> bool {
        let (ready, ejected) = self.ready();
        match place {
            Place::Pod(endpoint) => !endpoint.is_ejected() && ejection::may_eject(ready, ejected),
            Place::Node(it) => {
                let node = &it.node;
                let mut others = self.targets.nodes.iter();
                let is_left = |it: &Arc<NodeEndpoint>| !Arc::ptr_eq(it, node) && it.is_ready();
                !node.is_ejected()
                    && (ready > ejected || others.any(|it| is_left(it) && !it.is_ejected()))
            }
        }
    }

    /// Takes ejected pods back when too few others are left.
    pub(super) fn end_panic(&self) {
        let (ready, ejected) = self.ready();
        if ejection::is_panic(ready, ejected) {
            self.targets.endpoints.iter().for_each(|it| it.readmit());
        }
    }

    /// Ready endpoints, and how many of these are ejected.
    fn ready(&self) -> (usize, usize) {
        let is_ready = |it: &&Arc<Endpoint>| it.state() == EndpointState::Ready;
        let ready = self.targets.endpoints.iter().filter(is_ready);
        ready.fold((0, 0), |(ready, ejected), endpoint| {
            (ready + 1, ejected + usize::from(endpoint.is_ejected()))
        })
    }
}
