//! Request and response bodies.

use std::{convert::Infallible, error::Error, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

use sampan_core::fault::Fault;

/// A request or response body, streamed.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A request body as its client sends it.
pub(crate) trait ClientBody: http_body::Body<Data = Bytes, Error: Into<BodyError>> {}

impl<B: http_body::Body<Data = Bytes, Error: Into<BodyError>>> ClientBody for B {}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client closed its connection or reset its stream.
    #[error("the client went away before the end of the body")]
    ClientGone,
    /// The body is larger than the service allows.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// The service's limit, in bytes.
        limit: u64,
    },
    /// The client sent the body too slowly.
    #[error("the body came too slowly")]
    TooSlow,
    /// The client's framing of the body is broken.
    #[error("the framing of the body is malformed")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
    /// The upstream failed after it had sent the response head.
    #[error("the pod failed after its response head: {0}")]
    Upstream(Fault),
    /// The upstream sent fewer or more bytes than its `Content-Length` said.
    #[error("the body does not have the {expected} bytes its `Content-Length` says")]
    Length {
        /// What `Content-Length` said.
        expected: u64,
    },
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(cause) = cause.downcast_ref::<io::Error>()
                && matches!(
                    cause.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
                )
            {
                return Self::Malformed(Box::new(error));
            }
            source = cause.source();
        }
        Self::ClientGone
    }
}

/// A body of no bytes.
pub fn empty() -> Body {
    Empty::new().map_err(BodyError::from).boxed_unsync()
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(BodyError::from)
        .boxed_unsync()
}

/// What a request body that broke off is to its request.
impl From<&BodyError> for Fault {
    fn from(error: &BodyError) -> Self {
        match error {
            BodyError::TooLarge { .. } => Self::BodyTooLarge,
            BodyError::TooSlow => Self::ClientSlow,
            BodyError::Malformed(_) | BodyError::Length { .. } => Self::BadRequest,
            // The body of a call between services comes from a pod, which is the client then.
            BodyError::ClientGone | BodyError::Upstream(_) => Self::ClientGone,
        }
    }
}
