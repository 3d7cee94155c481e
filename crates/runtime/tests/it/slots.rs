//! How many requests a pod answers at once.

use std::sync::Arc;

use futures::future::join_all;
use sampan_core::object::Isolation;
use sampan_runtime::{
    PoolSize, Runtime, RuntimeConfig,
    pod::{CallError, Failure, Remains},
};

use super::rig::{PATIENCE, SHORT, ask, config, get, in_time, no_instance, plan, workload};
use super::text::handler_that_answers_and;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_instances_than_slots() {
    let pod = plan(workload("slow")).concurrency(3).start().await;
    ask(&pod, "/?ms=0").await.expect("an answer");
    no_instance(&pod, PATIENCE).await;
    let one = pod.usage().memory_peak_bytes;
    let answers = join_all((0..30).map(|_| ask(&pod, "/?ms=10"))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(pod.usage().memory_peak_bytes, 3 * one);
    assert_eq!(pod.usage().instance_peak_bytes, one);
    assert_eq!(pod.usage().instances, 31);
}

/// A guest may work on after its answer. As long as it does, it takes a slot.
#[tokio::test]
async fn an_instance_that_works_on_after_its_answer_keeps_its_slot() {
    let bytes = handler_that_answers_and("(loop $again (br $again))");
    let pod = plan(bytes).concurrency(1).request_cpu(SHORT).start().await;
    for _ in 0..3 {
        assert_eq!(in_time(ask(&pod, "/")).await, Ok((200, String::new())));
    }
    no_instance(&pod, PATIENCE).await;
    let usage = pod.usage();
    assert_eq!(usage.memory_peak_bytes, 1 << 16, "{usage:?}");
    assert_eq!((usage.instances, usage.failures), (3, 3));
    let kept = plan(handler_that_answers_and("unreachable"));
    let kept = kept.isolation(Isolation::Pod).start().await;
    assert_eq!(in_time(ask(&kept, "/")).await, Ok((200, String::new())));
    no_instance(&kept, PATIENCE).await;
    assert_eq!((kept.usage().instances, kept.usage().failures), (1, 1));
}

#[tokio::test]
async fn whoever_finds_no_slot_waits_as_long_as_the_deadline_allows() {
    let plans = [
        plan(workload("slow")).concurrency(1),
        plan(workload("slow")).isolation(Isolation::Pod),
        plan(workload("stream-p3")).concurrency(1),
    ];
    for (plan, path) in
        plans
            .into_iter()
            .zip(["/hang-after-head", "/hang-after-head", "/ticks?ms=60000"])
    {
        let pod = plan.request_timeout(SHORT).start().await;
        let taken = in_time(pod.call(get(path), None)).await.expect("a head");
        let error = in_time(pod.call(get(path), None)).await.err();
        // At the very same time the slot may become free: then the second is too late as well.
        let Some(CallError { failure, remains }) = error else {
            panic!("a second answer")
        };
        assert!(matches!(failure, Failure::Unavailable(_)), "{failure:?}");
        // Another pod may have a slot.
        assert!(matches!(remains, Remains::Whole(_)), "{remains:?}");
        drop(taken);
    }
}

#[tokio::test]
async fn a_slot_is_free_when_its_request_is_over() {
    let pod = Arc::new(plan(workload("slow")).concurrency(1).start().await);
    let taken = pod
        .call(get("/hang-after-head"), None)
        .await
        .expect("a head");
    let waiting = tokio::spawn({
        let pod = Arc::clone(&pod);
        async move { ask(&pod, "/?ms=1").await }
    });
    drop(taken);
    assert_eq!(
        in_time(waiting).await.expect("no panic"),
        Ok((200, "waited 1 ms\n".to_owned()))
    );
}

/// The clock is paused: it jumps on when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn a_pod_that_finds_no_place_in_the_pool_does_not_start() {
    let runtime = Runtime::new(RuntimeConfig {
        pool: PoolSize { instances: 4 },
        ..config()
    });
    let runtime = runtime.expect("a runtime");
    for guest in ["counter", "stream-p3"] {
        let pod = || {
            let mut plan = plan(workload(guest)).isolation(Isolation::Pod);
            plan.runtime = Arc::clone(&runtime);
            plan
        };
        let mut pods = Vec::new();
        for _ in 0..4 {
            pods.push(pod().start().await);
        }
        let error = pod().try_start().await.err().expect("no fifth pod");
        assert!(error.to_string().contains("all 4 places"), "{error}");
        pods.pop();
        let fourth = pod().start().await;
        ask(&fourth, "/").await.expect("an answer");
    }
}

#[tokio::test]
async fn a_shared_instance_answers_several_at_once() {
    let pod = plan(workload("stream-p3")).concurrency(3).start().await;
    let start = std::time::Instant::now();
    let ticks = async || in_time(ask(&pod, "/ticks?n=2&ms=500")).await;
    let answers = futures::join!(ticks(), ticks(), ticks());
    for answer in [answers.0, answers.1, answers.2] {
        assert_eq!(answer, Ok((200, "tick 1\ntick 2\n".to_owned())));
    }
    assert!(
        start.elapsed().as_millis() < 1400,
        "one after the other: {:?}",
        start.elapsed()
    );
    assert_eq!(pod.usage().instances, 1);
}
