//! Each rule on both sides.

use http::Request;

use super::*;

fn parts(method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

fn refusal(method: &str, target: &str, fields: &[(&str, &str)]) -> Option<Refusal> {
    check(&parts(method, target, fields), &Limits::default()).err()
}

const HOST_A: (&str, &str) = ("host", "a");

#[test]
fn methods_are_upper_case_names_that_neither_tunnel_nor_echo() {
    for method in ["GET", "HEAD", "PUT", "M-SEARCH", "BASELINE-CONTROL", "X2"] {
        assert_eq!(refusal(method, "/", &[HOST_A]), None, "{method}");
    }
    for method in ["CONNECT", "TRACE"] {
        assert_eq!(refusal(method, "/", &[HOST_A]), Some(Refusal::Method));
    }
    let long = "A".repeat(MAX_METHOD_BYTES + 1);
    for method in ["get", "-bl", "GET_", "2X", "G!", "PRI*", &long] {
        let refused = refusal(method, "/", &[HOST_A]);
        assert_eq!(refused, Some(Refusal::MethodName), "{method}");
    }
    assert_eq!(refusal(&long[1..], "/", &[HOST_A]), None);
}

#[test]
fn a_target_is_a_path_of_visible_characters() {
    for target in [
        "/",
        "/a//b/../c?x=%00&y",
        "http://a/",
        "http://a",
        "https://a/x",
    ] {
        assert_eq!(refusal("GET", target, &[HOST_A]), None, "{target}");
    }
    for target in ["*", "a", "ftp://a/", "/caf\u{e9}"] {
        let refused = refusal("GET", target, &[HOST_A]);
        assert_eq!(refused, Some(Refusal::Target), "{target}");
    }
    let exact = format!("/{}", "x".repeat(Limits::default().uri_bytes - 1));
    assert_eq!(refusal("GET", &exact, &[HOST_A]), None);
    let longer = exact + "x";
    assert_eq!(
        refusal("GET", &longer, &[HOST_A]),
        Some(Refusal::UriTooLong)
    );
}

#[test]
fn fields_are_few_and_have_no_underscores() {
    let most = Limits::default().headers;
    let many = vec![("x", "1"); most - 1];
    let with_host = |count: usize| [&[HOST_A][..], &many[..count]].concat();
    assert_eq!(refusal("GET", "/", &with_host(most - 1)), None);
    let one_more = [with_host(most - 1), vec![("y", "1")]].concat();
    assert_eq!(
        refusal("GET", "/", &one_more),
        Some(Refusal::TooManyHeaders)
    );
    for name in ["transfer_encoding", "_", "x_forwarded_for"] {
        let refused = refusal("GET", "/", &[HOST_A, (name, "chunked")]);
        assert_eq!(refused, Some(Refusal::FieldName), "{name}");
    }
}

#[test]
fn a_length_is_said_once_and_chunked_is_the_only_coding() {
    fn te(value: &str) -> (&str, &str) {
        ("transfer-encoding", value)
    }
    for codings in [
        &["chunked"][..],
        &["Chunked"],
        &["chunked", "chunked"],
        &["chunked ,chunked"],
    ] {
        let fields: Vec<_> = [HOST_A]
            .into_iter()
            .chain(codings.iter().map(|c| te(c)))
            .collect();
        assert_eq!(refusal("POST", "/", &fields), None, "{codings:?}");
    }
    for coding in ["gzip, chunked", "identity", "xchunked", "", "chunked;q=1"] {
        let refused = refusal("POST", "/", &[HOST_A, te(coding)]);
        assert_eq!(refused, Some(Refusal::TransferCoding), "{coding}");
    }
    let both = [HOST_A, ("content-length", "1"), te("chunked")];
    assert_eq!(refusal("POST", "/", &both), Some(Refusal::Framing));
}

#[test]
fn the_target_and_the_field_name_the_same_host() {
    for (target, host) in [
        ("http://a/", "A"),
        ("http://a:80/", "a:80"),
        ("/", "a.:80"),
        ("/", "[::1]:8080"),
    ] {
        let refused = refusal("GET", target, &[("host", host)]);
        assert_eq!(refused, None, "{target} {host}");
    }
    for (target, host) in [
        ("http://a@b/", "b"),
        ("/", ""),
        ("/", "a@b"),
        ("/", "a/b"),
        ("/", "a b"),
        ("/", "[::1"),
        ("/", "[1.2.3.4]"),
        ("/", "a:65536"),
        ("/", "a:80x"),
    ] {
        let refused = refusal("GET", target, &[("host", host)]);
        assert_eq!(refused, Some(Refusal::Host), "{target} {host}");
    }
    assert_eq!(refusal("GET", "/", &[]), Some(Refusal::Host));
    assert_eq!(refusal("GET", "/", &[HOST_A, HOST_A]), Some(Refusal::Host));
    let mut old = parts("GET", "/", &[]);
    old.version = Version::HTTP_10;
    assert_eq!(check(&old, &Limits::default()), Ok(None));
    let mut new = parts("GET", "http://a/", &[]);
    new.version = Version::HTTP_2;
    assert_eq!(check(&new, &Limits::default()), Ok(Some("a")));
    for (host, is_same) in [("A", true), ("b", false), ("a:80", false)] {
        new.headers.insert(HOST, host.parse().expect("a value"));
        assert_eq!(check(&new, &Limits::default()).is_ok(), is_same, "{host}");
    }
    new.version = Version::HTTP_11;
    new.headers.insert(HOST, "b".parse().expect("a value"));
    assert_eq!(check(&new, &Limits::default()), Ok(Some("a")));
}
