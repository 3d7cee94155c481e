//! The configuration of a node: limits that hold for everything that runs on it.
//!
//! It is a TOML file like a spec, read with the same strictness. What it does not say has the
//! defaults of `raw::node`, which are in force without a file too.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde_json::Value as Json;

use super::{
    Problems, parse,
    problem::{Place, Report},
    raw::{decode::Decoder, node as raw},
    schema,
};
use crate::plan::quota::{Quota, Usage};

/// What a node decides for everything that runs on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Limits on clients.
    pub gateway: GatewayLimits,
    /// Limits on guests that hold whatever their spec says.
    pub guest: GuestLimits,
    /// Limits on compiling one component.
    pub compile: CompileLimits,
    /// How much there may be of what is applied to the node.
    pub quota: Quota,
    /// Directories in and below which guests may be lent directories.
    pub volumes: Vec<PathBuf>,
}

/// Limits of the gateway that hold for every service and every connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayLimits {
    /// Proxies whose word on where a request comes from is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Open connections. At the limit no more are accepted until one closes: new ones wait in the
    /// kernel.
    pub connections: usize,
    /// Connections open at once from one client: an IPv4 address, or the /64 of an IPv6 address.
    /// More are reset. Loopback has no limit.
    pub connections_per_client: usize,
    /// Bytes of a request head. More is answered 431 over HTTP/1, and over HTTP/2 too. It is also
    /// the size of an HTTP/1 connection's read buffer.
    pub header_bytes: usize,
    /// Header fields of a request. More is answered 431.
    pub headers: usize,
    /// Bytes of a request's path and query. More is answered 414.
    pub uri_bytes: usize,
    /// Time from the first byte of an HTTP/1 request head to its last, and from a new connection
    /// to its first request.
    pub header_read_timeout: Duration,
    /// Time a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// Time a request body may pause while it is waited for. Then the request is answered 408.
    pub body_idle_timeout: Duration,
    /// Bytes a second a request body has to come with on average, counted after the first
    /// `body_idle_timeout` of waiting for it. Slower ones are answered 408.
    pub body_min_rate: u64,
    /// Bytes read of a request body before the request gets a slot.
    pub body_read_ahead: usize,
    /// Bytes read of an answer while others wait for its slot and its client does not read.
    pub answer_read_ahead: usize,
    /// Bytes that all bodies that are read ahead hold together.
    pub read_ahead_total: usize,
    /// Time a client may keep a slot waiting while other requests wait for it.
    pub contended_pause: Duration,
    /// Bytes a second a client has to send or read to keep its slot while others wait for it: so
    /// many earn a second of waiting, up to `contended_pause`. With 0 it always keeps its slot.
    pub contended_min_rate: u64,
    /// Percent of the slots and of the queue of a service that one client may have at once.
    pub client_share: u32,
    /// Time a client may read nothing while there is something to write to it. Then its connection
    /// is reset.
    pub write_idle_timeout: Duration,
    /// HTTP/2 streams open at once on a connection.
    pub h2_streams: u32,
    /// HTTP/2 flow-control window of a stream, in bytes.
    pub h2_stream_window: u32,
    /// HTTP/2 flow-control window of a connection, in bytes.
    pub h2_connection_window: u32,
    /// Streams a client may reset before they were looked at; one more ends the connection with
    /// `ENHANCE_YOUR_CALM`.
    pub h2_pending_resets: usize,
    /// Streams reset for a client's protocol errors before the connection ends.
    pub h2_error_resets: usize,
    /// Largest piece of a request body given to a pod, in bytes.
    pub body_chunk: usize,
    /// First pause after a failed `accept`; it doubles with each further failure.
    pub accept_backoff: Duration,
    /// Longest pause after a failed `accept`.
    pub accept_backoff_max: Duration,
    /// Time requests in flight have to end when the server stops.
    pub drain: Duration,
    /// Time a connection without a request may still send one when the server stops. Within
    /// `drain`.
    pub drain_idle: Duration,
    /// Time a client has to close its end after the last answer on a connection, RFC 9112 §9.6.
    pub linger: Duration,
    /// What `Retry-After` of a 503 says, rounded up to seconds.
    pub retry_after: Duration,
}

/// Limits on guests that hold whatever their spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestLimits {
    /// Time an instance may take to start.
    pub start_timeout: Duration,
    /// Objects of the host that an instance may hold.
    pub handles: usize,
    /// Bytes one call may hand to the host.
    pub hostcall_bytes: usize,
    /// Bytes of one set of header fields, host bookkeeping included.
    pub fields_bytes: usize,
    /// Random bytes one call may ask for.
    pub random_bytes: u64,
    /// Files and directories an instance may hold open, those it was lent included.
    pub open_files: usize,
    /// Requests of a service to others under way at once.
    pub outgoing_requests: usize,
    /// Time another server may take to begin its answer, unless the guest says otherwise.
    pub first_byte_timeout: Duration,
    /// Time another server may pause in its answer, unless the guest says otherwise.
    pub between_bytes_timeout: Duration,
    /// Bytes a pod may print a second, and at once.
    pub log_rate: u64,
    /// Bytes of memory of an instance that is dumped, and of the dump.
    pub coredump_bytes: u64,
}

/// Limits on one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space of the compiling process, in bytes.
    pub address_space_bytes: u64,
    /// CPU time of the compiling process, in whole seconds.
    pub cpu: Duration,
    /// Time from its start to its end.
    pub wall: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        gateway(&defaults().gateway)
    }
}

impl Default for GuestLimits {
    fn default() -> Self {
        guest(&defaults().guest)
    }
}

impl Default for Quota {
    fn default() -> Self {
        quota(&defaults().quota)
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        compile(&defaults().compile)
    }
}

/// Parses and checks the configuration of a node. `path` is the file's name, for messages;
/// `environment` looks up variables, for `${NAME}`.
///
/// # Errors
///
/// All problems of the file.
pub fn load(
    path: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Node, Problems> {
    let mut decoder = Decoder::new(environment, Report::new(path, text));
    let node = parse::parse(text, &mut decoder.report).map(|root| {
        let raw = raw::Node::from_table(&root, Place::root(), &mut decoder);
        Node {
            gateway: gateway(&raw.gateway),
            guest: guest(&raw.guest),
            compile: compile(&raw.compile),
            quota: quota(&raw.quota),
            volumes: raw
                .node
                .volumes
                .iter()
                .map(|it| PathBuf::from(&it.value.0))
                .collect(),
        }
    });
    decoder.report.finish(node)
}

/// The JSON Schema of a node's configuration, draft 2020-12.
pub fn json_schema() -> Json {
    schema::of::<raw::Node>("node.toml")
}

fn defaults() -> raw::Node {
    let mut decoder = Decoder::new(&|_| None, Report::new("defaults", ""));
    raw::Node::from_table(&toml::de::DeTable::new(), Place::root(), &mut decoder)
}

fn gateway(raw: &raw::Gateway) -> GatewayLimits {
    GatewayLimits {
        trusted_proxies: raw.trusted_proxies.iter().map(|it| it.value.0).collect(),
        connections: raw.connections.value.0 as usize,
        connections_per_client: raw.connections_per_client.value.0 as usize,
        header_bytes: raw.head.value.0.0 as usize,
        headers: raw.fields.value.0 as usize,
        uri_bytes: raw.uri.value.0.0 as usize,
        header_read_timeout: raw.head_timeout.value.0,
        idle_timeout: raw.idle_timeout.value.0,
        body_idle_timeout: raw.body_idle_timeout.value.0,
        body_min_rate: raw.body_min_rate.value.0.0,
        body_read_ahead: raw.body_read_ahead.value.0.0 as usize,
        answer_read_ahead: raw.answer_read_ahead.value.0.0 as usize,
        read_ahead_total: raw.read_ahead_total.value.0.0 as usize,
        contended_pause: raw.contended_pause.value.0,
        contended_min_rate: raw.contended_min_rate.value.0.0,
        client_share: raw.client_share.value.0,
        write_idle_timeout: raw.write_idle_timeout.value.0,
        h2_streams: raw.h2_streams.value.0,
        h2_stream_window: raw.h2_stream_window.value.0.0 as u32,
        h2_connection_window: raw.h2_connection_window.value.0.0 as u32,
        h2_pending_resets: raw.h2_pending_resets.value.0 as usize,
        h2_error_resets: raw.h2_error_resets.value.0 as usize,
        body_chunk: raw.body_chunk.value.0.0 as usize,
        accept_backoff: raw.accept_backoff.value.0,
        accept_backoff_max: raw.accept_backoff_max.value.0,
        drain: raw.drain.value.0,
        drain_idle: raw.drain_idle.value.0,
        linger: raw.linger.value.0,
        retry_after: raw.retry_after.value.0,
    }
}

fn guest(raw: &raw::Guest) -> GuestLimits {
    GuestLimits {
        start_timeout: raw.start_timeout.value.0,
        handles: raw.handles.value.0 as usize,
        hostcall_bytes: raw.hostcall.value.0.0 as usize,
        fields_bytes: raw.fields.value.0.0 as usize,
        random_bytes: raw.random.value.0.0,
        open_files: raw.open_files.value.0 as usize,
        outgoing_requests: raw.outgoing_requests.value.0 as usize,
        first_byte_timeout: raw.first_byte_timeout.value.0,
        between_bytes_timeout: raw.between_bytes_timeout.value.0,
        log_rate: raw.log_rate.value.0.0,
        coredump_bytes: raw.coredump.value.0.0,
    }
}

fn quota(raw: &raw::Quota) -> Quota {
    Quota {
        node: Usage {
            apps: raw.apps.value.0.into(),
            services: raw.services.value.0.into(),
            jobs: raw.jobs.value.0.into(),
            pods: raw.pods.value.0.into(),
            memory: raw.memory.value.0.0,
        },
        app: Usage {
            apps: 1,
            services: raw.app.services.value.0.into(),
            jobs: raw.app.jobs.value.0.into(),
            pods: raw.app.pods.value.0.into(),
            memory: raw.app.memory.value.0.0,
        },
    }
}

fn compile(raw: &raw::Compile) -> CompileLimits {
    CompileLimits {
        address_space_bytes: raw.memory.value.0.0,
        cpu: raw.cpu.value.0,
        wall: raw.time.value.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Node, String> {
        super::load("node.toml", text, &|_| None).map_err(|problems| problems.to_plain())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        assert_eq!(load(""), Ok(Node::default()));
        let node = load("[gateway]\nhead = '64KiB'\n[guest]\nlog_rate = '2MiB'\n");
        let node = node.expect("a good file");
        assert_eq!(node.gateway.header_bytes, 64 << 10);
        assert_eq!(node.gateway.headers, GatewayLimits::default().headers);
        assert_eq!(node.guest.log_rate, 2 << 20);
        assert_eq!(node.compile.address_space_bytes, 2 << 30);
        let node = load("[quota]\npods = 7\napp.pods = 3\n").expect("a good file");
        assert_eq!((node.quota.node.pods, node.quota.app.pods), (7, 3));
        assert_eq!(node.quota.node.services, Quota::default().node.services);
    }

    #[test]
    fn every_value_has_a_bound_on_both_sides() {
        for (good, bad) in [
            ("[gateway]\nhead = '8KiB'", "[gateway]\nhead = '8191B'"),
            ("[gateway]\nhead = '1MiB'", "[gateway]\nhead = '1025KiB'"),
            ("[gateway]\nfields = 1", "[gateway]\nfields = 0"),
            (
                "[gateway]\nconnections = 1000000",
                "[gateway]\nconnections = 1000001",
            ),
            ("[gateway]\ndrain = '0s'", "[gateway]\nidle_timeout = '0s'"),
            ("[guest]\nhandles = 1", "[guest]\nhandles = -1"),
            ("[guest]\ncoredump = '4GiB'", "[guest]\ncoredump = '5GiB'"),
            ("[guest]\nhostcall = '1GiB'", "[guest]\nhostcall = '2GiB'"),
            ("[compile]\ncpu = '1s'", "[compile]\ncpu = '999ms'"),
            ("[quota]\npods = 10000000", "[quota]\npods = 10000001"),
            ("[quota]\napps = 1\njobs = 0", "[quota]\napps = 0"),
            (
                "[quota.app]\nservices = 3000",
                "[quota.app]\nservices = 3001",
            ),
            (
                "[quota]\napp = { memory = '1024TiB' }",
                "[quota]\nmemory = '1023KiB'",
            ),
            (
                "[compile]\nmemory = '256MiB'",
                "[compile]\nmemory = '255MiB'",
            ),
        ] {
            assert!(load(good).is_ok(), "{good}");
            assert!(load(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_a_remedy() {
        let said = load("[gateway]\nconections = 5\n[guest]\nhandles = 'many'\n");
        let said = said.expect_err("two problems");
        for part in [
            "node.toml:2:1",
            "unknown key `conections`",
            "did you mean `connections`?",
            "node.toml:4",
            "`many`",
        ] {
            assert!(said.contains(part), "no `{part}` in\n{said}");
        }
    }

    #[test]
    fn proxies_are_named_one_by_one_or_by_network() {
        let node = load(
            "[gateway]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\", \"2001:db8::/32\", \"::ffff:192.0.2.1\"]\n",
        );
        let proxies = node.expect("it is good").gateway.trusted_proxies;
        let proxies: Vec<_> = proxies.iter().map(ToString::to_string).collect();
        assert_eq!(
            proxies,
            [
                "127.0.0.1/32",
                "10.0.0.0/8",
                "2001:db8::/32",
                "192.0.2.1/32"
            ]
        );
        assert!(GatewayLimits::default().trusted_proxies.is_empty());
        for (text, part) in [
            ("\"10.0.0.1/8\"", "write \"10.0.0.0/8\""),
            ("\"0.0.0.0/0\"", "every address there is"),
            ("\"::/0\"", "every address there is"),
            ("\"localhost\"", "no IP address and no network"),
            ("\"10.0.0.0/33\"", "no IP address and no network"),
            ("\"\"", "no IP address and no network"),
            ("7", "an address or a network"),
        ] {
            let said = load(&format!("[gateway]\ntrusted_proxies = [{text}]\n")).unwrap_err();
            assert!(said.contains(part), "no `{part}` in\n{said}");
        }
    }
}
