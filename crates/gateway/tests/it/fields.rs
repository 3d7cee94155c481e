//! What header fields and targets pods and clients see.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, Request, Response, Version, header::HeaderName, request::Parts};
use http_body_util::BodyExt;
use sampan_core::{fault::Fault, name::PodName};
use sampan_gateway::{
    Body, Endpoint, EndpointState, Gateway, Limits, RequestContext, ServiceConfig, UpstreamError,
    empty, full,
};

use crate::fixture::*;

type Seen = Arc<Mutex<Vec<(Parts, RequestContext)>>>;

/// Limits by which 10.0.0.0/8 is trusted.
fn behind_proxies() -> Limits {
    Limits {
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        ..Limits::default()
    }
}

/// A proxy that is trusted then.
fn proxy() -> Option<SocketAddr> {
    Some("10.0.0.1:5000".parse().unwrap())
}

/// A gateway whose pod notes the heads it sees.
fn watched() -> (Gateway, Seen) {
    let seen = Seen::default();
    let upstream = pod({
        let seen = seen.clone();
        move |request: Request<Body>, context| {
            seen.lock().unwrap().push((request.into_parts().0, context));
            async { Ok(Response::new(empty())) }
        }
    });
    let pods = [ready(0, 1, upstream)];
    (gateway_with(behind_proxies(), web(), pods), seen)
}

fn request(fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = get("/p?q");
    for (name, value) in fields {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn the_gateway_alone_says_where_a_request_comes_from() {
    let (gateway, seen) = watched();
    let client: SocketAddr = "[::ffff:192.0.2.7]:5000".parse().unwrap();
    let request = request(&[
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "10.0.0.1"),
        ("x-request-id", "forged"),
        ("sampan-pod", "forged"),
        ("forwarded", "for=10.0.0.1"),
        ("connection", "x-secret"),
        ("x-secret", "1"),
        ("te", "trailers, deflate"),
        ("upgrade", "h2c"),
        ("accept", "*/*"),
    ]);
    gateway.handle(request, Some(client)).await;
    let (head, context) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(context.client, Some(client));
    let mut names: Vec<_> = head.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "host",
            "te",
            "traceparent",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-request-id"
        ]
    );
    assert_eq!(text(&head.headers, "te"), Some("trailers"));
    assert_eq!(text(&head.headers, "x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(text(&head.headers, "x-forwarded-host"), Some("test"));
    assert_eq!(text(&head.headers, "x-forwarded-proto"), Some("http"));
    assert_ne!(text(&head.headers, "x-request-id"), Some("forged"));
}

#[tokio::test]
async fn a_trusted_proxy_says_where_a_request_comes_from() {
    let (gateway, seen) = watched();
    let list = "6.6.6.6, 203.0.113.7, 10.0.0.2";
    let said = request(&[
        ("x-forwarded-for", list),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        // The proxy let it pass: it is not what the proxy says.
        ("x-real-ip", "6.6.6.6"),
        // Hop by hop: not even a client that names them here makes the gateway overlook them.
        ("connection", "x-forwarded-for, x-forwarded-proto"),
    ]);
    gateway.handle(said, proxy()).await;
    let (head, context) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(context.client, Some("203.0.113.7:0".parse().unwrap()));
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "203.0.113.7"),
        ("host", "test"),
    ] {
        let values: Vec<_> = head.headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }

    let fields = [("forwarded", "for=203.0.113.7;proto=https;host=shop.example")];
    gateway.handle(request(&fields), proxy()).await;
    let (head, _) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(text(&head.headers, "forwarded"), None);
    assert_eq!(text(&head.headers, "x-forwarded-for"), Some("203.0.113.7"));
    assert_eq!(text(&head.headers, "x-forwarded-proto"), Some("https"));

    // A proxy that says nothing is the client.
    gateway.handle(request(&[]), proxy()).await;
    let (head, context) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(context.client, proxy());
    assert_eq!(text(&head.headers, "x-forwarded-for"), Some("10.0.0.1"));
    assert_eq!(text(&head.headers, "x-forwarded-proto"), Some("http"));
}

#[tokio::test]
async fn what_a_proxy_says_changes_no_route() {
    let (gateway, seen) = watched();
    let fields = [("x-forwarded-host", "elsewhere"), ("x-original-url", "/no")];
    assert_eq!(
        gateway.handle(request(&fields), proxy()).await.status(),
        200
    );
    assert_eq!(seen.lock().unwrap().pop().unwrap().0.uri, "/p?q");
}

#[tokio::test]
async fn the_pod_sees_the_original_path_and_the_authority_as_host() {
    let (gateway, seen) = watched();
    for (version, target, host, seen_target, seen_host) in [
        (
            Version::HTTP_11,
            "/a//b/../%2e?x=%20&y",
            Some("A.b:80"),
            "/a//b/../%2e?x=%20&y",
            "A.b:80",
        ),
        (
            Version::HTTP_11,
            "http://Real:81/x?y",
            Some("other"),
            "/x?y",
            "Real:81",
        ),
        (Version::HTTP_11, "http://real", Some("other"), "/", "real"),
        (Version::HTTP_11, "http://real?y", Some("a"), "/?y", "real"),
        (Version::HTTP_2, "http://two:8080/z", None, "/z", "two:8080"),
        (Version::HTTP_2, "http://two/z", Some("TWO"), "/z", "two"),
    ] {
        let mut request = Request::get(target).version(version);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        gateway.handle(request.body(empty()).unwrap(), None).await;
        let (head, _) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(head.uri.to_string(), seen_target);
        let hosts: Vec<_> = head.headers.get_all("host").iter().collect();
        assert_eq!(hosts, [seen_host]);
    }
}

#[tokio::test]
async fn a_request_id_is_taken_or_made_and_goes_both_ways() {
    let (gateway, seen) = watched();
    let mut made = Vec::new();
    for (sent, is_kept) in [
        (Some("abc-{1}"), true),
        (Some("a b"), false),
        (Some(""), false),
        (None, false),
    ] {
        let fields: Vec<_> = sent.iter().map(|id| ("x-request-id", *id)).collect();
        let answer = gateway.handle(request(&fields), proxy()).await;
        let (head, context) = seen.lock().unwrap().pop().unwrap();
        let id = text(answer.headers(), "x-request-id").unwrap().to_owned();
        assert_eq!(text(&head.headers, "x-request-id"), Some(id.as_str()));
        assert_eq!(context.request_id.to_string(), id);
        if is_kept {
            assert_eq!(Some(id.as_str()), sent);
        } else {
            assert!(id.len() == 32 && !made.contains(&id), "{id}");
            made.push(id);
        }
    }
}

#[tokio::test]
async fn a_trace_is_continued_or_begun() {
    let (gateway, seen) = watched();
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    send(
        &gateway,
        request(&[("traceparent", sent), ("tracestate", "a=b")]),
    )
    .await;
    let (head, context) = seen.lock().unwrap().pop().unwrap();
    let continued = text(&head.headers, "traceparent").unwrap();
    assert_eq!(continued, context.traceparent.to_string());
    assert_eq!((&continued[..36], &continued[52..]), (&sent[..36], "-01"));
    assert_ne!(continued, sent);
    assert_eq!(text(&head.headers, "tracestate"), Some("a=b"));

    for fields in [
        &[("traceparent", "00-xyz"), ("tracestate", "a=b")] as &[_],
        &[
            ("traceparent", sent),
            ("traceparent", sent),
            ("tracestate", "a=b"),
        ],
        &[("tracestate", "a=b")],
    ] {
        send(&gateway, request(fields)).await;
        let (head, context) = seen.lock().unwrap().pop().unwrap();
        let begun = text(&head.headers, "traceparent").unwrap();
        assert_eq!(begun, context.traceparent.to_string());
        assert!(
            begun.ends_with("-02") && begun[3..35] != sent[3..35],
            "{begun}"
        );
        assert_eq!(head.headers.get_all("traceparent").iter().count(), 1);
        assert_eq!(text(&head.headers, "tracestate"), None);
    }
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_pod_end_here() {
    let upstream = pod(|_, _| async {
        let response = Response::builder()
            .header("connection", "x-inner")
            .header("x-inner", "1")
            .header("keep-alive", "timeout=1")
            .header("proxy-authenticate", "Basic")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "x")
            .header("x-request-id", "the guest's own")
            .header("sampan-pod", "the guest's own")
            .header("trailer", "x-sum")
            .header("etag", "\"1\"");
        Ok(response.body(full("body")).unwrap())
    });
    let gateway = gateway_with(behind_proxies(), web(), [ready(0, 1, upstream)]);
    let mine = request(&[("x-request-id", "mine")]);
    let answer = gateway.handle(mine, proxy()).await;
    let mut fields: Vec<_> = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            ("etag", "\"1\""),
            ("trailer", "x-sum"),
            ("x-request-id", "mine")
        ]
    );
}

#[tokio::test]
async fn a_service_says_which_pod_answered_if_it_wants_to() {
    for (kind, status) in [(None, 200), (Some(Fault::Trapped), 500)] {
        let upstream = pod(move |_, _| async move {
            kind.map_or(Ok(Response::new(empty())), |kind| {
                Err(UpstreamError::new(kind))
            })
        });
        let endpoint = Endpoint::new(PodName::new(&name("web"), 7, 3), 7, 1, upstream);
        endpoint.set_state(EndpointState::Ready);
        for debug_headers in [false, true] {
            let config = ServiceConfig {
                debug_headers,
                ..web()
            };
            let answer = send(&gateway(config, [endpoint.clone()]), get("/")).await;
            assert_eq!(answer.status(), status);
            let pod = text(answer.headers(), "sampan-pod");
            assert_eq!(pod, debug_headers.then_some("web-7-3"));
            let revision = text(answer.headers(), "sampan-revision");
            assert_eq!(revision, debug_headers.then_some("7"));
        }
    }
}

#[tokio::test]
async fn a_content_length_is_held() {
    let upstream = pod(|request: Request<Body>, _| async move {
        let response = Response::builder().header("content-length", &request.uri().path()[1..]);
        Ok(response.body(full("12345")).unwrap())
    });
    let gateway = gateway(web(), [ready(0, 1, upstream)]);
    for (length, is_whole) in [("5", true), ("4", false), ("6", false), ("x", true)] {
        let answer = gateway.handle(get(&format!("/{length}")), None).await;
        assert_eq!(
            answer.headers().contains_key("content-length"),
            length != "x"
        );
        assert_eq!(
            answer.into_body().collect().await.is_ok(),
            is_whole,
            "{length}"
        );
    }
    let mut head = get("/99");
    *head.method_mut() = http::Method::HEAD;
    let answer = send(&gateway, head).await;
    assert_eq!(
        (
            text(answer.headers(), "content-length"),
            answer.body().len()
        ),
        (Some("99"), 0)
    );
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.requests, stats.errors, stats.in_flight), (5, 2, 0));
}
