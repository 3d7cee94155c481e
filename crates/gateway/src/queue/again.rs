//! Requests that another node has refused, and those that come from another node.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use sampan_core::fault::Fault;

use super::{Asker, Queue, Slot, Ticket, Waiter};
use crate::{
    balance,
    targets::{Place, Targets},
    upstream::AnsweredBy,
};

impl Slot {
    /// Notes which pod of another node has answered.
    pub(crate) fn is_answered_by(&mut self, by: impl FnOnce() -> Option<AnsweredBy>) {
        if let Place::Node(it) = &mut self.place {
            it.by = by();
        }
    }

    /// The pod that has answered, if it is known.
    pub(crate) fn by(&self) -> Option<&AnsweredBy> {
        match &self.place {
            Place::Pod(endpoint) => Some(endpoint.by()),
            Place::Node(it) => it.by.as_ref(),
        }
    }

    /// The node of this slot has refused the request.
    pub(crate) fn is_refused(&self) {
        if let Place::Node(it) = &self.place {
            it.node.has_refused(it.word);
        }
    }
}

impl Queue {
    /// The next slot for a request that the node of `slot` has refused: at once, or from where it stood
    /// in the line, until then. How long the line is does not matter: it had its place.
    pub(crate) async fn acquire_again(
        self: &Arc<Self>,
        slot: Slot,
        until: Instant,
        asker: Asker,
    ) -> Result<Slot, Fault> {
        let stood = match &slot.place {
            Place::Node(it) => it.stood,
            Place::Pod(_) => None,
        };
        slot.is_refused();
        drop(slot);
        let mut ticket = self.return_to(stood, until, asker)?;
        match tokio::time::timeout_at(until, ticket.wait(std::future::pending())).await {
            Ok(slot) => slot,
            // A slot may have come in the same moment.
            Err(_) => ticket.leave().ok_or(Fault::QueueTimeout),
        }
    }

    /// Puts a request back where it stood. What is free goes to the first in the line.
    fn return_to(
        self: &Arc<Self>,
        stood: Option<super::Number>,
        until: Instant,
        asker: Asker,
    ) -> Result<Ticket, Fault> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Fault::NoService);
        }
        if !inner.pods.have_chance(until) {
            return Err(Fault::NoPod);
        }
        let now = Instant::now();
        let (sender, slot) = oneshot::channel();
        let waiter = Waiter {
            until,
            slot: sender,
        };
        let number = inner.waiters.put_back(asker, waiter, stood);
        inner.busy.begin(now);
        let unused = self.serve(&mut inner, now);
        // At a service without a queue no request waits.
        let may_stay = inner.max > 0 || !inner.waiters.has(number);
        if !may_stay {
            inner.waiters.remove(number);
            inner.busy.end(now);
            self.note_length(&inner);
        }
        if may_stay && inner.waiters.len() == 1 && inner.pods.are_gone() {
            self.parked.notify_one();
        }
        drop(inner);
        drop(unused);
        if !may_stay {
            return Err(Fault::QueueFull);
        }
        self.look_for_slow();
        Ok(Ticket {
            number,
            queue: Arc::clone(self),
            slot,
        })
    }

    /// Takes a slot of a pod of this node for a request of another node, if there is a free one and no
    /// request waits here.
    pub(crate) fn take_own(self: &Arc<Self>, targets: &Targets) -> Option<Slot> {
        if self.waiting() > 0 {
            return None;
        }
        let now = Instant::now();
        let endpoint = balance::pick(&targets.endpoints, now)?;
        Some(Slot::new(Place::Pod(Arc::clone(endpoint)), self, None, now))
    }

    /// The same for a request that has come back from the pod of `slot`.
    pub(crate) fn take_another_own(
        self: &Arc<Self>,
        targets: &Targets,
        slot: &Slot,
    ) -> Option<Slot> {
        let except = match &slot.place {
            Place::Pod(endpoint) => Some(&**endpoint),
            Place::Node(_) => None,
        };
        let endpoint = balance::least_loaded(&targets.endpoints, except)?;
        let place = Place::Pod(Arc::clone(endpoint));
        Some(Slot::new(place, self, None, Instant::now()))
    }
}
