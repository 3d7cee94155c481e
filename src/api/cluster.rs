//! The cluster that the node is of: who may join it, and who is taken out.

use axum::{Json, extract::State, http::StatusCode};
use sampan_core::{
    name::{Name, NameError},
    view,
};

use super::{
    Api, Shared,
    body::{Body, NamePath},
    error::{ApiError, Code},
    state::Cluster,
};

impl Api {
    fn cluster(&self) -> Result<&dyn Cluster, ApiError> {
        let cluster = self.0.cluster.as_deref();
        cluster.ok_or_else(|| {
            ApiError::new(
                Code::NotFound,
                "this node is not one of a cluster".to_owned(),
            )
            .hint("`sampan cluster init` makes a cluster of it")
        })
    }
}

/// `POST /v1/cluster/tokens`
pub(super) async fn invite(State(api): Shared) -> Result<Json<view::Invitation>, ApiError> {
    let invited = api.cluster()?.invite().await;
    let failed = |reason| ApiError::new(Code::StoreFailed, reason);
    Ok(Json(invited.map_err(failed)?))
}

/// `PATCH /v1/cluster/nodes/{name}`
pub(super) async fn change(
    State(api): Shared,
    NamePath(name): NamePath,
    Body(change): Body<view::NodeChange>,
) -> Result<StatusCode, ApiError> {
    let cluster = api.cluster()?;
    let bad = |error: NameError| ApiError::new(Code::BadRequest, error.to_string());
    let node = Name::parse(&name).map_err(bad)?;
    let labels = change.labels.iter();
    let texts = labels.flat_map(|(label, value)| [Some(label), value.as_ref()]);
    for text in texts.flatten() {
        Name::parse(text).map_err(|error| {
            let message = format!("`{text}` is no label: {error}");
            ApiError::new(Code::Invalid, message)
        })?;
    }
    let changed = cluster.change(&node, &change).await;
    changed.map_err(|reason| ApiError::new(Code::Conflict, reason))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/cluster/nodes/{name}`
pub(super) async fn remove(
    State(api): Shared,
    NamePath(name): NamePath,
) -> Result<StatusCode, ApiError> {
    let node = Name::parse(&name);
    let node = node.map_err(|error| ApiError::new(Code::BadRequest, error.to_string()))?;
    let removed = api.cluster()?.remove(&node).await;
    removed.map_err(|reason| ApiError::new(Code::Conflict, reason))?;
    Ok(StatusCode::NO_CONTENT)
}
