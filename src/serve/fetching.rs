//! Components and static files that this node does not have, from nodes that do.
//!
//! They are asked for by their digest and hashed while they arrive, so it does not matter which node
//! gives them. What was compiled of them never comes from another node.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use sampan_core::site::Manifest;
use sampan_peer::Remote;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    agent::{handle::one_line, loader::Elsewhere},
    artifacts::{Artifacts, WriteError, Writer},
    cluster::Peers,
};

/// Where components are for other nodes; behind it comes a digest.
pub(super) const ARTIFACTS: &str = "/peer/artifacts/";
/// How many are fetched at once.
const MAX_FETCHES: usize = 3;
/// Time that one node has to give one.
const FETCH_TIME: Duration = Duration::from_secs(30);
/// Bytes that are gathered before the disk is asked.
const GATHER_BYTES: usize = 1 << 20;

/// Fetches what is missing.
pub(super) struct Fetching {
    artifacts: Arc<Artifacts>,
    peers: Arc<Peers>,
    turns: Semaphore,
}

/// Why a node has not given one.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// It cannot be reached, or does not have it.
    #[error("{0}")]
    Peer(String),
    /// What came is something else, or there is no room for it.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// This node goes down.
    #[error("this node goes down")]
    Ending,
}

impl Fetching {
    pub(super) fn new(artifacts: Arc<Artifacts>, peers: Arc<Peers>) -> Self {
        Self {
            artifacts,
            peers,
            turns: Semaphore::new(MAX_FETCHES),
        }
    }

    /// Whether it is here, as if it had just been written.
    async fn is_here(&self, digest: &str) -> bool {
        let (artifacts, digest) = (Arc::clone(&self.artifacts), digest.to_owned());
        let found = tokio::task::spawn_blocking(move || artifacts.renew(&digest)).await;
        found.unwrap_or(false)
    }

    async fn fetch(&self, digest: &str) -> bool {
        if self.is_here(digest).await {
            return true;
        }
        let turn = self.turns.acquire().await;
        let _turn = turn.expect("the semaphore is never closed");
        // It may have come for another pod meanwhile.
        if self.is_here(digest).await {
            return true;
        }
        for remote in self.peers.others() {
            let node = &remote.node;
            match timeout(FETCH_TIME, self.fetch_from(&remote, digest)).await {
                Ok(Ok(())) => {
                    tracing::info!(%node, digest, "fetched from another node");
                    return true;
                }
                Ok(Err(error)) => {
                    let reason = one_line(&error);
                    tracing::debug!(%node, digest, reason, "not to be had from a node");
                }
                Err(_) => tracing::warn!(%node, digest, "a node was too slow to give a component"),
            }
        }
        false
    }

    async fn fetch_from(&self, remote: &Remote, digest: &str) -> Result<(), FetchError> {
        let target = format!("{ARTIFACTS}{digest}");
        let response = self
            .peers
            .open(remote, &target)
            .await
            .map_err(FetchError::Peer)?;
        let (artifacts, named) = (Arc::clone(&self.artifacts), digest.to_owned());
        let mut writer = blocking(move || artifacts.writer(&named)).await?;
        let (mut body, mut gathered) = (response.into_body(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| FetchError::Peer(one_line(&error)))?;
            gathered.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if gathered.len() >= GATHER_BYTES {
                writer = write(writer, gathered.split()).await?;
            }
        }
        let writer = write(writer, gathered).await?;
        let artifacts = Arc::clone(&self.artifacts);
        blocking(move || artifacts.finish(writer)).await
    }

    /// The files of a manifest of static files, if it is one that can be read.
    async fn files(&self, digest: &str) -> BTreeSet<String> {
        let (artifacts, digest) = (Arc::clone(&self.artifacts), digest.to_owned());
        let read = move || {
            let (bytes, _) = artifacts.read(&digest).ok()?;
            let manifest = Manifest::parse(&bytes).ok()?;
            let files = manifest.files.into_values();
            Some(files.map(|file| file.digest).collect())
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.ok().flatten().unwrap_or_default()
    }
}

#[async_trait]
impl Elsewhere for Fetching {
    async fn obtain(&self, digest: &str) -> bool {
        self.fetch(digest).await
    }

    async fn obtain_files(&self, manifest: &str) -> bool {
        if !self.fetch(manifest).await {
            return false;
        }
        for file in self.files(manifest).await {
            if !self.fetch(&file).await {
                return false;
            }
        }
        true
    }
}

async fn write(mut writer: Writer, bytes: BytesMut) -> Result<Writer, FetchError> {
    blocking(move || writer.write(&bytes).map(|()| writer)).await
}

/// Does what the disk may take its time for.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WriteError> + Send + 'static,
) -> Result<T, FetchError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| FetchError::Ending)??)
}
