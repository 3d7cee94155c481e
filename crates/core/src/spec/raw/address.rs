//! Leaves that name hosts: routes into the app, and servers outside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::Schema;

use super::{
    leaf::{Leaf, Refusal, Scalar, Wanted},
    schema::text,
};
use crate::{
    name::MAX_NAME_BYTES,
    object::{HostPattern, Outbound, Route, Scheme},
    spec::problem::quoted,
    uri,
};

/// The longest host name, in characters: RFC 1035, section 2.3.4.
const MAX_HOST_BYTES: usize = 253;

impl Leaf for Route {
    fn wanted() -> Wanted {
        Wanted::new(
            "a route",
            "write a host and a path prefix, as in \"shop.localhost/\", or a path prefix alone for \
             any host, as in \"/api\"",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        parse_route(text).map_err(|it| it.about(text))
    }

    fn schema() -> Schema {
        text(
            "route",
            "^[^/:]*(\\[[0-9a-fA-F:.]+\\])?/[a-zA-Z0-9._~%!$&'+,;=:@/-]*$",
            &["/", "/api", "shop.localhost/"],
        )
    }
}

fn parse_route(text: &str) -> Result<Route, Refusal> {
    if text.contains("://") {
        return Err(Refusal::value("has a scheme"));
    }
    let slash = text.find('/');
    let (host, prefix) = text.split_at(slash.ok_or_else(|| Refusal::value("has no path"))?);
    Ok(Route {
        host: match host {
            "" => None,
            host => Some(route_host(host)?),
        },
        prefix: path_prefix(host, prefix)?,
    })
}

fn route_host(host: &str) -> Result<String, Refusal> {
    if host.contains('*') {
        let hint = "name one host, or leave the host out for any, as in \"/\"";
        return Err(Refusal::with_hint("has a `*` in its host", hint));
    }
    if let Some(address) = bracketed(host)? {
        return Ok(format!("[{address}]"));
    }
    if host.contains(':') {
        let hint = "leave the port out: the gateway listens on one port for all routes";
        return Err(Refusal::with_hint("has a port", hint));
    }
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => host_name(host),
    }
}

/// An address in square brackets, and nothing else; `None` without brackets.
fn bracketed(host: &str) -> Result<Option<Ipv6Addr>, Refusal> {
    let Some(rest) = host.strip_prefix('[') else {
        return Ok(None);
    };
    let Some((inside, after)) = rest.split_once(']') else {
        return Err(Refusal::value("has a `[` that is not closed"));
    };
    if !after.is_empty() {
        let hint = "leave out what stands between `]` and the path";
        return Err(Refusal::with_hint("has text after the `]`", hint));
    }
    match inside.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(Refusal::value("has no IPv6 address in its brackets")),
    }
}

/// A host name in lower case and without a dot at the end.
fn host_name(host: &str) -> Result<String, Refusal> {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if name.len() > MAX_HOST_BYTES {
        return Err(Refusal::value("has a host of more than 253 characters"));
    }
    if !name.is_ascii() {
        let hint = "write the host in its ASCII form, as in \"xn--bcher-kva.example\"";
        return Err(Refusal::with_hint("has a host beyond ASCII", hint));
    }
    for label in name.split('.') {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if label.is_empty() {
            return Err(Refusal::value("has a host with an empty part"));
        }
        if label.len() > MAX_NAME_BYTES {
            return Err(Refusal::value(
                "has a part of its host with more than 63 characters",
            ));
        }
        if let Some(bad) = label.chars().find(|&c| !allowed(c)) {
            let message = format!("has the character `{}` in its host", bad.escape_debug());
            return Err(Refusal::value(message));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(Refusal::value(
                "has a part of its host that begins or ends with `-`",
            ));
        }
    }
    // Such a name would be taken for an address by some and for a name by others.
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").unwrap_or("x");
    let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hex || last.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Err(Refusal::value(
            "has a host that is neither a name nor an IP address",
        )),
        false => Ok(name),
    }
}

/// What patterns of other systems are made of. A path may carry some of these characters, but
/// where one stands here a pattern is meant, and a prefix with it would match next to nothing.
const PATTERN: &[char] = &[
    '*', '(', ')', '[', ']', '{', '}', '<', '>', '|', '^', '\\', '`', '"',
];

/// A path prefix in its normal form: what a request line can carry, without a query and without
/// parts that a client would resolve before it sends. `host` is what stands before it.
fn path_prefix(host: &str, prefix: &str) -> Result<String, Refusal> {
    let is_bad = |c: &char| !c.is_ascii_graphic() || matches!(c, '?' | '#');
    if let Some(bad) = prefix.chars().find(is_bad) {
        return Err(Refusal::with_hint(
            format!("has the character `{}` in its path", bad.escape_debug()),
            "a path prefix has no query, and other characters stand as `%` and hex digits",
        ));
    }
    let percents = prefix.match_indices('%');
    let mut escapes = percents.map(|(at, _)| uri::escaped_byte(&prefix.as_bytes()[at..]));
    if escapes.any(|byte| byte.is_none()) {
        return Err(Refusal::with_hint(
            "has a `%` without two hex digits in its path",
            "write `%25` for a `%`",
        ));
    }
    let parts: Vec<_> = prefix.split('/').skip(1).collect();
    for (number, given) in parts.iter().enumerate() {
        let is_last = number + 1 == parts.len();
        let part = uri::normal_escapes(given);
        match part.as_str() {
            "" if is_last && prefix != "//" => {}
            "" | "." | ".." => {
                return Err(Refusal::with_hint(
                    format!("has the part `/{part}/` in its path"),
                    "write the path without `//`, `/./` and `/../`",
                ));
            }
            part if given.contains(PATTERN) || is_pattern(part, is_last) => {
                let above = parts[..number].iter().map(|it| format!("/{it}"));
                let below = format!("{host}{}/", above.collect::<String>());
                return Err(Refusal::with_hint(
                    format!("has the pattern `{given}` in its path"),
                    format!("a path stands for all below it: \"{below}\" is what can be written"),
                ));
            }
            _ => {}
        }
    }
    Ok(uri::normal_path(prefix).into_owned())
}

/// Whether a part of a path is meant to stand for others, as `:id`, `...`, `.+` and `+` are.
fn is_pattern(part: &str, is_last: bool) -> bool {
    part.starts_with(':')
        || part.starts_with("...")
        || part.contains(".+")
        || part == "+"
        || is_last && part.ends_with('$')
}

impl Leaf for Outbound {
    fn wanted() -> Wanted {
        Wanted::new(
            "a server",
            "write scheme, host and perhaps a port, as in \"https://api.example.com\", \
             \"https://*.example.com\", \"http://127.0.0.1:9000\" or \"tcp://db.example.com:5432\"",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        parse_outbound(text).map_err(|it| it.about(text))
    }

    fn schema() -> Schema {
        text(
            "server",
            "^([hH][tT][tT][pP][sS]?|[tT][cC][pP])://[^/?#@]+$",
            &[
                "https://api.example.com",
                "https://*.example.com",
                "tcp://db.example.com:5432",
            ],
        )
    }
}

/// Reads one rule of `allow.outbound`. The error is what is wrong with it, and what to write.
pub(crate) fn server(text: &str) -> Result<Outbound, String> {
    let Wanted { what, hint } = Outbound::wanted();
    Outbound::accept(&Scalar::Text(text, false)).map_err(|refusal| match refusal {
        Refusal::Value(message, better) => format!("{message}; {}", better.unwrap_or(hint)),
        Refusal::Type | Refusal::Nul => format!("{} is not {what}; {hint}", quoted(text)),
    })
}

fn parse_outbound(text: &str) -> Result<Outbound, Refusal> {
    let Some((scheme, authority)) = text.split_once("://") else {
        return Err(Refusal::value("has no scheme"));
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        "tcp" => Scheme::Tcp,
        _ => {
            let message = "has a scheme other than `http`, `https` and `tcp`";
            let hint = "write `tcp` for every other protocol, as in \"tcp://db.example.com:5432\"";
            return Err(Refusal::with_hint(message, hint));
        }
    };
    if let Some(end) = authority.find(['/', '?', '#']) {
        let hint = "leave out what follows the host: a grant covers the whole server";
        let part = match &authority[end..=end] {
            "/" => "a path",
            "?" => "a query",
            _ => "a fragment",
        };
        return Err(Refusal::with_hint(format!("has {part}"), hint));
    }
    if authority.contains('@') {
        let hint = "leave it out: the guest sends its own credentials";
        return Err(Refusal::with_hint("has a user", hint));
    }
    let (host, port) = split_port(authority)?;
    let port = match (port, scheme) {
        (Some(port), _) => match port.parse() {
            Ok(number @ 1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => number,
            Ok(_) | Err(_) => return Err(Refusal::value("has a port that is not from 1 to 65535")),
        },
        (None, Scheme::Http) => 80,
        (None, Scheme::Https) => 443,
        (None, Scheme::Tcp) => {
            let hint = "write the port of the server, as in \"tcp://db.example.com:5432\"";
            return Err(Refusal::with_hint("has no port", hint));
        }
    };
    Ok(Outbound {
        scheme,
        host: match host_pattern(host, scheme)? {
            HostPattern::Address(address) if scheme == Scheme::Tcp && address.is_unspecified() => {
                let hint = "write the address of the server, as in \"tcp://127.0.0.1:5432\"";
                return Err(Refusal::with_hint("has the address of no server", hint));
            }
            host => host,
        },
        port,
    })
}

/// Splits `host:port`, where the host may be an address in brackets that has colons itself.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), Refusal> {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[after_brackets..].find(':') {
        Some(at) => {
            let (host, port) = authority.split_at(after_brackets + at);
            (host, Some(&port[1..]))
        }
        None => (authority, None),
    };
    match port.is_some_and(|port| port.contains(':')) {
        true => Err(Refusal::with_hint(
            "has a host with colons",
            "write an IPv6 address in square brackets, as in \"http://[::1]:9000\"",
        )),
        false => Ok((host, port)),
    }
}

fn host_pattern(host: &str, scheme: Scheme) -> Result<HostPattern, Refusal> {
    if host.is_empty() {
        return Err(Refusal::value("has no host"));
    }
    if let Some(address) = bracketed(host)? {
        return Ok(HostPattern::Address(IpAddr::V6(address)));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(HostPattern::Address(IpAddr::V4(address)));
    }
    let below = match scheme {
        Scheme::Http => "http://*.example.com",
        Scheme::Https => "https://*.example.com",
        Scheme::Tcp => "tcp://*.example.com:5432",
    };
    if host == "*" {
        let hint = format!("name the servers, or all below a name, as in \"{below}\"");
        return Err(Refusal::with_hint("allows every host", hint));
    }
    match host.strip_prefix("*.") {
        Some(below) if !below.contains('*') => host_name(below).map(HostPattern::Below),
        None if !host.contains('*') => host_name(host).map(HostPattern::Exact),
        Some(_) | None => Err(Refusal::with_hint(
            "has a `*` in the wrong place",
            format!("a `*` stands for all names below one, as in \"{below}\""),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outbound(text: &str) -> Result<Outbound, Refusal> {
        Outbound::accept(&Scalar::Text(text, false))
    }

    fn route(text: &str) -> Result<Route, Refusal> {
        Route::accept(&Scalar::Text(text, false))
    }

    #[test]
    fn servers() {
        let exact = |host: &str| HostPattern::Exact(host.to_owned());
        let address = |text: &str| HostPattern::Address(text.parse().expect("an address"));
        for (text, scheme, host, port) in [
            (
                "https://api.example.com",
                Scheme::Https,
                exact("api.example.com"),
                443,
            ),
            (
                "HTTP://API.Example.com.:8080",
                Scheme::Http,
                exact("api.example.com"),
                8080,
            ),
            (
                "https://*.example.com",
                Scheme::Https,
                HostPattern::Below("example.com".into()),
                443,
            ),
            (
                "http://127.0.0.1:9000",
                Scheme::Http,
                address("127.0.0.1"),
                9000,
            ),
            ("http://[::1]", Scheme::Http, address("::1"), 80),
            (
                "https://[2001:DB8::1]:8443",
                Scheme::Https,
                address("2001:db8::1"),
                8443,
            ),
            (
                "TCP://Db.example.com:5432",
                Scheme::Tcp,
                exact("db.example.com"),
                5432,
            ),
            (
                "http://localhost:65535",
                Scheme::Http,
                exact("localhost"),
                65535,
            ),
        ] {
            assert_eq!(outbound(text).expect(text), Outbound { scheme, host, port });
        }
    }

    #[test]
    fn what_is_not_a_server() {
        for text in [
            "",
            "example.com",
            "ftp://a",
            "tcp://a",
            "tcp://a:",
            "://a",
            "http://",
            "http://:80",
            "http://a:",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a/",
            "http://a?x",
            "http://a#x",
            "http://u@a",
            "http://*",
            "http://*.",
            "http://a.*.b",
            "http://*a",
            "http://*.*.a",
            "http://::1",
            "http://[::1",
            "http://[::1]x",
            "http://[1.2.3.4]",
            "http://1.2.3",
            "http://256.1.1.1",
            "http://0x7f.1",
            "http://0x7f000001",
            "http://1.2.0x3",
            "http://a.0x",
            "tcp://0.0.0.0:5432",
            "tcp://[::]:5432",
            "http://a b",
            "http://a..b",
            "http://-a",
            "http://ä.de",
            "http://a\0",
        ] {
            // `0x7f.1` ends in a number, so it is refused like every other half address.
            assert!(outbound(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn routes() {
        for (text, host, prefix) in [
            ("/", None, "/"),
            ("/api", None, "/api"),
            ("/api/", None, "/api/"),
            ("Shop.localhost/", Some("shop.localhost"), "/"),
            ("shop.localhost./a/b", Some("shop.localhost"), "/a/b"),
            ("127.0.0.1/x", Some("127.0.0.1"), "/x"),
            ("[::0:1]/x", Some("[::1]"), "/x"),
            ("/%61%2D%7e", None, "/a-~"),
            ("/a%2fb%c3%a4", None, "/a%2Fb%C3%A4"),
            ("/%2A/%3Aid", None, "/%2A/%3Aid"),
            ("/v1/things:batch", None, "/v1/things:batch"),
            ("/@user;v=1/$metadata", None, "/@user;v=1/$metadata"),
            ("/.well-known/a..b", None, "/.well-known/a..b"),
        ] {
            let expected = Route {
                host: host.map(str::to_owned),
                prefix: prefix.to_owned(),
            };
            assert_eq!(route(text).expect(text), expected);
        }
        for text in [
            "",
            "shop.localhost",
            "http://a/",
            "a:80/",
            "*.a/",
            "*/",
            "//",
            "/a//b",
            "/../a",
            "/a/.",
            "/%2e%2E/a",
            "/a/.%2e",
            "/a%",
            "/a%2",
            "/%zz",
            "/a?b",
            "/a#b",
            "/a b",
            "/ä",
            "[::1]:80/",
            "[::1/",
            "a_/b\n",
            "1.2.3/",
            "a..b/",
        ] {
            assert!(route(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn patterns_of_other_systems_are_refused_with_what_to_write() {
        for (text, part, remedy) in [
            ("/...", "...", "/"),
            ("/static/...", "...", "/static/"),
            ("/api/*", "*", "/api/"),
            ("/api/**", "**", "/api/"),
            ("/*", "*", "/"),
            ("/*.php", "*.php", "/"),
            ("/:id", ":id", "/"),
            ("/users/:id/edit", ":id", "/users/"),
            ("/{id}", "{id}", "/"),
            ("shop.localhost/{path...}", "{path...}", "shop.localhost/"),
            ("/<int:id>", "<int:id>", "/"),
            ("/[slug]", "[slug]", "/"),
            ("/(.*)", "(.*)", "/"),
            ("/a/.+", ".+", "/a/"),
            ("/a|b", "a|b", "/"),
            ("/^x", "^x", "/"),
            ("/x$", "x$", "/"),
            ("/a/+", "+", "/a/"),
            ("/\\d", "\\d", "/"),
            ("/%2E%2e.", "%2E%2e.", "/"),
        ] {
            let Err(Refusal::Value(message, Some(hint))) = route(text) else {
                panic!("{text}: {:?}", route(text));
            };
            assert_eq!(
                message,
                format!("{} has the pattern `{part}` in its path", quoted(text))
            );
            assert!(hint.contains(&format!("\"{remedy}\"")), "{text}: {hint}");
            route(remedy).expect("a remedy that works");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([a*.:/@\\[\\]0-9?#{}$+-]|%2[eE]|%[46]1|%|(https?|tcp)://|ä|\\PC){0,24}") {
            if let Ok(first) = route(&text) {
                prop_assert_eq!(uri::normal_path(&first.prefix), first.prefix.as_str());
                prop_assert_eq!(route(&first.to_string()).expect("its own text"), first);
            }
            let _ = outbound(&text);
        }
    }
}
