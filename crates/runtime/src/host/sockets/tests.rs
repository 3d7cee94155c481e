//! Where a guest may connect after what DNS has answered.

use sampan_core::{
    name::{PodName, ServiceKey},
    spec,
};

use super::*;
use crate::{host::addresses::tests::SPECIAL, logs::Ring};

/// An instance with these rules, and what its pod's log says.
fn dialler(rules: &[&str]) -> (Arc<Dialler>, Arc<Ring>) {
    let rules = rules.iter().map(|rule| spec::server(rule).expect(rule));
    let servers = Arc::new(Servers::new(&rules.collect::<Vec<_>>()));
    let ring = Arc::<Ring>::default();
    let service = ServiceKey::parse("shop/web").expect("a key");
    let name = PodName::new(&service, 1, 0);
    let log = PodLog::new(&ring, name, &Arc::default(), 1 << 20, &Arc::default());
    (Dialler::new(&servers, &log, &Arc::default()), ring)
}

fn said(ring: &Ring) -> Vec<String> {
    let lines = ring.read(0, usize::MAX).lines.into_iter();
    lines.map(|line| line.text).collect()
}

#[test]
fn dns_that_answers_any_special_address_opens_nothing_and_says_where_it_leads() {
    for text in SPECIAL {
        let ip: IpAddr = text.parse().expect("an address");
        let (dialler, ring) = dialler(&["tcp://db.example.com:5432", "tcp://*.example.org:5432"]);
        for name in ["db.example.com", "DB.example.com.", "a.example.org"] {
            assert!(dialler.may_look_up(name), "{name}");
            assert!(!dialler.show(name, ip), "{name} {text}");
            let told = format!("leads to `{ip}`, which is no public address; `allow.outbound`");
            let said = said(&ring).pop().expect("a line");
            assert!(said.contains(&told), "{said}");
        }
        let address = SocketAddr::new(ip, 5432);
        assert!(!dialler.check(address, SocketAddrUse::TcpConnect), "{text}");
    }
}

#[test]
fn a_public_address_is_open_at_the_port_of_its_name_and_only_once_it_was_shown() {
    let (dialler, _) = dialler(&["tcp://db.example.com:5432"]);
    let at = |port| SocketAddr::from(([8, 8, 8, 8], port));
    let may = |address| dialler.check(address, SocketAddrUse::TcpConnect);
    assert!(!may(at(5432)));
    assert!(dialler.show("db.example.com", at(0).ip()));
    assert!(may(at(5432)));
    for address in [at(5433), SocketAddr::from(([8, 8, 4, 4], 5432))] {
        assert!(!may(address), "{address}");
    }
}

/// A rule that the log gives is one that a spec takes, and that opens what was denied.
#[test]
fn what_the_log_says_would_allow_it_does() {
    for text in [
        "192.0.2.1:80",
        "[2001:db8::1]:80",
        "[::ffff:10.0.0.1]:80",
        "[fe80::1%3]:80",
    ] {
        let address: SocketAddr = text.parse().expect(text);
        let (denying, ring) = dialler(&[]);
        assert!(!denying.check(address, SocketAddrUse::TcpConnect));
        let line = said(&ring).pop().expect("a line");
        let rule = line.split('"').nth(1).expect(&line);
        let (allowing, _) = dialler(&[rule]);
        assert!(allowing.check(address, SocketAddrUse::TcpConnect), "{line}");
    }
    for name in ["db.example.com", "localhost", "192.0.2.1", "2001:db8::1"] {
        let (denying, ring) = dialler(&[]);
        assert!(!denying.may_look_up(name));
        let line = said(&ring).pop().expect("a line");
        let rule = line.split('"').nth(1).expect(&line).replace("PORT", "80");
        assert!(dialler(&[&rule]).0.may_look_up(name), "{line}");
    }
    for name in [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "",
        "a b",
        "evil\0.example.com",
    ] {
        let (denying, ring) = dialler(&["tcp://127.0.0.1:80"]);
        assert!(!denying.may_look_up(name));
        let line = said(&ring).pop().expect("a line");
        assert!(
            line.contains("; nothing allows it so: `allow.outbound` has"),
            "{line}"
        );
    }
}

#[test]
fn nothing_listens_and_no_socket_has_an_address_of_its_own() {
    let (dialler, ring) = dialler(&["tcp://127.0.0.1:80"]);
    let address: SocketAddr = "127.0.0.1:80".parse().expect("an address");
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    for (address, way, may) in [
        (address, SocketAddrUse::TcpConnect, true),
        (any, SocketAddrUse::TcpBind, true),
        (address, SocketAddrUse::TcpBind, false),
        (any, SocketAddrUse::TcpListen, false),
        (any, SocketAddrUse::TcpAccept, false),
        (any, SocketAddrUse::UdpBind, false),
        (address, SocketAddrUse::UdpSend, false),
        (address, SocketAddrUse::UdpReceive, false),
    ] {
        assert_eq!(dialler.check(address, way), may, "{way:?}");
    }
    let said = said(&ring);
    assert!(
        said.iter()
            .all(|line| line.contains("; nothing allows it: ")),
        "{said:?}"
    );
}
