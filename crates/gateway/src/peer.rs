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

use crate::{Limits, forwarded, headers::Sender};

/// Whether a server stops, whether it is cutting off what is still in flight, and how much it has
/// cut.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    /// Whether the server stops: no connection is kept after what its client has sent.
    pub(crate) draining: AtomicBool,
    pub(crate) begun: AtomicBool,
    pub(crate) dropped: AtomicU64,
}

/// The client end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// The address as `X-Forwarded-For` says it.
    pub(crate) forwarded_for: Option<HeaderValue>,
    /// Whose word the requests on it are.
    pub(crate) sender: Sender,
    pub(crate) cut: Arc<Cut>,
    opened: Instant,
    /// Requests so far.
    requests: AtomicU64,
    /// The number of the request that says its length in two ways; 0 if none does.
    two_lengths: AtomicU64,
    /// Requests in flight.
    active: AtomicU32,
    /// When the last request ended, in ms since `opened`.
    idle_since: AtomicU64,
    /// When the request head being read began, in ms since `opened`; [`NO_HEAD`] while there is
    /// none.
    head_since: AtomicU64,
    /// Whether bytes of the next request head are there.
    has_head: AtomicBool,
    /// Whether there may be bytes that came and belong to no request yet: the last read gave some.
    has_unread: AtomicBool,
    /// Whether there is something to write that the client has no room for.
    is_blocked: AtomicBool,
    /// Whether the client has said the first words of HTTP/2.
    has_preface: AtomicBool,
    is_h2: AtomicBool,
    is_http10: AtomicBool,
    /// Whether closing the connection in the normal way would look like the end of an answer that
    /// is not whole.
    must_reset: AtomicBool,
    /// Whether the client has had all its answers for long, so that there is nothing to wait for
    /// when the connection is closed.
    is_left: AtomicBool,
}

/// How HTTP/2 begins, and nothing that HTTP/1.1 knows: RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI ";

const NO_HEAD: u64 = u64::MAX;

/// Keeps limits of zero from making a busy loop.
const MIN_PERIOD: Duration = Duration::from_millis(1);

/// How often a connection of a server that stops is looked at.
const SPENT_PERIOD: Duration = Duration::from_millis(100);

/// Which time of a connection has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The request head did not come in time.
    Head,
    /// No request came in time.
    Idle,
}

impl Peer {
    pub(crate) fn new(address: Option<SocketAddr>, cut: Arc<Cut>, limits: &Limits) -> Arc<Self> {
        let proxies = &limits.trusted_proxies;
        let is_proxy = address.is_some_and(|it| forwarded::is_trusted(it.ip(), proxies));
        Arc::new(Self {
            address,
            forwarded_for: address.map(forwarded::to_field),
            sender: match is_proxy {
                true => Sender::Proxy,
                false => Sender::Client,
            },
            cut,
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            two_lengths: AtomicU64::new(0),
            active: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            // A new connection owes its first request.
            head_since: AtomicU64::new(0),
            has_head: AtomicBool::new(false),
            has_unread: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            has_preface: AtomicBool::new(false),
            is_h2: AtomicBool::new(false),
            is_http10: AtomicBool::new(false),
            must_reset: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
        })
    }

    /// Notes that these bytes came in. Between requests they are the beginning of a head.
    pub(crate) fn received(&self, bytes: &[u8]) {
        self.has_unread.store(true, Relaxed);
        if self.active.load(Relaxed) > 0 {
            return;
        }
        if self.head_since.load(Relaxed) == NO_HEAD {
            self.head_since.store(self.elapsed(), Relaxed);
        }
        if !self.has_head.swap(true, Relaxed) && bytes.starts_with(PREFACE) {
            self.has_preface.store(true, Relaxed);
        }
    }

    /// Notes that nothing more is there to read. While a request is in flight, HTTP/1.1 reads only
    /// when it has used everything that it has read before.
    pub(crate) fn starved(&self) {
        self.has_unread.store(false, Relaxed);
    }

    /// Whether the client has sent more than the requests that are being answered, as far as it is
    /// here. Only HTTP/1.1 reads so that this is known.
    pub(crate) fn has_unread(&self) -> bool {
        self.has_unread.load(Relaxed)
    }

    /// Notes whether the client has room for what is to be written.
    pub(crate) fn blocked(&self, is_blocked: bool) {
        self.is_blocked.store(is_blocked, Relaxed);
    }

    /// Whether its last answer is followed by a close without the wait of [`Limits::linger`].
    pub(crate) fn is_left(&self) -> bool {
        self.is_left.load(Relaxed)
    }

    /// Notes that the connection is closed because nothing has happened on it for long.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Relaxed);
    }

    /// Notes that the request with this number, counted from 1, says its length in two ways. It has
    /// not been parsed yet.
    pub(crate) fn found_two_lengths(&self, number: u64) {
        self.two_lengths.store(number, Release);
    }

    /// Counts a request. Whether it is the one that says its length in two ways.
    pub(crate) fn next_says_two_lengths(&self) -> bool {
        let number = self.requests.fetch_add(1, Relaxed) + 1;
        self.two_lengths.load(Acquire) == number
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

    /// Resolves once no request has been in flight, and nothing of an answer unsent, for about
    /// `time`.
    pub(crate) async fn quiet(&self, time: Duration) {
        loop {
            tokio::time::sleep(time.max(MIN_PERIOD)).await;
            if self.active.load(Acquire) == 0 && !self.is_blocked.load(Relaxed) {
                return;
            }
        }
    }

    /// Resolves when a connection of a server that stops may be told so without the loss of a
    /// request: over HTTP/2, which says which requests it has not seen, at once; else when the
    /// client has sent nothing for `time` from now and from the end of its last answer.
    pub(crate) async fn spent(&self, time: Duration) {
        let begin = self.opened.elapsed();
        loop {
            if self.has_preface.load(Relaxed) || self.is_h2.load(Relaxed) {
                return;
            }
            let now = self.opened.elapsed();
            let busy = self.active.load(Acquire) > 0
                || self.has_head.load(Relaxed)
                || self.is_blocked.load(Relaxed);
            let idle_since = Duration::from_millis(self.idle_since.load(Relaxed));
            let end = begin.max(idle_since) + time;
            if !busy && end <= now {
                return;
            }
            let wait = if busy { time } else { end - now };
            tokio::time::sleep(wait.clamp(MIN_PERIOD, SPENT_PERIOD)).await;
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
        peer.has_head.store(false, Relaxed);
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
        let (peer, now) = (&self.0, self.0.elapsed());
        peer.idle_since.store(now, Relaxed);
        if peer.has_unread() && !peer.is_h2.load(Relaxed) {
            // The next head, or its beginning, came while this request was answered.
            peer.head_since.store(now, Relaxed);
            peer.has_head.store(true, Relaxed);
        }
        peer.active.fetch_sub(1, Release);
    }
}
