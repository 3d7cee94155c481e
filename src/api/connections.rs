//! Connections of the API: a limit on how many there are, and on how long each keeps its place.
//!
//! A connection is a *stranger* until a request on it has shown the token; at the socket, which only
//! this user may open, none is. When all places are taken, the stranger that came first is cut off
//! in favour of the connection that comes. So connections that say nothing keep none with the token
//! out, and the gateway loses no descriptor to them.
//!
//! | state | written | read |
//! |---|---|---|
//! | places | taken by accepting; given back when the connection's task ends | by accepting |
//! | strangers, by their order | added by accepting; removed by the first request with the token, by being cut off, and by the end of the connection | by accepting, when there is no place |
//!
//! Accepting is one task, so places are taken in order. A stranger is removed from the list before
//! it is told to end, so it is told once, and its place comes back when its task has ended.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use tower_service::Service as _;

/// Time from a new connection, or from the end of an answer, to the last byte of the next head.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Time a client may read nothing while there is something to write to it.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// The largest head of a request.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
pub(super) trait Listener: Send + 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Whether every connection is one of this user.
    const TRUSTED: bool;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    const TRUSTED: bool = false;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Io = UnixStream;

    const TRUSTED: bool = true;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Serves connections, at most `limit` at once, until this is dropped.
pub(super) async fn serve<L: Listener>(listener: L, router: Router, limit: usize) {
    let connections = Connections::new(limit);
    loop {
        let io = match listener.accept().await {
            Ok(io) => io,
            Err(error) => {
                // The client is gone already, or this process is out of descriptors or memory.
                tracing::warn!(%error, "the API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = connections.place(L::TRUSTED).await;
        tokio::spawn(serve_one(io, router.clone(), Arc::new(place)));
    }
}

async fn serve_one<I>(io: I, router: Router, place: Arc<Place>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&place));
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Written::new(io)), service);
    tokio::select! {
        end = connection => {
            if let Err(error) = end {
                tracing::debug!(%error, "a connection to the API failed");
            }
        }
        () = place.cut.notified() => {}
    }
}

/// The connections of one listener.
struct Connections {
    places: Arc<Semaphore>,
    strangers: Mutex<Strangers>,
}

#[derive(Default)]
struct Strangers {
    next: u64,
    /// By the order of their arrival, with what tells each to end.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// The place of a connection.
pub(super) struct Place {
    connections: Arc<Connections>,
    /// Its number among the strangers, if it has begun as one.
    number: Option<u64>,
    cut: Arc<Notify>,
    _place: OwnedSemaphorePermit,
}

impl Connections {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(limit)),
            strangers: Mutex::default(),
        })
    }

    /// Waits for a place, which the stranger that came first gives up if all are taken.
    async fn place(self: &Arc<Self>, trusted: bool) -> Place {
        if self.places.available_permits() == 0
            && let Some((_, first)) = self.strangers.lock().waiting.pop_first()
        {
            first.notify_one();
        }
        let place = Arc::clone(&self.places).acquire_owned().await;
        let cut = Arc::<Notify>::default();
        let number = (!trusted).then(|| {
            let mut strangers = self.strangers.lock();
            let number = strangers.next;
            strangers.next += 1;
            strangers.waiting.insert(number, Arc::clone(&cut));
            number
        });
        Place {
            connections: Arc::clone(self),
            number,
            cut,
            _place: place.expect("the semaphore is never closed"),
        }
    }
}

impl Place {
    /// From now on the connection keeps its place.
    pub(super) fn keep(&self) {
        if let Some(number) = &self.number {
            self.connections.strangers.lock().waiting.remove(number);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keep();
    }
}

/// A stream that fails when its other end reads nothing for [`WRITE_TIME`].
struct Written<I> {
    io: I,
    /// When the write that waits is given up.
    limit: Pin<Box<Sleep>>,
    waits: bool,
}

impl<I> Written<I> {
    fn new(io: I) -> Self {
        Self {
            io,
            limit: Box::pin(tokio::time::sleep(WRITE_TIME)),
            waits: false,
        }
    }

    /// Passes on how writing went, unless it has waited for too long.
    fn pass<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waits = false;
            return written;
        }
        if !self.waits {
            self.waits = true;
            self.limit.as_mut().reset(Instant::now() + WRITE_TIME);
        }
        let over = self.limit.as_mut().poll(cx);
        over.map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Written<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Written<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.pass(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.pass(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
