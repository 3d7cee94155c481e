//! What a pod sends: a body that holds the pod's slot until its last byte.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::{
    body::{self, Body, BodyError},
    discard::discard,
    exchange::Exchange,
    headers,
    queue::{Queue, Slot},
    stats::End,
};

/// What a pod sends. The fields are dropped in this order: nothing of the request is left when its
/// slot is free.
#[derive(Debug)]
pub(crate) struct Streamed {
    body: Body,
    /// Bytes still to come, when the head says how many.
    left: Option<Left>,
    exchange: Exchange,
    /// What the body failed with, until the client is told.
    failure: Option<BodyError>,
    slot: Slot,
}

/// What a `Content-Length` still asks for.
#[derive(Clone, Copy, Debug)]
struct Left {
    bytes: u64,
    of: u64,
}

impl Streamed {
    /// What a pod sends as `body`. With `length` it must have exactly that many bytes.
    pub(crate) fn new(body: Body, length: Option<u64>, exchange: Exchange, slot: Slot) -> Self {
        Self {
            body,
            left: length.map(|of| Left { bytes: of, of }),
            exchange,
            failure: None,
            slot,
        }
    }

    /// Where its slot comes from.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        self.slot.queue()
    }

    /// Whether the body is complete and will yield nothing more.
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_end_stream() && self.left.is_none_or(|left| left.bytes == 0)
    }

    /// Whether the client has as many bytes as the head promises.
    pub(crate) fn is_filled(&self) -> bool {
        self.left.is_some_and(|left| left.bytes == 0)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left.bytes),
            None => self.body.size_hint(),
        }
    }

    /// Ends it before its end, for the sake of those who wait for its slot.
    pub(crate) fn cut(self) {
        self.exchange.answer_failed();
    }

    /// The pod has sent all of it, and the use of the slot ends. Dropped after that, it frees the slot.
    /// The answer is complete when its client has been given what was read ahead.
    pub(crate) fn sent(&mut self) -> Exchange {
        self.exchange.judge(&self.slot, true);
        self.slot.until = Some(Instant::now());
        self.exchange.hand_over()
    }

    /// Counts a complete answer, with which the use of the slot ends. Dropped after that, it frees the
    /// slot. Whether this is the first to say how the answer ended.
    pub(crate) fn close(&mut self) -> bool {
        let Some(now) = self.exchange.end(End::Complete) else {
            return false;
        };
        self.exchange.judge(&self.slot, true);
        self.slot.until = Some(now);
        true
    }

    /// Notes a failure and tells it at the next poll: given it at once, the server would throw
    /// away what it has not sent yet of the part before.
    fn fail<T>(&mut self, error: BodyError, cx: &Context<'_>) -> Poll<T> {
        let is_of_pod = match &error {
            BodyError::Upstream(kind) => kind.is_of_pod(),
            BodyError::Length { .. } => true,
            _ => false,
        };
        if is_of_pod {
            self.exchange.judge(&self.slot, false);
        }
        self.exchange.end(End::Broken);
        self.exchange.answer_failed();
        self.failure = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.slot.is_taken_back(cx) {
            return self.fail(BodyError::TooSlow, cx);
        }
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
            return match self.left {
                Some(Left { bytes: 1.., of }) => self.fail(BodyError::Length { expected: of }, cx),
                _ => Poll::Ready(None),
            };
        };
        let data = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(frame)) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                headers::retain_trailers(&mut trailers);
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            Err(error) => return self.fail(error, cx),
        };
        if let Some(left) = &mut self.left {
            match left.bytes.checked_sub(data.len() as u64) {
                Some(bytes) => left.bytes = bytes,
                None => {
                    let expected = left.of;
                    return self.fail(BodyError::Length { expected }, cx);
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // The server does not ask for more once it has as many bytes as the head promises.
        if self.is_filled() && self.close() {
            discard(std::mem::replace(&mut self.body, body::empty()), None);
        }
    }
}
