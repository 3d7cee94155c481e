//! The components that a change refers to: here, and in a cluster at a second node.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Api,
    artifacts::blocking,
    error::{ApiError, Code},
};

/// Sees to it that these components are there, and stay for a while. In a cluster what is missing is
/// fetched from a node that has it.
pub(super) async fn present(api: &Api, digests: BTreeSet<String>) -> Result<(), ApiError> {
    let missing = missing(api, digests).await?;
    let missing = match &api.0.cluster {
        Some(cluster) if !missing.is_empty() => {
            for digest in &missing {
                cluster.obtain(digest).await;
            }
            self::missing(api, missing).await?
        }
        _ => missing,
    };
    if missing.is_empty() {
        return Ok(());
    }
    let quoted: Vec<_> = missing.iter().map(|it| format!("`{it}`")).collect();
    let message = format!("components are missing: {}", quoted.join(", "));
    Err(ApiError::new(Code::MissingArtifacts, message)
        .hint("upload each with `PUT /v1/artifacts/DIGEST`, then apply again")
        .details(missing.into_iter().collect::<Vec<_>>()))
}

/// Those that are not here. The others are as young as if they had just been written.
async fn missing(api: &Api, digests: BTreeSet<String>) -> Result<BTreeSet<String>, ApiError> {
    let artifacts = Arc::clone(&api.0.artifacts);
    let missing = move || {
        let mut digests = digests;
        digests.retain(|digest| !artifacts.renew(digest));
        digests
    };
    blocking(missing).await
}

/// In a cluster, a change is only made once a second node has what it needs: the first may go.
pub(super) async fn spread(
    api: &Api,
    digests: impl Iterator<Item = &String>,
) -> Result<(), ApiError> {
    let Some(cluster) = &api.0.cluster else {
        return Ok(());
    };
    let digests: BTreeSet<_> = digests.cloned().collect();
    let digests: Vec<_> = digests.into_iter().collect();
    let spread = cluster.spread(&digests).await;
    spread.map_err(|reason| {
        ApiError::new(Code::StoreFailed, reason)
            .hint("nothing was changed; `sampan get nodes` says how they are")
    })
}
