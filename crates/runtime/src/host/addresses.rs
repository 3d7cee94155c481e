//! Which addresses a guest may reach without being granted them by number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one of the public internet.
///
/// Everything in the IANA special-purpose registries (RFC 6890 and its updates) is not: loopback,
/// private, link-local with the cloud's metadata services, carrier-grade NAT, multicast, reserved,
/// documentation. IPv6 addresses that carry an IPv4 one are judged by that one.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Whether a guest may be led to an address by a name. Granting `localhost` is granting loopback,
/// and nothing else that it may resolve to; every other name leads to public addresses only.
pub(super) fn may_lead_to(name: &str, address: IpAddr) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.eq_ignore_ascii_case("localhost") {
        true => address.to_canonical().is_loopback(),
        false => is_public(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let carried = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Unspecified, loopback, IPv4-compatible (RFC 4291 §2.5.5.1).
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => false,
        [0, 0, 0, 0, 0, 0, high, low] => carried(high, low),
        // IPv4-mapped, and its translated form (RFC 2765).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
            carried(high, low)
        }
        // NAT64 (RFC 6052), and its local prefix (RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => carried(high, low),
        [0x64, 0xff9b, ..] => false,
        // 6to4 (RFC 3056); Teredo (RFC 4380), whose inner address is hidden.
        [0x2002, high, low, ..] => carried(high, low),
        // Teredo, benchmarking, ORCHID, documentation: the IETF's own block.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // Discard-only.
        [0x100, 0, 0, 0, ..] => false,
        // Only global unicast is handed out of 2000::/3.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Addresses that no name may lead to: loopback, private, link-local with the metadata services
    /// of clouds, and IPv6 addresses that carry such an IPv4 one.
    pub(in crate::host) const SPECIAL: &[&str] = &[
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "::ffff:0:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "100::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "3fff::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::a00:1",
        "2002:a9fe:a9fe::1",
        "2002:c0a8:101::1",
        "::ffff:169.254.169.254",
        "fd00::1",
    ];

    #[test]
    fn special_addresses_are_not_public() {
        for text in SPECIAL {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn the_internet_is_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
    }
}
