//! Answers of one JSON object a line, some of which go on until the client goes.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{Api, MAX_FOLLOWERS, error::ApiError};

/// The type of a stream of JSON objects, one a line.
pub(super) const JSON_LINES: &str = "application/jsonl";

/// A line of each object.
pub(super) fn lines<T: Serialize>(objects: &[T]) -> Bytes {
    let mut text = Vec::new();
    for object in objects {
        text.extend(serde_json::to_vec(object).expect("what is shown is plain data"));
        text.push(b'\n');
    }
    text.into()
}

/// An answer that begins with `first` and goes on.
pub(super) fn forever(
    place: OwnedSemaphorePermit,
    first: Bytes,
    more: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    let text = stream::iter([first]).chain(more).map(move |text| {
        // Given back when the client goes.
        let _place = &place;
        Ok::<_, Infallible>(text)
    });
    ([(CONTENT_TYPE, JSON_LINES)], Body::from_stream(text)).into_response()
}

impl Api {
    /// A place among those who follow something.
    pub(super) fn follower(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = self.0.followers.clone().try_acquire_owned();
        place.map_err(|_| ApiError::busy("answers that go on", MAX_FOLLOWERS))
    }
}
