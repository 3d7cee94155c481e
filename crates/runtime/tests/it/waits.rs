//! What counts as spinning: CPU without a wait, and much more CPU than waits.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use sampan_core::{fault::Fault, object::Isolation};
use sampan_runtime::pod::{Failure, Pod};

use super::rig::{PATIENCE, SHORT, Witness, ask, failure, get, in_time, plan, text_of, workload};
use super::text::{timed_handler, timed_handler_p3};

const BOTH: [Isolation; 2] = [Isolation::Request, Isolation::Pod];
/// Enough for a burst on a busy machine, and far less than a thousand events cost.
const BUDGET: Duration = Duration::from_millis(40);

/// How often a client that reads slowly pauses, and for how long.
const READS: usize = 2;
const PAUSE: Duration = Duration::from_millis(1);

/// The last line of a stream.
async fn end_of(pod: &Pod, path: &str) -> Result<String, String> {
    let response = pod.call(get(path), None).await.expect("a head");
    let text = text_of(response.into_body()).await?;
    Ok(text.lines().last().unwrap_or_default().to_owned())
}

/// The same, read by a client that pauses now and then: how long a guest waits for a reader is up to
/// the reader, and one that only reads takes less than a tenth of what writing costs on some machines.
async fn end_of_read_slowly(pod: &Pod, path: &str) -> Result<String, String> {
    let response = pod.call(get(path), None).await.expect("a head");
    let (mut body, mut text) = (response.into_body(), String::new());
    for read in 1.. {
        let Some(frame) = body.frame().await else {
            break;
        };
        let frame = frame.map_err(|error| error.to_string())?;
        let bytes = frame.data_ref().map_or(&[][..], |data| data);
        text += &String::from_utf8_lossy(bytes);
        if read % READS == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(text.lines().last().unwrap_or_default().to_owned())
}

/// Of each driver, more events than their CPU together would allow without the waits between them.
#[tokio::test]
async fn a_stream_that_waits_between_its_events_goes_on() {
    for isolation in BOTH {
        for (name, path, last) in [
            ("stream-p3", "/ticks?n=4000&ms=1", "tick 4000"),
            ("slow", "/stream?ms=4000&parts=4000", "part 4000 of 4000"),
        ] {
            let pod = plan(workload(name))
                .isolation(isolation)
                .request_timeout(Duration::ZERO)
                .request_cpu(BUDGET)
                .start()
                .await;
            let before = pod.usage().cpu;
            assert_eq!(
                end_of(&pod, path).await,
                Ok(last.to_owned()),
                "{isolation:?}"
            );
            let usage = pod.usage();
            assert!(usage.cpu - before > BUDGET, "{usage:?} says nothing");
            assert_eq!(usage.failures, 0, "{name} {isolation:?}");
        }
    }
}

/// Many at once in one instance, which is never idle for long.
#[tokio::test]
async fn streams_of_one_instance_are_no_burden_to_each_other() {
    let pod = plan(workload("stream-p3"))
        .request_timeout(Duration::ZERO)
        .request_cpu(BUDGET)
        .start()
        .await;
    let streams = (0..32).map(|_| end_of(&pod, "/ticks?n=200&ms=1"));
    for end in futures::future::join_all(streams).await {
        assert_eq!(end, Ok("tick 200".to_owned()));
    }
    let usage = pod.usage();
    assert!(usage.cpu > BUDGET, "{usage:?} says nothing");
    assert_eq!((usage.failures, usage.instances), (0, 1));
}

/// Many at once that wait only for their readers, so that one of them has always something to do.
#[tokio::test]
async fn to_write_for_a_reader_is_a_wait() {
    let pod = plan(workload("stream-p3"))
        .request_timeout(Duration::ZERO)
        .request_cpu(BUDGET)
        .start()
        .await;
    let streams = (0..16).map(|_| end_of_read_slowly(&pod, "/ticks?n=1000&ms=0"));
    for end in futures::future::join_all(streams).await {
        assert_eq!(end, Ok("tick 1000".to_owned()));
    }
    let usage = pod.usage();
    assert!(usage.cpu > BUDGET, "{usage:?} says nothing");
    assert_eq!((usage.failures, usage.instances), (0, 1));
}

/// Polls of what is ready, timers of no time and turns given away are no waits.
#[tokio::test]
async fn asking_again_and_again_is_no_wait() {
    let poll = "(loop $again (call $wait (i64.const 0)) (br $again))";
    for (name, bytes) in [
        ("0.2", timed_handler(poll)),
        ("0.3", timed_handler_p3(poll)),
        ("hostile", workload("hostile")),
    ] {
        for isolation in BOTH {
            let witness = Arc::new(Witness::default());
            let pod = plan(bytes.clone())
                .isolation(isolation)
                .request_cpu(SHORT)
                .watch(&witness)
                .start()
                .await;
            assert_eq!(
                in_time(failure(&pod, "/poll")).await,
                Failure::Spinning(SHORT),
                "{name} {isolation:?}"
            );
            let end = witness.last();
            let evidence = end.evidence.as_ref().expect("it was looked at");
            assert_eq!(evidence.waits_ended, 0, "{}", end.explain());
            let text = end.explain();
            assert!(text.contains("the host without a wait;"), "{text}");
            assert!(!text.contains("  waited"), "{text}");
        }
    }
}

/// It waits each time, but hardly.
#[tokio::test]
async fn a_wait_now_and_then_is_no_alibi() {
    let mostly = "(loop $again (call $burn (i64.const 20)) (call $wait (i64.const 1000))
        (br $again))";
    for bytes in [timed_handler(mostly), timed_handler_p3(mostly)] {
        for isolation in BOTH {
            let witness = Arc::new(Witness::default());
            let pod = plan(bytes.clone())
                .isolation(isolation)
                .request_timeout(Duration::ZERO)
                .request_cpu(BUDGET)
                .watch(&witness)
                .start()
                .await;
            let end = in_time(failure(&pod, "/")).await;
            let (Failure::Busy { used, waited, .. }, said) = (&end, witness.last()) else {
                panic!("{end:?}");
            };
            assert!(*used > BUDGET * 10 && *waited < *used / 2, "{end}");
            assert_eq!(said.verdict, Fault::Spinning);
            let text = said.explain();
            assert!(text.contains("waited too little"), "{text}");
        }
    }
}

/// A request may compute in several parts that are more than the budget only together.
#[tokio::test]
async fn each_wait_gives_the_budget_anew() {
    let parts = "(local i32) (local.set 2 (i32.const 4)) (loop $again
        (call $burn (i64.const 20)) (call $wait (i64.const 20000000))
        (br_if $again (local.tee 2 (i32.sub (local.get 2) (i32.const 1)))))";
    let pod = plan(timed_handler(parts)).start().await;
    let before = pod.usage().cpu;
    assert_eq!(in_time(failure(&pod, "/")).await, Failure::NoResponse);
    let cost = pod.usage().cpu - before;
    // What one part takes here, with some room for a busy machine.
    let budget = cost * 6 / 10;
    let pod = plan(timed_handler(parts)).request_cpu(budget).start().await;
    let end = in_time(failure(&pod, "/")).await;
    assert_eq!(end, Failure::NoResponse, "{budget:?} of {cost:?}");
}

#[tokio::test]
async fn no_limit_can_be_said() {
    for isolation in BOTH {
        let pod = plan(workload("hostile"))
            .isolation(isolation)
            .request_cpu(Duration::ZERO)
            .start()
            .await;
        let (status, text) = in_time(ask(&pod, "/burn?ms=300")).await.expect("an answer");
        assert_eq!(status, 200, "{text}");
        assert!(pod.usage().cpu < PATIENCE);
    }
}

/// What it did before its last wait is not what it is killed for, but it is told.
#[tokio::test]
async fn waits_before_a_spin_are_told() {
    let late =
        "(local i32) (local.set 2 (i32.const 50)) (loop $again (call $wait (i64.const 1000000))
        (br_if $again (local.tee 2 (i32.sub (local.get 2) (i32.const 1)))))
        (loop $spin (br $spin))";
    let witness = Arc::new(Witness::default());
    let plan = plan(timed_handler(late)).request_cpu(SHORT).watch(&witness);
    let pod = plan.start().await;
    assert_eq!(in_time(failure(&pod, "/")).await, Failure::Spinning(SHORT));
    let end = witness.last();
    let evidence = end.evidence.as_ref().expect("it was looked at");
    let times = evidence.waits_ended;
    // One more if it was polled between the end of a wait and its waking.
    assert!((49..=51).contains(&times), "{}", end.explain());
    assert!(evidence.waited >= Duration::from_millis(50), "{evidence:?}");
    assert!(evidence.cpu_since_wait > SHORT, "{evidence:?}");
    let text = end.explain();
    let waited = format!("waited        {times} times");
    assert!(text.contains(&waited), "{text}");
}
