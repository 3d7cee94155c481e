//! An answer that is not whole yet, shared by the connection that sends it and what takes its slot
//! back when its client does not read.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;

use crate::{
    body::BodyError,
    buffers::Room,
    exchange::Exchange,
    hold::{Holder, LOOK, Wait},
    queue::{Hold, Queue},
    stats::End,
    streamed::Streamed,
};

/// What a frame that is read ahead costs beside its bytes.
const FRAME_BYTES: usize = 128;

/// The rest of an answer whose first part has been sent.
#[derive(Debug)]
pub(crate) struct OpenAnswer {
    /// How long the client takes to read it.
    wait: Wait,
    queue: Arc<Queue>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the pod still sends, with the slot that it holds.
    source: Option<(Streamed, Hold)>,
    /// Once the pod has sent all of it: what is counted as complete when the client has been given
    /// all of it too, and as canceled when it goes before.
    sent: Option<Exchange>,
    /// What was read ahead.
    ahead: VecDeque<Frame<Bytes>>,
    room: Option<Room>,
    /// Bytes that were read ahead since that began.
    bytes: usize,
    stage: Stage,
    /// How it breaks off behind what was read ahead.
    failure: Option<BodyError>,
    /// The connection, while it waits for what is read ahead.
    reader: Option<Waker>,
    /// The task that reads ahead.
    pump: Option<Waker>,
}

/// An answer is read ahead once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Direct,
    ReadAhead,
    /// As far as it may be.
    WasReadAhead,
}

impl OpenAnswer {
    /// Shares an answer of which the client has just been given a part.
    pub(crate) fn new(streamed: Streamed) -> Arc<Self> {
        let queue = Arc::clone(streamed.queue());
        let wait = Wait::new(queue.buffers.terms, Duration::ZERO, 0);
        let answer = Arc::new(Self {
            wait,
            queue,
            state: Mutex::default(),
        });
        answer.wait.begin();
        let hold = answer.queue.hold(&answer);
        answer.state.lock().source = Some((streamed, hold));
        // While others wait, no slot waits for its client first.
        if answer.queue.is_contended() && answer.can_be_read_ahead() {
            Arc::clone(&answer).read_ahead();
        }
        answer
    }

    /// The next frame for the connection.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        self.wait.end(0);
        let frame = match state.ahead.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None if state.stage == Stage::ReadAhead => {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            None => {
                state.room = None;
                match state.failure.take() {
                    Some(error) => Some(Err(error)),
                    None => ready!(state.poll_source(cx)),
                }
            }
        };
        if state.source.is_none()
            && state.ahead.is_empty()
            && let Some(mut exchange) = state.sent.take()
        {
            exchange.end(End::Complete);
        }
        if let Some(Ok(frame)) = &frame {
            self.wait.end(frame.data_ref().map_or(0, Bytes::len));
            self.wait.begin();
        }
        Poll::Ready(frame)
    }

    /// Whether the connection has been given all of it.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.source.is_none() && state.ahead.is_empty() && state.failure.is_none()
    }

    /// Whether it has not been read ahead yet.
    fn can_be_read_ahead(&self) -> bool {
        self.state.lock().stage == Stage::Direct && self.queue.buffers.answer > 0
    }

    /// Whether its client takes longer than it may while others wait, with nothing left to be done
    /// about it.
    fn is_overdue(&self, part: f64) -> bool {
        let state = self.state.lock();
        state.source.is_some() && state.stage != Stage::ReadAhead && self.wait.is_overdue(part)
    }

    /// Has the pod send on, as far as an answer may be read ahead.
    fn read_ahead(self: Arc<Self>) {
        let mut state = self.state.lock();
        if state.stage != Stage::Direct {
            return;
        }
        state.stage = Stage::ReadAhead;
        state.room = Some(Room::new(&self.queue.buffers));
        drop(state);
        tokio::spawn(async move { poll_fn(|cx| self.poll_read_ahead(cx)).await });
    }

    fn poll_read_ahead(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        state.pump = Some(cx.waker().clone());
        while state.source.is_some() && state.has_room(self.queue.buffers.answer) {
            match ready!(state.poll_source(cx)) {
                Some(Ok(frame)) => state.push(frame),
                Some(Err(error)) => state.failure = Some(error),
                None => {}
            }
        }
        state.stage = Stage::WasReadAhead;
        state.pump = None;
        state.reader.take().inspect(Waker::wake_by_ref);
        Poll::Ready(())
    }

    /// Ends it before its end: the slot is free, and the client is told by a reset.
    fn cut(&self) {
        let mut state = self.state.lock();
        let Some((streamed, _hold)) = state.source.take() else {
            return;
        };
        streamed.cut();
        state.failure = Some(BodyError::TooSlow);
        state.reader.take().inspect(Waker::wake_by_ref);
    }

    /// The connection wants no more of it.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        *state = State {
            stage: Stage::WasReadAhead,
            pump: state.pump.take(),
            ..State::default()
        };
        state.pump.take().inspect(Waker::wake_by_ref);
    }
}

impl Holder for OpenAnswer {
    fn stall(&self) -> Option<Duration> {
        self.wait.stall()
    }

    fn is_slow(&self, part: f64) -> bool {
        let is_stalled = self.wait.stall().is_some_and(|stall| stall >= LOOK);
        is_stalled && (self.can_be_read_ahead() || self.is_overdue(part))
    }

    fn take_back(self: Arc<Self>) {
        if self.can_be_read_ahead() {
            return self.read_ahead();
        }
        let stall = self.wait.stall();
        tracing::debug!(?stall, "a request lost its place: its answer is not read");
        self.cut();
    }
}

impl State {
    /// The next frame of the pod. With the last one its slot is free.
    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some((streamed, _)) = &mut self.source else {
            return Poll::Ready(None);
        };
        let frame = ready!(streamed.poll(cx));
        match &frame {
            Some(Ok(_)) if !streamed.is_over() => {}
            Some(Err(_)) => self.source = None,
            Some(Ok(_)) | None => {
                self.sent = Some(streamed.sent());
                self.source = None;
            }
        }
        Poll::Ready(frame)
    }

    /// Whether more may be read ahead. What the pod sends next is not known, so this may be
    /// exceeded by one frame.
    fn has_room(&mut self, limit: usize) -> bool {
        self.bytes < limit && self.room.as_mut().is_some_and(|room| room.grow(0))
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        let bytes = FRAME_BYTES + frame.data_ref().map_or(0, Bytes::len);
        self.bytes += bytes;
        // Without room this frame is the last one: it is there already.
        if self.room.as_mut().is_some_and(|room| !room.grow(bytes)) {
            self.room = None;
        }
        self.ahead.push_back(frame);
        self.reader.take().inspect(Waker::wake_by_ref);
    }
}
