//! One connection: HTTP on it, its times, and its end.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use hyper::{
    body::Incoming,
    rt::Executor,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use sampan_core::provoke;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{accept::Transport, tasks::Tasks, watched::Watched};
use crate::{
    Limits,
    gateway::Gateway,
    peer::{Cut, Expired, Peer},
    response::ResponseBody,
};

/// Time an HTTP/2 connection has to close in good order, without a request, before it is dropped.
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

    /// Serves one connection to its end, once it has its permit. One that has none when the rest
    /// is cut is reset.
    ///
    /// `open` is called on the thread that serves it.
    pub(super) fn serve<T: Transport, O, P>(
        &self,
        open: O,
        address: SocketAddr,
        permit: P,
    ) -> impl Future<Output = ()> + Send + use<T, O, P>
    where
        O: FnOnce() -> io::Result<T> + Send,
        P: Future<Output = OwnedSemaphorePermit> + Send,
    {
        let task = self.tasks.begin_connection();
        let (gateway, http, cut) = (self.gateway.clone(), self.http.clone(), self.cut.clone());
        let mut stage = self.stage.clone();
        async move {
            let _task = task;
            provoke::panic_in(provoke::Task::Connection);
            let mut io = match open() {
                Ok(io) => io,
                Err(error) => return tracing::warn!(%error, "cannot serve a connection"),
            };
            let _permit = tokio::select! {
                biased;
                permit = permit => permit,
                _ = reach(&mut stage, Stage::Cut) => return io.reset_on_drop(),
            };
            let peer = Peer::new(Some(address), cut, gateway.limits());
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
    let service = service_fn(|request: Request<Incoming>| {
        let (gateway, peer) = (gateway.clone(), peer.clone());
        async move {
            let version = request.version();
            let mut response = gateway.serve(request, &peer).await;
            if peer.cut.draining.load(Ordering::Acquire)
                && version < Version::HTTP_2
                && !peer.has_unread()
            {
                // The last answer on this connection. One that is followed by another says nothing:
                // what was sent after a `close` is not answered, RFC 9112 §9.6.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let limits = gateway.limits();
    let io = TokioIo::new(Watched::new(io, peer.clone(), limits));
    let mut connection = pin!(http.serve_connection(io, service));
    let mut expired = pin!(peer.expired(limits));
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
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                _ = reach(&mut stage, Stage::Cut) => return,
                _ = expired => return,
                () = peer.spent(limits.drain_idle) => {}
            }
            close(connection, &mut stage, peer).await;
        }
        Event::Expired(Expired::Idle) => close(connection, &mut stage, peer).await,
    }
}

/// Ends a connection that has no request in flight, or speaks HTTP/2. That tells its client twice
/// that it ends, and takes what was begun in between.
async fn close<T: Transport, S>(
    mut connection: Pin<&mut auto::Connection<'_, TokioIo<Watched<T>>, S, Streams>>,
    stage: &mut watch::Receiver<Stage>,
    peer: &Peer,
) where
    S: Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
    S::Future: Send + 'static,
{
    peer.leave();
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        _ = connection => {}
        _ = reach(stage, Stage::Cut) => {}
        // A client that does not answer the PING that goes with the GOAWAY.
        () = peer.quiet(CLOSE_GRACE) => {}
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
