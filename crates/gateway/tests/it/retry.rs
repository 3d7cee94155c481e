//! When a failed request is tried once more, and when it is not.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, channel::Channel};
use sampan_core::fault::Fault as Kind;
use sampan_gateway::{
    Body, BodyError, Endpoint, EndpointState, Upstream, UpstreamError, empty, full,
};

use tokio::{sync::Semaphore, time::Instant};

use crate::fixture::*;

/// What a pod does with each request.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// It gives it back.
    Return,
    /// It fails; with `true` the request was only near.
    Fail(bool),
}

/// A pod that does this with what it is asked, and says of what kind that is.
fn unwilling(kind: Kind, does: Does) -> Arc<dyn Upstream> {
    pod(move |request, _| async move {
        Err(match does {
            Does::Return => UpstreamError::Returned {
                kind,
                request: Box::new(request),
            },
            Does::Fail(repeatable) => UpstreamError::Failed { kind, repeatable },
        })
    })
}

/// How many of two pods are asked that both do this.
async fn tries(method: &str, body: Body, kind: Kind, does: Does) -> usize {
    let asked = Arc::<Mutex<Vec<u32>>>::default();
    let endpoints = [0, 1].map(|slot| {
        let asked = asked.clone();
        let unwilling = unwilling(kind, does);
        let upstream = pod(move |request, context| {
            asked.lock().unwrap().push(slot);
            unwilling.call(request, &context)
        });
        ready(slot, 5, upstream)
    });
    let gateway = gateway(web(), &endpoints);
    let mut request = post("/", body);
    *request.method_mut() = method.parse().unwrap();
    send_status(&gateway, request).await;
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let differ = asked.windows(2).all(|pair| pair[0] != pair[1]);
    assert!(differ, "the same pod twice: {asked:?}");
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.requests, stats.retries), (1, asked.len() as u64 - 1));
    assert!(endpoints.iter().all(|endpoint| endpoint.in_flight() == 0));
    asked.len()
}

const KINDS: [Kind; 9] = [
    Kind::Trapped,
    Kind::NoResponse,
    Kind::TimedOut,
    Kind::Spinning,
    Kind::Deadlocked,
    Kind::Unavailable,
    Kind::Host,
    Kind::BodyTooLarge,
    Kind::BadRequest,
];

#[tokio::test]
async fn a_request_that_was_only_near_is_tried_once_more() {
    for kind in KINDS {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let tries = tries(method, empty(), kind, Does::Fail(true)).await;
            assert_eq!(tries, 2, "{method} {kind}");
        }
    }
}

#[tokio::test]
async fn what_might_do_harm_is_not() {
    for kind in KINDS {
        for method in ["POST", "PATCH", "PROPFIND"] {
            let tries = tries(method, empty(), kind, Does::Fail(true)).await;
            assert_eq!(tries, 1, "{method} {kind}");
        }
        // Its body is gone.
        let with_body = tries("PUT", full("body"), kind, Does::Fail(true)).await;
        assert_eq!(with_body, 1, "{kind}");
        // It has ended its instance, and would end another.
        let poison = tries("GET", empty(), kind, Does::Fail(false)).await;
        assert_eq!(poison, 1, "{kind}");
    }
}

#[tokio::test]
async fn what_comes_back_goes_on_to_others_whatever_it_is() {
    for method in ["GET", "POST", "PUT", "PATCH", "PROPFIND"] {
        for body in ["", "body"] {
            let tries = tries(method, full(body), Kind::Unavailable, Does::Return).await;
            // Not for ever: if all give it back, sending does not help.
            assert_eq!(tries, 3, "{method} `{body}`");
        }
    }
}

/// A pod whose instance ends with the first request, before a guest has begun with that.
fn ends(slot: u32) -> Arc<Endpoint> {
    let endpoint = Arc::new(OnceLock::<Arc<Endpoint>>::new());
    let own = Arc::clone(&endpoint);
    let ends = pod(move |request, _| {
        own.get().unwrap().set_state(EndpointState::Unready);
        async {
            Err(UpstreamError::Returned {
                kind: Kind::Unavailable,
                request: Box::new(request),
            })
        }
    });
    Arc::clone(endpoint.get_or_init(|| ready(slot, 1, ends)))
}

#[tokio::test]
async fn what_came_back_is_whole_for_the_next_pod() {
    for body in [full("a body"), streamed(["a ", "body"])] {
        let endpoints = [ends(0), ready(1, 1, echoes())];
        let gateway = gateway(web(), &endpoints);
        endpoints[1].set_state(EndpointState::Unready);
        let asked = tokio::spawn({
            let gateway = gateway.clone();
            async move { send(&gateway, post("/", body)).await }
        });
        // Nothing else is ready: it waits.
        settle().await;
        assert_eq!(gateway.stats(&name("web")).unwrap().queued, 1);
        endpoints[1].set_state(EndpointState::Ready);
        let answer = asked.await.unwrap();
        assert_eq!(
            (answer.status(), &answer.body()[..]),
            (StatusCode::OK, &b"a body"[..])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_waits_no_longer_than_the_queue_lets_it() {
    let gateway = gateway(web(), [ends(0)]);
    let begin = Instant::now();
    let answer = send(&gateway, post("/", full("body"))).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(begin.elapsed(), web().queue_timeout);
}

/// A body in pieces.
fn streamed(pieces: [&'static str; 2]) -> Body {
    let (mut sender, body) = Channel::<Bytes, BodyError>::new(2);
    tokio::spawn(async move {
        for piece in pieces {
            sender
                .send_data(Bytes::from_static(piece.as_bytes()))
                .await
                .unwrap();
        }
    });
    body.boxed_unsync()
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
    let near = unwilling(Kind::Trapped, Does::Fail(true));
    let endpoints = [ready(0, 1, near), ready(1, 1, healthy)];
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

/// A pod that answers at once, and requests of `/hold` when the gate lets it.
fn busy(gate: &Arc<Semaphore>) -> Arc<dyn Upstream> {
    let held = says_after(gate, "held");
    pod(move |request, context| {
        let is_held = request.uri().path() == "/hold";
        let answer = held.call(request, &context);
        async move {
            if is_held {
                answer.await
            } else {
                Ok(http::Response::new(full("busy")))
            }
        }
    })
}

#[tokio::test]
async fn the_second_try_goes_to_a_busier_pod_rather_than_the_same() {
    let gate = Arc::new(Semaphore::new(0));
    let near = unwilling(Kind::Trapped, Does::Fail(true));
    let endpoints = [ready(0, 9, near), ready(1, 9, busy(&gate))];
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

/// A pod that always fails, and how often it was asked.
fn broken() -> (Arc<dyn Upstream>, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let upstream = pod(move |_, _| {
        count.fetch_add(1, Relaxed);
        async {
            Err(UpstreamError::Failed {
                kind: Kind::Trapped,
                repeatable: true,
            })
        }
    });
    (upstream, asked)
}

#[tokio::test(start_paused = true)]
async fn second_tries_have_a_budget() {
    let (upstream, asked) = broken();
    let pods: Vec<_> = (0..4).map(|n| ready(n, 5, Arc::clone(&upstream))).collect();
    let gateway = gateway(web(), &pods);
    // A hundred requests a second, for ten seconds.
    for _ in 0..1000 {
        assert_eq!(send_status(&gateway, get("/")).await, 500);
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let asked = asked.load(Relaxed);
    // A fifth, ten a second, and ten to begin with.
    assert!((1300..=1311).contains(&asked), "{asked}");
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!(stats.retries, asked as u64 - 1000);
    assert_eq!(stats.retries_denied, 1000 - stats.retries);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_keeps_failing_is_left_out_for_a_while() {
    let (upstream, asked) = broken();
    let asked = || asked.swap(0, Relaxed);
    let pods = [
        ready(0, 5, says("one")),
        ready(1, 5, upstream),
        ready(2, 5, says("two")),
    ];
    let gateway = gateway(web(), &pods);
    let mut failed = 0;
    for _ in 0..300 {
        // No second try hides the first.
        failed += usize::from(send_status(&gateway, post("/", empty())).await != 200);
    }
    assert_eq!((failed, asked()), (5, 5));
    assert!(pods[1].is_ejected());
    assert_eq!(pods[1].state(), EndpointState::Ready);
    assert_eq!(gateway.stats(&name("web")).unwrap().ejections, 1);
    // After a second it is tried again, and then left out for two.
    for (pause, tries) in [(900, 0), (200, 5), (1900, 0), (200, 5)] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        for _ in 0..300 {
            send_status(&gateway, post("/", empty())).await;
        }
        assert_eq!(asked(), tries, "after {pause} ms more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_served_when_an_ejection_ends() {
    let gate = Arc::new(Semaphore::new(0));
    let (upstream, asked) = broken();
    let pods = [ready(0, 1, busy(&gate)), ready(1, 1, upstream)];
    let gateway = gateway(web(), &pods);
    for _ in 0..300 {
        send_status(&gateway, post("/", empty())).await;
    }
    assert!(pods[1].is_ejected());
    asked.store(0, Relaxed);
    let held = tokio::spawn({
        let gateway = gateway.clone();
        async move { send(&gateway, post("/hold", empty())).await }
    });
    settle().await;
    // The other pod is full: nothing but the end of the ejection, after a second, helps this one.
    let begin = Instant::now();
    assert_eq!(send_status(&gateway, post("/", empty())).await, 500);
    let waited = begin.elapsed();
    assert_eq!(
        (asked.load(Relaxed), waited.as_secs()),
        (1, 1),
        "{waited:?}"
    );
    gate.add_permits(1);
    assert_eq!(held.await.unwrap().body(), "held");
}

#[tokio::test(start_paused = true)]
async fn what_an_instance_did_is_not_held_against_the_next_one() {
    let (upstream, asked) = broken();
    let pods = [ready(0, 5, says("one")), ready(1, 5, upstream)];
    let gateway = gateway(web(), &pods);
    let ask = async || {
        for _ in 0..300 {
            send_status(&gateway, post("/", empty())).await;
        }
        (asked.swap(0, Relaxed), pods[1].is_ejected())
    };
    assert_eq!(ask().await, (5, true));
    pods[1].set_state(EndpointState::Unready);
    pods[1].renew();
    pods[1].set_state(EndpointState::Ready);
    // It has as many tries as any other, and is then left out for longer than the first time.
    assert_eq!(ask().await, (5, true));
    for (pause, tries) in [(1900, 0), (200, 5)] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert_eq!(ask().await, (tries, true), "after {pause} ms more");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_pods_are_never_left_out() {
    let (upstream, asked) = broken();
    for count in 1..=4 {
        let pods: Vec<_> = (0..count)
            .map(|n| ready(n, 5, Arc::clone(&upstream)))
            .collect();
        let gateway = gateway(web(), &pods);
        for _ in 0..200 {
            send_status(&gateway, post("/", empty())).await;
        }
        let ejected = pods.iter().filter(|pod| pod.is_ejected()).count();
        assert_eq!(ejected, count as usize / 2);
        // Those that are left go. The others are taken back rather than none.
        for pod in pods.iter().filter(|pod| !pod.is_ejected()) {
            pod.set_state(EndpointState::Terminating);
        }
        asked.store(0, Relaxed);
        let status = send_status(&gateway, post("/", empty())).await;
        let was_asked = asked.load(Relaxed);
        assert_eq!(
            (status.as_u16(), was_asked),
            if ejected > 0 { (500, 1) } else { (503, 0) }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_break_off_count_and_clients_that_do_do_not() {
    let breaks = pod(|_, _| async {
        let (mut sender, body) = Channel::<Bytes, BodyError>::new(2);
        tokio::spawn(async move {
            let _ = sender.send_data(Bytes::from_static(b"first")).await;
            sender.abort(BodyError::Upstream(Kind::Trapped));
        });
        Ok(http::Response::new(body.boxed_unsync()))
    });
    let slow = pod(|_, _| async { Err(UpstreamError::new(Kind::ClientGone)) });
    let pods = [
        ready(0, 5, breaks),
        ready(1, 5, slow),
        ready(2, 5, says("x")),
        ready(3, 5, says("x")),
    ];
    let gateway = gateway(web(), &pods);
    for _ in 0..300 {
        let answer = gateway.handle(post("/", empty()), None).await;
        let _ = answer.into_body().collect().await;
    }
    let ejected: Vec<_> = pods.iter().map(|pod| pod.is_ejected()).collect();
    assert_eq!(ejected, [true, false, false, false]);
}
