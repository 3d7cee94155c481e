//! Sockets, by the functions of `wasi:sockets` themselves.

use std::net::SocketAddr;

use request_target::Target;
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket,
    UdpSocket,
};

use super::{Told, name};

/// What came of the request.
pub(crate) async fn reach(target: &Target) -> Told {
    let done = match (target.path.as_str(), target.value("at").map(str::parse)) {
        ("/udp", _) => UdpSocket::create(IpAddressFamily::Ipv4).map(|_| "a socket".to_owned()),
        ("/lookup", _) => {
            let addresses = resolve_addresses(target.value("name").unwrap_or_default().to_owned());
            let addresses = addresses.await.map_err(|error| name(&error))?;
            return Ok(format!("{:?}", addresses.first()));
        }
        (how, Some(Ok(at))) => tcp(how, at).await,
        (_, _) => return Err("`at` is no address".to_owned()),
    };
    done.map_err(|error| name(&error))
}

async fn tcp(how: &str, at: SocketAddr) -> Result<String, ErrorCode> {
    let (family, address) = parts(at);
    let socket = TcpSocket::create(family)?;
    if how == "/connect" {
        socket.connect(address).await?;
        return Ok("connected".to_owned());
    }
    // Without an address of its own, as `listen` alone does it.
    if how == "/bind" || at.port() != 0 {
        socket.bind(address)?;
    }
    if how == "/bind" {
        return Ok("bound".to_owned());
    }
    socket.listen().map(|_| "listening".to_owned())
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
