//! A request body on its way to its pod, and how much of it is read before there is one.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use sampan_core::fault::Fault;

use crate::{
    ahead::Ahead,
    body::{BodyError, ClientBody},
    buffers::{Buffers, Terms},
    headers,
    hold::Wait,
    queue::Lane,
    sending::{BodyFault, Sending},
    stall::BodyPace,
};

/// Time a body may take whose length is not known, before its request gets a slot all the same: it
/// may be one half of a conversation, and its client may wait for the other half.
const PATIENCE: Duration = Duration::from_millis(30);

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

    /// Its request has a slot now. What is still to come, if anything is, can be taken back.
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

impl<B: ClientBody> RequestBody<B> {
    /// Reads what may be read before its request has a slot. Ready when that is there, with where
    /// a request of which so much is there stands in the queue.
    pub(crate) fn poll_ahead(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &Arc<Buffers>,
    ) -> Poll<Result<Lane, BodyError>> {
        loop {
            let this = self.as_mut().project();
            if this.ahead.is_whole() {
                return Poll::Ready(Ok(Lane::Ahead));
            }
            if !this.ahead.has_room() {
                // There is no room for more on this node.
                return Poll::Ready(Ok(Lane::Behind));
            }
            if this.ahead.len() >= buffers.request {
                return Poll::Ready(Ok(Lane::Long));
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
            // Of two ways to break off the first counts.
            let _ = this.fault.set(error.into());
        }
        Poll::Ready(Some(frame))
    }
}

impl<B: ClientBody> http_body::Body for RequestBody<B> {
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

/// Reads ahead, as far as the client keeps pace, and says where its request stands in the queue.
pub(crate) async fn read_ahead(
    body: &mut Pin<Box<RequestBody<impl ClientBody>>>,
    buffers: &Arc<Buffers>,
) -> Result<Lane, Fault> {
    let is_known = http_body::Body::size_hint(&**body).exact().is_some();
    let reading = read(body, buffers);
    match is_known {
        true => reading.await,
        false => {
            let read = tokio::time::timeout(PATIENCE, reading).await;
            read.unwrap_or(Ok(Lane::Behind))
        }
    }
}

/// Reads on while the request waits for a slot. Resolves when its client has caught up, and says
/// where the request stands then.
pub(crate) async fn read_on(
    body: &mut Pin<Box<RequestBody<impl ClientBody>>>,
    buffers: &Arc<Buffers>,
) -> Result<Lane, Fault> {
    match read(body, buffers).await {
        Ok(Lane::Behind) => std::future::pending().await,
        read => read,
    }
}

async fn read(
    body: &mut Pin<Box<RequestBody<impl ClientBody>>>,
    buffers: &Arc<Buffers>,
) -> Result<Lane, Fault> {
    let read = poll_fn(|cx| body.as_mut().poll_ahead(cx, buffers)).await;
    read.map_err(|error| (&error).into())
}
