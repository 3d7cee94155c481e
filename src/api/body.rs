//! What comes with a request: names in its path, its query, its body.

use std::collections::HashMap;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, header::CONTENT_TYPE, request::Parts},
};
use sampan_core::name::{Name, ServiceKey};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::{
    MAX_BODY_BYTES,
    error::{ApiError, Code},
    pace,
};

/// A body of JSON. What is not there at all is as good as `{}` where that says something.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(CONTENT_TYPE).cloned();
        let kind = kind.as_ref().map(|kind| kind.to_str().unwrap_or_default());
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let limit = MAX_BODY_BYTES >> 20;
                let message = format!("the body is larger than {limit} MiB");
                ApiError::new(Code::TooLarge, message)
            }
            _ => pace::broken(&rejection),
        })?;
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
        match kind {
            Some(kind) if kind.eq_ignore_ascii_case("application/json") => {}
            None if bytes.is_empty() => return parse(b"{}"),
            None => return Err(wrong_type("none")),
            Some(other) => return Err(wrong_type(other)),
        }
        parse(&bytes)
    }
}

fn wrong_type(found: &str) -> ApiError {
    let message = format!("the body has the content type `{found}`");
    ApiError::new(Code::WrongType, message).hint("send `content-type: application/json`")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Body<T>, ApiError> {
    serde_json::from_slice(bytes).map(Body).map_err(|error| {
        let code = match error.classify() {
            Category::Data => Code::Invalid,
            Category::Io | Category::Syntax | Category::Eof => Code::BadRequest,
        };
        ApiError::new(code, format!("the body is not what is asked for: {error}"))
    })
}

/// The query of a request.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        match query {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => {
                let text = rejection.body_text();
                let reason = text.split_once(": ").map_or(&*text, |(_, reason)| reason);
                let message = format!("the query cannot be understood: {reason}");
                Err(ApiError::new(Code::BadRequest, message))
            }
        }
    }
}

/// An app in the path.
pub(super) struct AppPath(pub(super) Name);

/// A service in the path.
pub(super) struct ServicePath(pub(super) ServiceKey);

/// A job in the path.
pub(super) struct JobPath(pub(super) ServiceKey);

/// An app and a key-value store of it in the path.
pub(super) struct StorePath(pub(super) Name, pub(super) Name);

/// An app and a volume of it in the path.
pub(super) struct VolumePath(pub(super) Name, pub(super) Name);

/// The last name in the path, whatever it is.
pub(super) struct NamePath(pub(super) String);

/// What stands in the path where its route has these names.
async fn path<S: Send + Sync, const N: usize>(
    parts: &mut Parts,
    state: &S,
    names: [&str; N],
) -> Result<[String; N], ApiError> {
    let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
    let path = path.map_err(|error| ApiError::new(Code::BadRequest, error.body_text()));
    let Path(mut path) = path?;
    Ok(names.map(|name| path.remove(name).unwrap_or_default()))
}

fn name(text: &str) -> Result<Name, ApiError> {
    Name::parse(text).map_err(|error| {
        ApiError::new(Code::BadRequest, error.to_string())
            .hint("a name has 1 to 63 of `a-z`, `0-9` and inner hyphens")
    })
}

impl<S: Send + Sync> FromRequestParts<S> for AppPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let [app] = path(parts, state, ["app"]).await?;
        name(&app).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ServicePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let [app, service] = path(parts, state, ["app", "service"]).await?;
        Ok(Self(ServiceKey::new(&name(&app)?, &name(&service)?)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let [app, job] = path(parts, state, ["app", "job"]).await?;
        Ok(Self(ServiceKey::new(&name(&app)?, &name(&job)?)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for StorePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let [app, store] = path(parts, state, ["app", "store"]).await?;
        Ok(Self(name(&app)?, name(&store)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for VolumePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let [app, volume] = path(parts, state, ["app", "volume"]).await?;
        Ok(Self(name(&app)?, name(&volume)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NamePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let [name] = path(parts, state, ["name"]).await?;
        Ok(Self(name))
    }
}
