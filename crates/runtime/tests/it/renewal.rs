//! Instances that stay, and are renewed all the same.

use std::time::Duration;

use bytes::Bytes;
use sampan_core::object::{Isolation, Renewal};
use sampan_runtime::pod::{Failure, Pod};

use super::rig::{
    PATIENCE, Plan, ask, eventually, failure, in_time, lines, piece, plan, post, runtime, text_of,
    workload,
};
use super::text::handler_that_answers_once;

fn after(requests: u32) -> Renewal {
    Renewal {
        max_requests: Some(requests),
        max_age: None,
    }
}

/// A guest of each version of WASI that counts the requests of its instance, and how to ask it.
fn counters(renewal: Renewal) -> [(Plan, &'static str); 2] {
    [("counter", "/"), ("stream-p3", "/count")].map(|(name, path)| {
        let mut plan = plan(workload(name)).isolation(Isolation::Pod);
        plan.renewal = renewal;
        (plan, path)
    })
}

async fn count(pod: &Pod, path: &str) -> u32 {
    let (status, text) = in_time(ask(pod, path)).await.expect("an answer");
    assert_eq!(status, 200, "{text}");
    text.trim().parse().expect("a number")
}

#[tokio::test]
async fn an_instance_takes_so_many_requests() {
    for (plan, path) in counters(after(3)) {
        let pod = plan.start().await;
        let mut counts = Vec::new();
        for _ in 0..8 {
            counts.push(count(&pod, path).await);
        }
        assert_eq!(counts, [1, 2, 3, 1, 2, 3, 1, 2], "{path}");
        let usage = pod.usage();
        assert_eq!((usage.instances, usage.failures), (3, 0), "{path}");
    }
}

#[tokio::test]
async fn an_instance_grows_so_old() {
    let old = Renewal {
        max_requests: None,
        max_age: Some(Duration::from_millis(50)),
    };
    for (plan, path) in counters(old) {
        let pod = plan.start().await;
        let mut most = 0;
        let start = std::time::Instant::now();
        // It rises, and some time it is 1 again.
        loop {
            let now = count(&pod, path).await;
            if now <= most {
                assert_eq!(now, 1, "{path}");
                break;
            }
            most = now;
            assert!(start.elapsed() < PATIENCE, "{path} is at {most}");
        }
        assert_eq!(pod.usage().failures, 0, "{path}");
    }
}

/// Neither of those that come at once, nor of those that wait meanwhile.
#[tokio::test]
async fn no_request_is_lost_when_instances_are_renewed() {
    for requests in [1, 3] {
        for (plan, path) in counters(after(requests)) {
            let pod = plan.start().await;
            let clients = (0..8).map(|_| async {
                for _ in 0..25 {
                    let now = count(&pod, path).await;
                    assert!((1..=requests).contains(&now), "{path}: {now}");
                }
            });
            futures::future::join_all(clients).await;
            let usage = pod.usage();
            assert_eq!(usage.failures, 0, "{path}: {usage:?}");
            assert!(usage.instances >= u64::from(200 / requests), "{usage:?}");
        }
    }
}

/// An answer that goes on does so in the instance that began it, which is gone once it is read.
#[tokio::test]
async fn an_answer_under_way_ends_where_it_began() {
    let mut plan = plan(workload("stream-p3"));
    plan.renewal = after(2);
    let pod = plan.start().await;
    let (mut sender, request) = post("/echo");
    let answer = in_time(pod.call(request, None)).await.expect("a head");
    let mut body = answer.into_body();
    sender.send_data(Bytes::from("first")).await.expect("taken");
    assert_eq!(piece(&mut body).await, "first");
    for expected in [1, 1, 2, 1, 2] {
        assert_eq!(count(&pod, "/count").await, expected);
    }
    assert_eq!(pod.usage().instances, 3);
    assert!(pod.usage().memory_bytes > 0);
    sender.send_data(Bytes::from("last")).await.expect("taken");
    drop(sender);
    assert_eq!(in_time(text_of(body)).await, Ok("last".to_owned()));
    eventually(PATIENCE, || match pod.usage() {
        usage if usage.memory_bytes == 0 => Ok(()),
        usage => Err(usage),
    })
    .await;
    assert_eq!(pod.usage().failures, 0);
}

/// So do components made of JavaScript: the second request gets nothing.
#[tokio::test]
async fn a_guest_that_answers_once_is_told_and_the_remedies_work() {
    let guest = || plan(handler_that_answers_once());
    let pod = guest().isolation(Isolation::Pod).start().await;
    assert_eq!(in_time(ask(&pod, "/")).await.expect("an answer").0, 200);
    assert_eq!(in_time(failure(&pod, "/")).await, Failure::OnlyOnce);
    let said = lines(runtime(), pod.name());
    let remedy = "with `isolation = \"request\"` or `max_requests = 1`";
    assert!(said.iter().any(|it| it.text.contains(remedy)), "{said:?}");
    let mut renewed = guest().isolation(Isolation::Pod);
    renewed.renewal = after(1);
    for plan in [renewed, guest().isolation(Isolation::Request)] {
        let pod = plan.start().await;
        for _ in 0..5 {
            assert_eq!(in_time(ask(&pod, "/")).await.expect("an answer").0, 200);
        }
    }
}
