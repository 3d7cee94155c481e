//! How slowly the body of a request may come.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::error::{ApiError, Code};

/// Time that is waited for a body whatever has come of it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes a second with which a body has to come on average after that.
const MIN_RATE: u64 = 16 << 10;

/// A body that comes too slowly.
#[derive(Debug, thiserror::Error)]
#[error(
    "the body comes too slowly: after {} s it has to come with {} KiB a second",
    PATIENCE.as_secs(),
    MIN_RATE >> 10
)]
struct TooSlow;

/// Gives the body of a request so much time as its length allows.
pub(super) async fn keep(request: Request, next: Next) -> Response {
    next.run(request.map(|body| Body::new(Paced::new(body))))
        .await
}

/// Why there is no more of a body.
pub(super) fn broken(error: &(dyn Error + 'static)) -> ApiError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return ApiError::new(Code::TooSlow, TooSlow.to_string());
        }
        cause = error.source();
    }
    ApiError::new(Code::BadRequest, "the body broke off")
}

/// A body that fails when it comes too slowly. Only the time counts in which it is waited for: what
/// the node takes to write a component is not the client's.
struct Paced {
    body: Body,
    received: u64,
    waited: Duration,
    /// Since when it is waited for.
    since: Option<Instant>,
    limit: Pin<Box<Sleep>>,
}

impl Paced {
    fn new(body: Body) -> Self {
        Self {
            body,
            received: 0,
            waited: Duration::ZERO,
            since: None,
            limit: Box::pin(tokio::time::sleep(PATIENCE)),
        }
    }

    fn allowed(&self) -> Duration {
        PATIENCE + Duration::from_secs(self.received / MIN_RATE)
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(since) = self.since.take() {
                self.waited += since.elapsed();
            }
            if let Some(data) = frame.as_ref().and_then(|it| it.as_ref().ok()?.data_ref()) {
                self.received += data.len() as u64;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            let left = self.allowed().saturating_sub(self.waited);
            self.limit.as_mut().reset(now + left);
        }
        let over = self.limit.as_mut().poll(cx);
        over.map(|()| Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
