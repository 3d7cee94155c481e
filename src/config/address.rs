//! Addresses as people write them: where to listen, and where an API is.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// The host of an address that names none.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A text that is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {why}; {remedy}")]
pub(crate) struct BadAddress {
    text: String,
    why: &'static str,
    remedy: String,
}

/// An address to listen on: `HOST:PORT`, or `:PORT` or `PORT` for this machine only.
///
/// Names are not looked up, but for `localhost`, which RFC 6761 gives to loopback: to which of the
/// machine's addresses another name leads can change between two starts.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, BadAddress> {
    let bad = |why, remedy: String| BadAddress {
        text: text.to_owned(),
        why,
        remedy,
    };
    let example = || "write an address and a port, as in `127.0.0.1:8080`".to_owned();
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        let good = listen(rest).map(|_| format!("write `{rest}`"));
        return Err(bad("is a URL", good.unwrap_or_else(|_| example())));
    }
    if let Some(host) = bare_host(text) {
        let remedy = format!("write `{host}:8080`, with a port of your choice");
        return Err(bad("has no port", remedy));
    }
    let Some((host, port)) = split(text) else {
        return Err(bad("is no address", example()));
    };
    // A number could have a sign, too.
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let Some(port) = port.parse().ok().filter(|_| digits) else {
        let remedy = "a port is a number up to 65535, and 0 picks a free one";
        return Err(bad("has no port that could be", remedy.to_owned()));
    };
    match (host, ip(host)) {
        (_, Some(ip)) => Ok(SocketAddr::new(ip, port)),
        ("*", None) => {
            let remedy = format!("write `0.0.0.0:{port}` for all addresses of this machine");
            Err(bad("has a `*` for an address", remedy))
        }
        (_, None) => {
            let remedy = format!(
                "write `127.0.0.1:{port}` for this machine only, `0.0.0.0:{port}` for all of its \
                 addresses, or one of them"
            );
            Err(bad("has a host that is no address", remedy))
        }
    }
}

/// Host and port.
fn split(text: &str) -> Option<(&str, &str)> {
    match text.rsplit_once(':') {
        Some(parts) => Some(parts),
        None => text
            .starts_with(|c: char| c.is_ascii_digit())
            .then_some(("", text))
            .filter(|_| !text.contains('.')),
    }
}

/// What stands before a port.
fn ip(host: &str) -> Option<IpAddr> {
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        return Some(LOOPBACK);
    }
    match host.strip_prefix('[') {
        Some(rest) => Some(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into()),
        None => Some(host.parse::<Ipv4Addr>().ok()?.into()),
    }
}

/// The text as it stands before a port, if it is a host without one.
fn bare_host(text: &str) -> Option<String> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Some(format!("[{address}]")),
        Err(_) if text.is_empty() => None,
        Err(_) => ip(text).map(|_| text.to_owned()),
    }
}

/// Where an API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApiPlace<'a> {
    /// A socket.
    Socket(&'a Path),
    /// Host and port.
    Port(Cow<'a, str>),
}

/// What a text names: an address, as a URL or as [`listen`] takes it, or else a socket. A path with
/// a `/` is always one.
pub(crate) fn api(text: &str) -> Result<ApiPlace<'_>, BadAddress> {
    if let Some(authority) = text.strip_prefix("http://") {
        return Ok(ApiPlace::Port(authority.trim_end_matches('/').into()));
    }
    let bare = text.trim_end_matches('/');
    if text.contains("://") {
        return Err(BadAddress {
            text: text.to_owned(),
            why: "is no URL of an API",
            remedy: "write `http://127.0.0.1:PORT`, or the path of a socket".to_owned(),
        });
    }
    if bare.is_empty() || bare.contains('/') {
        return Ok(ApiPlace::Socket(Path::new(text)));
    }
    match (bare_host(bare), split(bare)) {
        // Says that there is no port.
        (Some(_), _) => listen(bare).map(|_| ApiPlace::Port(bare.into())),
        (None, Some(("", port))) => Ok(ApiPlace::Port(format!("{LOOPBACK}:{port}").into())),
        (None, Some(_)) => Ok(ApiPlace::Port(bare.into())),
        (None, None) => Ok(ApiPlace::Socket(Path::new(text))),
    }
}

/// The path of a socket, where no address will do.
pub(crate) fn socket(text: &str) -> Result<PathBuf, BadAddress> {
    match api(text)? {
        ApiPlace::Socket(path) => Ok(path.to_owned()),
        ApiPlace::Port(_) => Err(BadAddress {
            text: text.to_owned(),
            why: "is an address, and only a socket is possible here",
            remedy: "write its path with a `/`, or use `sampan serve`, which takes both".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (text, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("LocalHost:0", "127.0.0.1:0"),
            (":8080", "127.0.0.1:8080"),
            ("8080", "127.0.0.1:8080"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
            ("[::]:080", "[::]:80"),
        ] {
            let found = listen(text).map(|it| it.to_string());
            assert_eq!(found.as_deref(), Ok(address), "{text}");
        }
    }

    /// What is no address, and what is said of it.
    const REFUSED: &[(&str, &str)] = &[
        (
            "",
            "`` is no address; write an address and a port, as in `127.0.0.1:8080`",
        ),
        (
            "web",
            "`web` is no address; write an address and a port, as in `127.0.0.1:8080`",
        ),
        (
            "localhost",
            "`localhost` has no port; write `localhost:8080`, with a port of your choice",
        ),
        (
            "10.0.0.1",
            "`10.0.0.1` has no port; write `10.0.0.1:8080`, with a port of your choice",
        ),
        (
            "::1",
            "`::1` has no port; write `[::1]:8080`, with a port of your choice",
        ),
        (
            "[::1]",
            "`[::1]` has no port; write `[::1]:8080`, with a port of your choice",
        ),
        (
            "*:80",
            "`*:80` has a `*` for an address; write `0.0.0.0:80` for all addresses of this machine",
        ),
        (
            "http://localhost:80/",
            "`http://localhost:80/` is a URL; write `localhost:80`",
        ),
        (
            "https://shop.example/",
            "`https://shop.example/` is a URL; write an address and a port, as in `127.0.0.1:8080`",
        ),
        (
            "shop.example:80",
            "`shop.example:80` has a host that is no address; write `127.0.0.1:80` for this machine only, `0.0.0.0:80` for all of its addresses, or one of them",
        ),
        (
            "300.1.1.1:80",
            "`300.1.1.1:80` has a host that is no address; write `127.0.0.1:80` for this machine only, `0.0.0.0:80` for all of its addresses, or one of them",
        ),
        (
            "localhost:http",
            "`localhost:http` has no port that could be; a port is a number up to 65535, and 0 picks a free one",
        ),
        (
            ":70000",
            "`:70000` has no port that could be; a port is a number up to 65535, and 0 picks a free one",
        ),
        (
            "127.0.0.1:+80",
            "`127.0.0.1:+80` has no port that could be; a port is a number up to 65535, and 0 picks a free one",
        ),
        (
            "8080x",
            "`8080x` has no port that could be; a port is a number up to 65535, and 0 picks a free one",
        ),
    ];

    #[test]
    fn what_is_no_address_is_refused_with_one_that_is() {
        for (text, wanted) in REFUSED {
            let error = listen(text).map_err(|error| error.to_string());
            assert_eq!(error, Err((*wanted).to_owned()));
        }
        // What is written after "write" is taken.
        for text in [
            "localhost",
            "10.0.0.1",
            "::1",
            "[::1]",
            "*:80",
            "a:80",
            "http://:80/",
        ] {
            let error = listen(text).expect_err(text).to_string();
            let remedy = error.split("write `").nth(1);
            let remedy = remedy.and_then(|it| it.split('`').next()).expect(&error);
            assert!(listen(remedy).is_ok(), "{error}");
        }
    }

    #[test]
    fn an_api_is_an_address_or_else_a_socket() {
        let port = |text: &str| Ok(ApiPlace::Port(text.to_owned().into()));
        for (text, wanted) in [
            ("http://localhost:81/", "localhost:81"),
            ("http://[::1]:81", "[::1]:81"),
            ("localhost:81", "localhost:81"),
            ("localhost:81/", "localhost:81"),
            ("127.0.0.1:81", "127.0.0.1:81"),
            (":81", "127.0.0.1:81"),
            ("81", "127.0.0.1:81"),
            ("shop.example:81", "shop.example:81"),
        ] {
            assert_eq!(api(text), port(wanted), "{text}");
        }
        for socket in ["/run/x.sock", "./81", "x.sock", "a/b:81", "web"] {
            assert_eq!(api(socket), Ok(ApiPlace::Socket(Path::new(socket))));
        }
        for (text, is_socket) in [("./x", true), (":81", false), ("localhost:81", false)] {
            assert_eq!(socket(text).is_ok(), is_socket, "{text}");
        }
        for bad in [
            "https://localhost:81",
            "unix:///run/x.sock",
            "localhost",
            "::1",
        ] {
            assert!(api(bad).is_err(), "{bad}: {:?}", api(bad));
        }
    }
}
