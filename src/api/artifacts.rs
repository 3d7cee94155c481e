//! Components and static files on their way into the node.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use bytes::BytesMut;
use futures::StreamExt as _;
use sampan_core::digest::is_digest;

use super::{
    MAX_UPLOADS, Shared,
    body::NamePath,
    error::{ApiError, Code},
    pace,
};
use crate::artifacts::{WriteError, Writer};

/// Bytes that are gathered before the disk is asked.
const GATHER_BYTES: usize = 1 << 20;

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let message = error.to_string();
        match error {
            WriteError::NotADigest(_) => Self::new(Code::BadRequest, message),
            WriteError::Wrong { .. } => Self::new(Code::WrongDigest, message),
            WriteError::TooLarge => Self::new(Code::TooLarge, message),
            WriteError::Full(_) => Self::new(Code::StoreFull, message)
                .hint("nothing was changed, and everything goes on running; free some space"),
            WriteError::Io { source, .. } => {
                Self::new(Code::StoreFailed, format!("{message}: {source}"))
            }
        }
    }
}

/// `HEAD /v1/artifacts/{name}`
///
/// The client is about to refer to it, so it counts as uploaded just now.
pub(super) async fn has(
    State(api): Shared,
    NamePath(digest): NamePath,
) -> Result<StatusCode, ApiError> {
    if !is_digest(&digest) {
        return Err(WriteError::NotADigest(digest).into());
    }
    let artifacts = Arc::clone(&api.0.artifacts);
    let found = digest.clone();
    match blocking(move || artifacts.renew(&found)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::new(
            Code::NotFound,
            format!("there is no component or file `{digest}`"),
        )),
    }
}

/// `PUT /v1/artifacts/{name}`
pub(super) async fn put(
    State(api): Shared,
    NamePath(digest): NamePath,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let place = api.0.uploads.try_acquire();
    let _place = place.map_err(|_| ApiError::busy("uploads", MAX_UPLOADS))?;
    let artifacts = Arc::clone(&api.0.artifacts);
    let mut writer = blocking(move || artifacts.writer(&digest)).await??;
    let mut body = request.into_body().into_data_stream();
    let mut gathered = BytesMut::new();
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| pace::broken(&error))?;
        gathered.extend_from_slice(&part);
        if gathered.len() >= GATHER_BYTES {
            writer = write(writer, gathered.split()).await?;
        }
    }
    let writer = write(writer, gathered).await?;
    let artifacts = Arc::clone(&api.0.artifacts);
    blocking(move || artifacts.finish(writer)).await??;
    Ok(StatusCode::CREATED)
}

async fn write(mut writer: Writer, bytes: BytesMut) -> Result<Writer, ApiError> {
    let written = blocking(move || writer.write(&bytes).map(|()| writer)).await?;
    written.map_err(ApiError::from)
}

/// Does what the disk may take its time for.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::new(Code::Internal, "the node is going down"))
}
