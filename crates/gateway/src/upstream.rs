//! What the gateway calls: the [`Upstream`] trait, its context and its errors.

use std::{net::SocketAddr, pin::Pin};

use http::{HeaderMap, HeaderValue, Request, Response};

use sampan_core::{fault::Fault, name::PodName};

use crate::{
    body::Body,
    headers::{SAMPAN_POD, SAMPAN_REVISION},
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

/// The pod that has had a request, as the fields of its answer say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredBy {
    /// Its name.
    pub(crate) pod: HeaderValue,
    /// The revision that it runs.
    pub(crate) revision: u64,
    revision_field: HeaderValue,
}

impl AnsweredBy {
    /// This pod.
    pub(crate) fn new(pod: &PodName, revision: u64) -> Self {
        Self {
            pod: HeaderValue::from_str(pod.as_str()).expect("a pod name is a host label"),
            revision,
            revision_field: revision.into(),
        }
    }

    /// What the fields of an answer of another node say.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let revision = headers.get(SAMPAN_REVISION)?;
        Some(Self {
            pod: headers.get(SAMPAN_POD)?.clone(),
            revision: revision.to_str().ok()?.parse().ok()?,
            revision_field: revision.clone(),
        })
    }

    /// Says so in the fields of an answer.
    pub fn say(&self, headers: &mut HeaderMap) {
        headers.insert(SAMPAN_REVISION, self.revision_field.clone());
        headers.insert(SAMPAN_POD, self.pod.clone());
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
    /// Another node has not begun with the request. Here it is, whole: it goes back to where it stood
    /// in the queue of its service, and speaks against no pod.
    #[error("another node refused the request")]
    Refused {
        /// The request as the node was to be given it.
        request: Box<Request<Body>>,
    },
    /// The request has failed on another node, as that node says.
    #[error("a pod of another node gave no response: {kind}")]
    FailedElsewhere {
        /// What happened.
        kind: Fault,
        /// As in `Failed`.
        repeatable: bool,
        /// The pod that had it, if one did.
        by: Option<Box<AnsweredBy>>,
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
            Self::Returned { kind, .. }
            | Self::FailedElsewhere { kind, .. }
            | Self::Failed { kind, .. } => *kind,
            Self::Refused { .. } => Fault::Unavailable,
        }
    }
}
