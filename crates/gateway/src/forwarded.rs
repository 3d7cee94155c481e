//! Where a request comes from, as a trusted proxy says it in `X-Forwarded-*`, `Forwarded` (RFC 7239)
//! or `X-Real-IP`.
//!
//! Each proxy on the way adds what it has seen at the right end; further left may stand what the
//! client made up. So all of it is read from the right, and no further than to the first address
//! that is not a trusted proxy: that is the client.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{FORWARDED, GetAll},
};
use ipnet::IpNet;

use crate::{
    headers::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REAL_IP},
    route,
};

/// What is believed of where a request comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The client; with port 0 if no port was said.
    pub(crate) client: Option<SocketAddr>,
    /// The host that the client asked for.
    pub(crate) host: Option<HeaderValue>,
    /// Whether the client speaks TLS with the proxy.
    pub(crate) is_https: bool,
}

/// What one proxy says of the other end of its connection.
#[derive(Debug, Default)]
struct Hop<'a> {
    client: Option<SocketAddr>,
    host: Option<&'a str>,
    proto: Option<&'a str>,
}

/// Whether an address is one of a trusted proxy.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    // Nearly always there are none.
    !trusted.is_empty() && {
        let address = address.to_canonical();
        trusted.iter().any(|network| network.contains(&address))
    }
}

/// An address as `X-Forwarded-For` says it.
pub(crate) fn to_field(address: SocketAddr) -> HeaderValue {
    let ip = address.ip().to_canonical().to_string();
    HeaderValue::try_from(ip).expect("an IP address is a field value")
}

/// What the fields of a request from a trusted proxy say.
///
/// `Forwarded` counts only where no `X-Forwarded-*` is: a proxy that writes these may let a
/// `Forwarded` of its client pass, while one that writes `Forwarded` is rare and knows of both.
pub(crate) fn told(headers: &HeaderMap, trusted: &[IpNet]) -> Origin {
    let is_x = |name: &HeaderName| name.as_str().starts_with("x-forwarded-");
    let hops = match headers.keys().any(is_x) {
        true => of_x_forwarded(headers),
        false => of_forwarded(headers.get_all(FORWARDED)),
    };
    let mut origin = Hop::default();
    for hop in hops.into_iter().rev() {
        origin = hop;
        if origin.client.is_none_or(|it| !is_trusted(it.ip(), trusted)) {
            break;
        }
    }
    let real = || address(only(headers.get_all(X_REAL_IP))?);
    let host = origin.host.filter(|host| route::is_authority(host));
    Origin {
        client: origin.client.or_else(real),
        host: host.and_then(|host| HeaderValue::from_str(host).ok()),
        is_https: origin
            .proto
            .is_some_and(|proto| proto.eq_ignore_ascii_case("https")),
    }
}

/// The hops of `X-Forwarded-*`. Lists as long as that of the addresses belong to these one by one;
/// of another one the last element is what the nearest proxy says.
fn of_x_forwarded(headers: &HeaderMap) -> Vec<Hop<'_>> {
    let [clients, hosts, protos] =
        [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO].map(|name| list(headers, &name));
    let hop = |index: usize| Hop {
        client: clients.get(index).and_then(|text| address(text)),
        host: of_hop(&hosts, index, clients.len()),
        proto: of_hop(&protos, index, clients.len()),
    };
    (0..clients.len().max(1)).map(hop).collect()
}

/// What a list says of the hop of this index, of so many.
fn of_hop<'a>(list: &[&'a str], index: usize, hops: usize) -> Option<&'a str> {
    match list.len() == hops {
        true => list.get(index).copied(),
        false => list.last().copied(),
    }
}

/// The elements of all fields of a name, none for text beyond ASCII.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let fields = headers.get_all(name).iter();
    let texts = fields.map(|field| field.to_str().unwrap_or_default());
    let elements = texts.flat_map(|text| text.split(','));
    elements.map(str::trim).collect()
}

/// The hops of `Forwarded`. A field whose quotes are not closed says nothing: what a proxy added to
/// it may stand in quotes that its client has opened.
fn of_forwarded(fields: GetAll<'_, HeaderValue>) -> Vec<Hop<'_>> {
    let mut hops = Vec::new();
    for field in fields {
        let text = field.to_str().unwrap_or("\"");
        match split(text, b',') {
            Some(elements) => hops.extend(elements.into_iter().map(hop)),
            None => hops.push(Hop::default()),
        }
    }
    hops
}

/// An element of `Forwarded`.
fn hop(element: &str) -> Hop<'_> {
    let mut hop = Hop::default();
    for pair in split(element, b';').unwrap_or_default() {
        let Some((name, value)) = pair.split_once('=') else {
            continue;
        };
        let value = unquoted(value.trim());
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.client = address(value),
            "host" => hop.host = Some(value),
            "proto" => hop.proto = Some(value),
            _ => {}
        }
    }
    hop
}

/// The parts of a text between separators outside of quotes. `None` if a quote is not closed.
fn split(text: &str, separator: u8) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut start, mut is_quoted, mut is_escaped) = (0, false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ if byte == separator && !is_quoted => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!is_quoted).then_some(parts)
}

/// A value without the quotes around it. No value that counts has one escaped inside.
fn unquoted(value: &str) -> &str {
    let inside = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    inside.unwrap_or(value)
}

/// The text of a field that is there once.
fn only(fields: GetAll<'_, HeaderValue>) -> Option<&str> {
    let mut fields = fields.iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => field.to_str().ok(),
        _ => None,
    }
}

/// An address, perhaps with a port, as proxies write it: an IPv6 address with or without brackets.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok()?;
    Some(SocketAddr::new(address, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told by these fields, where 10.0.0.0/8 and fd00::/8 are trusted: client, host, scheme.
    fn told_by(fields: &[(&'static str, &str)]) -> (Option<String>, Option<String>, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"));
        let origin = told(&headers, &trusted);
        let host = origin
            .host
            .map(|host| host.to_str().expect("text").to_owned());
        (
            origin.client.map(|it| it.to_string()),
            host,
            origin.is_https,
        )
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        for (list, client) in [
            ("203.0.113.7", Some("203.0.113.7:0")),
            ("6.6.6.6, 203.0.113.7", Some("203.0.113.7:0")),
            ("6.6.6.6, 203.0.113.7, 10.1.1.1", Some("203.0.113.7:0")),
            ("203.0.113.7,10.1.1.1,\t10.2.2.2", Some("203.0.113.7:0")),
            ("10.1.1.1, 10.2.2.2", Some("10.1.1.1:0")),
            (
                "::ffff:10.1.1.1, ::ffff:10.2.2.2",
                Some("[::ffff:10.1.1.1]:0"),
            ),
            ("203.0.113.7:4711", Some("203.0.113.7:4711")),
            ("2001:db8::1, fd00::1", Some("[2001:db8::1]:0")),
            ("[2001:db8::1]", Some("[2001:db8::1]:0")),
            ("[2001:db8::1]:80", Some("[2001:db8::1]:80")),
            // What stands left of an unknown hop was told to that, not to a trusted proxy.
            ("6.6.6.6, unknown", None),
            ("6.6.6.6, unknown, 10.1.1.1", None),
            ("6.6.6.6,", None),
            ("", None),
            ("localhost", None),
            ("1.2.3", None),
        ] {
            let (told, ..) = told_by(&[("x-forwarded-for", list)]);
            assert_eq!(told.as_deref(), client, "{list}");
        }
        let (told, ..) = told_by(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-for", "10.1.1.1"),
        ]);
        assert_eq!(
            told.as_deref(),
            Some("203.0.113.7:0"),
            "several fields are one list"
        );
    }

    #[test]
    fn host_and_scheme_are_those_that_the_client_used() {
        for (fields, host, is_https) in [
            (&[("x-forwarded-proto", "https")] as &[_], None, true),
            (&[("x-forwarded-proto", "HTTPS")], None, true),
            (&[("x-forwarded-proto", "http")], None, false),
            (&[("x-forwarded-proto", "gopher")], None, false),
            (
                &[("x-forwarded-host", "shop.example:8443")],
                Some("shop.example:8443"),
                false,
            ),
            (&[("x-forwarded-host", "a b")], None, false),
            (&[("x-forwarded-host", "u:p@shop")], None, false),
            // The first one is the client's own word, which the proxy has added to.
            (&[("x-forwarded-proto", "https, http")], None, false),
            (
                &[
                    ("x-forwarded-for", "6.6.6.6, 203.0.113.7"),
                    ("x-forwarded-proto", "https"),
                ],
                None,
                true,
            ),
            // Two proxies: TLS ended at the first.
            (
                &[
                    ("x-forwarded-for", "203.0.113.7, 10.1.1.1"),
                    ("x-forwarded-proto", "https, http"),
                    ("x-forwarded-host", "shop, inner"),
                ],
                Some("shop"),
                true,
            ),
        ] {
            let (_, told_host, told_https) = told_by(fields);
            assert_eq!(
                (told_host.as_deref(), told_https),
                (host, is_https),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn forwarded_is_read_by_its_grammar() {
        let v6 = Some("[2001:db8::1]:4711");
        for (field, client, host, is_https) in [
            ("for=203.0.113.7", Some("203.0.113.7:0"), None, false),
            (
                "For=203.0.113.7;Proto=https;by=10.1.1.1",
                Some("203.0.113.7:0"),
                None,
                true,
            ),
            (
                "for=\"[2001:db8::1]:4711\"; host=shop",
                v6,
                Some("shop"),
                false,
            ),
            (
                "for=6.6.6.6, for=203.0.113.7;host=\"a:1\"",
                Some("203.0.113.7:0"),
                Some("a:1"),
                false,
            ),
            (
                "for=203.0.113.7;proto=https;host=shop, for=10.1.1.1;proto=http;host=inner",
                Some("203.0.113.7:0"),
                Some("shop"),
                true,
            ),
            ("for=6.6.6.6, for=_hidden;proto=https", None, None, true),
            ("for=\"6.6.6.6, for=203.0.113.7", None, None, false),
            ("for=\"x\\\", for=\"203.0.113.7\"", None, None, false),
            ("proto=https", None, None, true),
            ("nonsense", None, None, false),
        ] {
            let told = told_by(&[("forwarded", field)]);
            let told = (told.0.as_deref(), told.1.as_deref(), told.2);
            assert_eq!(told, (client, host, is_https), "{field}");
        }
        // A client that opens a quote cannot swallow what the proxy says in a field of its own.
        let fields = [
            ("forwarded", "for=\"6.6.6.6"),
            ("forwarded", "for=203.0.113.7"),
        ];
        assert_eq!(told_by(&fields).0.as_deref(), Some("203.0.113.7:0"));
    }

    #[test]
    fn one_way_of_saying_it_counts() {
        let forged = ("forwarded", "for=6.6.6.6;proto=https;host=evil");
        let real = ("x-real-ip", "203.0.113.7");
        let list = ("x-forwarded-for", "203.0.113.8");
        let client = |fields: &[_]| told_by(fields).0;
        assert_eq!(
            told_by(&[forged, list]),
            (Some("203.0.113.8:0".to_owned()), None, false)
        );
        assert_eq!(client(&[real]).as_deref(), Some("203.0.113.7:0"));
        assert_eq!(client(&[real, list]).as_deref(), Some("203.0.113.8:0"));
        assert_eq!(
            client(&[real, ("x-forwarded-proto", "https")]).as_deref(),
            Some("203.0.113.7:0")
        );
        assert_eq!(
            client(&[real, ("x-real-ip", "6.6.6.6")]),
            None,
            "it is one address"
        );
    }

    #[test]
    fn only_the_addresses_that_are_named_are_trusted() {
        let trusted = ["10.0.0.0/8", "127.0.0.1/32", "2001:db8::/32"];
        let trusted = trusted.map(|net| net.parse().expect("a network"));
        for (address, is_one) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("::1", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("11.0.0.1", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(is_trusted(address, &trusted), is_one, "{address}");
            assert!(!is_trusted(address, &[]));
        }
    }
}
