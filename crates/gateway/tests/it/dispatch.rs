//! Calls from one service to another.

use std::{net::SocketAddr, sync::Arc};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use sampan_core::fault::Fault;
use sampan_gateway::{Body, RequestContext, ServiceConfig, TraceParent, empty, full};
use tokio::sync::Semaphore;

use crate::fixture::*;

fn internal() -> ServiceConfig {
    ServiceConfig {
        routes: vec![],
        body: 10,
        queue: 0,
        ..web()
    }
}

fn call(fields: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = Request::get("http://api.internal/x?y")
        .body(empty())
        .unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_service_is_reached_by_name_without_a_route() {
    let upstream = pod(|request: Request<Body>, context| async move {
        assert_eq!(request.uri(), "/x?y");
        let sees = format!(
            "{} {} {} {:?} {}",
            request.headers()["host"].to_str().unwrap(),
            request.headers()["x-request-id"].to_str().unwrap(),
            request.headers()["traceparent"].to_str().unwrap(),
            context.client,
            request.headers().len(),
        );
        assert_eq!(
            request.headers()["traceparent"],
            context.traceparent.to_string().as_str()
        );
        Ok(Response::new(full(sees)))
    });
    let gateway = gateway(internal(), [ready(0, 1, upstream)]);
    assert_eq!(
        send_status(&gateway, get("/x?y")).await,
        StatusCode::NOT_FOUND
    );

    let mut parent = RequestContext::fresh();
    let client: SocketAddr = "192.0.2.1:1".parse().unwrap();
    parent.client = Some(client);
    let request = call(&[
        ("x-request-id", "forged"),
        ("x-forwarded-for", "10.0.0.1"),
        ("connection", "x-drop"),
        ("x-drop", "1"),
        ("tracestate", "a=b"),
    ]);
    let answer = gateway
        .dispatch(&name("web"), request, &parent)
        .await
        .unwrap();
    assert_eq!(answer.headers()["x-request-id"], parent.request_id.as_str());
    let sees = answer.into_body().collect().await.unwrap().to_bytes();
    let sees: Vec<_> = std::str::from_utf8(&sees).unwrap().splitn(4, ' ').collect();
    assert_eq!(sees[..2], ["api.internal", parent.request_id.as_str()]);
    let trace = TraceParent::parse(sees[2].as_bytes()).unwrap();
    assert_eq!(trace.trace_id(), parent.traceparent.trace_id());
    assert_ne!(trace.parent_id(), parent.traceparent.parent_id());
    assert_eq!(sees[3], format!("Some({client}) 3"));

    // A span the guest made itself is the parent then.
    let own = TraceParent::random();
    let request = call(&[("traceparent", &own.to_string())]);
    let answer = gateway
        .dispatch(&name("web"), request, &parent)
        .await
        .unwrap();
    let sees = answer.into_body().collect().await.unwrap().to_bytes();
    let trace = std::str::from_utf8(&sees)
        .unwrap()
        .split(' ')
        .nth(2)
        .unwrap();
    let trace = TraceParent::parse(trace.as_bytes()).unwrap();
    assert_eq!(trace.trace_id(), own.trace_id());
    assert_eq!(gateway.stats(&name("web")).unwrap().requests, 2);
}

#[tokio::test]
async fn each_failure_is_told_apart() {
    let parent = RequestContext::fresh();
    for (kind, status) in [
        (Fault::Deadlocked, 508),
        (Fault::Trapped, 500),
        (Fault::TimedOut, 504),
    ] {
        let gateway = gateway(internal(), [ready(0, 1, fails(kind))]);
        let error = gateway
            .dispatch(&name("web"), call(&[]), &parent)
            .await
            .unwrap_err();
        assert_eq!(error, kind);
        assert_eq!(error.status(), status);
    }
    let gate = Arc::new(Semaphore::new(0));
    let gateway = gateway(internal(), [ready(0, 1, says_after(&gate, "late"))]);
    let other = gateway.dispatch(&name("other"), call(&[]), &parent).await;
    assert_eq!(other.unwrap_err(), Fault::NoService);
    let (mut head, _) = call(&[]).into_parts();
    head.method = http::Method::POST;
    let large = Request::from_parts(head, full("12345678901"));
    let large = gateway.dispatch(&name("web"), large, &parent).await;
    assert_eq!(large.unwrap_err(), Fault::BodyTooLarge);

    let first = tokio::spawn({
        let (gateway, parent) = (gateway.clone(), parent.clone());
        async move {
            gateway
                .dispatch(&name("web"), call(&[]), &parent)
                .await
                .map(|_| ())
        }
    });
    settle().await;
    let full = gateway.dispatch(&name("web"), call(&[]), &parent).await;
    assert_eq!(full.unwrap_err(), Fault::QueueFull);
    gate.add_permits(1);
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_that_gives_up_frees_the_pod() {
    let endpoint = ready(0, 1, pod(|_, _| std::future::pending::<Answer>()));
    let gateway = gateway(internal(), [endpoint.clone()]);
    let call = tokio::spawn({
        let gateway = gateway.clone();
        async move {
            gateway
                .dispatch(&name("web"), call(&[]), &RequestContext::fresh())
                .await
                .map(|_| ())
        }
    });
    settle().await;
    assert_eq!(endpoint.in_flight(), 1);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(endpoint.in_flight(), 0);
    assert_eq!(gateway.stats(&name("web")).unwrap().canceled, 1);
}

/// A guest may build a target that is too long to get a path.
#[tokio::test]
async fn a_query_without_a_path_gets_one_if_there_is_room() {
    let upstream = pod(|request: Request<Body>, _| async move {
        let target = request.uri().path_and_query().unwrap().as_str();
        Ok(Response::new(full(target[..2].to_owned())))
    });
    let gateway = gateway(internal(), [ready(0, 1, upstream)]);
    for (length, seen) in [(10, "/?"), (65_532, "/?"), (65_533, "?a")] {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(http::uri::Scheme::HTTP);
        uri.authority = Some("api.internal".parse().unwrap());
        let query = format!("?{}", "a".repeat(length));
        uri.path_and_query = Some(query.parse().unwrap());
        let mut request = Request::new(empty());
        *request.uri_mut() = http::Uri::from_parts(uri).unwrap();
        let context = RequestContext::fresh();
        let answer = gateway.dispatch(&name("web"), request, &context).await;
        let body = answer.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), seen, "{length}");
    }
}
