//! Errors of the API, and the status each has.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use sampan_core::view;

/// Why a request has no other answer.
pub(super) enum ApiError {
    /// There is nothing of that name.
    NotFound(String),
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::NotFound(message) => (StatusCode::NOT_FOUND, "NotFound", message),
        };
        let code = code.to_owned();
        (status, Json(view::Error { code, message })).into_response()
    }
}
