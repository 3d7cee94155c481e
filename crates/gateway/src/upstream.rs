//! What the gateway calls: the [`Upstream`] trait, its context and its errors.

use std::{net::SocketAddr, pin::Pin};

use http::{Request, Response};

use sampan_core::fault::Fault;

use crate::{
    body::Body,
    trace::{RequestId, TraceParent},
};

/// What [`Upstream::call`] returns: the response head with its body still streaming, or why there
/// is none.
pub type UpstreamFuture =
    Pin<Box<dyn Future<Output = Result<Response<Body>, UpstreamError>> + Send>>;

/// A pod as the gateway calls it.
///
/// The request has its target in origin form with path and query as the client sent them, and a
/// `Host` field that says the authority (an HTTP/1.0 client may have sent none). Hop-by-hop fields
/// are gone; `X-Request-Id`, `traceparent` and `X-Forwarded-*` are set.
///
/// The gateway drops the future, and later the response body, as soon as no client waits for the
/// answer any more. A body that cannot be completed must end in an error, never in a clean end.
pub trait Upstream: Send + Sync + 'static {
    /// Begins one request. Nothing may block here; the work belongs in the future.
    fn call(&self, request: Request<Body>, context: &RequestContext) -> UpstreamFuture;
}

/// What is known of a request besides its head and body.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestContext {
    /// The request's id, which is also its `X-Request-Id`. Calls between services keep it.
    pub request_id: RequestId,
    /// The trace context as the pod sees it: its parent id is the gateway's span.
    pub traceparent: TraceParent,
    /// The client the request came from, over however many services.
    pub client: Option<SocketAddr>,
}

impl RequestContext {
    /// A context for a request that begins here: new ids, no client.
    pub fn fresh() -> Self {
        Self {
            request_id: RequestId::random(),
            traceparent: TraceParent::random(),
            client: None,
        }
    }
}

/// Why an upstream gave no response head.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No guest had begun to handle the request. Here it is, whole, head and body: whatever its
    /// method, it may go to another pod.
    #[error("the pod gave the request back: {kind}")]
    Returned {
        /// What happened.
        kind: Fault,
        /// The request as the pod was given it.
        request: Box<Request<Body>>,
    },
    /// A guest has had the request, or may have.
    #[error("the pod gave no response: {kind}")]
    Failed {
        /// What happened.
        kind: Fault,
        /// Whether the request was only near when it happened: something else ended its instance,
        /// which had performed no outgoing call by then. So a second try is harmless if the method is
        /// idempotent. A request that ends an instance would end another one too.
        repeatable: bool,
    },
}

impl UpstreamError {
    /// An error of this kind after which nothing is tried again.
    pub fn new(kind: Fault) -> Self {
        Self::Failed {
            kind,
            repeatable: false,
        }
    }

    /// What happened.
    pub fn kind(&self) -> Fault {
        match self {
            Self::Returned { kind, .. } | Self::Failed { kind, .. } => *kind,
        }
    }
}
