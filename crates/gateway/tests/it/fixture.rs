//! Pods made of closures, requests, and servers on pipes and on loopback.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sampan_core::{
    fault::Fault,
    name::{Name, PodName, ServiceKey},
    object::Route,
};
use sampan_gateway::{
    Accept, Body, Drained, Endpoint, EndpointState, Gateway, Limits, RequestContext, Server,
    ServiceConfig, Transport, Upstream, UpstreamError, UpstreamFuture, empty, full,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

pub(crate) type Answer = Result<Response<Body>, UpstreamError>;

/// A pod that answers with a closure.
struct Pod<F>(F);

impl<F, R> Upstream for Pod<F>
where
    F: Fn(Request<Body>, RequestContext) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    fn call(&self, request: Request<Body>, context: &RequestContext) -> UpstreamFuture {
        Box::pin((self.0)(request, context.clone()))
    }
}

pub(crate) fn pod<F, R>(answer: F) -> Arc<dyn Upstream>
where
    F: Fn(Request<Body>, RequestContext) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    Arc::new(Pod(answer))
}

/// A pod that says `text`.
pub(crate) fn says(text: &'static str) -> Arc<dyn Upstream> {
    pod(move |_, _| async move { Ok(Response::new(full(text))) })
}

/// A pod that fails before it answers.
pub(crate) fn fails(kind: Fault) -> Arc<dyn Upstream> {
    pod(move |_, _| async move { Err(UpstreamError::new(kind)) })
}

/// A pod that sends the body back.
pub(crate) fn echoes() -> Arc<dyn Upstream> {
    pod(|request, _| async move { Ok(Response::new(request.into_body())) })
}

/// A pod that says `text` once the gate lets it.
pub(crate) fn says_after(gate: &Arc<Semaphore>, text: &'static str) -> Arc<dyn Upstream> {
    let gate = gate.clone();
    pod(move |_, _| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(Response::new(full(text)))
        }
    })
}

pub(crate) fn name(text: &str) -> ServiceKey {
    let app = Name::parse("shop").unwrap();
    ServiceKey::new(&app, &Name::parse(text).unwrap())
}

/// A ready endpoint `web-1-<slot>`.
pub(crate) fn ready(slot: u32, capacity: u32, upstream: Arc<dyn Upstream>) -> Arc<Endpoint> {
    let endpoint = Endpoint::new(PodName::new(&name("web"), 1, slot), 1, capacity, upstream);
    endpoint.set_state(EndpointState::Ready);
    endpoint
}

/// Service `web` with everything below `/` on any host.
pub(crate) fn web() -> ServiceConfig {
    ServiceConfig {
        name: name("web"),
        routes: vec![Route {
            host: None,
            prefix: "/".to_owned(),
        }],
        queue: 100,
        queue_timeout: Duration::from_secs(10),
        body: 1 << 20,
        debug_headers: false,
        expects_pods: true,
    }
}

/// A gateway with one service.
pub(crate) fn gateway(config: ServiceConfig, endpoints: impl AsRef<[Arc<Endpoint>]>) -> Gateway {
    gateway_with(Limits::default(), config, endpoints)
}

pub(crate) fn gateway_with(
    limits: Limits,
    config: ServiceConfig,
    endpoints: impl AsRef<[Arc<Endpoint>]>,
) -> Gateway {
    let gateway = Gateway::new(limits);
    gateway.publish(vec![(config, endpoints.as_ref().to_vec())]);
    gateway
}

/// Limits by which a request gets its place at once, with none of its body read.
pub(crate) fn nothing_ahead() -> Limits {
    Limits {
        body_read_ahead: 0,
        ..Limits::default()
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path)
        .header("host", "test")
        .body(empty())
        .unwrap()
}

pub(crate) fn post(path: &str, body: Body) -> Request<Body> {
    Request::post(path)
        .header("host", "test")
        .body(body)
        .unwrap()
}

/// Sends a request and reads the whole answer.
pub(crate) async fn send(gateway: &Gateway, request: Request<Body>) -> Response<Bytes> {
    let (head, body) = gateway.handle(request, None).await.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

pub(crate) async fn send_status(gateway: &Gateway, request: Request<Body>) -> StatusCode {
    send(gateway, request).await.status()
}

/// Lets every other task run until it can get no further.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Tells when it is dropped.
pub(crate) struct OnDrop(Option<oneshot::Sender<()>>);

impl OnDrop {
    pub(crate) fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(());
        }
    }
}

/// A server on loopback or on pipes.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<Drained>,
}

impl Running {
    fn start<A: Accept>(server: Server<A>) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            address: server.local_addr(),
            stop: Some(stop),
            done: tokio::spawn(server.run(async {
                let _ = stopped.await;
            })),
        }
    }

    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn done(self) -> Drained {
        self.done.await.unwrap()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.is_finished()
    }
}

/// Serves on a free port of loopback.
pub(crate) async fn serve(gateway: &Gateway) -> Running {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Running::start(Server::bind(gateway.clone(), address).await.unwrap())
}

/// One end of a pipe, as a connection.
pub(crate) struct Pipe(DuplexStream);

impl Pipe {
    /// The client's end, and the server's.
    pub(crate) fn pair() -> (DuplexStream, Self) {
        let (client, server) = tokio::io::duplex(16 << 10);
        (client, Self(server))
    }
}

impl Transport for Pipe {
    fn reset_on_drop(&mut self) {}
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Accepts what the test sends: pipes and errors.
pub(crate) struct Pipes(mpsc::Receiver<io::Result<Pipe>>);

impl Accept for Pipes {
    type Accepted = Pipe;
    type Io = Pipe;

    async fn accept(&mut self) -> io::Result<(Pipe, SocketAddr)> {
        match self.0.recv().await {
            Some(pipe) => Ok((pipe?, SocketAddr::from(([192, 0, 2, 1], 4711)))),
            None => std::future::pending().await,
        }
    }

    fn close(mut self) -> impl Iterator<Item = (Pipe, SocketAddr)> + Send {
        std::iter::from_fn(move || {
            let pipe = self.0.try_recv().ok()?.ok()?;
            Some((pipe, SocketAddr::from(([192, 0, 2, 1], 4711))))
        })
    }

    fn open(pipe: Pipe) -> io::Result<Pipe> {
        Ok(pipe)
    }
}

/// The client side of [`Pipes`].
pub(crate) struct Dial(mpsc::Sender<io::Result<Pipe>>);

impl Dial {
    pub(crate) async fn connect(&self) -> DuplexStream {
        let (client, server) = Pipe::pair();
        assert!(self.0.send(Ok(server)).await.is_ok(), "the server accepts");
        client
    }

    pub(crate) async fn fail(&self, errno: i32) {
        assert!(
            self.0
                .send(Err(io::Error::from_raw_os_error(errno)))
                .await
                .is_ok()
        );
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Serves on pipes, so that a test may pause the clock.
pub(crate) fn serve_pipes(gateway: &Gateway) -> (Running, Dial) {
    let (sender, receiver) = mpsc::channel(64);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let server = Server::with_accept(gateway.clone(), Pipes(receiver), address);
    (Running::start(server), Dial(sender))
}

/// Reads one HTTP/1 head.
pub(crate) async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).unwrap()
}

/// Sends bytes and reads until the other side closes.
pub(crate) async fn talk(io: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> io::Result<String> {
    let mut io = std::pin::pin!(io);
    io.write_all(bytes).await?;
    let mut answer = Vec::new();
    io.read_to_end(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

pub(crate) async fn h1<T>(io: T) -> http1::SendRequest<Body>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (client, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn h2<T>(io: T) -> http2::SendRequest<Body>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(io));
    let (client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn tcp(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// A pod that notes the paths it sees and holds each request until the gate opens.
pub(crate) fn recording(gate: &Arc<Semaphore>) -> (Arc<dyn Upstream>, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let upstream = pod({
        let (gate, seen) = (gate.clone(), seen.clone());
        move |request: Request<Body>, _| {
            seen.lock().unwrap().push(request.uri().path().to_owned());
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(Response::new(empty()))
            }
        }
    });
    (upstream, seen)
}
