//! Clients that go away in the middle.

use std::time::Duration;

use sampan_core::object::Isolation;
use sampan_runtime::pod::{Failure, Remains};

use super::rig::{
    PATIENCE, SHORT, ask, eventually, get, in_time, no_instance, piece, plan, workload,
};
use super::text::{WAIT_AN_HOUR, handler_p3_that};

/// How soon an instance must be gone: long before any deadline.
const AT_ONCE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_dropped_body_frees_a_fresh_instance() {
    for (name, path) in [
        ("slow", "/hang-after-head"),
        ("stream-p3", "/ticks?n=100&ms=60000"),
    ] {
        let pod = plan(workload(name))
            .isolation(Isolation::Request)
            .start()
            .await;
        let response = in_time(pod.call(get(path), None)).await.expect("a head");
        assert!(pod.usage().memory_bytes > 0);
        drop(response);
        no_instance(&pod, AT_ONCE).await;
        assert_eq!(pod.usage().failures, 0);
    }
}

#[tokio::test]
async fn a_dropped_call_frees_a_fresh_instance() {
    for bytes in [workload("slow"), handler_p3_that(WAIT_AN_HOUR)] {
        let pod = plan(bytes).isolation(Isolation::Request).start().await;
        let call = pod.call(get("/?ms=60000"), None);
        assert!(tokio::time::timeout(SHORT, call).await.is_err());
        assert_eq!(pod.usage().instances, 1);
        no_instance(&pod, AT_ONCE).await;
        assert_eq!(pod.usage().failures, 0);
    }
}

#[tokio::test]
async fn a_kept_instance_is_free_as_soon_as_its_guest_notices() {
    let pod = plan(workload("slow"))
        .isolation(Isolation::Pod)
        .start()
        .await;
    let response = in_time(pod.call(get("/stream?ms=600000&parts=60000"), None)).await;
    let mut body = response.expect("a head").into_body();
    piece(&mut body).await;
    drop(body);
    assert_eq!(
        in_time(ask(&pod, "/?ms=1")).await,
        Ok((200, "waited 1 ms\n".to_owned()))
    );
    assert_eq!((pod.usage().instances, pod.usage().failures), (1, 0));
}

#[tokio::test]
async fn a_kept_instance_is_replaced_when_its_guest_never_notices() {
    let plan = plan(workload("slow")).isolation(Isolation::Pod);
    let pod = plan.request_timeout(SHORT).start().await;
    let response = in_time(pod.call(get("/hang-after-head"), None))
        .await
        .expect("a head");
    drop(response);
    no_instance(&pod, PATIENCE).await;
    assert_eq!(
        in_time(ask(&pod, "/?ms=1")).await,
        Ok((200, "waited 1 ms\n".to_owned()))
    );
    assert_eq!((pod.usage().instances, pod.usage().failures), (2, 1));
}

#[tokio::test]
async fn a_dropped_body_frees_a_slot_of_a_shared_instance() {
    let pod = plan(workload("stream-p3")).concurrency(1).start().await;
    for _ in 0..3 {
        let response = in_time(pod.call(get("/ticks?n=100&ms=60000"), None)).await;
        drop(response.expect("a head"));
    }
    assert_eq!(
        in_time(ask(&pod, "/count")).await,
        Ok((200, "1\n".to_owned()))
    );
    assert_eq!(pod.usage().instances, 1);
}

/// A WASI 0.3 guest cannot be told to give a request up. Once all it can take are given up by their
/// clients, it goes.
#[tokio::test]
async fn a_shared_instance_with_nothing_but_abandoned_requests_is_replaced() {
    let bytes = handler_p3_that(WAIT_AN_HOUR);
    let pod = plan(bytes)
        .isolation(Isolation::Pod)
        .concurrency(2)
        .start()
        .await;
    let first = Box::pin(pod.call(get("/"), None));
    let second = Box::pin(pod.call(get("/"), None));
    let both = futures::future::select(first, second);
    assert!(tokio::time::timeout(SHORT, both).await.is_err());
    eventually(PATIENCE, || match pod.usage() {
        usage if usage.failures == 1 => Ok(()),
        usage => Err(usage),
    })
    .await;
    no_instance(&pod, PATIENCE).await;
    // One alone is not all: the instance stays.
    assert!(
        tokio::time::timeout(SHORT, pod.call(get("/"), None))
            .await
            .is_err()
    );
    assert_eq!((pod.usage().instances, pod.usage().failures), (2, 1));
}

#[tokio::test]
async fn a_pod_that_is_ended_takes_its_requests_with_it() {
    for (bytes, isolation) in [
        (workload("slow"), Isolation::Request),
        (workload("slow"), Isolation::Pod),
        (handler_p3_that(WAIT_AN_HOUR), Isolation::Request),
        (handler_p3_that(WAIT_AN_HOUR), Isolation::Pod),
    ] {
        let pod = plan(bytes).isolation(isolation).start().await;
        let mut call = std::pin::pin!(pod.call(get("/?ms=60000"), None));
        assert!(tokio::time::timeout(SHORT, &mut call).await.is_err());
        pod.end();
        let error = in_time(call).await.expect_err("it is over");
        let begun = matches!(error.failure, Failure::Stopped);
        // What it had done is gone with it, and it had called nothing outside.
        let repeatable = matches!(error.remains, Remains::Nothing { repeatable: true });
        assert!(begun && repeatable, "{error:?}");
        no_instance(&pod, AT_ONCE).await;
        if isolation == Isolation::Pod {
            let refused = in_time(ask(&pod, "/")).await.expect_err("it is over");
            assert!(matches!(refused, Failure::Unavailable(_)), "{refused:?}");
        }
    }
}
