//! What a pod still has to say when its client has the whole answer.
//!
//! An answer to `HEAD` and one with 204 or 304 have no body (RFC 9110 §6.4.1), and nothing is read
//! behind the last byte that a `Content-Length` has promised. For the client the answer is whole,
//! and its guest has done nothing wrong. Were its body dropped, the guest would be told that its
//! client has gone, and be ended in the middle of its work. So what is left of the body is read, and
//! thrown away.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::StatusCode;
use http_body::Body as _;
use tokio::runtime::Handle;

use crate::{body::Body, queue::Slot};

/// Bytes of one body that are thrown away. A guest that writes more is told that it has no reader.
pub(crate) const MAX_BYTES: u64 = 1 << 20;
/// How long they may take to come.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(10);

/// Whether an answer with this status has a body: RFC 9110 §6.4.1.
pub(crate) fn has_body(is_head: bool, status: StatusCode) -> bool {
    !is_head && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Reads what is left of a body and throws it away, here as far as it is there, and the rest in a
/// task of its own. The slot is free when that is done.
pub(crate) fn discard(body: Body, slot: Option<Slot>) {
    let mut rest = Rest {
        body,
        left: MAX_BYTES,
    };
    // Most often nothing is left but to see the end.
    let mut cx = Context::from_waker(Waker::noop());
    if rest.poll_end(&mut cx).is_ready() {
        return;
    }
    // Without a runtime the program ends, and all guests with it.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            let end = poll_fn(|cx| rest.poll_end(cx));
            // Whether it ended well makes no difference to the client any more.
            let _ = tokio::time::timeout(MAX_TIME, end).await;
            drop(rest);
            drop(slot);
        });
    }
}

struct Rest {
    body: Body,
    left: u64,
}

impl Rest {
    /// Ready at the end of the body, or when it is too long.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(());
            };
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => return Poll::Ready(()),
            }
        }
    }
}
