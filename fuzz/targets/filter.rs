//! Any request head in front of the filter: what it lets through keeps every promise it makes.
//!
//! The input is a request line and field lines, taken apart without any of hyper's care.

#![no_main]

use http::{
    Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request::Parts,
};
use libfuzzer_sys::fuzz_target;
use sampan_gateway::{Limits, filter};

fuzz_target!(|bytes: &[u8]| {
    let Some(parts) = head(bytes) else { return };
    let limits = Limits::default();
    let Ok(authority) = filter::check(&parts, &limits) else {
        return;
    };
    assert!(!matches!(parts.method, Method::CONNECT | Method::TRACE));
    assert!(
        !parts
            .method
            .as_str()
            .bytes()
            .any(|c| c.is_ascii_lowercase())
    );
    check_target(&parts.uri, &limits);
    check_fields(&parts, &limits);
    check_host(&parts, authority);
});

fn check_target(uri: &Uri, limits: &Limits) {
    let target = uri.path_and_query().expect("a path").as_str();
    // An absolute target may have a query and no path.
    assert!(target.starts_with('/') || uri.authority().is_some() && target.starts_with('?'));
    assert!(target.len() <= limits.uri_bytes);
    assert!(
        target.bytes().all(|c| (0x21..0x7f).contains(&c)),
        "{target}"
    );
}

fn check_fields(parts: &Parts, limits: &Limits) {
    assert!(parts.headers.len() <= limits.headers);
    assert!(
        parts
            .headers
            .keys()
            .all(|name| !name.as_str().contains('_'))
    );
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter().peekable();
    assert!(codings.peek().is_none() || !parts.headers.contains_key(CONTENT_LENGTH));
    for coding in codings {
        let coding = coding.to_str().expect("ASCII").to_ascii_lowercase();
        assert!(coding.split(',').all(|part| part.trim() == "chunked"));
    }
}

fn check_host(parts: &Parts, authority: Option<&str>) {
    assert!(parts.headers.get_all(HOST).iter().count() <= 1);
    let Some(authority) = authority else {
        assert!(parts.version < Version::HTTP_11);
        return;
    };
    assert!(!authority.is_empty());
    // Nothing that another program could read as another host, as credentials or as a path.
    assert!(
        !authority.contains(['@', '/', '\\', '?', '#']),
        "{authority}"
    );
    assert!(
        authority.bytes().all(|c| c.is_ascii_graphic()),
        "{authority}"
    );
    let host = parts
        .headers
        .get(HOST)
        .map(|host| host.to_str().expect("ASCII"));
    if parts.version == Version::HTTP_2
        && let Some(host) = host
    {
        assert!(host.eq_ignore_ascii_case(authority), "{host}, {authority}");
    }
    if parts.uri.authority().is_none() {
        assert_eq!(host, Some(authority));
    }
}

/// `METHOD TARGET VERSION`, then `NAME: VALUE` a line. `None` if hyper could not make a head of it.
fn head(bytes: &[u8]) -> Option<Parts> {
    let mut lines = bytes.split(|&c| c == b'\n');
    let mut first = lines.next()?.split(|&c| c == b' ');
    let mut request = Request::builder()
        .method(first.next()?)
        .uri(first.next()?)
        .version(match first.next() {
            Some(b"1.0") => Version::HTTP_10,
            Some(b"2") => Version::HTTP_2,
            _ => Version::HTTP_11,
        });
    for line in lines {
        let colon = line.iter().position(|&c| c == b':')?;
        let (name, value) = line.split_at(colon);
        request = request.header(name, value[1..].trim_ascii());
    }
    Some(request.body(()).ok()?.into_parts().0)
}
