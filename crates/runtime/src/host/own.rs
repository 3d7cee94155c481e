//! Addresses of this node itself and of what it rests on, which no guest may call whatever it is
//! granted.
//!
//! A guest that could reach the node's own ports would speak with the rights of a program on this
//! machine. Services of the app are called by name, without a port.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use parking_lot::RwLock;

/// Of the process, because ports are.
static OWN: RwLock<Vec<SocketAddr>> = RwLock::new(Vec::new());

/// The same, by the names under which they are asked.
static OWN_NAMES: RwLock<Vec<(String, u16)>> = RwLock::new(Vec::new());

/// Refuses guests a name, in lower case, of what the node rests on. What it leads to is an address
/// of its own.
pub fn protect_name(host: &str, port: u16) {
    let name = (host.to_owned(), port);
    let mut names = OWN_NAMES.write();
    if !names.contains(&name) {
        names.push(name);
    }
}

/// Refuses guests an address on which this process listens, or that the node rests on.
pub fn protect(address: SocketAddr) {
    let mut own = OWN.write();
    if !own.contains(&address) {
        own.push(address);
    }
}

/// Whether `http://HOST:PORT` would reach this process. `host` is in lower case.
pub(crate) fn is_own(host: &str, port: u16) -> bool {
    let names = OWN_NAMES.read();
    let is_name = |(name, of): &(String, u16)| *of == port && name == host.trim_end_matches('.');
    if names.iter().any(is_name) {
        return true;
    }
    let own = OWN.read();
    own.iter()
        .any(|own| own.port() == port && reaches(host, own.ip()))
}

fn reaches(host: &str, own: IpAddr) -> bool {
    let own = own.to_canonical();
    if host == "localhost" || host.ends_with(".localhost") {
        return own.is_loopback() || own.is_unspecified();
    }
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let Ok(address) = literal.unwrap_or(host).parse::<IpAddr>() else {
        // Names lead to public addresses only.
        return false;
    };
    let address = address.to_canonical();
    // Linux takes a call to the unspecified address for one to loopback.
    address == own
        || address.is_unspecified() && own.is_loopback()
        || own.is_unspecified() && is_of_this_machine(address)
}

/// Only an address of this machine can be bound.
fn is_of_this_machine(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn every_way_to_write_an_own_address_is_seen() {
        for (host, own, wanted) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("[::ffff:127.0.0.1]", "127.0.0.1", true),
            ("localhost", "127.0.0.1", true),
            ("api.localhost", "::1", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("[::]", "::1", true),
            ("127.0.0.2", "127.0.0.1", false),
            ("[::1]", "127.0.0.1", false),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.9.9.9", "0.0.0.0", true),
            ("localhost", "0.0.0.0", true),
            ("192.0.2.1", "0.0.0.0", false),
            ("192.0.2.1", "127.0.0.1", false),
            ("example.com", "0.0.0.0", false),
        ] {
            assert_eq!(reaches(host, ip(own)), wanted, "{host} for {own}");
        }
    }

    #[test]
    fn only_the_port_it_listens_on_counts() {
        protect(SocketAddr::from(([127, 0, 0, 99], 4711)));
        assert!(is_own("127.0.0.99", 4711));
        assert!(!is_own("127.0.0.99", 4712));
        assert!(!is_own("127.0.0.98", 4711));
    }

    #[test]
    fn names_are_refused_as_they_are_asked_for() {
        protect_name("etcd.example", 4713);
        assert!(is_own("etcd.example", 4713) && is_own("etcd.example.", 4713));
        assert!(!is_own("etcd.example", 4714) && !is_own("a.etcd.example", 4713));
    }
}
