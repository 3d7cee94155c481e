//! Responses on their way out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::{
    answer::OpenAnswer,
    body::{Body, BodyError},
    discard::discard,
    exchange::Exchange,
    peer::Activity,
    queue::Slot,
    stats::End,
    streamed::Streamed,
};

/// The body of a response of the gateway. While a pod sends it, it holds the pod's slot.
#[derive(Debug)]
pub struct ResponseBody {
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
        let mut streamed = Streamed::new(body, length, exchange, slot);
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

    /// Makes the rest of an answer one whose slot can be taken back.
    fn open(&mut self) {
        let content = std::mem::replace(&mut self.content, Content::Fixed(Bytes::new()));
        self.content = match content {
            Content::Streamed(streamed) => Content::Open(OpenAnswer::new(streamed)),
            content => content,
        };
    }

    /// The body of an answer that has none. What its pod writes all the same is thrown away.
    pub(crate) fn none(body: Body, mut exchange: Exchange, slot: Slot) -> Self {
        exchange.judge(&slot, true);
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
                    Some(Ok(_)) if streamed.is_filled() && !streamed.is_over() => {}
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
            Content::Streamed(streamed) => streamed.size_hint(),
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
