//! The client end of a connection: its address, and what decides when the connection has to go.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use http::{HeaderValue, Version};
use tokio::time::Instant;

use crate::Limits;

/// Whether a server is cutting off what is still in flight, and how much it has cut.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) begun: AtomicBool,
    pub(crate) dropped: AtomicU64,
}

/// The client end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// The address as `X-Forwarded-For` says it.
    pub(crate) forwarded_for: Option<HeaderValue>,
    pub(crate) cut: Arc<Cut>,
    opened: Instant,
    /// Requests in flight.
    active: AtomicU32,
    /// When the last request ended, in ms since `opened`.
    idle_since: AtomicU64,
    /// When the request head being read began, in ms since `opened`; [`NO_HEAD`] while there is
    /// none.
    head_since: AtomicU64,
    is_h2: AtomicBool,
    is_http10: AtomicBool,
    /// Whether closing the connection in the normal way would look like the end of an answer that
    /// is not whole.
    must_reset: AtomicBool,
}

const NO_HEAD: u64 = u64::MAX;

/// Keeps limits of zero from making a busy loop.
const MIN_PERIOD: Duration = Duration::from_millis(1);

/// Which time of a connection has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The request head did not come in time.
    Head,
    /// No request came in time.
    Idle,
}

impl Peer {
    pub(crate) fn new(address: Option<SocketAddr>, cut: Arc<Cut>) -> Arc<Self> {
        let forwarded_for = address.map(|address| {
            let ip = address.ip().to_canonical().to_string();
            HeaderValue::try_from(ip).expect("an IP address is a field value")
        });
        Arc::new(Self {
            address,
            forwarded_for,
            cut,
            opened: Instant::now(),
            active: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            // A new connection owes its first request.
            head_since: AtomicU64::new(0),
            is_h2: AtomicBool::new(false),
            is_http10: AtomicBool::new(false),
            must_reset: AtomicBool::new(false),
        })
    }

    /// Notes that bytes came in. Between requests they are the beginning of a head.
    pub(crate) fn received(&self) {
        if self.active.load(Relaxed) == 0 && self.head_since.load(Relaxed) == NO_HEAD {
            self.head_since.store(self.elapsed(), Relaxed);
        }
    }

    /// Notes that an answer failed after its head. To HTTP/1.0 the end of the connection may be the
    /// end of the answer, so there only a reset tells the client.
    pub(crate) fn answer_failed(&self) {
        if self.is_http10.load(Relaxed) {
            self.must_reset.store(true, Release);
        }
    }

    /// Notes that the client reads what it was waited for: a connection is not idle while the end of
    /// an answer is in its buffers.
    pub(crate) fn progressed(&self) {
        self.idle_since.store(self.elapsed(), Relaxed);
    }

    /// Notes that the client reads nothing: what is still to be written to it is given up.
    pub(crate) fn stalled(&self) {
        self.must_reset.store(true, Release);
    }

    pub(crate) fn must_reset(&self) -> bool {
        self.must_reset.load(Acquire)
    }

    /// Resolves when the connection has waited too long for a request.
    pub(crate) async fn expired(&self, limits: &Limits) -> Expired {
        // No deadline is set less than this ahead, so looking that often is enough, and no timer
        // is touched per request.
        let period = limits
            .header_read_timeout
            .min(limits.idle_timeout)
            .max(MIN_PERIOD);
        loop {
            let now = self.opened.elapsed();
            let wait = match self.deadline(limits) {
                Some((deadline, expired)) if deadline <= now => return expired,
                Some((deadline, _)) => (deadline - now).min(period),
                None => period,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Resolves once no request has been in flight for about `time`.
    pub(crate) async fn quiet(&self, time: Duration) {
        loop {
            tokio::time::sleep(time).await;
            if self.active.load(Acquire) == 0 {
                return;
            }
        }
    }

    /// The next deadline since `opened`, while no request is in flight.
    fn deadline(&self, limits: &Limits) -> Option<(Duration, Expired)> {
        if self.active.load(Acquire) > 0 {
            return None;
        }
        let head_since = self.head_since.load(Relaxed);
        // Between HTTP/2 requests come frames that are no request.
        let is_h2 = self.is_h2.load(Relaxed);
        Some(if head_since == NO_HEAD || is_h2 {
            let since = Duration::from_millis(self.idle_since.load(Relaxed));
            (since + limits.idle_timeout, Expired::Idle)
        } else {
            (
                Duration::from_millis(head_since) + limits.header_read_timeout,
                Expired::Head,
            )
        })
    }

    fn elapsed(&self) -> u64 {
        // More than u64 milliseconds cannot pass.
        self.opened.elapsed().as_millis() as u64
    }
}

/// A request in flight on a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Activity(Arc<Peer>);

impl Activity {
    pub(crate) fn begin(peer: &Arc<Peer>, version: Version) -> Self {
        peer.active.fetch_add(1, Relaxed);
        peer.head_since.store(NO_HEAD, Relaxed);
        match version {
            Version::HTTP_2 => peer.is_h2.store(true, Relaxed),
            Version::HTTP_10 => peer.is_http10.store(true, Relaxed),
            _ => {}
        }
        Self(peer.clone())
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.elapsed(), Relaxed);
        self.0.active.fetch_sub(1, Release);
    }
}
