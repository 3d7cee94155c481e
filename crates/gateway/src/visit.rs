//! Requests that come from another node, for the pods of this one alone.
//!
//! The node that a client has reached routes, checks, queues and counts; this one has a slot for the
//! request at once, or refuses it before anything of it has begun. It never sends it on.

use std::{fmt, future::poll_fn, pin::pin, sync::Arc};

use http::{Method, Request, Response};
use sampan_core::{fault::Fault, name::ServiceKey};

use crate::{
    body::Body,
    exchange::Exchange,
    gateway::Gateway,
    proxy::{self, MAX_RETURNS},
    queue::Slot,
    response::ResponseBody,
    snapshot::Backend,
    stats::End,
    upstream::{AnsweredBy, RequestContext, UpstreamError},
};

/// A slot of a pod of this node, for a request of another node. Dropping it frees the slot.
pub struct Reservation {
    backend: Arc<Backend>,
    slot: Slot,
}

/// Why a request of another node has no answer.
#[derive(Debug)]
pub enum Turned {
    /// No guest has begun with it, and no pod of this node takes it now.
    NotBegun,
    /// It has failed in a pod.
    Failed {
        /// What happened.
        kind: Fault,
        /// As in [`UpstreamError::Failed`].
        repeatable: bool,
        /// The pod.
        by: Option<AnsweredBy>,
    },
}

impl Gateway {
    /// Takes a slot of a pod of this node for a request of another node: at once, or not at all.
    pub fn reserve(&self, service: &ServiceKey) -> Option<Reservation> {
        let backend = self.service(service)?;
        let slot = backend.service.queue.take_own(&backend.targets)?;
        Some(Reservation { backend, slot })
    }
}

impl Reservation {
    /// Answers a request, whose fields are as its pod is to see them. Its pod and revision are said in
    /// the answer. It is counted for the pod and not for the service, which the other node does.
    ///
    /// Dropping the future, or later the response body, ends the request.
    ///
    /// # Errors
    ///
    /// If no pod of this node has answered.
    pub async fn answer(
        self,
        request: Request<Body>,
        context: &RequestContext,
    ) -> Result<Response<ResponseBody>, Turned> {
        let Self { backend, slot } = self;
        let is_head = request.method() == Method::HEAD;
        let span = proxy::span(&backend, context);
        let mut exchange = Exchange::of_another_node(&backend.service, span);
        let mut answer = pin!(answer(&backend, request, slot, context));
        let answer = poll_fn(|cx| exchange.span().in_scope(|| answer.as_mut().poll(cx)));
        match answer.await {
            Ok((response, slot)) => Ok(proxy::respond(response, slot, exchange, is_head, true)),
            Err((turned, slot)) => {
                if let Some(slot) = &slot {
                    exchange.placed(slot);
                }
                exchange.end(End::Complete);
                Err(turned)
            }
        }
    }
}

/// Calls pods of this node until one has answered.
async fn answer(
    backend: &Backend,
    mut request: Request<Body>,
    mut slot: Slot,
    context: &RequestContext,
) -> Result<(Response<Body>, Slot), (Turned, Option<Slot>)> {
    let mut returns = 0;
    loop {
        let error = match proxy::call(backend, &mut slot, request, context, None).await {
            Ok(response) => return Ok((response, slot)),
            Err(error) => error,
        };
        let kind = error.kind();
        match error {
            UpstreamError::Returned { request: whole, .. } => {
                returns += 1;
                let queue = &backend.service.queue;
                let other = queue.take_another_own(&backend.targets, &slot);
                let Some(other) = other.filter(|_| returns < MAX_RETURNS) else {
                    return Err((Turned::NotBegun, Some(slot)));
                };
                (request, slot) = (*whole, other);
            }
            UpstreamError::Refused { .. } => return Err((Turned::NotBegun, Some(slot))),
            UpstreamError::Failed { repeatable, .. }
            | UpstreamError::FailedElsewhere { repeatable, .. } => {
                let by = slot.by().cloned();
                let failed = Turned::Failed {
                    kind,
                    repeatable,
                    by,
                };
                return Err((failed, Some(slot)));
            }
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}
