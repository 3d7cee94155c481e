//! Plain answers, what instances share, and what happens to a pod whose guest misbehaves.

use std::sync::Arc;

use sampan_core::{fault::Fault, object::Isolation};
use sampan_runtime::{StartError, pod::Failure};

use super::rig::{Witness, ask, failure, in_time, lines, plan, pod_name, runtime, texts, workload};
use super::text::{handler, handler_p3_that, handler_that, handler_with_status};

#[tokio::test]
async fn hello_answers_with_a_fresh_instance_each_time() {
    for name in ["hello", "hello-p3"] {
        let pod = plan(workload(name))
            .isolation(Isolation::Request)
            .start()
            .await;
        for _ in 0..3 {
            let answer = ask(&pod, "/").await;
            assert_eq!(answer, Ok((200, "Hello from Sampan!\n".to_owned())));
        }
        assert_eq!(pod.usage().instances, 3, "{name}");
        assert_eq!(pod.usage().failures, 0, "{name}");
    }
}

#[tokio::test]
async fn hello_answers_from_one_instance() {
    for name in ["hello", "hello-p3"] {
        let pod = plan(workload(name)).isolation(Isolation::Pod).start().await;
        for _ in 0..3 {
            let answer = ask(&pod, "/").await;
            assert_eq!(answer, Ok((200, "Hello from Sampan!\n".to_owned())));
        }
        assert_eq!(pod.usage().instances, 1, "{name}");
    }
}

#[tokio::test]
async fn the_world_decides_what_requests_share() {
    let isolation = async |name| plan(workload(name)).start().await.concurrency();
    assert_eq!(isolation("hello").await, 64);
    assert_eq!(isolation("hello-p3").await, 64);
    let kept = plan(workload("hello")).isolation(Isolation::Pod);
    assert_eq!(kept.clone().start().await.concurrency(), 1);
    let Err(StartError::Settings(text)) = kept.concurrency(2).try_start().await else {
        panic!("two at once");
    };
    assert!(text.contains("concurrency = 2"), "{text}");
}

#[tokio::test]
async fn a_kept_instance_remembers_and_a_fresh_one_does_not() {
    let kept = plan(workload("counter")).isolation(Isolation::Pod);
    let (one, two) = (kept.clone().start().await, kept.start().await);
    for (pod, count) in [(&one, 1), (&one, 2), (&two, 1), (&one, 3), (&two, 2)] {
        assert_eq!(ask(pod, "/").await, Ok((200, format!("{count}\n"))));
    }
    let fresh = plan(workload("counter")).start().await;
    for _ in 0..3 {
        assert_eq!(ask(&fresh, "/").await, Ok((200, "1\n".to_owned())));
    }
    let shared = plan(workload("stream-p3")).start().await;
    for count in 1..4 {
        assert_eq!(
            ask(&shared, "/count").await,
            Ok((200, format!("{count}\n")))
        );
    }
}

#[tokio::test]
async fn a_crash_ends_a_pod_with_its_only_instance() {
    let witness = Arc::new(Witness::default());
    let plan = plan(workload("counter")).isolation(Isolation::Pod);
    let pod = plan.watch(&witness).start().await;
    assert_eq!(ask(&pod, "/").await, Ok((200, "1\n".to_owned())));
    let crash = failure(&pod, "/crash").await;
    assert!(
        matches!(&crash, Failure::Trapped(text) if text.contains("unreachable")),
        "{crash:?}"
    );
    assert_eq!(pod.usage().failures, 1);
    assert_eq!(texts(&lines(runtime(), pod.name())), [crash.to_string()]);
    assert_eq!(witness.told(), [("terminated", Fault::Trapped)]);
    let Failure::Unavailable(_) = failure(&pod, "/").await else {
        panic!("it is over");
    };
    assert_eq!(pod.usage().instances, 1);
}

#[tokio::test]
async fn a_crash_ends_an_instance_of_its_own_and_not_the_pod() {
    let witness = Arc::new(Witness::default());
    let plan = plan(workload("counter")).isolation(Isolation::Request);
    let pod = plan.watch(&witness).start().await;
    for n in 1..=3 {
        assert!(matches!(failure(&pod, "/crash").await, Failure::Trapped(_)));
        assert_eq!(ask(&pod, "/").await, Ok((200, "1\n".to_owned())));
        let told = vec![("instance failed", Fault::Trapped); n];
        assert_eq!(witness.told(), told);
    }
    assert_eq!((pod.usage().instances, pod.usage().killed), (6, 3));
}

/// A guest that wants more than it may have is told apart from one that traps for another reason.
#[tokio::test]
async fn a_guest_that_dies_of_its_memory_limit_is_told_apart() {
    let witness = Arc::new(Witness::default());
    let module = "(memory 1) (func (export \"handle\") (param i32 i32)
        (if (i32.eq (memory.grow (i32.const 4096)) (i32.const -1)) (then unreachable)))";
    let plan = plan(handler(module)).isolation(Isolation::Pod);
    let pod = plan.watch(&witness).start().await;
    assert!(matches!(failure(&pod, "/").await, Failure::Trapped(_)));
    assert_eq!(witness.told(), [("terminated", Fault::OutOfMemory)]);
}

/// The reason must come before the end of the channel: told often enough, a race would show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_is_told_whatever_runs_first() {
    let p2 = handler_that("unreachable");
    let p3 = handler_p3_that("unreachable");
    for (bytes, isolation) in [
        (&p2, Isolation::Request),
        (&p2, Isolation::Pod),
        (&p3, Isolation::Request),
        (&p3, Isolation::Pod),
    ] {
        let mut pod = plan(bytes.clone()).isolation(isolation).start().await;
        for n in 1..=100 {
            let n = match isolation {
                Isolation::Request => n,
                Isolation::Pod => 1,
            };
            let crash = in_time(failure(&pod, "/")).await;
            assert!(matches!(crash, Failure::Trapped(_)), "{n}: {crash:?}");
            assert_eq!(pod.usage().failures, n);
            if isolation == Isolation::Pod {
                pod = plan(bytes.clone()).isolation(isolation).start().await;
            }
        }
    }
}

#[tokio::test]
async fn a_guest_that_returns_without_a_response_is_told_apart() {
    let fresh = plan(handler_that("")).start().await;
    assert_eq!(failure(&fresh, "/").await, Failure::NoResponse);
    assert_eq!(fresh.usage().failures, 1);
    let kept = plan(handler_that(""))
        .isolation(Isolation::Pod)
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(failure(&kept, "/").await, Failure::NoResponse);
    }
    // It may have been one that answers only once, so the second request got a new instance.
    assert_eq!(kept.usage().instances, 2);
}

#[tokio::test]
async fn a_component_runs_as_what_it_exports() {
    let command = plan(workload("command")).start().await;
    assert_eq!(failure(&command, "/").await, Failure::NoHandler);
    let service = super::rig::load(&workload("hello")).await;
    let ended = super::commands::run(&service, pod_name(), &[]).await;
    assert!(matches!(ended, Err(StartError::NoCommand)));
}

#[tokio::test]
async fn an_answer_that_cannot_be_sent_is_said_in_the_log_of_its_pod() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let interim = plan(handler_with_status(103));
        let pod = interim.isolation(isolation).start().await;
        let Failure::Unsendable(why) = failure(&pod, "/").await else {
            panic!("it was sent");
        };
        assert!(
            why.contains("the status 103 announces another answer"),
            "{why}"
        );
        let said = Failure::Unsendable(why).to_string();
        assert_eq!(texts(&lines(runtime(), pod.name())), [said]);
        // Other answers are as good as ever.
        let good = plan(handler_with_status(404))
            .isolation(isolation)
            .start()
            .await;
        assert_eq!(ask(&good, "/").await, Ok((404, String::new())));
    }
}
