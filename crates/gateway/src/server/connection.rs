//! One connection: HTTP on it, its times, and its end.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, watch},
};

use super::{Tasks, Transport};
use crate::{
    Limits,
    gateway::Gateway,
    peer::{Cut, Expired, Peer},
    proxy,
    stall::Stall,
};

/// Time an idle connection has to close in good order before it is dropped.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// How hyper's default looks at a limit on header fields: asking for it costs an allocation per
/// request.
const HYPER_HEADERS: usize = 100;

/// The smallest buffer hyper allows.
const MIN_BUFFER_BYTES: usize = 8 << 10;

/// How far a server has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Serving,
    /// Connections close after the request in flight.
    Draining,
    /// Connections close at once.
    Cut,
}

/// What all connections of a server share.
pub(super) struct Connections {
    gateway: Gateway,
    http: Arc<auto::Builder<Streams>>,
    tasks: Arc<Tasks>,
    cut: Arc<Cut>,
    stage: watch::Receiver<Stage>,
}

impl Connections {
    pub(super) fn new(
        gateway: Gateway,
        tasks: Arc<Tasks>,
        cut: Arc<Cut>,
        stage: watch::Receiver<Stage>,
    ) -> Self {
        let http = Arc::new(http(gateway.limits(), Streams(tasks.clone())));
        Self {
            gateway,
            http,
            tasks,
            cut,
            stage,
        }
    }

    /// Counts a connection that was turned away.
    pub(super) fn refused(&self) {
        self.gateway.count_refused();
    }

    /// Serves one connection to its end.
    pub(super) fn serve<T: Transport>(
        &self,
        io: T,
        address: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + use<T> {
        let task = self.tasks.begin_connection(permit);
        let peer = Peer::new(Some(address), self.cut.clone());
        let (gateway, http, stage) = (self.gateway.clone(), self.http.clone(), self.stage.clone());
        async move {
            let _task = task;
            serve(&gateway, &http, stage, io, &peer).await;
        }
    }
}

async fn serve<T: Transport>(
    gateway: &Gateway,
    http: &auto::Builder<Streams>,
    mut stage: watch::Receiver<Stage>,
    io: T,
    peer: &Arc<Peer>,
) {
    let service = service_fn(|request| {
        let (gateway, peer) = (gateway.clone(), peer.clone());
        async move { Ok::<_, Infallible>(proxy::handle(&gateway, request, &peer).await) }
    });
    let io = TokioIo::new(Watched {
        io,
        peer: peer.clone(),
        write: Stall::default(),
        patience: gateway.limits().write_idle_timeout,
    });
    let mut connection = pin!(http.serve_connection(io, service));
    let mut expired = pin!(peer.expired(gateway.limits()));
    let event = tokio::select! {
        // What came in before its time ran out counts.
        biased;
        end = connection.as_mut() => {
            if let Err(error) = end {
                tracing::debug!(%error, client = ?peer.address, "connection failed");
            }
            return;
        }
        stage = reach(&mut stage, Stage::Draining) => Event::Stage(stage),
        expired = expired.as_mut() => Event::Expired(expired),
    };
    match event {
        Event::Stage(Stage::Cut) | Event::Expired(Expired::Head) => {}
        Event::Stage(Stage::Serving | Stage::Draining) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                _ = connection => {}
                _ = reach(&mut stage, Stage::Cut) => {}
                _ = expired => {}
            }
        }
        Event::Expired(Expired::Idle) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                _ = connection => {}
                _ = reach(&mut stage, Stage::Cut) => {}
                // An HTTP/2 client may have begun a request that crossed the GOAWAY.
                () = peer.quiet(CLOSE_GRACE) => {}
            }
        }
    }
}

/// What ends a connection from this side.
enum Event {
    Stage(Stage),
    Expired(Expired),
}

/// Waits until the server has come as far as `stage`, and says how far it is.
async fn reach(current: &mut watch::Receiver<Stage>, stage: Stage) -> Stage {
    // Without its sender the server is gone.
    current
        .wait_for(|current| *current >= stage)
        .await
        .map_or(Stage::Cut, |stage| *stage)
}

fn http(limits: &Limits, streams: Streams) -> auto::Builder<Streams> {
    let mut http = auto::Builder::new(streams);
    // Times are kept in `Peer`: hyper's would count waiting for the next request as reading it.
    http.http1()
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER_BYTES))
        .timer(TokioTimer::new());
    if limits.headers != HYPER_HEADERS {
        http.http1().max_headers(limits.headers);
    }
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .initial_stream_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_pending_resets)
        .max_local_error_reset_streams(limits.h2_error_resets);
    http
}

/// Runs HTTP/2 streams as tasks that the server counts.
#[derive(Clone, Debug)]
struct Streams(Arc<Tasks>);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let task = self.0.begin();
        tokio::spawn(async move {
            stream.await;
            drop(task);
        });
    }
}

/// A transport that tells its peer record what comes in, and ends as that asks.
struct Watched<T: Transport> {
    io: T,
    peer: Arc<Peer>,
    write: Stall,
    /// How long the client may read nothing.
    patience: Duration,
}

impl<T: Transport> Watched<T> {
    /// Passes on how writing went, unless the client has kept it waiting for too long.
    fn written<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            if self.write.over() > Duration::ZERO {
                self.peer.progressed();
            }
            return written;
        }
        ready!(self.write.poll(cx, self.patience));
        self.peer.stalled();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: Transport> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.peer.received();
        }
        read
    }
}

impl<T: Transport> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An orderly end would speak for an answer that is not whole.
        if self.peer.must_reset() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<T: Transport> Drop for Watched<T> {
    fn drop(&mut self) {
        if self.peer.must_reset() {
            self.io.reset_on_drop();
        }
    }
}
