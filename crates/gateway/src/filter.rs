//! What a request from outside must be like before anything else looks at it.
//!
//! hyper parses requests and refuses what cannot be framed: lengths that differ, unknown versions,
//! folded lines, control characters. What it lets through and a gateway should not is refused here,
//! in one place. Two things it hides cannot be: a fragment in the target, which it drops, and lines
//! that end in a bare line feed. Neither reaches a pod, because a pod gets the parsed request and
//! never its bytes.

use http::{
    HeaderMap, Method, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};

use crate::{Limits, route};

/// Longest method name, in bytes. The longest registered one has 17.
const MAX_METHOD_BYTES: usize = 24;

/// Why a request is refused. Over HTTP/1 the connection ends after each: where the next request
/// would begin is not sure, or its sender is not to be trusted with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `CONNECT` would tunnel and `TRACE` would echo credentials: RFC 9110 §9.3.6 and §9.3.8. 405.
    Method,
    /// The method is not a registered one: RFC 9110 §16.1 asks for upper case. 400.
    MethodName,
    /// The target is not a path of visible ASCII characters: RFC 9112 §3.2, RFC 3986 §3.3. 400.
    Target,
    /// The path and query are longer than [`Limits::uri_bytes`]. 414.
    UriTooLong,
    /// There are more fields than [`Limits::headers`]. 431.
    TooManyHeaders,
    /// A field name has an underscore, which some programs take for a hyphen. 400.
    FieldName,
    /// There is not exactly one valid host, or the target and the `Host` field of an HTTP/2 request
    /// name different ones: RFC 9112 §3.2, RFC 9113 §8.3.1. 400.
    Host,
    /// Its length is said in two ways: RFC 9112 §6.3. 400.
    Framing,
    /// The body has a transfer coding besides `chunked`: RFC 9112 §6.1. 501.
    TransferCoding,
    /// It asks for a WebSocket, RFC 6455 §4.1, which no guest can speak: an ordinary answer would
    /// look as if one did. Other upgrades are passed over, as RFC 9110 §7.8 allows. 501.
    WebSocket,
}

impl Refusal {
    pub(crate) fn describe(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::Method => (S::METHOD_NOT_ALLOWED, "this method is not allowed here"),
            Self::MethodName => (S::BAD_REQUEST, "the method is not a method name"),
            Self::Target => (S::BAD_REQUEST, "the request target is not a path"),
            Self::UriTooLong => (S::URI_TOO_LONG, "the path and query are too long"),
            Self::TooManyHeaders => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request has too many header fields",
            ),
            Self::FieldName => (
                S::BAD_REQUEST,
                "the name of a header field has an underscore in it",
            ),
            Self::Host => (
                S::BAD_REQUEST,
                "the request does not name exactly one valid host",
            ),
            Self::Framing => (S::BAD_REQUEST, "the request says its length in two ways"),
            Self::TransferCoding => (
                S::NOT_IMPLEMENTED,
                "no transfer coding but `chunked` is understood",
            ),
            Self::WebSocket => (S::NOT_IMPLEMENTED, "WebSocket is not offered here"),
        }
    }
}

/// Checks the head of a request, and finds the authority it is for: that of its target, else its
/// `Host` field. `None` only if an HTTP/1.0 client gave none.
pub fn check<'a>(parts: &'a Parts, limits: &Limits) -> Result<Option<&'a str>, Refusal> {
    method(&parts.method)?;
    target(&parts.uri, limits)?;
    fields(&parts.headers, limits)?;
    framing(&parts.headers)?;
    upgrade(parts)?;
    authority(parts)
}

fn method(method: &Method) -> Result<(), Refusal> {
    if matches!(*method, Method::GET | Method::POST | Method::HEAD) {
        return Ok(());
    }
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let name = method.as_str().as_bytes();
    let is_name = name.len() <= MAX_METHOD_BYTES
        && name.first().is_some_and(u8::is_ascii_uppercase)
        && name
            .iter()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == b'-');
    is_name.then_some(()).ok_or(Refusal::MethodName)
}

fn target(uri: &Uri, limits: &Limits) -> Result<(), Refusal> {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.uri_bytes {
        return Err(Refusal::UriTooLong);
    }
    let is_http = uri
        .scheme_str()
        .is_none_or(|scheme| matches!(scheme, "http" | "https"));
    // `path` is `/` for an absolute target that has none; an authority alone has none either.
    let is_path = uri.path().starts_with('/') && target.bytes().all(|c| c.is_ascii_graphic());
    (is_http && is_path).then_some(()).ok_or(Refusal::Target)
}

fn fields(headers: &HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    if headers.len() > limits.headers {
        return Err(Refusal::TooManyHeaders);
    }
    let has_underscore = |name: &HeaderName| name.as_str().as_bytes().contains(&b'_');
    match headers.keys().any(has_underscore) {
        true => Err(Refusal::FieldName),
        false => Ok(()),
    }
}

fn framing(headers: &HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(Refusal::Framing);
    }
    match elements(headers, &TRANSFER_ENCODING)
        .all(|coding| coding.eq_ignore_ascii_case(b"chunked"))
    {
        true => Ok(()),
        false => Err(Refusal::TransferCoding),
    }
}

fn upgrade(parts: &Parts) -> Result<(), Refusal> {
    let lists = |name, wanted: &[u8]| {
        let mut elements = elements(&parts.headers, name);
        elements.any(|element| element.eq_ignore_ascii_case(wanted))
    };
    let asks = parts.version == Version::HTTP_11
        && lists(&UPGRADE, b"websocket")
        && lists(&CONNECTION, b"upgrade");
    (!asks).then_some(()).ok_or(Refusal::WebSocket)
}

/// The elements of a field that is a list: RFC 9110 §5.6.1.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).into_iter();
    let elements = values.flat_map(|value| value.as_bytes().split(|&c| c == b','));
    elements.map(<[u8]>::trim_ascii)
}

fn authority(parts: &Parts) -> Result<Option<&str>, Refusal> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let host = fields.next();
    if fields.next().is_some() || host.is_none() && parts.version == Version::HTTP_11 {
        return Err(Refusal::Host);
    }
    let host = match host {
        Some(host) => Some(host.to_str().map_err(|_| Refusal::Host)?),
        None => None,
    };
    let target = parts.uri.authority().map(|authority| authority.as_str());
    if let (Some(target), Some(host)) = (target, host) {
        // Over HTTP/1 an absolute target goes before the field, whatever that says: RFC 9112 §3.2.2.
        let is_same = parts.version < Version::HTTP_2 || target.eq_ignore_ascii_case(host);
        if !is_same || !route::is_authority(host) {
            return Err(Refusal::Host);
        }
    }
    match target.or(host) {
        Some(authority) if route::is_authority(authority) => Ok(Some(authority)),
        None if parts.version < Version::HTTP_11 => Ok(None),
        _ => Err(Refusal::Host),
    }
}

#[cfg(test)]
mod tests;
