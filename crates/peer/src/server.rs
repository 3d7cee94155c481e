//! The port for other nodes: TLS with both certificates, and HTTP/2 behind it.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt as _, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sampan_core::name::Name;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    failure::chain,
    identity::Certificate,
    join::{self, JoinAnswer, JoinRequest, Refusal},
    node_name,
    places::{CONNECTION_WINDOW, Limits, Places, STREAM_WINDOW, Seat, Stranger},
    tls::{Credentials, HTTP2, JOIN},
};

/// Any error of a body.
pub type BoxError = Box<dyn Error + Send + Sync>;
/// The body of an answer, or of a request to another node.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// The body of a request of another node, which ends with an error when it is too large.
pub type RequestBody = Limited<Incoming>;

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a connection is asked whether its other end is there, and how long that may answer.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What is kept of an answer that is not read.
const SEND_BUFFER: usize = 128 << 10;

/// A body without bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    let body = Full::new(bytes.into());
    body.map_err(|never| match never {}).boxed_unsync()
}

/// Nothing of a request has begun, and nothing of it will: the node that asks may ask another one
/// with the same request, whatever its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBegun;

/// Who answers other nodes.
#[async_trait]
pub trait Door: Send + Sync + 'static {
    /// Whether a node of this name is of the cluster now: one that was removed still has its
    /// certificate. It is asked at each connection and each request.
    fn admits(&self, node: &Name) -> bool;

    /// Whether the body of this request may have any length: another limit holds for it.
    fn takes_any_body(&self, _head: &Parts) -> bool {
        false
    }

    /// Answers the request of a node, or refuses it: then the client gets [`PeerError::Refused`],
    /// for which nothing of the request may have begun.
    ///
    /// [`PeerError::Refused`]: crate::PeerError::Refused
    async fn answer(
        &self,
        caller: &Name,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, NotBegun>;

    /// Lets a node join that shows a token, or says why not.
    async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, Refusal>;
}

/// Listens for other nodes.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    /// Where its connections are served, in turns. Where it runs, if there are none.
    threads: Vec<Handle>,
}

/// What its connections share.
struct Shared {
    credentials: Arc<Credentials>,
    door: Arc<dyn Door>,
    limits: Limits,
    places: Places,
}

/// What a connection has turned out to be.
enum Greeted {
    /// One of a node of the cluster.
    Node(Name, Box<TlsStream<TcpStream>>),
    /// One that wants to be one.
    Joining(Box<TlsStream<TcpStream>>),
}

impl Server {
    /// Listens on an address; port 0 takes a free one. Nodes are answered once [`Self::run`] is.
    ///
    /// # Errors
    ///
    /// What the operating system says against listening there.
    pub async fn bind(
        address: SocketAddr,
        credentials: Arc<Credentials>,
        door: Arc<dyn Door>,
        limits: Limits,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let places = Places::new(&limits);
        let shared = Arc::new(Shared {
            credentials,
            door,
            limits,
            places,
        });
        Ok(Self {
            listener,
            shared,
            threads: Vec::new(),
        })
    }

    /// The same, which serves its connections on these threads.
    #[must_use]
    pub fn on(self, threads: impl IntoIterator<Item = Handle>) -> Self {
        Self {
            threads: threads.into_iter().collect(),
            ..self
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// If the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown` resolves. Requests under way have [`Limits::drain`] then.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            listener,
            shared,
            threads,
        } = self;
        let mut threads = threads.iter().cycle();
        let (draining, _) = watch::channel(false);
        let mut connections = JoinSet::new();
        {
            let mut shutdown = pin!(shutdown);
            'open: loop {
                // The same future until it is done: it may have a connection that waits for a place.
                let mut accepting = pin!(accept(&listener, &shared.places));
                let accepted = loop {
                    tokio::select! {
                        accepted = accepting.as_mut() => break accepted,
                        Some(_) = connections.join_next() => {}
                        () = shutdown.as_mut() => break 'open,
                    }
                };
                let (shared, draining) = (Arc::clone(&shared), draining.subscribe());
                let (io, address, seat) = accepted;
                let serving = async move { shared.serve(io, address, seat, draining).await };
                match threads.next() {
                    Some(thread) => connections.spawn_on(serving, thread),
                    None => connections.spawn(serving),
                };
            }
        }
        drop(listener);
        draining.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(shared.limits.drain, all).await.is_err() {
            tracing::warn!("connections of other nodes were cut off");
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.listener).finish()
    }
}

/// The next connection, with its place. Dropping the future while it waits for a place closes the
/// connection.
async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, IpAddr, Stranger) {
    loop {
        match listener.accept().await {
            Ok((io, address)) => {
                let seat = places.stranger(address.ip()).await;
                return (io, address.ip(), seat);
            }
            Err(error) => {
                // Out of descriptors or memory, or the other side is gone already.
                tracing::warn!(%error, "cannot accept a connection of another node");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Shared {
    async fn serve(
        &self,
        io: TcpStream,
        address: IpAddr,
        seat: Stranger,
        draining: watch::Receiver<bool>,
    ) {
        let limits = &self.limits;
        let greeted = tokio::select! {
            biased;
            greeted = timeout(limits.handshake_time, self.greet(io)) => greeted,
            () = seat.cut() => return tracing::debug!(%address, "a handshake was cut off for another"),
        };
        let greeted = match greeted {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => {
                let error = chain(&error);
                return tracing::debug!(%address, %error, "a connection is none of a node");
            }
            Err(_) => return tracing::debug!(%address, "a handshake took too long"),
        };
        match greeted {
            Greeted::Joining(mut stream) => {
                let answered = join::answer(&mut stream, |request| self.door.join(request));
                let ended = tokio::select! {
                    ended = timeout(limits.join_time, answered) => ended,
                    () = seat.cut() => return,
                };
                if !matches!(ended, Ok(Ok(()))) {
                    tracing::debug!(%address, "a node that was joining has gone");
                }
            }
            Greeted::Node(node, stream) => {
                let Some(place) = self.places.node(&node) else {
                    return tracing::warn!(%node, "too many connections of other nodes");
                };
                drop(seat);
                self.talk(&node, *stream, &place, draining).await;
            }
        }
    }

    /// The handshake.
    async fn greet(&self, io: TcpStream) -> io::Result<Greeted> {
        // What wakes it is of the thread that it is on now.
        let io = TcpStream::from_std(io.into_std()?)?;
        io.set_nodelay(true)?;
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io).await?;
        let kit = self.credentials.kit();
        let hello = start.client_hello();
        let speaks = |what: &[u8]| {
            hello
                .alpn()
                .is_some_and(|mut all| all.any(|one| one == what))
        };
        if speaks(JOIN) {
            let stream = start.into_stream(Arc::clone(&kit.joining)).await?;
            return Ok(Greeted::Joining(Box::new(stream)));
        }
        if !speaks(HTTP2) {
            return Err(refused("it does not speak HTTP/2"));
        }
        let own = node_name::host(kit.identity.node());
        if hello.server_name() != Some(&own) {
            return Err(refused("it looks for another node"));
        }
        let stream = start.into_stream(Arc::clone(&kit.server)).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown.and_then(|chain| chain.first());
        let node = shown.and_then(|shown| Certificate(shown.clone().into_owned()).node());
        match node {
            Some(node) if self.door.admits(&node) => Ok(Greeted::Node(node, Box::new(stream))),
            Some(node) => Err(refused(&format!("`{node}` is no node of the cluster"))),
            None => Err(refused("its certificate has no name of a node")),
        }
    }

    /// HTTP/2 with a node.
    async fn talk(
        &self,
        node: &Name,
        stream: TlsStream<TcpStream>,
        place: &Seat<Name>,
        mut draining: watch::Receiver<bool>,
    ) {
        let limits = &self.limits;
        let service = service_fn(|request: Request<Incoming>| {
            let (door, node) = (Arc::clone(&self.door), node.clone());
            answered(door, node, request, limits.body_bytes)
        });
        let mut connection = pin!(http(limits).serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            end = connection.as_mut() => {
                if let Err(error) = end {
                    let error = chain(&error);
                    tracing::debug!(%node, %error, "the connection of a node has failed");
                }
                return;
            }
            () = place.cut() => return,
            _ = draining.wait_for(|draining| *draining) => {}
            () = sleep(limits.age) => {}
        }
        connection.as_mut().graceful_shutdown();
        // At its age it takes no more requests; those that it has go on until the server stops.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = place.cut() => return,
            _ = draining.wait_for(|draining| *draining) => {}
        }
        tokio::select! {
            _ = connection => {}
            () = place.cut() => {}
            () = sleep(limits.drain) => {}
        }
    }
}

/// What the door says to a request. The error is that of a request that has not begun, and the only
/// one that there is: HTTP/2 defines what it says to the client (RFC 9113 §8.7).
async fn answered(
    door: Arc<dyn Door>,
    node: Name,
    request: Request<Incoming>,
    body_bytes: usize,
) -> Result<Response<Body>, h2::Error> {
    if !door.admits(&node) {
        let mut refused = Response::new(full("the node is not of the cluster any more"));
        *refused.status_mut() = StatusCode::FORBIDDEN;
        return Ok(refused);
    }
    let (head, body) = request.into_parts();
    let limit = match door.takes_any_body(&head) {
        true => usize::MAX,
        false => body_bytes,
    };
    let request = Request::from_parts(head, Limited::new(body, limit));
    match door.answer(&node, request).await {
        Ok(response) => Ok(response.map(|body| body.map_err(own).boxed_unsync())),
        Err(NotBegun) => Err(h2::Reason::REFUSED_STREAM.into()),
    }
}

/// The error of a body without what caused it. hyper tells the client the reason of any error of
/// HTTP/2 that it finds among the causes, and one of another connection says nothing about this one.
fn own(error: BoxError) -> BoxError {
    chain(&*error).into()
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

fn http(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        // Clients go away together, and the requests of all of them end with that.
        .max_pending_accept_reset_streams(limits.streams as usize)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    http
}
