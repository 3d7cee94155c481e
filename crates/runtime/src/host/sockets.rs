//! A guest's TCP connections: to which servers, and how many.
//!
//! A guest may look up the names that `allow.outbound` has with the scheme `tcp`, and connect to
//! what they lead to, at the port that stands with the name; and to addresses that stand there
//! themselves. wasmtime asks [`Dialler::check`] before each system call, with the address alone: so
//! what a lookup has shown the guest is remembered in its instance. Nothing listens, and there is
//! no UDP.
//!
//! [`p2`] and [`p3`] stand in front of wasmtime's own functions.

mod lookup;
pub(super) mod p2;
pub(super) mod p3;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use sampan_core::object::{self, HostPattern, Scheme};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi::sockets::SocketAddrUse;

use super::{
    addresses::may_lead_to,
    outbound::{covers_host, led_to},
    own, remedy,
};
use crate::{
    logs::{CurrentRequest, Note, PodLog},
    observe::{
        cell::{Cell, WaitNote},
        source::Source,
    },
};

/// The share of this process's file descriptors that sockets of guests may take: what connections
/// of clients leave (`serve::descriptors`) is a quarter, and guests have files too.
const SHARE_OF_DESCRIPTORS: u64 = 8;

/// How many sockets all guests of this process may have open together.
pub(crate) fn of_node() -> usize {
    const ENOUGH: u64 = 1 << 20;
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(ENOUGH);
    usize::try_from(most.min(ENOUGH) / SHARE_OF_DESCRIPTORS).unwrap_or(usize::MAX)
}

/// Addresses that lookups have shown an instance and that are remembered: then all are forgotten,
/// and found again by another lookup.
const MAX_FOUND: usize = 1024;

/// Servers that a guest may connect to.
#[derive(Clone, Default)]
pub(crate) struct Servers(Vec<(HostPattern, u16)>);

impl Servers {
    /// Those among what is allowed.
    pub(crate) fn new(allowed: &[object::Outbound]) -> Self {
        let tcp = allowed.iter().filter(|rule| rule.scheme == Scheme::Tcp);
        Self(tcp.map(|rule| (rule.host.clone(), rule.port)).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ports at which what this name leads to may be reached.
    fn ports_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u16> + 'a {
        let covers = move |(host, _): &&(HostPattern, u16)| covers_host(host, name);
        self.0.iter().filter(covers).map(|(_, port)| *port)
    }

    /// Whether this address stands there itself.
    fn name_address(&self, address: SocketAddr) -> bool {
        let is_this = |host: &HostPattern| match host {
            HostPattern::Address(ip) => ip.to_canonical() == address.ip(),
            HostPattern::Exact(_) | HostPattern::Below(_) => false,
        };
        self.0
            .iter()
            .any(|(host, port)| *port == address.port() && is_this(host))
    }
}

/// Asks for the addresses of a name, and blocks meanwhile.
type Ask = fn(&str) -> io::Result<Vec<IpAddr>>;

/// Asks the system's resolver.
fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = (name, 0).to_socket_addrs()?;
    Ok(found.map(|address| address.ip().to_canonical()).collect())
}

/// What one instance may connect to, and has been told of.
pub(crate) struct Dialler {
    servers: Arc<Servers>,
    /// What lookups have shown the guest, with the name that led there.
    found: Mutex<BTreeMap<SocketAddr, Arc<str>>>,
    ask: Ask,
    log: Arc<PodLog>,
    request: Arc<CurrentRequest>,
}

impl Dialler {
    pub(crate) fn new(
        servers: &Arc<Servers>,
        log: &Arc<PodLog>,
        request: &Arc<CurrentRequest>,
    ) -> Arc<Self> {
        Arc::new(Self {
            servers: Arc::clone(servers),
            found: Mutex::default(),
            ask: ask_system,
            log: Arc::clone(log),
            request: Arc::clone(request),
        })
    }

    /// Whether an address may be used so, asked by wasmtime before it does.
    pub(crate) fn check(&self, address: SocketAddr, way: SocketAddrUse) -> bool {
        match way {
            SocketAddrUse::TcpConnect => self.may_connect(address),
            SocketAddrUse::TcpBind => self.may_bind(address),
            SocketAddrUse::TcpListen => {
                self.deny(|| {
                    format!(
                        "listening on `{address}`; nothing allows it: the gateway takes requests for \
                         services"
                    )
                });
                false
            }
            // There are no UDP sockets, and nothing listens.
            _ => false,
        }
    }

    /// Whether the guest may have sockets at all.
    fn may_open(&self) -> bool {
        let may = !self.servers.is_empty();
        if !may {
            self.deny(|| {
                "a TCP socket; `allow.outbound = [\"tcp://HOST:PORT\"]` would allow it".to_owned()
            });
        }
        may
    }

    /// A guest has no UDP.
    fn refuse_udp(&self) {
        self.deny(|| {
            "a UDP socket; nothing allows it: guests have HTTP, and TCP by `allow.outbound`"
                .to_owned()
        });
    }

    /// The system chooses the local end of a connection.
    fn may_bind(&self, address: SocketAddr) -> bool {
        let may = address.port() == 0 && address.ip().is_unspecified();
        if !may {
            self.deny(|| {
                format!(
                    "a TCP socket with the address `{address}` of its own; nothing allows it: the \
                     system chooses that"
                )
            });
        }
        may
    }

    fn may_connect(&self, address: SocketAddr) -> bool {
        let address = canonical(address);
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        if own::is_own(&host, address.port()) {
            self.deny(|| {
                format!("connection to `{address}`; no grant: it is an address of this node itself")
            });
            return false;
        }
        let may = self.servers.name_address(address) || self.found.lock().contains_key(&address);
        if !may {
            self.deny(|| {
                let rule = format!("tcp://{address}");
                let covers = |rule: &object::Outbound| {
                    Servers::new(std::slice::from_ref(rule)).name_address(address)
                };
                format!(
                    "connection to `{address}`; {}, or the name that leads there in place of the \
                     address",
                    remedy::rule(&rule, covers)
                )
            });
        }
        may
    }

    /// Whether a name may be looked up.
    fn may_look_up(&self, name: &str) -> bool {
        let name = normal(name);
        let may = self.servers.ports_of(&name).next().is_some();
        if !may {
            self.deny(|| {
                let host = match name.parse::<Ipv6Addr>() {
                    Ok(address) => format!("[{address}]"),
                    Err(_) => name.clone(),
                };
                let covers = |rule: &object::Outbound| covers_host(&rule.host, &name);
                let remedy = remedy::rule(&format!("tcp://{host}:PORT"), covers);
                format!("lookup of `{name}`; {remedy}")
            });
        }
        may
    }

    /// Whether the guest may see that a name leads to this address. It may connect there then.
    fn show(&self, name: &str, ip: IpAddr) -> bool {
        let name = normal(name);
        // An address that stands in a rule may be looked up, and leads to itself.
        let is_literal = name
            .parse::<IpAddr>()
            .is_ok_and(|it| it.to_canonical() == ip);
        if !is_literal && !may_lead_to(&name, ip) {
            self.deny(|| format!("`{name}` {}", led_to(ip)));
            return false;
        }
        let shown: Arc<str> = name.as_str().into();
        let ports = self.servers.ports_of(&name);
        let addresses = ports.map(|port| canonical(SocketAddr::new(ip, port)));
        let mut found = self.found.lock();
        if found.len() >= MAX_FOUND {
            found.clear();
        }
        found.extend(addresses.map(|it| (it, Arc::clone(&shown))));
        true
    }

    /// The server at an address, for people.
    fn server(&self, address: SocketAddr) -> Source {
        let address = canonical(address);
        let server = match self.found.lock().get(&address) {
            Some(name) => format!("the server `{name}:{}`", address.port()),
            None => format!("the server `{address}`"),
        };
        Source::Outside(server.into())
    }

    fn deny(&self, what: impl FnOnce() -> String) {
        let request = self.request.get();
        self.log
            .note(Note::Denial, request, || format!("denied: {}", what()));
    }
}

/// A name as rules have it.
fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// An IPv4 address that is written as an IPv6 one is that IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What answers a lookup.
fn name_server() -> Source {
    Source::Outside("the name server".into())
}

/// Sockets and lookups that there may be at once: of a pod, and of all pods of the node.
#[derive(Clone)]
pub(crate) struct SocketLimit {
    pub(crate) pod: Arc<Semaphore>,
    pub(crate) node: Arc<Semaphore>,
}

/// The sockets of one instance.
pub(crate) struct Sockets {
    pub(crate) dialler: Arc<Dialler>,
    limit: SocketLimit,
    cell: Arc<Cell>,
    /// By the number of its handle.
    open: BTreeMap<u32, Open>,
}

/// Room for a socket or a lookup, until this is dropped.
type Permits = [OwnedSemaphorePermit; 2];

/// A socket that the guest has a handle of.
struct Open {
    server: Source,
    held: Held,
}

/// What a socket takes until its descriptor is closed. Its handle holds it, and so do the streams of
/// WASI 0.3, which outlive the handle.
#[derive(Clone)]
struct Held {
    _permits: Arc<Permits>,
    /// That its server may wake a guest of WASI 0.3 at any time.
    note: Option<Arc<WaitNote>>,
}

impl Sockets {
    pub(crate) fn new(dialler: Arc<Dialler>, limit: &SocketLimit, cell: &Arc<Cell>) -> Self {
        Self {
            dialler,
            limit: limit.clone(),
            cell: Arc::clone(cell),
            open: BTreeMap::new(),
        }
    }

    /// Room for one more; none if there are as many as there may be.
    fn room(&self) -> Option<Permits> {
        let take = |limit: &Arc<Semaphore>| Arc::clone(limit).try_acquire_owned().ok();
        Some([take(&self.limit.pod)?, take(&self.limit.node)?])
    }

    fn opened(&mut self, socket: u32, permits: Permits) {
        let held = Held {
            _permits: Arc::new(permits),
            note: None,
        };
        let server = Source::Unknown;
        self.open.insert(socket, Open { server, held });
    }

    /// A socket connects to a server.
    fn connect(&mut self, socket: u32, address: SocketAddr) -> Source {
        self.cell.call_out();
        let server = self.dialler.server(address);
        let note = self
            .cell
            .registers()
            .then(|| Arc::new(self.cell.register("a socket", server.clone())));
        if let Some(open) = self.open.get_mut(&socket) {
            open.server = server.clone();
            open.held.note = note;
        }
        server
    }

    /// The server of a socket.
    fn server(&self, socket: u32) -> Source {
        self.open
            .get(&socket)
            .map_or(Source::Unknown, |open| open.server.clone())
    }

    /// What a stream of a socket holds as well.
    fn held(&self, socket: u32) -> Option<Held> {
        self.open.get(&socket).map(|open| open.held.clone())
    }

    fn closed(&mut self, socket: u32) {
        self.open.remove(&socket);
    }
}

#[cfg(test)]
mod tests;
