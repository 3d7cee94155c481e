//! From the host to the guest and back: what a failure is charged to, and what is left of a request.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use sampan_core::{fault::Fault, object::Isolation};
use sampan_runtime::{
    PoolSize, Runtime, RuntimeConfig,
    pod::{CallError, Failure, Pod, Remains},
};

use super::rig::{
    PATIENCE, SHORT, Witness, ask, config, failure, get, in_time, no_instance, plan, workload,
};
use super::text::{WAIT_AN_HOUR, handler_p3_that};

/// A guest of each world, with each way to run it.
const WAYS: [(&str, Isolation); 4] = [
    ("hello", Isolation::Request),
    ("hello", Isolation::Pod),
    ("hello-p3", Isolation::Request),
    ("hello-p3", Isolation::Pod),
];

/// A `GET` for this target, with this `Host` field.
fn plain(target: &str, host: Option<&[u8]>) -> http::Request<Empty<Bytes>> {
    let mut request = http::Request::new(Empty::new());
    *request.uri_mut() = target.parse().expect("a target");
    if let Some(host) = host {
        let host = http::HeaderValue::from_bytes(host).expect("a value");
        request.headers_mut().insert("host", host);
    }
    request
}

/// A `POST` with a body.
fn with_body(path: &str) -> http::Request<Full<Bytes>> {
    let request = http::Request::post(path).header("host", "test");
    let request = request.header("x-kept", "1");
    request.body(Full::from("a body")).expect("a good request")
}

fn is_repeatable(error: &CallError) -> bool {
    matches!(error.remains, Remains::Nothing { repeatable: true })
}

/// Whether an error has the whole of [`with_body`] in it.
async fn is_whole(error: CallError, path: &str) -> bool {
    let Remains::Whole(request) = error.remains else {
        return false;
    };
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    head.method == http::Method::POST
        && head.uri == path
        && head.headers["x-kept"] == "1"
        && body == "a body"
}

#[tokio::test]
async fn a_target_without_an_authority_is_one_to_every_guest() {
    for (guest, isolation) in WAYS {
        let witness = Arc::<Witness>::default();
        let plan = plan(workload(guest)).isolation(isolation).watch(&witness);
        let pod = plan.start().await;
        for (target, host) in [
            ("/", None),
            ("/", Some(&b"test"[..])),
            ("/", Some(b"")),
            ("*", None),
            ("test:80", None),
            ("http://test", None),
        ] {
            let answer = in_time(pod.call(plain(target, host), None)).await;
            let status = answer.map(|answer| answer.status().as_u16());
            assert!(matches!(status, Ok(200)), "{target} {host:?}: {status:?}");
        }
        assert_eq!((pod.usage().failures, witness.told()), (0, vec![]));
    }
}

#[tokio::test]
async fn a_request_that_no_guest_can_be_given_costs_no_instance() {
    for (guest, isolation) in WAYS {
        let witness = Arc::<Witness>::default();
        let plan = plan(workload(guest)).isolation(isolation).watch(&witness);
        let pod = plan.start().await;
        ask(&pod, "/").await.expect("an answer");
        let before = pod.usage().instances;
        for host in [&b"a b"[..], b"\xff", b"a/b", b"[::1"] {
            let error = in_time(pod.call(plain("/", Some(host)), None)).await;
            let error = error.expect_err("no answer");
            assert!(
                matches!(error.failure, Failure::Inexpressible(_)),
                "{error:?}"
            );
            assert!(!is_repeatable(&error), "{error:?}");
        }
        let usage = pod.usage();
        assert_eq!((usage.instances, usage.failures), (before, 0));
        assert_eq!(witness.told(), []);
    }
}

/// What fails in the host because of what a guest asks of it is the guest's own.
#[tokio::test]
async fn what_a_guest_sets_off_in_the_host_is_its_own() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        for path in ["/resources", "/fields", "/random", "/huge"] {
            let pod = plan(workload("hostile")).isolation(isolation).start().await;
            let failure = in_time(failure(&pod, path)).await;
            assert!(
                matches!(failure, Failure::Trapped(_)),
                "{path}: {failure:?}"
            );
            assert_eq!(pod.usage().failures, 1, "{path}");
        }
    }
}

/// Sends a request that ends the instance, and then one that waits for it.
async fn behind(pod: &Pod, path: &str) -> (CallError, CallError) {
    let both = async {
        tokio::join!(
            pod.call(get(path), None),
            pod.call(with_body("/behind?a"), None)
        )
    };
    let (first, second) = in_time(both).await;
    (
        first.expect_err("it ends its instance"),
        second.expect_err("the pod is over"),
    )
}

#[tokio::test]
async fn what_no_guest_has_begun_comes_back_whole() {
    for pod in [
        plan(workload("counter")).isolation(Isolation::Pod),
        plan(handler_p3_that("unreachable"))
            .isolation(Isolation::Pod)
            .concurrency(1),
    ] {
        let pod = pod.start().await;
        let (first, second) = behind(&pod, "/crash").await;
        assert!(matches!(first.failure, Failure::Trapped(_)), "{first:?}");
        // A poison request costs one instance.
        assert!(!is_repeatable(&first), "{first:?}");
        assert!(
            matches!(second.failure, Failure::Unavailable(_)),
            "{second:?}"
        );
        assert!(is_whole(second, "/behind?a").await);
        assert_eq!(pod.usage().failures, 1);
        // So does what comes later.
        let late = pod.call(with_body("/late"), None).await;
        assert!(is_whole(late.expect_err("the pod is over"), "/late").await);
    }
}

/// Of a shared instance: the first request waits this long, all others longer.
fn waits_then_traps(first: u64) -> Vec<u8> {
    handler_p3_that(&format!(
        "(local $all i32) (local $is-first i32)
        (local.set $is-first (i32.eqz (i32.load (i32.const 0))))
        (i32.store (i32.const 0) (i32.const 1))
        (local.set $all (call $set))
        (call $join
            (i32.shr_u (call $wait-for (select
                (i64.const {first}) (i64.const 3600000000000) (local.get $is-first)))
                (i32.const 4))
            (local.get $all))
        (i32.or (i32.const 2) (i32.shl (local.get $all) (i32.const 4)))"
    ))
}

/// The first waits for an hour, the second traps at once.
const TRAPS_SECOND: &str = "(if (result i32) (i32.eqz (i32.load (i32.const 0)))
    (then (i32.store (i32.const 0) (i32.const 1)) (call $wait-an-hour))
    (else unreachable))";

#[tokio::test]
async fn only_the_request_that_ended_a_shared_instance_is_to_blame() {
    for (bytes, culprit) in [
        // Long after it began, and after the other did.
        (waits_then_traps(50_000_000), 0),
        (handler_p3_that(TRAPS_SECOND), 1),
    ] {
        let plan = plan(bytes).isolation(Isolation::Pod).concurrency(4);
        let pod = plan.start().await;
        let all = async {
            tokio::join!(
                pod.call(get("/0"), None),
                pod.call(get("/1"), None),
                pod.call(with_body("/2"), None)
            )
        };
        let all = in_time(all).await;
        let all = [all.0, all.1, all.2].map(|answer| answer.expect_err("it has ended"));
        for (n, error) in all.into_iter().enumerate() {
            match &error.failure {
                Failure::Trapped(_) => assert_eq!((n, is_repeatable(&error)), (culprit, false)),
                Failure::Neighbour(_) => assert!(n != culprit && is_repeatable(&error), "{n}"),
                // The second one had ended the instance before the third began.
                Failure::Unavailable(_) => assert!(n == 2 && is_whole(error, "/2").await),
                other => panic!("{n}: {other:?}"),
            }
        }
        assert_eq!(pod.usage().failures, 1);
    }
}

/// It takes as long as an instance waits for a place: 10 s.
#[tokio::test]
async fn a_pod_for_whose_instance_the_host_has_no_place_is_not_to_blame() {
    let runtime = Runtime::new(RuntimeConfig {
        pool: PoolSize { instances: 1 },
        ..config()
    });
    let runtime = runtime.expect("a runtime");
    let of = |bytes| {
        let mut plan = plan(bytes).isolation(Isolation::Pod).concurrency(1);
        plan.runtime = Arc::clone(&runtime);
        plan
    };
    let witness = Arc::<Witness>::default();
    let plan = of(handler_p3_that(WAIT_AN_HOUR)).watch(&witness);
    let pod = plan.request_timeout(2 * PATIENCE).start().await;
    // It loses its instance to a request whose caller has gone.
    drop(tokio::time::timeout(SHORT, pod.call(get("/"), None)).await);
    no_instance(&pod, PATIENCE).await;
    let told = vec![("instance failed", Fault::TimedOut)];
    assert_eq!(witness.told(), told);
    // Another pod has the only place now.
    let other = of(handler_p3_that(WAIT_AN_HOUR)).start().await;
    let error = in_time(pod.call(with_body("/"), None)).await;
    let error = error.expect_err("no instance");
    assert!(
        matches!(error.failure, Failure::Unavailable(_)),
        "{error:?}"
    );
    assert!(is_whole(error, "/").await);
    assert_eq!((witness.told(), pod.usage().failures), (told, 1));
    // It lives, and has an instance as soon as the host has a place.
    drop(other);
    drop(tokio::time::timeout(SHORT, pod.call(get("/"), None)).await);
    assert_eq!(pod.usage().instances, 2);
}
