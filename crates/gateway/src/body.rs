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

use crate::{
    ahead::{Ahead, Extent},
    buffers::{Buffers, Terms},
    headers,
    hold::{Sending, Wait},
    stall::BodyPace,
    upstream::UpstreamErrorKind,
};

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

    pub(crate) fn tell(&self, error: &BodyError) {
        if self.kind.set(error.into()).is_ok() {
            self.told.notify_one();
        }
    }
}

/// What a request body that broke off is to its request.
impl From<&BodyError> for UpstreamErrorKind {
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

pin_project! {
    /// A request body on its way to a pod: in pieces of bounded size, up to a limit, with only
    /// those trailers that are allowed. Some of it may be read before there is a pod.
    pub(crate) struct RequestBody<B> {
        #[pin]
        inner: B,
        ahead: Ahead,
        rest: Bytes,
        chunk: usize,
        left: u64,
        limit: u64,
        failed: bool,
        fault: Arc<BodyFault>,
        pace: BodyPace,
        sending: Option<Arc<Sending>>,
    }
}

impl<B: http_body::Body> RequestBody<B> {
    pub(crate) fn new(inner: B, limit: u64, chunk: usize, pace: BodyPace) -> Self {
        Self {
            inner,
            ahead: Ahead::default(),
            rest: Bytes::new(),
            chunk: chunk.max(1),
            left: limit,
            limit,
            failed: false,
            fault: Arc::default(),
            pace,
            sending: None,
        }
    }

    pub(crate) fn fault(&self) -> Arc<BodyFault> {
        self.fault.clone()
    }

    /// Its request has a place now. What is still to come, if anything is, can be taken back.
    pub(crate) fn send(self: Pin<&mut Self>, terms: Terms) -> Option<Arc<Sending>> {
        let this = self.project();
        if this.ahead.is_whole() {
            return None;
        }
        let (waited, received) = this.pace.so_far();
        let wait = Wait::new(terms, waited, received);
        let sending = Sending::new(wait, this.fault.clone());
        *this.sending = Some(sending.clone());
        Some(sending)
    }
}

impl<B> RequestBody<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    /// Reads what may be read before its request has a place. Ready when that is there.
    pub(crate) fn poll_ahead(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &Arc<Buffers>,
    ) -> Poll<Result<Extent, BodyError>> {
        loop {
            let this = self.as_mut().project();
            if this.ahead.is_whole() {
                return Poll::Ready(Ok(Extent::Whole));
            }
            if !this.ahead.has_room() {
                return Poll::Ready(Ok(Extent::NoRoom));
            }
            if this.ahead.len() >= buffers.request {
                return Poll::Ready(Ok(Extent::Full));
            }
            let frame = ready!(self.as_mut().poll_inner(cx)).transpose()?;
            let this = self.as_mut().project();
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    this.ahead.push(data, buffers);
                    if this.inner.is_end_stream() {
                        this.ahead.end(None);
                    }
                }
                Some(Err(frame)) => this.ahead.end(frame.into_trailers().ok()),
                None => this.ahead.end(None),
            }
        }
    }

    /// The next frame of the client, if it keeps pace and to the limit.
    fn poll_inner(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut this = self.project();
        let sending = this.sending.as_deref();
        let frame = match this.inner.as_mut().poll_frame(cx) {
            Poll::Ready(Some(frame)) => frame.map_err(Into::into),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending if sending.is_some_and(|it| it.is_over_for_guest(cx)) => {
                Err(BodyError::TooSlow)
            }
            Poll::Pending => {
                if let Some(sending) = sending {
                    sending.wait.begin();
                }
                ready!(this.pace.poll_too_slow(cx));
                Err(BodyError::TooSlow)
            }
        };
        let frame = frame.and_then(|frame| {
            let Some(data) = frame.data_ref() else {
                return Ok(frame);
            };
            this.pace.received(data.len());
            if let Some(sending) = sending {
                sending.wait.end(data.len());
            }
            let limit = *this.limit;
            let left = this.left.checked_sub(data.len() as u64);
            *this.left = left.ok_or(BodyError::TooLarge { limit })?;
            Ok(frame)
        });
        if let Err(error) = &frame {
            *this.failed = true;
            this.fault.tell(error);
        }
        Poll::Ready(Some(frame))
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
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.as_mut().project();
        if *this.failed {
            return Poll::Ready(None);
        }
        if this.rest.is_empty() {
            *this.rest = this.ahead.take();
        }
        if this.rest.is_empty() {
            let frame = match this.ahead.take_trailers() {
                Some(trailers) => Some(Ok(Frame::trailers(trailers))),
                None if this.ahead.is_whole() => None,
                None => ready!(self.as_mut().poll_inner(cx)),
            };
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => *self.as_mut().project().rest = data,
                Some(Err(frame)) => {
                    return Poll::Ready(frame.into_trailers().ok().map(|mut trailers| {
                        headers::retain_trailers(&mut trailers);
                        Ok(Frame::trailers(trailers))
                    }));
                }
                None => return Poll::Ready(None),
            }
        }
        let this = self.project();
        let piece = this.rest.split_to(this.rest.len().min(*this.chunk));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let is_over = match self.ahead.is_whole() {
            true => self.ahead.is_over(),
            false => self.ahead.len() == 0 && self.inner.is_end_stream(),
        };
        self.failed || self.rest.is_empty() && is_over
    }

    fn size_hint(&self) -> SizeHint {
        if self.failed {
            return SizeHint::with_exact(0);
        }
        let here = (self.rest.len() + self.ahead.len()) as u64;
        if self.ahead.is_whole() {
            return SizeHint::with_exact(here);
        }
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(here));
        }
        hint.set_lower(inner.lower().saturating_add(here));
        hint
    }
}
