//! The route table: host and longest path prefix to a service.
//!
//! Paths and hosts are compared in their normal form (`sampan_core::uri`), segment by segment. The
//! guest sees what came.

use std::collections::HashMap;

use sampan_core::{
    object::Route,
    uri::{normal_host, normal_path},
};

/// The longest host name, in bytes: RFC 1035 allows 255, which is one more than fits in text.
const MAX_HOST_BYTES: usize = 255;

/// Maps requests to values of `T` by [`Route`].
#[derive(Debug)]
pub struct Table<T> {
    hosts: HashMap<Box<str>, Node<T>>,
    any_host: Node<T>,
}

/// One path segment of all prefixes with the same beginning.
#[derive(Debug)]
struct Node<T> {
    /// Of a prefix that ends with this segment: matches it and everything below.
    here: Option<T>,
    /// Of a prefix that ends with the slash after this segment: matches what is below.
    below: Option<T>,
    next: HashMap<Box<str>, Node<T>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            here: None,
            below: None,
            next: HashMap::new(),
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            hosts: HashMap::new(),
            any_host: Node::default(),
        }
    }
}

impl<T> Table<T> {
    /// Adds a route. `false` if the table has the same one already; the first stays.
    pub fn insert(&mut self, route: &Route, value: T) -> bool {
        let root = match &route.host {
            Some(host) => self.hosts.entry(normal_host(host).into()).or_default(),
            None => &mut self.any_host,
        };
        let prefix = normal_path(&route.prefix);
        let path = prefix.strip_prefix('/').unwrap_or(&prefix);
        let place = if path.is_empty() {
            &mut root.below
        } else {
            let (path, is_below) = match path.strip_suffix('/') {
                Some(path) => (path, true),
                None => (path, false),
            };
            let node = path.split('/').fold(root, |node, segment| {
                node.next.entry(segment.into()).or_default()
            });
            if is_below {
                &mut node.below
            } else {
                &mut node.here
            }
        };
        let is_free = place.is_none();
        place.get_or_insert(value);
        is_free
    }

    /// Finds the value for a host, as an authority or `Host` field gives it, and a path. A route
    /// of that very host goes before those of any host; then the longest prefix wins.
    pub fn find(&self, authority: Option<&str>, path: &str) -> Option<&T> {
        let path = &*normal_path(path);
        let of_host = authority.filter(|_| !self.hosts.is_empty());
        let of_host = of_host.and_then(|it| self.hosts.get(&*normal_host(host_of(it))));
        of_host
            .and_then(|node| node.find(path))
            .or_else(|| self.any_host.find(path))
    }
}

impl<T> Node<T> {
    fn find(&self, path: &str) -> Option<&T> {
        let mut rest = path.strip_prefix('/')?;
        let mut node = self;
        let mut best = self.below.as_ref();
        while !node.next.is_empty() {
            let (segment, more) = match rest.split_once('/') {
                Some((segment, more)) => (segment, Some(more)),
                None => (rest, None),
            };
            let Some(next) = node.next.get(segment) else {
                break;
            };
            node = next;
            best = node.here.as_ref().or(best);
            let Some(more) = more else { break };
            best = node.below.as_ref().or(best);
            rest = more;
        }
        best
    }
}

/// The host of an authority, without its port.
fn host_of(authority: &str) -> &str {
    match authority.rfind(']') {
        // The colons of an IPv6 address are inside its brackets.
        Some(end) => &authority[..=end],
        None => authority
            .split_once(':')
            .map_or(authority, |(host, _)| host),
    }
}

/// Whether a text is `host [":" port]` with a host that is not empty: RFC 3986 §3.2 without user
/// information.
pub fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let Some((address, port)) = literal.split_once(']') else {
                return false;
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (None, port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (Some(&text[..end]), &text[end..])
        }
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => {
            digits.bytes().all(|c| c.is_ascii_digit())
                && (digits.is_empty() || digits.parse::<u16>().is_ok())
        }
        None => port.is_empty(),
    };
    is_port && host.is_none_or(is_host_name)
}

fn is_host_name(host: &str) -> bool {
    let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&c);
    !host.is_empty() && host != "." && host.len() <= MAX_HOST_BYTES && host.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[&'static str]) -> Table<&'static str> {
        let mut table = Table::default();
        for &text in routes {
            let slash = text.find('/').expect("a path");
            let (host, prefix) = text.split_at(slash);
            let host = (!host.is_empty()).then(|| host.to_owned());
            assert!(
                table.insert(
                    &Route {
                        host,
                        prefix: prefix.to_owned()
                    },
                    text
                ),
                "{text}"
            );
        }
        table
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let table = table(&[
            "/",
            "/a",
            "/a/b",
            "/a/b/",
            "/slash/",
            "/d//e",
            "/x%20y",
            "/.well-known",
            "/a/b/c/d",
        ]);
        for (path, route) in [
            ("/", "/"),
            ("/z", "/"),
            ("//", "/"),
            ("//a", "/"),
            ("/a", "/a"),
            ("/a/", "/a"),
            ("/a/z", "/a"),
            ("/a//b", "/a"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a/b/c", "/a/b/"),
            ("/a/b/c/", "/a/b/"),
            ("/a/b/c/d", "/a/b/c/d"),
            ("/a/b/c/d/e", "/a/b/c/d"),
            ("/a/b/c/dd", "/a/b/"),
            ("/a/bb", "/a"),
            ("/ab", "/"),
            ("/A", "/"),
            ("/slash", "/"),
            ("/slash/", "/slash/"),
            ("/slash/x", "/slash/"),
            ("/slashy/", "/"),
            ("/d", "/"),
            ("/d/e", "/"),
            ("/d//e", "/d//e"),
            ("/d//e/f", "/d//e"),
            ("/x y", "/x%20y"),
            ("/x%20y", "/x%20y"),
            ("/x%20y/z", "/x%20y"),
            ("/.well-known/acme", "/.well-known"),
            ("/a/../secret", "/"),
            ("/z/../a/b", "/a/b"),
            ("/a/%2e%2E/a/b/.", "/a/b/"),
            ("/%61", "/a"),
            ("/%2561", "/"),
            ("/a%2Fb", "/"),
            ("/x%20%79", "/x%20y"),
            ("/a;v=1", "/"),
        ] {
            assert_eq!(table.find(None, path), Some(&route), "{path}");
        }
    }

    #[test]
    fn an_exact_host_goes_before_any_host() {
        let table = table(&[
            "shop.localhost/",
            "shop.localhost/api",
            "api.localhost/v1/",
            "/api",
            "[::1]/six",
        ]);
        for (host, path, route) in [
            ("shop.localhost", "/", Some("shop.localhost/")),
            ("shop.localhost", "/api", Some("shop.localhost/api")),
            ("shop.localhost:8080", "/api/x", Some("shop.localhost/api")),
            ("SHOP.Localhost", "/", Some("shop.localhost/")),
            ("Shop.localhost.:80", "/apis", Some("shop.localhost/")),
            ("shop.localhost.", "/", Some("shop.localhost/")),
            ("shop.localhost..", "/", None),
            ("www.shop.localhost", "/", None),
            ("api.localhost", "/v1/x", Some("api.localhost/v1/")),
            ("api.localhost", "/v1", None),
            ("api.localhost", "/api", Some("/api")),
            ("other", "/api/1", Some("/api")),
            ("other", "/", None),
            ("[::1]:80", "/six", Some("[::1]/six")),
            ("[::1]", "/six", Some("[::1]/six")),
            ("[0::0:1]", "/six", Some("[::1]/six")),
            ("[::2]", "/six", None),
            ("sh%6fp%2Elocalhost.", "/", Some("shop.localhost/")),
        ] {
            assert_eq!(
                table.find(Some(host), path),
                route.as_ref(),
                "{host} {path}"
            );
        }
        assert_eq!(table.find(None, "/six"), None);
        assert_eq!(table.find(Some("shop.localhost"), "*"), None);
        assert_eq!(table.find(Some(&"X".repeat(300)), "/api"), Some(&"/api"));
    }

    #[test]
    fn the_first_of_two_equal_routes_stays() {
        let mut table = table(&["a/x"]);
        let again = Route {
            host: Some("A".to_owned()),
            prefix: "/x".to_owned(),
        };
        assert!(!table.insert(&again, "second"));
        let written_otherwise = Route {
            host: Some("a".to_owned()),
            prefix: "/y/../%78".to_owned(),
        };
        assert!(!table.insert(&written_otherwise, "third"));
        assert_eq!(table.find(Some("a"), "/x"), Some(&"a/x"));
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for good in [
            "a",
            "a.b.",
            "A:80",
            "a:",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:80",
            "[::ffff:1.2.3.4]",
            "a_b",
            "xn--bcher-kva",
            "a%20b",
        ] {
            assert!(is_authority(good), "{good}");
        }
        for bad in [
            "", ":80", ".", "a b", "a@b", "u:p@h", "a/b", "a?b", "a#b", "a:b", "a:65536", "a:1:2",
            "[::1", "::1", "[::1]x", "[x]", "[]", "a\\b", "ä", "a:+80", "[::1]:x", "a,b c",
        ] {
            assert!(!is_authority(bad), "{bad}");
        }
        assert!(!is_authority(&"x".repeat(256)));
    }
}
