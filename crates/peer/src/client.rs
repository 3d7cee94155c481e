//! Asks other nodes: one connection to each, kept open.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong, client::SendRequest};
use http::{Request, Response, Uri, uri::PathAndQuery};
use parking_lot::Mutex;
use sampan_core::name::Name;
use tokio::{
    net::TcpStream,
    runtime::Handle,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    failure::{PeerError, chain, timed_out},
    node_name,
    places::{CONNECTION_WINDOW, STREAM_WINDOW},
    server::{Body, BoxError},
    stream::{self, AnswerBody, Unanswered},
    tls::{Credentials, server_name},
};

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
    /// Where its connections are, in turns. Where the first request of each is, if there are none.
    threads: Vec<Handle>,
    /// How many connections there were.
    opened: AtomicUsize,
}

/// The connection to one node.
struct Line {
    address: SocketAddr,
    state: tokio::sync::Mutex<State>,
}

/// A connection.
#[derive(Clone)]
struct Open {
    sender: SendRequest<Bytes>,
    /// Whether its task has ended.
    is_closed: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
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
            threads: Vec::new(),
            opened: AtomicUsize::new(0),
        }
    }

    /// The same, whose connections are on these threads.
    #[must_use]
    pub fn on(self, threads: impl IntoIterator<Item = Handle>) -> Self {
        Self {
            threads: threads.into_iter().collect(),
            ..self
        }
    }

    /// Sends a request to a node and waits for the head of its answer, for as long as it takes: who
    /// asks sets the time. Of the request's URI the path counts.
    ///
    /// # Errors
    ///
    /// If the node cannot be reached, refuses the request, or the connection fails. Whether anything
    /// of the request may have begun: [`PeerError::has_begun`].
    pub async fn send(
        &self,
        remote: &Remote,
        request: Request<Body>,
    ) -> Result<Response<AnswerBody>, PeerError> {
        let mut request = addressed(remote, request)?;
        let line = self.line(remote);
        let node = || remote.node.clone();
        loop {
            let (open, is_fresh) = self.open(remote, &line).await?;
            let error = match stream::send(open.sender.clone(), request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            line.forget(&open).await;
            match error {
                // A connection that had ended without a word: nothing of it was sent.
                Unanswered::NotSent(whole, _) if !is_fresh => request = *whole,
                Unanswered::NotSent(_, error) | Unanswered::Refused(error) => {
                    let (node, reason) = (node(), chain(&error));
                    return Err(PeerError::Refused { node, reason });
                }
                Unanswered::Failed(error) => {
                    let (node, reason) = (node(), chain(&error));
                    return Err(PeerError::Failed { node, reason });
                }
            }
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
    async fn open(&self, remote: &Remote, line: &Line) -> Result<(Open, bool), PeerError> {
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
        match self.connected(remote).await {
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

    /// A new connection, on one of the threads.
    async fn connected(&self, remote: &Remote) -> Result<Open, BoxError> {
        let tls = TlsConnector::from(Arc::clone(&self.credentials.kit().client));
        let connecting = connect(tls, remote.clone(), self.limits.clone());
        let limited = timeout(self.limits.connect, connecting);
        let opened = self.opened.fetch_add(1, Ordering::Relaxed);
        let connected = match self.threads.get(opened % self.threads.len().max(1)) {
            Some(thread) => thread.spawn(limited).await?,
            None => limited.await,
        };
        connected.unwrap_or_else(|_| Err(timed_out(self.limits.connect).into()))
    }
}

async fn connect(
    tls: TlsConnector,
    remote: Remote,
    limits: ClientLimits,
) -> Result<Open, BoxError> {
    let stream = TcpStream::connect(remote.address).await?;
    stream.set_nodelay(true)?;
    let stream = tls.connect(server_name(&remote.node), stream).await?;
    let http = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(limits.head_bytes)
        .enable_push(false)
        .handshake(stream);
    let (sender, mut connection) = http.await?;
    let pings = connection.ping_pong();
    let is_closed = Arc::<AtomicBool>::default();
    let open = Open {
        sender,
        is_closed: Arc::clone(&is_closed),
    };
    // It ends with the last sender, with the connection, or with an other end that is silent.
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = connection => ended.map_err(|error| chain(&error)),
            why = silence(pings, limits) => Err(why),
        };
        is_closed.store(true, Ordering::Release);
        if let Err(error) = ended {
            let node = &remote.node;
            tracing::debug!(%node, error, "the connection to a node has failed");
        }
    });
    Ok(open)
}

/// Resolves when the other end does not say that it is there.
async fn silence(pings: Option<PingPong>, limits: ClientLimits) -> String {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(limits.ping_interval).await;
        match timeout(limits.ping_timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return chain(&error),
            Err(_) => return timed_out(limits.ping_timeout).to_string(),
        }
    }
}

impl Line {
    /// Takes a connection that has ended for no other request.
    async fn forget(&self, ended: &Open) {
        let mut state = self.state.lock().await;
        let is_it = |open: &Open| Arc::ptr_eq(&open.is_closed, &ended.is_closed);
        // One that takes no requests any more is about to end: its other side has said so.
        if ended.takes_none().await && state.open.as_ref().is_some_and(is_it) {
            state.open = None;
        }
    }
}

impl Open {
    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Whether it takes no more requests.
    async fn takes_none(&self) -> bool {
        self.is_closed() || self.sender.clone().ready().await.is_err()
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
