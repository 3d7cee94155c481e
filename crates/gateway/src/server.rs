//! The [`Server`]: accepts connections, serves them, and stops without losing a request.

mod accept;
mod clients;
mod connection;
mod tasks;
mod watched;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};

pub use accept::{Accept, TcpAccept, Transport};

use crate::{Limits, gateway::Gateway, peer::Cut, threads::Threads};
use clients::Clients;
use connection::{Connections, Stage};
use tasks::Tasks;

/// Time connections have to notice that they are cut off. They need a poll, not a network.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A listener in front of a [`Gateway`]: HTTP/1.1, and HTTP/2 with prior knowledge.
#[derive(Debug)]
pub struct Server<A = TcpAccept> {
    gateway: Gateway,
    accept: A,
    local_addr: SocketAddr,
    /// What serves its connections; where there are none, what runs it.
    threads: Vec<Handle>,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        let accept = TcpAccept::new(listener);
        Ok(Self::with_accept(gateway, accept, local_addr))
    }
}

impl<A: Accept> Server<A> {
    /// Serves what `accept` yields, as if it listened on `local_addr`.
    pub fn with_accept(gateway: Gateway, accept: A, local_addr: SocketAddr) -> Self {
        Self {
            gateway,
            accept,
            local_addr,
            threads: Vec::new(),
        }
    }

    /// Has connections served on these runtimes, each by the one that has the fewest. Without this
    /// the runtime serves them that runs the server.
    pub fn on(mut self, threads: impl IntoIterator<Item = Handle>) -> Self {
        self.threads = threads.into_iter().collect();
        self
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` resolves, then drains, for up to [`Limits::drain`], and cuts what is
    /// left.
    ///
    /// Clients had their connections and requests under way before it stopped, so all are taken:
    /// what waits to be accepted, what is in flight, what was sent and not yet read, and for
    /// [`Limits::drain_idle`] what comes on connections that are open. The last answer on each says
    /// `Connection: close`, or HTTP/2 a GOAWAY.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let Self {
            gateway,
            accept,
            mut threads,
            ..
        } = self;
        if threads.is_empty() {
            threads.push(Handle::current());
        }
        let limits = gateway.limits().clone();
        let (stage, _) = watch::channel(Stage::Serving);
        let tasks = Arc::<Tasks>::default();
        let cut = Arc::<Cut>::default();
        let connections = Connections::new(gateway, tasks.clone(), cut.clone(), stage.subscribe());
        let door = Door {
            connections,
            clients: Clients::new(&limits),
            threads: Threads::of(threads),
        };
        let mut acceptor = Acceptor::new(accept, door, &limits);
        tokio::select! {
            () = acceptor.run() => {}
            () = shutdown => {}
        }
        cut.draining.store(true, Ordering::Release);
        acceptor.close();
        // The listener is closed now.
        stage.send_replace(Stage::Draining);
        if timeout_at(Instant::now() + limits.drain, tasks.ended())
            .await
            .is_ok()
        {
            return Drained::default();
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

/// Accepts connections, as many at once as the limits allow.
struct Acceptor<A> {
    accept: A,
    door: Door,
    permits: Arc<Semaphore>,
    backoff: Duration,
    backoff_max: Duration,
}

impl<A: Accept> Acceptor<A> {
    fn new(accept: A, door: Door, limits: &Limits) -> Self {
        let permits = limits.connections.min(Semaphore::MAX_PERMITS);
        Self {
            accept,
            door,
            permits: Arc::new(Semaphore::new(permits)),
            backoff: limits.accept_backoff.min(limits.accept_backoff_max),
            backoff_max: limits.accept_backoff_max,
        }
    }

    /// Accepts for ever.
    async fn run(&mut self) {
        let first_backoff = self.backoff;
        loop {
            let permit = self.permits.clone().acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            match self.accept.accept().await {
                Ok((accepted, address)) => {
                    self.backoff = first_backoff;
                    let permit = std::future::ready(permit);
                    self.door.serve::<A>(accepted, address, permit);
                }
                Err(error) => {
                    // Out of descriptors or memory, or the client is gone already. Whatever it is,
                    // it passes, and the loop must not spin until it does.
                    let pause = self.backoff;
                    tracing::warn!(%error, ?pause, "cannot accept a connection");
                    tokio::time::sleep(pause).await;
                    self.backoff = (pause * 2).min(self.backoff_max);
                }
            }
        }
    }

    /// Accepts what waits for that, and no more. Beyond the limit they wait for a place: the system
    /// bounds how many that are.
    fn close(mut self) {
        for (accepted, address) in self.accept.close() {
            let permits = self.permits.clone();
            let permit = async move {
                let permit = permits.acquire_owned().await;
                permit.expect("the semaphore is never closed")
            };
            self.door.serve::<A>(accepted, address, permit);
        }
    }
}

/// Where accepted connections come in: each goes to a thread, if its client may have one more.
struct Door {
    connections: Connections,
    clients: Arc<Clients>,
    threads: Threads,
}

impl Door {
    /// Serves a connection in a task of its own, once it has its permit.
    fn serve<A: Accept>(
        &mut self,
        accepted: A::Accepted,
        address: SocketAddr,
        permit: impl Future<Output = OwnedSemaphorePermit> + Send + 'static,
    ) {
        let Some(place) = self.clients.place(address.ip()) else {
            tracing::debug!(client = %address, "too many connections");
            // One that cannot be opened is closed, too.
            let _ = A::open(accepted).map(|mut io| io.reset_on_drop());
            return self.connections.refused();
        };
        let open = || A::open(accepted);
        let served = self.connections.serve(open, address, permit);
        self.threads.seat().spawn(async move {
            served.await;
            drop(place);
        });
    }
}
