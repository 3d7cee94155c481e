//! Errors of the API, the status each has, and how they are written.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::{
    Json,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header::RETRY_AFTER},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sampan_core::provoke;
use sampan_core::view;
use sampan_store::{StoreError, TransactionError};

/// Names the request in the answer, in errors and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// When to ask again what is too much for now.
const RETRY_AFTER_SECONDS: u64 = 1;
/// Names that an error lists.
const MAX_LISTED: usize = 20;

/// What sort of error it is: the status and the word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Ambiguous,
    Conflict,
    Impossible,
    TooLarge,
    TooSlow,
    WrongType,
    WrongHost,
    Invalid,
    InvalidSpec,
    MissingArtifacts,
    WrongDigest,
    ForbiddenVolume,
    Refused,
    QuotaExceeded,
    Busy,
    StoreFull,
    StoreFailed,
    Internal,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Ambiguous | Self::Conflict | Self::Impossible => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::WrongType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::WrongHost => StatusCode::MISDIRECTED_REQUEST,
            Self::Invalid
            | Self::InvalidSpec
            | Self::MissingArtifacts
            | Self::WrongDigest
            | Self::ForbiddenVolume
            | Self::Refused
            | Self::QuotaExceeded => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy | Self::StoreFailed => StatusCode::SERVICE_UNAVAILABLE,
            Self::StoreFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why a request has no other answer.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) details: Vec<String>,
}

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            details: Vec::new(),
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// There is no such object; `known` are those that there are.
    pub(super) fn absent(kind: &str, name: &str, known: &[String]) -> Self {
        let known = match known {
            [] => "there are none".to_owned(),
            names => format!("there are {}", listed(names)),
        };
        Self::new(
            Code::NotFound,
            format!("there is no {kind} `{name}`; {known}"),
        )
    }

    /// Too many requests of a sort are under way.
    pub(super) fn busy(what: &str, limit: usize) -> Self {
        let message = format!("{limit} {what} are under way already");
        Self::new(Code::Busy, message).hint("try again in a moment")
    }
}

/// Some of these names, in backticks.
pub(super) fn listed(names: &[String]) -> String {
    let shown = names.iter().take(MAX_LISTED);
    let shown: Vec<_> = shown.map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(MAX_LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Full { .. } => Self::new(Code::StoreFull, message)
                .hint("what runs goes on; free some space, and try again"),
            StoreError::Failed { .. } => Self::new(Code::StoreFailed, message)
                .hint("what runs goes on; try again in a moment"),
            StoreError::Closed | StoreError::SessionOver(_) | StoreError::Future { .. } => {
                Self::new(Code::StoreFailed, message).hint("try again in a moment")
            }
            StoreError::Refused(refused) => refused.into(),
        }
    }
}

impl From<TransactionError> for ApiError {
    fn from(error: TransactionError) -> Self {
        Self::new(
            Code::Invalid,
            format!("too much to change at once: {error}"),
        )
        .hint("split the app into several apps, or change it in several steps")
    }
}

impl IntoResponse for ApiError {
    /// The status; what is written comes in [`finish`], which knows the request's name.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives the request a name, and errors their text.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let id = format!("api-{process:x}-{number:x}");
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    provoke::panic_in(provoke::Task::Api);
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let status = response.status();
        if status.is_server_error() {
            tracing::warn!(%id, %method, path, message = error.message, "a request failed");
        }
        let allow = response.headers_mut().remove(axum::http::header::ALLOW);
        let body = view::Error {
            code: format!("{:?}", error.code),
            message: error.message,
            hint: error.hint,
            details: error.details,
            request_id: id.clone(),
        };
        response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        headers.extend(allow.map(|allow| (axum::http::header::ALLOW, allow)));
    }
    let id = HeaderValue::try_from(id).expect("letters, digits and hyphens");
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The answer to a path that does not exist.
pub(super) async fn no_path(uri: Uri) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no path `{}`", uri.path()))
        .hint("`/v1/openapi.json` lists those that there are")
}

/// The answer to a path that exists, with another method.
pub(super) async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        format!("`{}` cannot be asked with `{method}`", uri.path()),
    )
    .hint("`/v1/openapi.json` lists what can be asked")
}
