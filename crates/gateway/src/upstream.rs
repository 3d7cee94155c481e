//! What the gateway calls: the [`Upstream`] trait, its context and its errors.

use std::{fmt, net::SocketAddr, pin::Pin};

use http::{Request, Response};

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
/// The gateway drops the future, and later the response body, as soon as nobody waits for the
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pod gave no response: {kind}")]
pub struct UpstreamError {
    /// What happened.
    pub kind: UpstreamErrorKind,
    /// Whether the guest had performed an outgoing call, so that a second try is not harmless.
    pub side_effects: bool,
}

impl UpstreamError {
    /// An error of this kind before the guest had any effect outside its pod.
    pub fn new(kind: UpstreamErrorKind) -> Self {
        Self {
            kind,
            side_effects: false,
        }
    }
}

/// What happened to a request that got no response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamErrorKind {
    /// The guest trapped. Answered 500.
    Trapped,
    /// The guest returned without a response. Answered 500.
    NoResponse,
    /// The request was blocked beyond its time. Answered 504.
    TimedOut,
    /// The guest burnt its CPU time. Answered 504.
    Spinning,
    /// The request was the victim of a proven deadlock. Answered 508.
    Deadlocked,
    /// The pod could not take the request: it stopped, or its pool is full. The guest has not seen
    /// the request. Answered 503.
    Unavailable,
    /// The request body is larger than allowed. Answered 413.
    BodyTooLarge,
    /// The request cannot be expressed to the guest, or its body is malformed. Answered 400.
    BadRequest,
    /// The client went away. Nobody reads the answer.
    ClientGone,
    /// The client sent its body too slowly.
    ClientSlow,
}

impl UpstreamErrorKind {
    /// Whether it is the pod that failed. What its client did wrong says nothing about it.
    pub(crate) fn is_of_pod(self) -> bool {
        match self {
            Self::BodyTooLarge | Self::BadRequest | Self::ClientGone | Self::ClientSlow => false,
            Self::Unavailable
            | Self::Trapped
            | Self::NoResponse
            | Self::TimedOut
            | Self::Spinning
            | Self::Deadlocked => true,
        }
    }
}

impl fmt::Display for UpstreamErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trapped => "the guest trapped",
            Self::NoResponse => "the guest returned without a response",
            Self::TimedOut => "the request timed out",
            Self::Spinning => "the guest burnt its CPU time",
            Self::Deadlocked => "the request was part of a deadlock",
            Self::Unavailable => "the pod could not take the request",
            Self::BodyTooLarge => "the request body is too large",
            Self::BadRequest => "the request is malformed",
            Self::ClientGone => "the client went away",
            Self::ClientSlow => "the client sent its body too slowly",
        })
    }
}
