//! The pods that requests of a queue may wait for.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    ejection,
    endpoint::{Endpoint, EndpointState},
};

/// The installed endpoints.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pub(super) endpoints: Arc<[Arc<Endpoint>]>,
    /// Whether other pods may come.
    pub(super) expects_more: bool,
}

impl Pods {
    /// Whether one of them is ready or can become so until then, or others may come.
    pub(super) fn have_chance(&self, until: Instant) -> bool {
        self.expects_more || self.endpoints.iter().any(|it| it.may_be_ready(until))
    }

    /// Whether none of them could ever take a request. One that is not ready may become so; one
    /// that terminates never takes another.
    pub(super) fn are_gone(&self) -> bool {
        let is_gone = |it: &Arc<Endpoint>| it.state() == EndpointState::Terminating;
        self.endpoints.iter().all(is_gone)
    }

    /// Whether one more may be ejected.
    pub(super) fn may_eject(&self) -> bool {
        let (ready, ejected) = self.ready();
        ejection::may_eject(ready, ejected)
    }

    /// Takes ejected pods back when too few others are left.
    pub(super) fn end_panic(&self) {
        let (ready, ejected) = self.ready();
        if ejection::is_panic(ready, ejected) {
            self.endpoints.iter().for_each(|it| it.readmit());
        }
    }

    /// Ready endpoints, and how many of these are ejected.
    fn ready(&self) -> (usize, usize) {
        let is_ready = |it: &&Arc<Endpoint>| it.state() == EndpointState::Ready;
        let ready = self.endpoints.iter().filter(is_ready);
        ready.fold((0, 0), |(ready, ejected), endpoint| {
            (ready + 1, ejected + usize::from(endpoint.is_ejected()))
        })
    }
}
