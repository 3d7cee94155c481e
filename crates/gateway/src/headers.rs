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
pub(crate) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(crate) const SAMPAN_REVISION: HeaderName = HeaderName::from_static("sampan-revision");
pub(crate) const SAMPAN_POD: HeaderName = HeaderName::from_static("sampan-pod");

/// Who sends a request, to the gateway or to another service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A client, or a guest: its word on where the request comes from counts for nothing.
    Client,
    /// A proxy that is trusted.
    Proxy,
}

/// Removes from a request what ends at the gateway: hop-by-hop fields, what the gateway says anew,
/// and what only a trusted proxy may say. `TE` stays when it says `trailers`, and then says only
/// that.
pub(crate) fn strip_request(headers: &mut HeaderMap, sender: Sender) {
    let is_claim =
        |name: &HeaderName| is_forwarded(name) || sender == Sender::Client && is_claim(name);
    // Most requests have none of these, and one look at the names is cheaper than ten removals.
    if !headers
        .keys()
        .any(|name| is_hop_by_hop(name) || is_claim(name))
    {
        return;
    }
    let trailers = headers.get_all(TE).iter().any(accepts_trailers);
    strip_hop_by_hop(headers);
    remove_all(headers, is_claim);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes hop-by-hop fields from a response, and what only the gateway says.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    if headers
        .keys()
        .any(|name| is_hop_by_hop(name) || is_own(name))
    {
        strip_hop_by_hop(headers);
        remove_all(headers, is_own);
    }
}

fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let unwanted = headers.keys().filter(|name| is_unwanted(name)).cloned();
    for name in unwanted.collect::<Vec<_>>() {
        headers.remove(name);
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

/// Where a request comes from, as the gateway says it anew.
fn is_forwarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto"
    )
}

/// What guests and frameworks believe of a proxy in front, as the well-known proxies write it: where
/// a request comes from, and what it asked for before it was rewritten.
fn is_claim(name: &HeaderName) -> bool {
    let text = name.as_str();
    matches!(
        text,
        "cf-connecting-ip"
            | "client-ip"
            | "fastly-client-ip"
            | "forwarded"
            | "front-end-https"
            | "true-client-ip"
            | "x-azure-clientip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "x-envoy-external-address"
            | "x-original-forwarded-for"
            | "x-original-host"
            | "x-original-url"
            | "x-real-ip"
            | "x-request-id"
            | "x-rewrite-url"
    ) || text.starts_with("x-forwarded-")
        || is_own(name)
}

/// What only Sampan says.
fn is_own(name: &HeaderName) -> bool {
    name.as_str().starts_with("sampan-")
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    let mut codings = value.as_bytes().split(|&c| c == b',');
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

const FORBIDDEN_TRAILERS: [&str; 30] = [
    "age",
    "authentication-info",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "http2-settings",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "traceparent",
    "tracestate",
    "trailer",
    "vary",
    "via",
    "warning",
    "www-authenticate",
];

/// Keeps of a trailer section what RFC 9110 §6.5.1 lets be sent there: nothing that says how the
/// message is framed, routed, authenticated or read, or on what condition. And nothing that only the
/// gateway says.
pub(crate) fn retain_trailers(trailers: &mut HeaderMap) {
    let is_forbidden = |name: &HeaderName| {
        is_hop_by_hop(name)
            || is_claim(name)
            || FORBIDDEN_TRAILERS.contains(&name.as_str())
            || name.as_str().starts_with("if-")
    };
    remove_all(trailers, is_forbidden);
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
        strip_request(&mut headers, Sender::Client);
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
            strip_request(&mut headers, Sender::Client);
            assert_eq!(
                headers,
                map(&after.map(|te| ("te", te)).into_iter().collect::<Vec<_>>())
            );
        }
    }

    #[test]
    fn what_only_a_proxy_may_say_is_dropped_from_all_others() {
        let said_anew = [
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "https"),
        ];
        let believed = [
            ("x-forwarded-prefix", "/p"),
            ("x-forwarded-port", "443"),
            ("X-Real-IP", "1.2.3.4"),
            ("x-request-id", "forged"),
            ("sampan-pod", "web-1"),
            ("Sampan-Anything", "x"),
            ("true-client-ip", "1.2.3.4"),
            ("x-original-url", "/admin"),
        ];
        let ordinary = [
            ("accept", "*/*"),
            ("cookie", "a=b"),
            ("x-forwardedness", "1"),
            ("sampans", "2"),
        ];
        let all = [&said_anew[..], &believed, &ordinary].concat();
        let mut of_client = map(&all);
        strip_request(&mut of_client, Sender::Client);
        assert_eq!(of_client, map(&ordinary));
        let mut of_proxy = map(&all);
        strip_request(&mut of_proxy, Sender::Proxy);
        assert_eq!(of_proxy, map(&[&believed[..], &ordinary].concat()));
        let mut trailers = map(&all);
        retain_trailers(&mut trailers);
        assert_eq!(
            trailers,
            map(&[("accept", "*/*"), ordinary[2], ordinary[3]])
        );
    }

    #[test]
    fn a_guest_does_not_speak_for_sampan() {
        let mut response = map(&[("sampan-pod", "forged"), ("etag", "1")]);
        strip_response(&mut response);
        assert_eq!(response, map(&[("etag", "1")]));
    }

    #[test]
    fn trailers_cannot_reframe_or_reroute() {
        let forbidden = [
            "Content-Length",
            "Host",
            "Transfer-Encoding",
            "TE",
            "Trailer",
            "Connection",
            "Keep-Alive",
            "Upgrade",
            "Proxy-Authorization",
            "Proxy-Connection",
            "Authorization",
            "Cookie",
            "Set-Cookie",
            "WWW-Authenticate",
            "Expect",
            "Range",
            "Max-Forwards",
            "Cache-Control",
            "Content-Type",
            "Content-Encoding",
            "Content-Range",
            "If-Match",
            "If-None-Match",
            "If-Modified-Since",
            "If-Range",
            "Age",
            "Date",
            "Expires",
            "Location",
            "Retry-After",
            "Vary",
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Port",
            "X-Real-IP",
            "X-Request-Id",
            "Traceparent",
            "Sampan-Pod",
        ];
        for name in forbidden {
            let mut trailers = map(&[(name, "x"), ("grpc-status", "0"), (name, "y")]);
            retain_trailers(&mut trailers);
            assert_eq!(trailers, map(&[("grpc-status", "0")]), "{name}");
        }
        let allowed = map(&[
            ("grpc-status", "0"),
            ("grpc-message", "fine"),
            ("server-timing", "db;dur=1"),
            ("content-digest", "sha-256=:AA==:"),
            ("etag", "x"),
        ]);
        let mut trailers = allowed.clone();
        retain_trailers(&mut trailers);
        assert_eq!(trailers, allowed);
    }
}
