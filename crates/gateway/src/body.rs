//! Request and response bodies.

use std::{
    convert::Infallible,
    error::Error,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use pin_project_lite::pin_project;
use tokio::sync::Notify;

use crate::{headers, upstream::UpstreamErrorKind};

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

/// Says that a request body went over its limit, to whoever waits for the response.
#[derive(Debug, Default)]
pub(crate) struct Overflow {
    exceeded: AtomicBool,
    told: Notify,
}

impl Overflow {
    pub(crate) fn is_exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Acquire)
    }

    /// Resolves once the body has gone over its limit.
    pub(crate) async fn exceeded(&self) {
        // `notify_one` keeps its permit, so nothing is lost between the check and the wait.
        while !self.is_exceeded() {
            self.told.notified().await;
        }
    }

    fn tell(&self) {
        self.exceeded.store(true, Ordering::Release);
        self.told.notify_one();
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
        overflow: Option<Arc<Overflow>>,
    }
}

impl<B: http_body::Body> RequestBody<B> {
    /// Wraps `inner`. The caller has refused what is known to be larger than `limit`.
    pub(crate) fn new(inner: B, limit: u64, chunk: usize) -> Self {
        // A body of known size cannot surprise anybody: hyper holds it to its `Content-Length`.
        let known = inner
            .size_hint()
            .upper()
            .is_some_and(|upper| upper <= limit);
        Self {
            inner,
            rest: Bytes::new(),
            chunk: chunk.max(1),
            left: limit,
            limit,
            failed: false,
            overflow: (!known).then(Arc::default),
        }
    }

    pub(crate) fn overflow(&self) -> Option<Arc<Overflow>> {
        self.overflow.clone()
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
            let Some(frame) = ready!(this.inner.as_mut().poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    *this.failed = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
            };
            match frame.into_data() {
                Ok(data) => *this.rest = data,
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
                    if let Some(overflow) = this.overflow {
                        overflow.tell();
                    }
                    return Poll::Ready(Some(Err(BodyError::TooLarge { limit: *this.limit })));
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
