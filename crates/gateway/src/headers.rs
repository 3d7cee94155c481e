//! Which header and trailer fields pass the gateway.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE},
};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const SAMPAN_REVISION: HeaderName = HeaderName::from_static("sampan-revision");
pub(crate) const SAMPAN_POD: HeaderName = HeaderName::from_static("sampan-pod");

/// Removes from a request what ends at the gateway: hop-by-hop fields and the client's own word
/// on where it comes from. `TE` stays when it says `trailers`, and then says only that.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    // Most requests have none of these, and one look at the names is cheaper than ten removals.
    if !headers
        .keys()
        .any(|name| is_hop_by_hop(name) || is_forwarded(name))
    {
        return;
    }
    let trailers = headers.get_all(TE).iter().any(accepts_trailers);
    strip_hop_by_hop(headers);
    for name in [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO] {
        headers.remove(name);
    }
    headers.remove(http::header::FORWARDED);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes hop-by-hop fields from a response.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    if headers.keys().any(is_hop_by_hop) {
        strip_hop_by_hop(headers);
    }
}

/// Removes hop-by-hop fields and those that `Connection` names: RFC 9110 §7.6.1.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&c| c == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        // Naming these would change what the request means or how long it is.
        .filter(|name| name != HOST && name != CONTENT_LENGTH);
    let own = headers.keys().filter(|name| is_hop_by_hop(name)).cloned();
    for name in named.chain(own).collect::<Vec<_>>() {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "connection" | "keep-alive" | "te" | "transfer-encoding" | "upgrade"
    ) || name.starts_with("proxy-")
}

fn is_forwarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto"
    )
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    let mut codings = value.as_bytes().split(|&c| c == b',');
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Keeps of a trailer section what RFC 9110 §6.5.1 lets be sent there: nothing that says how the
/// message is framed, routed, authenticated or read.
pub(crate) fn retain_trailers(trailers: &mut HeaderMap) {
    let is_forbidden = |name: &HeaderName| {
        is_hop_by_hop(name)
            || is_forwarded(name)
            || matches!(
                name.as_str(),
                "age"
                    | "authorization"
                    | "cache-control"
                    | "content-encoding"
                    | "content-length"
                    | "content-range"
                    | "content-type"
                    | "cookie"
                    | "date"
                    | "expect"
                    | "expires"
                    | "host"
                    | "location"
                    | "max-forwards"
                    | "pragma"
                    | "range"
                    | "retry-after"
                    | "set-cookie"
                    | "trailer"
                    | "vary"
                    | "warning"
                    | "www-authenticate"
            )
    };
    let forbidden: Vec<_> = trailers
        .keys()
        .filter(|name| is_forbidden(name))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        map
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let mut headers = map(&[
            ("connection", "close, X-Private"),
            ("connection", "x-also , host, content-length"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-private", "1"),
            ("x-also", "1"),
            ("host", "a"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        let mut response = headers.clone();
        let rest = map(&[("host", "a"), ("content-length", "3"), ("accept", "*/*")]);
        strip_request(&mut headers);
        assert_eq!(headers, rest);
        strip_response(&mut response);
        assert_eq!(response, rest);
    }

    #[test]
    fn te_keeps_trailers_alone() {
        for (before, after) in [
            ("trailers", Some("trailers")),
            ("gzip;q=1, Trailers", Some("trailers")),
            ("deflate", None),
        ] {
            let mut headers = map(&[("te", before), ("connection", "te")]);
            strip_request(&mut headers);
            assert_eq!(
                headers,
                map(&after.map(|te| ("te", te)).into_iter().collect::<Vec<_>>())
            );
        }
    }

    #[test]
    fn the_clients_word_on_forwarding_is_dropped() {
        let mut headers = map(&[
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/p"),
        ]);
        strip_request(&mut headers);
        assert_eq!(headers, map(&[("x-forwarded-prefix", "/p")]));
        let mut plain = map(&[("accept", "*/*"), ("cookie", "a=b")]);
        strip_request(&mut plain);
        assert_eq!(plain.len(), 2);
    }

    #[test]
    fn trailers_cannot_reframe_or_reroute() {
        let mut trailers = map(&[
            ("content-length", "0"),
            ("host", "evil"),
            ("transfer-encoding", "chunked"),
            ("authorization", "x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("grpc-status", "0"),
            ("server-timing", "db;dur=1"),
        ]);
        retain_trailers(&mut trailers);
        assert_eq!(
            trailers,
            map(&[("grpc-status", "0"), ("server-timing", "db;dur=1")])
        );
    }
}
