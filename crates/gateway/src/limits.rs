//! The gateway's own limits. What is set per service is in [`crate::ServiceConfig`].

use std::time::Duration;

/// Limits of the gateway that hold for every service and every connection.
///
/// Each has a default that suits a server on the open internet; the numbers follow what Envoy
/// recommends for an edge proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections. At the limit no more are accepted until one closes: new ones wait in the
    /// kernel. Default 10,000.
    pub connections: usize,
    /// Bytes of a request head. More is answered 431 over HTTP/1, and over HTTP/2 too. It is also
    /// the size of an HTTP/1 connection's read buffer. At least 8 KiB. Default 32 KiB.
    pub header_bytes: usize,
    /// Header fields of a request. More is answered 431. Default 100.
    pub headers: usize,
    /// Bytes of a request's path and query. More is answered 414. Default 8 KiB.
    pub uri_bytes: usize,
    /// Time from the first byte of an HTTP/1 request head to its last, and from a new connection
    /// to its first request. Default 10 s.
    pub header_read_timeout: Duration,
    /// Time a connection may stay open without a request. Default 75 s.
    pub idle_timeout: Duration,
    /// Connections open at once from one client: an IPv4 address, or the /64 of an IPv6 address.
    /// More are reset. Loopback has no limit. Default 256.
    pub connections_per_client: usize,
    /// Time a request body may pause while a pod waits for it. Then the request is answered 408.
    /// Default 15 s.
    pub body_idle_timeout: Duration,
    /// Bytes a second a request body has to come with on average, counted after the first
    /// `body_idle_timeout` of waiting for it. Slower ones are answered 408. Default 240.
    pub body_min_rate: u64,
    /// Time a client may read nothing while there is something to write to it. Then its connection
    /// is reset. Default 30 s.
    pub write_idle_timeout: Duration,
    /// HTTP/2 streams open at once on a connection. Default 100.
    pub h2_streams: u32,
    /// HTTP/2 flow-control window of a stream, in bytes. Default 64 KiB.
    pub h2_stream_window: u32,
    /// HTTP/2 flow-control window of a connection, in bytes. Default 1 MiB.
    pub h2_connection_window: u32,
    /// Streams a client may reset before they were looked at; one more ends the connection with
    /// `ENHANCE_YOUR_CALM`. Default 20.
    pub h2_pending_resets: usize,
    /// Streams reset for a client's protocol errors before the connection ends. Default 100.
    pub h2_error_resets: usize,
    /// Largest piece of a request body given to a pod, in bytes. Default 64 KiB.
    pub body_chunk: usize,
    /// First pause after a failed `accept`; it doubles with each further failure. Default 1 ms.
    pub accept_backoff: Duration,
    /// Longest pause after a failed `accept`. Default 1 s.
    pub accept_backoff_max: Duration,
    /// Time requests in flight have to end when the server stops. Default 30 s.
    pub drain: Duration,
    /// What `Retry-After` of a 503 says, rounded up to seconds. Default 1 s.
    pub retry_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_bytes: 32 << 10,
            headers: 100,
            uri_bytes: 8 << 10,
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            connections_per_client: 256,
            body_idle_timeout: Duration::from_secs(15),
            body_min_rate: 240,
            write_idle_timeout: Duration::from_secs(30),
            h2_streams: 100,
            h2_stream_window: 64 << 10,
            h2_connection_window: 1 << 20,
            h2_pending_resets: 20,
            h2_error_resets: 100,
            body_chunk: 64 << 10,
            accept_backoff: Duration::from_millis(1),
            accept_backoff_max: Duration::from_secs(1),
            drain: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
        }
    }
}
