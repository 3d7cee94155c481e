//! Every status the gateway gives itself, and the shape of its bodies.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, channel::Channel};
use sampan_core::{fault::Fault as Kind, object::Route};
use sampan_gateway::{Body, BodyError, Endpoint, Gateway, Limits, ServiceConfig, empty, full};
use tokio::sync::Semaphore;

use crate::fixture::*;

/// Checks that an answer is a problem document of this status, and returns its detail.
fn problem(answer: &Response<Bytes>, status: u16) -> String {
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let text = std::str::from_utf8(answer.body()).unwrap();
    assert_eq!(text.find('\n'), Some(text.len() - 1), "one line: {text:?}");
    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    let members: Vec<_> = document.as_object().unwrap().keys().collect();
    assert_eq!(members, ["detail", "request_id", "status", "title", "type"]);
    assert_eq!(document["type"], "about:blank");
    assert_eq!(document["status"], status);
    assert_eq!(
        document["title"],
        answer.status().canonical_reason().unwrap()
    );
    assert_eq!(
        document["request_id"],
        answer.headers()["x-request-id"].to_str().unwrap()
    );
    assert_eq!(answer.headers().get("retry-after").is_some(), status == 503);
    assert_eq!(answer.headers().get("allow").is_some(), status == 405);
    document["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_failure_of_a_pod_has_its_status() {
    for (kind, status, detail) in [
        (Kind::Trapped, 500, "the service failed"),
        (Kind::NoResponse, 500, "the service gave no answer"),
        (Kind::TimedOut, 504, "the service did not answer in time"),
        (Kind::Spinning, 504, "the service took too much CPU"),
        (Kind::OutOfFuel, 504, "the service used up its fuel"),
        (
            Kind::Deadlocked,
            508,
            "the request was part of a deadlock of services",
        ),
        (
            Kind::Unavailable,
            503,
            "the service could not take the request",
        ),
        (Kind::Host, 500, "the host failed"),
        (Kind::BodyTooLarge, 413, "the request body is too large"),
        (Kind::BadRequest, 400, "the request is malformed"),
        (Kind::ClientGone, 400, "the request body ended early"),
    ] {
        let gateway = gateway(web(), [ready(0, 1, fails(kind))]);
        let answer = send(&gateway, get("/")).await;
        assert_eq!(problem(&answer, status), detail);
        let mut head = get("/");
        *head.method_mut() = Method::HEAD;
        let answer = send(&gateway, head).await;
        assert_eq!((answer.status().as_u16(), answer.body().len()), (status, 0));
        let stats = gateway.stats(&name("web")).unwrap();
        assert_eq!((stats.requests, stats.in_flight), (2, 0));
        assert_eq!(stats.errors, if status >= 500 { 2 } else { 0 }, "{kind:?}");
        let answered = stats.classes[usize::from(status) / 100 - 1];
        let is_gone = kind == Kind::ClientGone;
        assert_eq!(
            (answered, stats.canceled),
            if is_gone { (0, 2) } else { (2, 0) }
        );
    }
}

#[tokio::test]
async fn an_interim_status_is_no_answer() {
    let interim = pod(|_, _| async {
        Ok(Response::builder()
            .status(StatusCode::CONTINUE)
            .body(empty())
            .unwrap())
    });
    let gateway = gateway(
        web(),
        [ready(0, 1, interim), ready(1, 1, says("not this one"))],
    );
    let answers = [
        send(&gateway, get("/")).await,
        send(&gateway, get("/")).await,
    ];
    // Which of the two is asked is chance, but the interim one is never retried.
    for answer in answers.iter().filter(|answer| answer.status() != 200) {
        assert_eq!(problem(answer, 500), "the service gave no answer");
    }
}

#[tokio::test]
async fn what_has_no_route_is_not_found() {
    let route = Route {
        host: Some("shop.localhost".to_owned()),
        prefix: "/a".to_owned(),
    };
    let config = ServiceConfig {
        routes: vec![route],
        ..web()
    };
    let gateway = gateway(config, [ready(0, 1, says("web"))]);
    let request = |host: &str, path: &str| {
        Request::get(path)
            .header("host", host)
            .body(empty())
            .unwrap()
    };
    for (host, path) in [
        ("shop.localhost", "/"),
        ("shop.localhost", "/ab"),
        ("x", "/a"),
    ] {
        let answer = send(&gateway, request(host, path)).await;
        assert_eq!(
            problem(&answer, 404),
            "no service answers for this host and path"
        );
    }
    for (host, path) in [("shop.localhost", "/a"), ("SHOP.localhost.:80", "/a/b?c")] {
        assert_eq!(send_status(&gateway, request(host, path)).await, 200);
    }
    assert_eq!(gateway.unrouted(), 3);
    assert_eq!(gateway.stats(&name("web")).unwrap().requests, 2);
    assert_eq!(gateway.stats(&name("other")), None);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let config = ServiceConfig { queue: 1, ..web() };
    let gateway = gateway(config, [ready(0, 1, says_after(&gate, "late"))]);
    let first = tokio::spawn({
        let gateway = gateway.clone();
        async move { send_status(&gateway, get("/")).await }
    });
    settle().await;
    let second = tokio::spawn({
        let gateway = gateway.clone();
        async move { send_status(&gateway, get("/")).await }
    });
    settle().await;
    let answer = send(&gateway, get("/")).await;
    assert_eq!(
        problem(&answer, 503),
        "no pod is free and too many requests wait"
    );
    assert_eq!(answer.headers()["retry-after"], "1");
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.in_flight, stats.queued, stats.requests), (2, 1, 3));
    gate.add_permits(2);
    assert_eq!(
        (first.await.unwrap(), second.await.unwrap()),
        (StatusCode::OK, StatusCode::OK)
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_in_time() {
    let config = ServiceConfig {
        queue_timeout: Duration::from_secs(3),
        ..web()
    };
    let limits = Limits {
        retry_after: Duration::from_millis(2500),
        ..Limits::default()
    };
    let gateway = gateway_with(limits, config, []);
    let begin = tokio::time::Instant::now();
    let answer = send(&gateway, get("/")).await;
    assert_eq!(problem(&answer, 503), "no pod became free in time");
    assert_eq!(answer.headers()["retry-after"], "3");
    assert_eq!(begin.elapsed().as_millis() / 10, 300);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_service_that_goes_is_sent_away() {
    let gateway = gateway(web(), []);
    let waiting = tokio::spawn({
        let gateway = gateway.clone();
        async move { send(&gateway, get("/")).await }
    });
    settle().await;
    let begin = tokio::time::Instant::now();
    gateway.publish(vec![]);
    assert_eq!(
        problem(&waiting.await.unwrap(), 503),
        "the service is not there"
    );
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let gone = problem(&send(&gateway, get("/")).await, 404);
    assert_eq!(gone, "no service answers for this host and path");
}

fn limited(endpoint: Arc<Endpoint>) -> Gateway {
    gateway(ServiceConfig { body: 10, ..web() }, [endpoint])
}

/// A body of unknown size.
fn stream(chunks: &[&'static str]) -> Body {
    let (mut sender, body) = Channel::<Bytes, BodyError>::new(chunks.len() + 1);
    for chunk in chunks {
        sender
            .try_send(http_body::Frame::data(Bytes::from_static(chunk.as_bytes())))
            .unwrap();
    }
    body.boxed_unsync()
}

#[tokio::test]
async fn a_body_known_to_be_too_large_is_refused_before_the_pod_is_called() {
    let gateway = limited(ready(0, 1, pod(|_, _| async { panic!("called") })));
    let answer = send(&gateway, post("/", full("12345678901"))).await;
    assert_eq!(problem(&answer, 413), "the request body is too large");
    let gateway = limited(ready(0, 1, echoes()));
    let answer = send(&gateway, post("/", full("1234567890"))).await;
    assert_eq!(answer.body(), "1234567890");
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused_whatever_the_pod_makes_of_it() {
    let read = |answer: fn() -> Answer| {
        pod(move |request, _| async move {
            let error = request.into_body().collect().await.map(|_| ()).unwrap_err();
            assert!(
                matches!(error, BodyError::TooLarge { limit: 10 }),
                "{error}"
            );
            answer()
        })
    };
    for upstream in [
        read(|| Ok(Response::new(full("fine")))),
        read(|| Err(sampan_gateway::UpstreamError::new(Kind::Trapped))),
        // One that ignores the error for ever.
        pod(|request, _| async move {
            assert!(request.into_body().collect().await.is_err());
            std::future::pending().await
        }),
    ] {
        let endpoint = ready(0, 1, upstream);
        let gateway = limited(endpoint.clone());
        let answer = send(&gateway, post("/", stream(&["12345", "67890", "1"]))).await;
        assert_eq!(problem(&answer, 413), "the request body is too large");
        assert_eq!(endpoint.in_flight(), 0);
    }
    let gateway = limited(ready(0, 1, echoes()));
    let answer = send(&gateway, post("/", stream(&["12345", "67890"]))).await;
    assert_eq!(answer.body(), "1234567890");
}

#[tokio::test]
async fn a_body_that_grows_too_large_after_the_head_breaks_off() {
    let config = ServiceConfig { body: 10, ..web() };
    let gateway = gateway_with(nothing_ahead(), config, [ready(0, 1, echoes())]);
    let answer = gateway
        .handle(post("/", stream(&["1234567890", "1"])), None)
        .await;
    assert_eq!(answer.status(), 200);
    assert!(matches!(
        answer.into_body().collect().await,
        Err(BodyError::TooLarge { limit: 10 })
    ));
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.errors, stats.classes[1], stats.in_flight), (1, 1, 0));
}

#[tokio::test]
async fn methods_that_would_tunnel_or_echo_are_not_allowed() {
    let gateway = gateway(web(), [ready(0, 1, says("web"))]);
    for method in [Method::CONNECT, Method::TRACE] {
        let mut request = get("/");
        *request.method_mut() = method;
        problem(&send(&gateway, request).await, 405);
    }
    for method in [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND",
    ] {
        let mut request = get("/");
        *request.method_mut() = method.parse().unwrap();
        assert_eq!(send_status(&gateway, request).await, 200, "{method}");
    }
}

#[tokio::test]
async fn a_head_beyond_its_limits_is_refused() {
    let limits = Limits {
        uri_bytes: 16,
        headers: 4,
        ..Limits::default()
    };
    let gateway = gateway_with(limits, web(), [ready(0, 1, says("web"))]);
    assert_eq!(send_status(&gateway, get("/0123456789?abcd")).await, 200);
    problem(&send(&gateway, get("/0123456789?abcde")).await, 414);
    let mut request = get("/");
    for n in 1..4 {
        request.headers_mut().append("x-n", n.into());
    }
    assert_eq!(send_status(&gateway, request).await, 200);
    let mut request = get("/");
    for n in 1..5 {
        request.headers_mut().append("x-n", n.into());
    }
    problem(&send(&gateway, request).await, 431);
}

#[tokio::test]
async fn a_request_names_exactly_one_valid_host() {
    let gateway = gateway(web(), [ready(0, 1, says("web"))]);
    let (one, ten, two) = (Version::HTTP_11, Version::HTTP_10, Version::HTTP_2);
    for (version, target, hosts, status) in [
        (one, "/", &["a"] as &[&str], 200),
        (one, "/", &[], 400),
        (one, "/", &[""], 400),
        (one, "/", &["a", "a"], 400),
        (one, "/", &["a", "b"], 400),
        (one, "/", &["a@b"], 400),
        (one, "/", &["a/b"], 400),
        (one, "/", &["a b"], 400),
        (one, "/", &["a:99999"], 400),
        (one, "/", &["ä"], 400),
        (one, "http://a/", &["a"], 200),
        (one, "http://a/", &["b"], 200),
        (one, "http://a/", &[], 400),
        (one, "http://a/", &["b", "b"], 400),
        (one, "http://a/", &["b@c"], 400),
        (one, "http://u@a/", &["a"], 400),
        (one, "a:80", &["a"], 400),
        (one, "*", &["a"], 400),
        (ten, "/", &[], 200),
        (ten, "/", &["a"], 200),
        (ten, "/", &["a", "b"], 400),
        (ten, "/", &[""], 400),
        (two, "http://a/", &[], 200),
        (two, "http://a/", &["A"], 200),
        (two, "http://a/", &["b"], 400),
        (two, "http://a/", &["b", "c"], 400),
        (two, "/", &["a"], 200),
        (two, "/", &[], 400),
    ] {
        let mut request = Request::get(target).version(version);
        for host in hosts {
            request = request.header("host", host.as_bytes());
        }
        let answer = send(&gateway, request.body(empty()).unwrap()).await;
        assert_eq!(answer.status(), status, "{version:?} {target} {hosts:?}");
        if status == 400 {
            problem(&answer, 400);
            let close = answer
                .headers()
                .get("connection")
                .map(|value| value.as_bytes());
            assert_eq!(close, (version != two).then_some(b"close" as &[u8]));
        }
    }
}
