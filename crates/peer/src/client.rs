//! Asks other nodes: one connection to each, kept open.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use sampan_core::name::Name;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    failure::{PeerError, chain, timed_out},
    node_name,
    server::{Body, BoxError},
    tls::{Credentials, server_name},
};

/// What a stream and a connection may receive before it is read.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// A node as it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its name, which its certificate must have.
    pub node: Name,
    /// Where it listens for other nodes.
    pub address: SocketAddr,
}

/// How long other nodes may take.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Time for a connection, with its handshake.
    pub connect: Duration,
    /// How often a connection is asked whether its other end is there.
    pub ping_interval: Duration,
    /// Time that the other end has to say so.
    pub ping_timeout: Duration,
    /// Bytes of the head of an answer.
    pub head_bytes: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            ping_interval: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(2),
            head_bytes: 64 << 10,
        }
    }
}

/// Connections to other nodes.
pub struct Client {
    credentials: Arc<Credentials>,
    limits: ClientLimits,
    lines: Mutex<HashMap<Name, Arc<Line>>>,
}

/// The connection to one node.
struct Line {
    address: SocketAddr,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<SendRequest<Body>>,
    /// When connecting has failed last, and why.
    failed: Option<(Instant, String)>,
}

impl Client {
    /// A client that shows these credentials.
    pub fn new(credentials: Arc<Credentials>, limits: ClientLimits) -> Self {
        Self {
            credentials,
            limits,
            lines: Mutex::default(),
        }
    }

    /// Sends a request to a node and waits for the head of its answer, for as long as it takes: who
    /// asks sets the time. Of the request's URI the path counts.
    ///
    /// # Errors
    ///
    /// If the node cannot be reached, or the connection fails.
    pub async fn send(
        &self,
        remote: &Remote,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, PeerError> {
        let mut request = addressed(remote, request)?;
        let line = self.line(remote);
        loop {
            let (mut sender, is_fresh) = self.open(remote, &line).await?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut failed) => match failed.take_message() {
                    // A connection that had ended without a word: nothing of it was sent.
                    Some(whole) if !is_fresh => request = whole,
                    _ => {
                        return Err(PeerError::Failed {
                            node: remote.node.clone(),
                            reason: chain(failed.error()),
                        });
                    }
                },
            }
            line.forget(&sender).await;
        }
    }

    /// Closes the connection to a node once its requests have ended: it is of the cluster no more.
    pub fn forget(&self, node: &Name) {
        self.lines.lock().remove(node);
    }

    fn line(&self, remote: &Remote) -> Arc<Line> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get(&remote.node)
            && line.address == remote.address
        {
            return Arc::clone(line);
        }
        let line = Arc::new(Line {
            address: remote.address,
            state: tokio::sync::Mutex::default(),
        });
        lines.insert(remote.node.clone(), Arc::clone(&line));
        line
    }

    /// An open connection, and whether it is one that was made just now.
    async fn open(
        &self,
        remote: &Remote,
        line: &Line,
    ) -> Result<(SendRequest<Body>, bool), PeerError> {
        let began = Instant::now();
        let failed = |reason| PeerError::Connect {
            node: remote.node.clone(),
            address: remote.address,
            reason,
        };
        let mut state = line.state.lock().await;
        if let Some(open) = &state.open
            && !open.is_closed()
        {
            return Ok((open.clone(), false));
        }
        state.open = None;
        // All who waited for one try share how it went.
        if let Some((at, reason)) = &state.failed
            && *at >= began
        {
            return Err(failed(reason.clone()));
        }
        let limit = self.limits.connect;
        let connected = timeout(limit, self.connect(remote)).await;
        match connected.unwrap_or_else(|_| Err(timed_out(limit).into())) {
            Ok(open) => {
                state.open = Some(open.clone());
                state.failed = None;
                Ok((open, true))
            }
            Err(error) => {
                let reason = chain(&*error);
                state.failed = Some((Instant::now(), reason.clone()));
                Err(failed(reason))
            }
        }
    }

    async fn connect(&self, remote: &Remote) -> Result<SendRequest<Body>, BoxError> {
        let stream = TcpStream::connect(remote.address).await?;
        stream.set_nodelay(true)?;
        let tls = TlsConnector::from(Arc::clone(&self.credentials.kit().client));
        let stream = tls.connect(server_name(&remote.node), stream).await?;
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(self.limits.head_bytes)
            .keep_alive_interval(self.limits.ping_interval)
            .keep_alive_timeout(self.limits.ping_timeout)
            .keep_alive_while_idle(true);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await?;
        let node = remote.node.clone();
        // It ends with the last sender, or with the connection.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let error = chain(&error);
                tracing::debug!(%node, %error, "the connection to a node has failed");
            }
        });
        Ok(sender)
    }
}

impl Line {
    /// Takes a connection that has failed for no other request.
    async fn forget(&self, failed: &SendRequest<Body>) {
        let mut state = self.state.lock().await;
        if failed.is_closed() {
            state.open = state.open.take().filter(|open| !open.is_closed());
        } else {
            // It is about to end: its other side has said so.
            state.open = None;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Client");
        shown.field("credentials", &self.credentials);
        shown.finish_non_exhaustive()
    }
}

/// The request with the name of its node in its URI, as HTTP/2 wants it.
fn addressed(remote: &Remote, request: Request<Body>) -> Result<Request<Body>, PeerError> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().cloned();
    let uri = Uri::builder()
        .scheme("https")
        .authority(node_name::host(&remote.node))
        .path_and_query(path.unwrap_or(PathAndQuery::from_static("/")))
        .build();
    head.uri = uri.map_err(|source| PeerError::Path {
        node: remote.node.clone(),
        source,
    })?;
    Ok(Request::from_parts(head, body))
}
