//! The API of a node, at a socket or a port.

use std::{net::SocketAddr, path::Path, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use axum::Router;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use sampan_core::{name::Name, provoke};
use sampan_peer::{Body, RequestBody};
use tokio::task::JoinHandle;
use tower_service::Service as _;

use super::{context::NodeContext, member::ForPeers, nodes::Nodes, views::NodeViews};
use crate::api::{self, Cluster, Lines, Parts, Port, PortError, Socket, Token, TokenError};

pub(crate) use crate::api::{Api, BindError, Ending};

/// Answers requests to the API, until this is dropped.
pub(crate) struct Control {
    task: JoinHandle<()>,
    /// Removed at once when this is dropped: by the time the data is free for another node its socket
    /// may be there.
    _socket: Option<Socket>,
}

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
        let listener = socket.listener().map_err(|source| BindError::Io {
            path: path.to_owned(),
            source,
        })?;
        tracing::info!(socket = %path.display(), "the API listens");
        let task = api.threads().clone().spawn(async move {
            provoke::panic_in(provoke::Task::ApiListener);
            if let Err(error) = api::serve(listener, api).await {
                tracing::error!(%error, "the control socket is closed");
            }
        });
        Ok(Self {
            task,
            _socket: Some(socket),
        })
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
        let control = Self {
            task,
            _socket: None,
        };
        Ok((control, address))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The API of a node. `http` is where the gateway listens, if it does.
pub(crate) fn api(context: &NodeContext, http: Option<SocketAddr>) -> Api {
    ending_api(context, http, None)
}

/// The same of a node that can be ended through it.
pub(crate) fn ending_api(
    context: &NodeContext,
    http: Option<SocketAddr>,
    ending: Option<Arc<Ending>>,
) -> Api {
    Api::new(parts(context, http, ending))
}

/// What this node answers the others of its cluster, of itself alone. It has turns and places of its
/// own, so that no other node takes those of the clients of this one.
pub(crate) fn for_peers(context: &NodeContext, http: Option<SocketAddr>) -> Arc<dyn ForPeers> {
    let of_itself = Parts {
        cluster: None,
        ..parts(context, http, None)
    };
    Arc::new(Answers(Api::new(of_itself).peers()))
}

fn parts(context: &NodeContext, http: Option<SocketAddr>, ending: Option<Arc<Ending>>) -> Parts {
    let views = Arc::new(NodeViews {
        node: context.node.clone(),
        history: Arc::clone(&context.history),
        lines: Arc::clone(&context.lines),
        loader: Arc::clone(&context.loader),
        symbols: Arc::default(),
        rollouts: Arc::clone(&context.rollouts),
        loads: context.loads.subscribe(),
        merged: context.merged.subscribe(),
        decisions: context.decisions.subscribe(),
        seen: Arc::clone(&context.seen),
        background: ending.is_some(),
        keyvalue: Arc::clone(&context.keyvalue),
        started: SystemTime::now(),
        http,
        member: context.member.clone(),
    });
    let cluster = context.member.as_ref().map(|member| {
        let member = Arc::clone(member);
        let elsewhere = member.elsewhere(&context.artifacts);
        let pods = context.objects.follow(&[]);
        let nodes = Nodes {
            member,
            elsewhere,
            pods,
        };
        Arc::new(nodes) as Arc<dyn Cluster>
    });
    Parts {
        cluster,
        store: Arc::clone(&context.store),
        reach: context.reach.clone(),
        artifacts: Arc::clone(&context.artifacts),
        keyvalue: Arc::clone(&context.keyvalue),
        secrets: Arc::clone(&context.secrets),
        views: views.clone(),
        kept: views.clone(),
        admission: views,
        volumes: context.volumes.clone(),
        quota: context.node.quota,
        lines: Arc::clone(&context.lines) as Arc<dyn Lines>,
        ending,
        looked: context.looked.subscribe(),
        threads: context.node.control.handle().clone(),
        connections: context.node.api_connections,
    }
}

/// The API as other nodes ask it.
struct Answers(Router);

#[async_trait]
impl ForPeers for Answers {
    async fn answer(&self, _: &Name, request: Request<RequestBody>) -> Response<Body> {
        let request = request.map(axum::body::Body::new);
        let Ok(response) = self.0.clone().call(request).await;
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    }
}
