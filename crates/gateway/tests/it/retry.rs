//! When a failed request is tried once more, and when it is not.

use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use sampan_gateway::{
    Body, Endpoint, EndpointState, UpstreamError, UpstreamErrorKind as Kind, empty, full,
};

use tokio::sync::Semaphore;

use crate::fixture::*;

/// Two pods that fail alike and note which was asked.
fn two(kind: Kind, side_effects: bool) -> (Vec<Arc<Endpoint>>, Arc<Mutex<Vec<u32>>>) {
    let asked = Arc::<Mutex<Vec<u32>>>::default();
    let endpoints = (0..2).map(|slot| {
        let asked = asked.clone();
        let upstream = pod(move |_, _| {
            asked.lock().unwrap().push(slot);
            async move { Err(UpstreamError { kind, side_effects }) }
        });
        ready(slot, 5, upstream)
    });
    (endpoints.collect(), asked)
}

async fn tries(method: &str, body: Body, kind: Kind, side_effects: bool) -> usize {
    let (endpoints, asked) = two(kind, side_effects);
    let gateway = gateway(web(), &endpoints);
    let mut request = post("/", body);
    *request.method_mut() = method.parse().unwrap();
    send_status(&gateway, request).await;
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    assert!(
        asked.len() == 1 || asked[0] != asked[1],
        "the same pod twice"
    );
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.requests, stats.retries), (1, asked.len() as u64 - 1));
    assert!(endpoints.iter().all(|endpoint| endpoint.in_flight() == 0));
    asked.len()
}

#[tokio::test]
async fn what_is_harmless_is_tried_once_more() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        for kind in [Kind::Trapped, Kind::NoResponse, Kind::Unavailable] {
            assert_eq!(
                tries(method, empty(), kind, false).await,
                2,
                "{method} {kind}"
            );
        }
    }
    // A pod that could not take the request has not seen it, whatever the method.
    assert_eq!(tries("POST", empty(), Kind::Unavailable, false).await, 2);
}

#[tokio::test]
async fn what_might_do_harm_is_not() {
    for method in ["POST", "PATCH", "PROPFIND"] {
        assert_eq!(
            tries(method, empty(), Kind::Trapped, false).await,
            1,
            "{method}"
        );
    }
    for kind in [Kind::Trapped, Kind::NoResponse, Kind::Unavailable] {
        assert_eq!(tries("GET", empty(), kind, true).await, 1, "{kind}");
        assert_eq!(tries("PUT", full("body"), kind, false).await, 1, "{kind}");
    }
    for kind in [
        Kind::TimedOut,
        Kind::Spinning,
        Kind::Deadlocked,
        Kind::BodyTooLarge,
        Kind::BadRequest,
        Kind::ClientGone,
    ] {
        assert_eq!(tries("GET", empty(), kind, false).await, 1, "{kind}");
    }
}

#[tokio::test]
async fn the_second_try_goes_to_another_ready_pod_and_keeps_the_request() {
    let healthy = pod(|request, context| async move {
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.headers()["x-kept"], "1");
        assert_eq!(
            request.headers()["x-request-id"],
            context.request_id.as_str()
        );
        Ok(http::Response::new(full("healthy")))
    });
    let endpoints = [ready(0, 1, fails(Kind::Trapped)), ready(1, 1, healthy)];
    let gateway = gateway(web(), &endpoints);
    for _ in 0..50 {
        let mut request = get("/a?b");
        request.headers_mut().insert("x-kept", 1.into());
        assert_eq!(send(&gateway, request).await.body(), "healthy");
    }
    let retries = gateway.stats(&name("web")).unwrap().retries;
    assert!((1..50).contains(&retries), "{retries}");
    endpoints[1].set_state(EndpointState::Unready);
    assert_eq!(
        send_status(&gateway, get("/a?b")).await,
        StatusCode::INTERNAL_SERVER_ERROR
    );
}

#[tokio::test]
async fn the_only_pod_is_asked_once() {
    let gateway = gateway(web(), [ready(0, 5, fails(Kind::Unavailable))]);
    assert_eq!(
        send_status(&gateway, get("/")).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(gateway.stats(&name("web")).unwrap().retries, 0);
}

#[tokio::test]
async fn the_second_try_goes_to_a_busier_pod_rather_than_the_same() {
    let gate = Arc::new(Semaphore::new(0));
    let held = says_after(&gate, "held");
    let busy = pod(move |request, context| {
        let is_held = request.uri().path() == "/hold";
        let answer = held.call(request, &context);
        async move {
            if is_held {
                answer.await
            } else {
                Ok(http::Response::new(full("busy")))
            }
        }
    });
    let endpoints = [ready(0, 9, fails(Kind::Trapped)), ready(1, 9, busy)];
    let gateway = gateway(web(), &endpoints);
    endpoints[0].set_state(EndpointState::Unready);
    for _ in 0..3 {
        let gateway = gateway.clone();
        tokio::spawn(async move { send(&gateway, get("/hold")).await });
    }
    settle().await;
    assert_eq!(endpoints[1].in_flight(), 3);
    endpoints[0].set_state(EndpointState::Ready);
    for retries in 1..4 {
        assert_eq!(send(&gateway, get("/")).await.body(), "busy");
        assert_eq!(gateway.stats(&name("web")).unwrap().retries, retries);
    }
    gate.add_permits(3);
}
