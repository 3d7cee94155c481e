//! Answers that may be large: made where they keep nothing waiting, a few at once.

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;

use super::{Api, MAX_LARGE_ANSWERS, error::ApiError, work::compute};

/// An answer of more bytes than this is a large one.
pub(super) const LARGE_BYTES: usize = 1 << 20;

/// An object as JSON.
pub(super) fn json<T: Serialize>(object: &T) -> Bytes {
    let text = serde_json::to_vec(object).expect("what is shown is plain data");
    text.into()
}

impl Api {
    /// Answers with what `make` makes, which has this content type.
    pub(super) async fn answer(
        &self,
        kind: &'static str,
        make: impl FnOnce() -> Bytes,
    ) -> Result<Response, ApiError> {
        let bytes = self.0.lists.run(make).await?;
        self.whole(kind, bytes)
    }

    /// Answers with a JSON document that `make` makes of what `gather` reads. Both happen in one
    /// turn: however many ask, so many lists are in memory at once.
    pub(super) async fn list<G, T: Serialize>(
        &self,
        gather: impl Future<Output = Result<G, ApiError>>,
        make: impl FnOnce(&G) -> T,
    ) -> Result<Response, ApiError> {
        let turn = self.0.lists.turn().await?;
        let gathered = gather.await?;
        let bytes = compute(|| {
            let bytes = json(&make(&gathered));
            drop(gathered);
            bytes
        });
        drop(turn);
        self.whole("application/json", bytes)
    }

    /// Answers with a JSON document that `make` makes.
    pub(super) async fn json<T: Serialize>(
        &self,
        make: impl FnOnce() -> T,
    ) -> Result<Response, ApiError> {
        self.answer("application/json", || json(&make())).await
    }

    /// An answer with these bytes. Large ones take memory until their clients have read them, so
    /// there are a few at once.
    pub(super) fn whole(&self, kind: &'static str, bytes: Bytes) -> Result<Response, ApiError> {
        let kind = [(CONTENT_TYPE, kind)];
        if bytes.len() <= LARGE_BYTES {
            return Ok((kind, bytes).into_response());
        }
        let place = self.0.large.clone().try_acquire_owned();
        let place = place.map_err(|_| ApiError::busy("large answers", MAX_LARGE_ANSWERS))?;
        let body = Full::new(bytes).map_frame(move |frame| {
            // Given back when the answer has been sent, or the client goes.
            let _place = &place;
            frame
        });
        Ok((kind, Body::new(body)).into_response())
    }
}
