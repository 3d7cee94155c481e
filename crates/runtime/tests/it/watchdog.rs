//! Guests that do not come back: busy ones, waiting ones, ones that never start.

use std::time::{Duration, Instant};

use sampan_core::object::Isolation;
use sampan_runtime::pod::Failure;

use super::rig::{
    PATIENCE, SHORT, ask, failure, get, in_time, lines, load_with, no_instance, plan, runtime,
    text_of, texts, workload,
};
use super::text::{
    WAIT_AN_HOUR, WAIT_FOR_EVER, handler, handler_p3_that, handler_that, sleepy_handler,
};

const SPIN: &str = "(loop $again (br $again))";

pub(crate) fn spin_p3() -> Vec<u8> {
    handler_p3_that(&format!("{SPIN} (i32.const 0)"))
}

#[tokio::test]
async fn spinning_is_killed_and_others_go_on_meanwhile() {
    for (bytes, isolation) in [
        (workload("slow"), Isolation::Request),
        (workload("slow"), Isolation::Pod),
        (spin_p3(), Isolation::Request),
        (spin_p3(), Isolation::Pod),
    ] {
        // One thread for all: while the guest spins, the others have to get their turns.
        let pod = plan(bytes)
            .isolation(isolation)
            .request_cpu(SHORT)
            .start()
            .await;
        let hello = plan(workload("hello")).start().await;
        let start = Instant::now();
        let mut spin = std::pin::pin!(failure(&pod, "/spin"));
        let mut answers = 0;
        let killed = loop {
            tokio::select! {
                biased;
                killed = &mut spin => break killed,
                answer = ask(&hello, "/") => {
                    answer.expect("an answer");
                    answers += 1;
                }
            }
        };
        assert_eq!(killed, Failure::Spinning(SHORT));
        assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
        assert!(answers >= 5, "{answers} answers meanwhile");
        assert!(pod.usage().cpu >= SHORT, "{:?}", pod.usage());
        assert_eq!(pod.usage().failures, 1);
        assert_eq!(texts(&lines(runtime(), pod.name())), [killed.to_string()]);
        no_instance(&pod, PATIENCE).await;
    }
}

#[tokio::test]
async fn a_pod_with_instances_of_their_own_takes_requests_after_a_kill() {
    let pod = plan(workload("slow"))
        .isolation(Isolation::Request)
        .request_cpu(SHORT)
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(failure(&pod, "/spin").await, Failure::Spinning(SHORT));
        let (status, text) = ask(&pod, "/?ms=1").await.expect("an answer");
        assert_eq!((status, text.as_str()), (200, "waited 1 ms\n"));
    }
}

#[tokio::test]
async fn waiting_is_not_spinning() {
    let limit = Duration::from_millis(50);
    let pod = plan(workload("slow"))
        .isolation(Isolation::Pod)
        .request_cpu(limit)
        .start()
        .await;
    for _ in 0..2 {
        let (status, _) = ask(&pod, "/?ms=300").await.expect("an answer");
        assert_eq!(status, 200);
    }
}

#[tokio::test]
async fn an_endless_start_function_is_no_start() {
    let module =
        format!(r#"(func $start {SPIN}) (start $start) (func (export "handle") (param i32 i32))"#);
    for isolation in [Isolation::Request, Isolation::Pod] {
        let plan = plan(handler(&module))
            .isolation(isolation)
            .request_cpu(SHORT);
        let error = in_time(plan.try_start())
            .await
            .err()
            .expect("no start")
            .to_string();
        assert!(error.contains("spinning"), "{error}");
    }
}

/// Neither the CPU budget nor the deadline of a request ends this; it takes the ten seconds.
#[tokio::test]
async fn a_start_function_that_waits_for_ever_is_no_start() {
    let isolations = [Isolation::Request, Isolation::Pod];
    let starts = isolations.map(|isolation| {
        plan(sleepy_handler())
            .isolation(isolation)
            .request_timeout(Duration::ZERO)
            .try_start()
    });
    for start in in_time(futures::future::join_all(starts)).await {
        let error = start.err().expect("no start").to_string();
        assert!(error.contains("longer than 10s to start"), "{error}");
    }
}

#[tokio::test]
async fn a_trap_in_the_start_function_is_no_start() {
    let module = r#"(func $start unreachable) (start $start)
        (func (export "handle") (param i32 i32))"#;
    for isolation in [Isolation::Request, Isolation::Pod] {
        let plan = plan(handler(module)).isolation(isolation);
        let error = plan.try_start().await.err().expect("no start").to_string();
        assert!(error.contains("`unreachable`"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[tokio::test]
async fn the_deadline_covers_the_call() {
    for (bytes, isolation) in [
        (workload("slow"), Isolation::Request),
        (workload("slow"), Isolation::Pod),
        (handler_p3_that(WAIT_AN_HOUR), Isolation::Request),
        (handler_p3_that(WAIT_AN_HOUR), Isolation::Pod),
    ] {
        let pod = plan(bytes)
            .isolation(isolation)
            .request_timeout(SHORT)
            .start()
            .await;
        let start = Instant::now();
        let late = in_time(failure(&pod, "/?ms=60000")).await;
        assert_eq!(late, Failure::TimedOut(SHORT));
        assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
        let lines = lines(runtime(), pod.name());
        let said = texts(&lines);
        assert!(
            said.len() == 1 && said[0].starts_with(&late.to_string()),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn the_deadline_covers_the_body() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let pod = plan(workload("slow"))
            .isolation(isolation)
            .request_timeout(SHORT)
            .start()
            .await;
        let response = pod
            .call(get("/stream?ms=60000&parts=600"), None)
            .await
            .expect("a head");
        let end = in_time(text_of(response.into_body())).await;
        assert_eq!(end, Err(Failure::TimedOut(SHORT).to_string()));
        no_instance(&pod, PATIENCE).await;
        assert_eq!(pod.usage().failures, 1);
    }
    // In the first nothing comes any more, in the second there is always more.
    for path in ["/ticks?n=2&ms=60000", "/ticks?n=100000000&ms=0"] {
        let pod = plan(workload("stream-p3"))
            .request_timeout(SHORT)
            .start()
            .await;
        let response = pod.call(get(path), None).await.expect("a head");
        let end = in_time(text_of(response.into_body())).await;
        assert_eq!(end, Err(Failure::TimedOut(SHORT).to_string()), "{path}");
    }
}

#[tokio::test]
async fn a_deadline_of_zero_is_none() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let plan = plan(workload("slow"))
            .isolation(isolation)
            .request_timeout(Duration::ZERO);
        let answer = ask(&plan.start().await, "/?ms=50").await;
        assert_eq!(answer, Ok((200, "waited 50 ms\n".to_owned())));
    }
}

#[tokio::test]
async fn fuel_is_a_budget_for_each_request() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let mut plan = plan(workload("slow")).isolation(isolation);
        plan.limits.fuel = Some(1_000_000);
        let pod = plan.start().await;
        for _ in 0..2 {
            assert_eq!(
                ask(&pod, "/?ms=1").await,
                Ok((200, "waited 1 ms\n".to_owned()))
            );
        }
        assert_eq!(failure(&pod, "/spin").await, Failure::OutOfFuel(1_000_000));
    }
    let mut plan = plan(spin_p3());
    plan.limits.fuel = Some(1_000_000);
    assert_eq!(
        failure(&plan.start().await, "/").await,
        Failure::OutOfFuel(1_000_000)
    );
}

/// More in all than the budget of one.
#[tokio::test]
async fn an_instance_that_lives_on_gets_the_budget_anew() {
    for (name, fuel) in [("hello", 20_000), ("hello-p3", 200_000)] {
        let mut plan = plan(workload(name)).isolation(Isolation::Pod);
        plan.limits.fuel = Some(fuel);
        let pod = plan.start().await;
        for n in 0..200 {
            let answer = ask(&pod, "/").await;
            assert!(answer.is_ok(), "{name} {n}: {answer:?}");
        }
        assert_eq!(pod.usage().instances, 1);
    }
}

#[tokio::test]
async fn metered_code_is_other_code() {
    let bytes = workload("counter");
    let plain = load_with(&bytes, false).await.expect("good");
    let metered = load_with(&bytes, true).await.expect("good");
    assert!(!std::sync::Arc::ptr_eq(&plain, &metered));
    let again = load_with(&bytes, true).await.expect("good");
    assert!(std::sync::Arc::ptr_eq(&again, &metered));
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let module = r#"(func $f (call $f)) (func (export "handle") (param i32 i32) (call $f))"#;
    let pod = plan(handler(module)).start().await;
    let end = failure(&pod, "/").await;
    assert!(
        matches!(&end, Failure::Trapped(text) if text.contains("stack")),
        "{end:?}"
    );
    let hello = plan(handler_that("unreachable")).start().await;
    assert!(matches!(failure(&hello, "/").await, Failure::Trapped(_)));
}

/// Whose fault it was is not known, so all are told that it may have been another's.
#[tokio::test]
async fn a_trap_in_a_shared_instance_ends_all_its_requests() {
    let second_traps = format!(
        "(if (i32.load (i32.const 0)) (then unreachable)) (i32.store (i32.const 0) (i32.const 1))
        {WAIT_FOR_EVER}"
    );
    let pod = plan(handler_p3_that(&second_traps)).start().await;
    let (one, two) = in_time(futures::future::join(
        failure(&pod, "/"),
        failure(&pod, "/"),
    ))
    .await;
    let Failure::Neighbour(cause) = one else {
        panic!("{one:?}")
    };
    assert_eq!(*cause, two);
    assert!(matches!(*cause, Failure::Trapped(_)), "{cause:?}");
    assert_eq!(pod.usage().failures, 1);
    assert_eq!(texts(&lines(runtime(), pod.name())), [cause.to_string()]);
}
