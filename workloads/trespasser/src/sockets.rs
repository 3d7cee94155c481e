//! Sockets, by the functions of `wasi:sockets` themselves.

use std::net::SocketAddr;

use request_target::Target;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use super::{Told, name};

/// What came of the request.
pub(crate) fn reach(target: &Target) -> Told {
    let done = match (target.path.as_str(), target.value("at").map(str::parse)) {
        ("/udp", _) => create_udp_socket(IpAddressFamily::Ipv4).map(|_| "a socket".to_owned()),
        ("/lookup", _) => lookup(target.value("name").unwrap_or_default()),
        (how, Some(Ok(at))) => tcp(how, at),
        (_, _) => return Err("`at` is no address".to_owned()),
    };
    done.map_err(|error| name(error.name()))
}

/// Waits until a call has ended.
fn settled<T>(wait: impl Fn(), call: impl Fn() -> Result<T, ErrorCode>) -> Result<T, ErrorCode> {
    loop {
        match call() {
            Err(ErrorCode::WouldBlock) => wait(),
            done => return done,
        }
    }
}

fn tcp(how: &str, at: SocketAddr) -> Result<String, ErrorCode> {
    let (family, address) = parts(at);
    let network = instance_network();
    let socket = create_tcp_socket(family)?;
    let wait = || socket.subscribe().block();
    if how == "/connect" {
        socket.start_connect(&network, address)?;
        return settled(wait, || socket.finish_connect()).map(|_| "connected".to_owned());
    }
    socket.start_bind(&network, address)?;
    settled(wait, || socket.finish_bind())?;
    if how == "/bind" {
        return Ok("bound".to_owned());
    }
    socket.start_listen()?;
    settled(wait, || socket.finish_listen()).map(|()| "listening".to_owned())
}

fn lookup(host: &str) -> Result<String, ErrorCode> {
    let addresses = resolve_addresses(&instance_network(), host)?;
    let wait = || addresses.subscribe().block();
    let first = settled(wait, || addresses.resolve_next_address())?;
    Ok(format!("{first:?}"))
}

fn parts(at: SocketAddr) -> (IpAddressFamily, IpSocketAddress) {
    match at {
        SocketAddr::V4(at) => {
            let [a, b, c, d] = at.ip().octets();
            let address = Ipv4SocketAddress {
                port: at.port(),
                address: (a, b, c, d),
            };
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(address))
        }
        SocketAddr::V6(at) => {
            let [a, b, c, d, e, f, g, h] = at.ip().segments();
            let address = Ipv6SocketAddress {
                port: at.port(),
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(address))
        }
    }
}
