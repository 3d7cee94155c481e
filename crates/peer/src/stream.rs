//! A request on a connection to another node, and its answer.
//!
//! A request that is dropped before its answer has ended resets its stream, whatever is still to be
//! sent or read: the other node ends it then.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::SendRequest};
use http::{Request, Response, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;

use crate::{failure::chain, server::Body};

/// Why a request has no answer.
pub(crate) enum Unanswered {
    /// Nothing of it was sent.
    NotSent(Box<Request<Body>>, h2::Error),
    /// The other side says that it has not begun with it.
    Refused(h2::Error),
    /// It may have begun.
    Failed(h2::Error),
}

/// The body of an answer. Dropping it before its end ends the request.
#[derive(Debug)]
pub struct AnswerBody {
    stream: RecvStream,
    length: Option<u64>,
    has_data: bool,
    _sending: Sending,
}

/// Why the body of an answer broke off.
#[derive(Debug, thiserror::Error)]
#[error("the answer of a node broke off: {reason}")]
pub struct AnswerError {
    reason: String,
    is_reset: bool,
}

impl AnswerError {
    /// Whether the other node has ended it, and the connection goes on.
    pub fn is_reset(&self) -> bool {
        self.is_reset
    }
}

/// The body of a request that is being sent. Dropping it ends that.
#[derive(Debug)]
struct Sending {
    _end: Option<oneshot::Sender<()>>,
}

/// Sends a request, and waits for the head of its answer.
pub(crate) async fn send(
    sender: SendRequest<Bytes>,
    request: Request<Body>,
) -> Result<Response<AnswerBody>, Unanswered> {
    let mut sender = match sender.ready().await {
        Ok(sender) => sender,
        Err(error) => return Err(Unanswered::NotSent(Box::new(request), error)),
    };
    let (head, body) = request.into_parts();
    let is_whole = body.is_end_stream();
    let begun = sender.send_request(Request::from_parts(head.clone(), ()), is_whole);
    let (answer, stream) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let request = Request::from_parts(head, body);
            return Err(Unanswered::NotSent(Box::new(request), error));
        }
    };
    let sending = match is_whole {
        true => Sending { _end: None },
        false => begin_to_send(stream, body).await,
    };
    let answer = answer.await.map_err(unanswered)?;
    Ok(answer_of(answer, sending))
}

fn unanswered(error: h2::Error) -> Unanswered {
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    // Of a connection that ends, only streams that it excludes are told so by the other side.
    match error.is_remote() && (is_refused || error.is_go_away()) {
        true => Unanswered::Refused(error),
        false => Unanswered::Failed(error),
    }
}

fn answer_of(answer: Response<RecvStream>, sending: Sending) -> Response<AnswerBody> {
    let length = answer.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    answer.map(|stream| AnswerBody {
        stream,
        length,
        has_data: false,
        _sending: sending,
    })
}

/// Sends what there is of a body, and the rest in a task of its own.
async fn begin_to_send(stream: SendStream<Bytes>, body: Body) -> Sending {
    let (end, ended) = oneshot::channel();
    let mut sending = Box::pin(send_body(stream, body, ended));
    let is_pending = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx).is_pending())).await;
    if is_pending {
        tokio::spawn(sending);
    }
    Sending { _end: Some(end) }
}

async fn send_body(mut stream: SendStream<Bytes>, body: Body, ended: oneshot::Receiver<()>) {
    let sent = tokio::select! {
        biased;
        sent = frames(&mut stream, body) => sent,
        _ = ended => Err(Reason::CANCEL),
    };
    if let Err(reason) = sent {
        stream.send_reset(reason);
    }
}

/// Sends all frames of a body. The error is why the stream is to be reset.
async fn frames(stream: &mut SendStream<Bytes>, mut body: Body) -> Result<(), Reason> {
    // What the other side has ended needs no reset; one more does no harm.
    let over = |_: h2::Error| Reason::CANCEL;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Reason::INTERNAL_ERROR)?;
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return stream.send_trailers(trailers).map_err(over);
            }
        };
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let capacity = match stream.capacity() {
                0 => poll_fn(|cx| stream.poll_capacity(cx)).await,
                there => Some(Ok(there)),
            };
            let capacity = capacity.ok_or(Reason::CANCEL)?.map_err(over)?;
            let piece = data.split_to(capacity.min(data.len()));
            let is_last = data.is_empty() && body.is_end_stream();
            stream.send_data(piece, is_last).map_err(over)?;
            if is_last {
                return Ok(());
            }
        }
    }
    stream.send_data(Bytes::new(), true).map_err(over)
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        if !self.has_data {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The other side may send so much more, now that this is read.
                    let released = self.stream.flow_control().release_capacity(data.len());
                    let data = released.map(|()| Frame::data(data)).map_err(broken);
                    return Poll::Ready(Some(data));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(error)))),
                None => self.has_data = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        let trailers = trailers.map_err(broken).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) if !self.has_data => {
                let mut hint = SizeHint::default();
                hint.set_upper(length);
                hint
            }
            Some(_) | None => SizeHint::default(),
        }
    }
}

fn broken(error: h2::Error) -> AnswerError {
    AnswerError {
        reason: chain(&error),
        is_reset: error.is_remote() && error.is_reset(),
    }
}
