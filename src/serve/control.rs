//! The API of a node, at a socket or a port.

use std::{net::SocketAddr, path::Path, sync::Arc, time::SystemTime};

use sampan_core::provoke;
use tokio::task::JoinHandle;

use super::{daemon::Site, views::NodeViews};
use crate::api::{self, Parts, Port, PortError, Socket, Token, TokenError};

pub(crate) use crate::api::{Api, BindError};

/// Answers requests to the API, until this is dropped.
pub(crate) struct Control(JoinHandle<()>);

/// Why the API cannot be at a port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// There is no port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Control {
    /// Answers at the socket from now on.
    pub(crate) fn at_socket(api: &Api, path: &Path) -> Result<Self, BindError> {
        let (socket, api) = (Socket::bind(path)?, api.clone());
        tracing::info!(socket = %path.display(), "the API listens");
        Ok(Self(api.threads().clone().spawn(async move {
            provoke::panic_in(provoke::Task::ApiListener);
            if let Err(error) = api::serve(socket, api).await {
                tracing::error!(%error, "the control socket is closed");
            }
        })))
    }

    /// Answers at the port, from now on, requests with the token in this file. Returns its address.
    pub(crate) fn at_port(
        api: &Api,
        address: SocketAddr,
        token: &Path,
    ) -> Result<(Self, SocketAddr), OpenError> {
        let (port, token) = (Port::bind(address)?, Token::open(token)?);
        let (address, api) = (port.address(), api.clone());
        tracing::info!(%address, "the API listens");
        sampan_runtime::protect(address);
        let task = api.threads().clone().spawn(async move {
            provoke::panic_in(provoke::Task::ApiListener);
            if let Err(error) = api::serve_port(port, token, api).await {
                tracing::error!(%error, "the port of the API is closed");
            }
        });
        Ok((Self(task), address))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The API of a node. `http` is where the gateway listens, if it does.
pub(crate) fn api(site: &Site, http: Option<SocketAddr>) -> Api {
    let views = Arc::new(NodeViews {
        node: site.node.clone(),
        journal: Arc::clone(&site.journal),
        workshop: Arc::clone(&site.workshop),
        symbols: Arc::default(),
        rollouts: Arc::clone(&site.rollouts),
        loads: site.loads.subscribe(),
        decisions: site.decisions.subscribe(),
        seen: Arc::clone(&site.seen),
        started: SystemTime::now(),
        http,
    });
    Api::new(Parts {
        store: Arc::clone(&site.store),
        artifacts: Arc::clone(&site.artifacts),
        views: views.clone(),
        admission: views,
        volumes: site.volumes.clone(),
        quota: site.node.quota,
        looked: site.looked.subscribe(),
        threads: site.node.control.handle().clone(),
        connections: site.node.api_connections,
    })
}
