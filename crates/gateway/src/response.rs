//! Responses on their way out: the body that holds a pod's slot until its last byte, and the
//! record of how the request ended.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::{
    answer::OpenAnswer,
    body::{self, Body, BodyError},
    discard::discard,
    headers,
    peer::{Activity, Peer},
    queue::{Queue, Slot},
    snapshot::Service,
    stats::{Answers, End},
};

/// A request to a service, from its arrival to the last byte of its answer. Whatever happens to
/// it, it is counted once.
#[derive(Debug)]
pub(crate) struct Exchange {
    service: Arc<Service>,
    /// Where it is counted.
    answers: Arc<Answers>,
    /// The connection it came on; none if it came from another service.
    peer: Option<Arc<Peer>>,
    started: Instant,
    ended: bool,
}

impl Exchange {
    pub(crate) fn begin(service: &Arc<Service>, peer: Option<&Arc<Peer>>) -> Self {
        let started = Instant::now();
        service.counters.busy.begin(started);
        Self {
            service: Arc::clone(service),
            answers: Arc::clone(&service.counters.unplaced),
            peer: peer.cloned(),
            started,
            ended: false,
        }
    }

    /// When the request arrived.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Counts the head of the answer.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.answers.answered(status);
    }

    /// A pod of this endpoint answers: what follows is counted among the answers of its revision.
    pub(crate) fn placed(&mut self, slot: &Slot) {
        if let Some(answers) = slot.endpoint().answers() {
            self.answers = answers;
        }
    }

    /// The same exchange. What becomes of this one is counted no more.
    fn hand_over(&mut self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            answers: Arc::clone(&self.answers),
            peer: self.peer.clone(),
            started: self.started,
            ended: std::mem::replace(&mut self.ended, true),
        }
    }

    /// Counts the end of the answer, which is now. Only the first call counts, and says when it is.
    pub(crate) fn end(&mut self, end: End) -> Option<Instant> {
        if self.ended {
            return None;
        }
        self.ended = true;
        let now = Instant::now();
        let latency = now.saturating_duration_since(self.started);
        self.answers.ended(end, latency);
        self.service.counters.busy.end(now);
        Some(now)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let cut = self.peer.as_ref().map(|peer| &peer.cut);
        match cut.filter(|cut| cut.begun.load(Ordering::Acquire)) {
            Some(cut) => {
                cut.dropped.fetch_add(1, Ordering::Relaxed);
                self.end(End::Dropped)
            }
            None => self.end(End::Canceled),
        };
    }
}

/// The body of a response of the gateway.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    content: Content,
    _activity: Option<Activity>,
}

#[derive(Debug)]
enum Content {
    /// What is left of the gateway's own words.
    Fixed(Bytes),
    /// What a pod sends.
    Streamed(Streamed),
    /// The rest of that, once a part has been given to the client.
    Open(Arc<OpenAnswer>),
}

/// The fields are dropped in this order: nothing of the request is left when its slot is free.
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

impl ResponseBody {
    pub(crate) fn fixed(bytes: Bytes) -> Self {
        Self {
            content: Content::Fixed(bytes),
            _activity: None,
        }
    }

    /// A body that a pod sends. With `length` it must have exactly that many bytes.
    pub(crate) fn streamed(
        body: Body,
        length: Option<u64>,
        exchange: Exchange,
        slot: Slot,
    ) -> Self {
        let left = length.map(|of| Left { bytes: of, of });
        let mut streamed = Streamed {
            body,
            left,
            exchange,
            failure: None,
            slot,
        };
        let content = match streamed.is_over() {
            true => {
                streamed.close();
                Content::Fixed(Bytes::new())
            }
            false => Content::Streamed(streamed),
        };
        Self {
            content,
            _activity: None,
        }
    }

    /// Makes the rest of an answer one whose place can be taken back.
    fn open(&mut self) {
        let content = std::mem::replace(&mut self.content, Content::Fixed(Bytes::new()));
        self.content = match content {
            Content::Streamed(streamed) => Content::Open(OpenAnswer::new(streamed)),
            content => content,
        };
    }

    /// The body of an answer that has none. What its pod writes all the same is thrown away.
    pub(crate) fn none(body: Body, mut exchange: Exchange, slot: Slot) -> Self {
        exchange.service.judge(&slot, true);
        exchange.end(End::Complete);
        discard(body, Some(slot));
        Self::fixed(Bytes::new())
    }

    /// Ties a request in flight on a connection to this body.
    pub(crate) fn with_activity(mut self, activity: Activity) -> Self {
        self._activity = Some(activity);
        self
    }
}

impl Streamed {
    /// Where its place comes from.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        self.slot.queue()
    }

    /// Whether the body is complete and will yield nothing more.
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_end_stream() && self.left.is_none_or(|left| left.bytes == 0)
    }

    /// Ends it before its end, for the sake of those who wait for its slot.
    pub(crate) fn cut(self) {
        if let Some(peer) = &self.exchange.peer {
            peer.answer_failed();
        }
    }

    /// The pod has sent all of it, and the use of the slot ends. Dropped after that, it frees the slot.
    /// The answer is complete when its client has been given what was read ahead.
    pub(crate) fn sent(&mut self) -> Exchange {
        self.exchange.service.judge(&self.slot, true);
        self.slot.used_until(Instant::now());
        self.exchange.hand_over()
    }

    /// Counts a complete answer, with which the use of the slot ends. Dropped after that, it frees the
    /// slot. Whether this is the first to say how the answer ended.
    pub(crate) fn close(&mut self) -> bool {
        let Some(now) = self.exchange.end(End::Complete) else {
            return false;
        };
        self.exchange.service.judge(&self.slot, true);
        self.slot.used_until(now);
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
            self.exchange.service.judge(&self.slot, false);
        }
        self.exchange.end(End::Broken);
        if let Some(peer) = &self.exchange.peer {
            peer.answer_failed();
        }
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

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.content {
            Content::Fixed(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Fixed(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Streamed(streamed) => {
                let frame = ready!(streamed.poll(cx));
                match &frame {
                    // The server asks for no more, whatever the pod still says.
                    Some(Ok(_))
                        if streamed.left.is_some_and(|left| left.bytes == 0)
                            && !streamed.is_over() => {}
                    Some(Ok(_)) if !streamed.is_over() => self.open(),
                    Some(Err(_)) => self.content = Content::Fixed(Bytes::new()),
                    Some(Ok(_)) | None => {
                        streamed.close();
                        self.content = Content::Fixed(Bytes::new());
                    }
                }
                Poll::Ready(frame)
            }
            Content::Open(answer) => answer.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Fixed(bytes) => bytes.is_empty(),
            // Were it over, it would have been closed.
            Content::Streamed(_) => false,
            Content::Open(answer) => answer.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Fixed(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(Streamed {
                left: Some(left), ..
            }) => SizeHint::with_exact(left.bytes),
            Content::Streamed(streamed) => streamed.body.size_hint(),
            Content::Open(_) => SizeHint::default(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Content::Open(answer) = &self.content {
            answer.abandon();
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // The server does not ask for more once it has as many bytes as the head promises.
        if self.left.is_some_and(|left| left.bytes == 0) && self.close() {
            discard(std::mem::replace(&mut self.body, body::empty()), None);
        }
    }
}
