//! Request and response bodies.

use std::{
    convert::Infallible,
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use pin_project_lite::pin_project;
use tokio::sync::Notify;

use crate::{headers, stall::BodyPace, upstream::UpstreamErrorKind};

/// A request or response body, streamed.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

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
    Upstream(UpstreamErrorKind),
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

/// Tells whoever waits for the response that the request body broke off. Then the request is
/// over, whatever the pod makes of it.
#[derive(Debug, Default)]
pub(crate) struct BodyFault {
    kind: OnceLock<UpstreamErrorKind>,
    told: Notify,
}

impl BodyFault {
    pub(crate) fn get(&self) -> Option<UpstreamErrorKind> {
        self.kind.get().copied()
    }

    /// Resolves once the body has broken off.
    pub(crate) async fn told(&self) -> UpstreamErrorKind {
        loop {
            // `notify_one` keeps its permit, so nothing is lost between the look and the wait.
            if let Some(kind) = self.get() {
                return kind;
            }
            self.told.notified().await;
        }
    }

    fn tell(&self, error: &BodyError) {
        let kind = match error {
            BodyError::TooLarge { .. } => UpstreamErrorKind::BodyTooLarge,
            BodyError::TooSlow => UpstreamErrorKind::ClientSlow,
            BodyError::Malformed(_) | BodyError::Length { .. } => UpstreamErrorKind::BadRequest,
            // The body of a call between services comes from a pod, which is the client then.
            BodyError::ClientGone | BodyError::Upstream(_) => UpstreamErrorKind::ClientGone,
        };
        if self.kind.set(kind).is_ok() {
            self.told.notify_one();
        }
    }
}

pin_project! {
    /// A request body on its way to a pod: in pieces of bounded size, up to a limit, with only
    /// those trailers that are allowed.
    pub(crate) struct RequestBody<B> {
        #[pin]
        inner: B,
        rest: Bytes,
        chunk: usize,
        left: u64,
        limit: u64,
        failed: bool,
        fault: Arc<BodyFault>,
        pace: BodyPace,
    }
}

impl<B: http_body::Body> RequestBody<B> {
    pub(crate) fn new(inner: B, limit: u64, chunk: usize, pace: BodyPace) -> Self {
        Self {
            inner,
            rest: Bytes::new(),
            chunk: chunk.max(1),
            left: limit,
            limit,
            failed: false,
            fault: Arc::default(),
            pace,
        }
    }

    pub(crate) fn fault(&self) -> Arc<BodyFault> {
        self.fault.clone()
    }
}

impl<B> http_body::Body for RequestBody<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut this = self.project();
        if *this.failed {
            return Poll::Ready(None);
        }
        if this.rest.is_empty() {
            let frame = match this.inner.as_mut().poll_frame(cx) {
                Poll::Ready(Some(frame)) => frame.map_err(Into::into),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(this.pace.poll_too_slow(cx));
                    Err(BodyError::TooSlow)
                }
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    *this.failed = true;
                    this.fault.tell(&error);
                    return Poll::Ready(Some(Err(error)));
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    this.pace.received(data.len());
                    *this.rest = data;
                }
                Err(frame) => {
                    return Poll::Ready(frame.into_trailers().ok().map(|mut trailers| {
                        headers::retain_trailers(&mut trailers);
                        Ok(Frame::trailers(trailers))
                    }));
                }
            }
            match this.left.checked_sub(this.rest.len() as u64) {
                Some(left) => *this.left = left,
                None => {
                    *this.failed = true;
                    *this.rest = Bytes::new();
                    let error = BodyError::TooLarge { limit: *this.limit };
                    this.fault.tell(&error);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(*this.chunk));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.failed || self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.failed {
            return SizeHint::with_exact(0);
        }
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(inner.lower().saturating_add(rest));
        hint
    }
}
