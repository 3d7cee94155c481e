//! The [`Server`]: accepts connections, serves them, and stops without losing a request.

mod accept;
mod clients;
mod connection;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};

pub use accept::{Accept, TcpAccept, Transport};

use crate::{Limits, gateway::Gateway, peer::Cut};
use clients::Clients;
use connection::{Connections, Stage};

/// Time connections have to notice that they are cut off. They need a poll, not a network.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A listener in front of a [`Gateway`]: HTTP/1.1, and HTTP/2 with prior knowledge.
#[derive(Debug)]
pub struct Server<A = TcpAccept> {
    gateway: Gateway,
    accept: A,
    local_addr: SocketAddr,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open at the end of the drain time and were cut.
    pub connections: usize,
    /// Requests that were in flight on them.
    pub requests: u64,
}

impl Server {
    /// Listens on `address` with `SO_REUSEADDR`; port 0 takes a free one. From now on clients can
    /// connect; they are served once [`run`](Self::run) is.
    ///
    /// # Errors
    ///
    /// What the operating system says against listening there.
    pub async fn bind(gateway: Gateway, address: SocketAddr) -> io::Result<Self> {
        Self::over_tcp(gateway, TcpListener::bind(address).await?)
    }

    /// Serves on a listener that exists, such as one that was inherited.
    ///
    /// # Errors
    ///
    /// If the listener cannot be made non-blocking or has no address.
    pub fn from_listener(gateway: Gateway, listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::over_tcp(gateway, TcpListener::from_std(listener)?)
    }

    fn over_tcp(gateway: Gateway, listener: TcpListener) -> io::Result<Self> {
        let local_addr = listener.local_addr()?;
        Ok(Self {
            gateway,
            accept: TcpAccept::new(listener),
            local_addr,
        })
    }
}

impl<A: Accept> Server<A> {
    /// Serves what `accept` yields, as if it listened on `local_addr`.
    pub fn with_accept(gateway: Gateway, accept: A, local_addr: SocketAddr) -> Self {
        Self {
            gateway,
            accept,
            local_addr,
        }
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` resolves, then drains: accepts no more, tells the clients (with
    /// `Connection: close` or GOAWAY), waits up to [`Limits::drain`] for the requests in flight,
    /// and cuts what is left.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self {
            gateway, accept, ..
        } = self;
        let limits = gateway.limits().clone();
        let (stage, _) = watch::channel(Stage::Serving);
        let tasks = Arc::<Tasks>::default();
        let cut = Arc::<Cut>::default();
        let connections = Connections::new(gateway, tasks.clone(), cut.clone(), stage.subscribe());
        tokio::select! {
            () = accept_all(accept, connections, &limits) => {}
            () = shutdown => {}
        }
        // The listener is closed now.
        stage.send_replace(Stage::Draining);
        if timeout_at(Instant::now() + limits.drain, tasks.ended())
            .await
            .is_ok()
        {
            return Drained {
                connections: 0,
                requests: 0,
            };
        }
        let connections = tasks.connections();
        cut.begun.store(true, Ordering::Release);
        stage.send_replace(Stage::Cut);
        if timeout_at(Instant::now() + CUT_GRACE, tasks.ended())
            .await
            .is_err()
        {
            tracing::warn!("connections are slow to end after they were cut");
        }
        Drained {
            connections,
            requests: cut.dropped.load(Ordering::Acquire),
        }
    }
}

/// Accepts for ever, as many connections at once as the limit allows.
async fn accept_all<A: Accept>(mut accept: A, connections: Connections, limits: &Limits) {
    let permits = Arc::new(Semaphore::new(
        limits.connections.min(Semaphore::MAX_PERMITS),
    ));
    let clients = Clients::new(limits.connections_per_client);
    let first_backoff = limits.accept_backoff.min(limits.accept_backoff_max);
    let mut backoff = first_backoff;
    loop {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match accept.accept().await {
            Ok((mut io, address)) => {
                backoff = first_backoff;
                match clients.place(address.ip()) {
                    Some(place) => drop(tokio::spawn({
                        let served = connections.serve(io, address, permit);
                        async move {
                            served.await;
                            drop(place);
                        }
                    })),
                    None => {
                        tracing::debug!(client = %address, "too many connections");
                        io.reset_on_drop();
                        connections.refused();
                    }
                }
            }
            Err(error) => {
                // Out of descriptors or memory, or the client is gone already. Whatever it is, it
                // passes, and the loop must not spin until it does.
                tracing::warn!(%error, pause = ?backoff, "cannot accept a connection");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(limits.accept_backoff_max);
            }
        }
    }
}

/// The tasks of a server that still run: its connections, and the HTTP/2 streams on them.
#[derive(Debug, Default)]
struct Tasks {
    all: AtomicUsize,
    connections: AtomicUsize,
    ended: Notify,
}

impl Tasks {
    /// Counts a task until the guard is dropped.
    fn begin(self: &Arc<Self>) -> Task {
        self.all.fetch_add(1, Ordering::AcqRel);
        Task {
            tasks: self.clone(),
            permit: None,
        }
    }

    /// Counts a connection, which gives its permit back at the end.
    fn begin_connection(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Task {
        self.connections.fetch_add(1, Ordering::AcqRel);
        let mut task = self.begin();
        task.permit = Some(permit);
        task
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Resolves when none runs.
    async fn ended(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.all.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

#[derive(Debug)]
struct Task {
    tasks: Arc<Tasks>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.tasks.connections.fetch_sub(1, Ordering::AcqRel);
        }
        if self.tasks.all.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tasks.ended.notify_waiters();
        }
    }
}
