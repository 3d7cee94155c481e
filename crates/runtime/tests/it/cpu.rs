//! `limits.cpu`: no pod has more than that, each pod has it, and none is blamed for waiting.

use std::{
    thread,
    time::{Duration, Instant},
};

use futures::future::join_all;
use sampan_core::{
    object::{Check, Grants, Isolation, Limits},
    plan::probe::ProbeKind,
    quantity::Cpu,
};
use sampan_runtime::{
    Usage,
    command::Exit,
    pod::{Failure, Pod, Probed},
};

use super::commands::run_with;
use super::rig::{
    PATIENCE, SHORT, ask, eventually, failure, get, in_time, limits, load, no_instance, plan,
    pod_name, runtime, workload,
};
use super::text::command_that;
use super::watchdog::spin_p3;

/// A pod gets its share so often.
const WINDOW: Duration = Duration::from_millis(100);
/// What guests may use beyond the share before the host sees it: a tick and a little, on each of
/// two processors. A busy machine ticks late.
const BEYOND: Duration = Duration::from_millis(50);

/// What a pod that has run for so long may have used at the most.
fn most(ran: Duration, millis: u32) -> Duration {
    (ran + WINDOW) * millis / 1000 + BEYOND
}

fn check(usage: &Usage, ran: Duration, millis: u32) {
    assert!(usage.cpu <= most(ran, millis), "{usage:?} in {ran:?}");
    assert!(usage.throttled > Duration::ZERO, "{usage:?}");
    assert!(usage.throttled <= ran, "{usage:?} in {ran:?}");
}

/// `request_cpu` counts CPU: who is held back is killed for it neither earlier nor later. So what a
/// request may use takes as long as the pod's share makes it last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_driver_keeps_to_the_share_and_request_cpu_counts_cpu_only() {
    for (bytes, isolation, requests) in [
        (workload("slow"), Isolation::Request, 3),
        (workload("slow"), Isolation::Pod, 1),
        (spin_p3(), Isolation::Request, 3),
        (spin_p3(), Isolation::Pod, 1),
    ] {
        let start = Instant::now();
        let pod = plan(bytes)
            .isolation(isolation)
            .request_cpu(SHORT)
            .cpu(300)
            .start()
            .await;
        let spins = (0..requests).map(|_| failure(&pod, "/spin"));
        for end in in_time(join_all(spins)).await {
            assert_eq!(end, Failure::Spinning(SHORT));
        }
        let (usage, ran) = (pod.usage(), start.elapsed());
        assert!(usage.cpu >= SHORT * requests, "{usage:?}");
        assert!(usage.cpu <= SHORT * requests * 2, "{usage:?}");
        check(&usage, ran, 300);
        no_instance(&pod, PATIENCE).await;
    }
}

#[tokio::test]
async fn a_command_keeps_to_its_share() {
    // Some tenths of a second on its own.
    let body = "(local $left i64) (local.set $left (i64.const 400000000))
        (loop $again
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if $again (i64.ne (local.get $left) (i64.const 0))))
        (i32.const 0)";
    let loaded = load(&command_that(body)).await;
    let limits = Limits {
        cpu: Some(Cpu { millis: 200 }),
        ..limits()
    };
    let (start, grants) = (Instant::now(), Grants::default());
    let ended = run_with(runtime(), &loaded, pod_name(), &[], &grants, &limits).await;
    let (ended, ran) = (ended.expect("a start"), start.elapsed());
    assert_eq!(ended.exit, Exit::Code(0));
    check(&ended.usage, ran, 200);
}

/// Each has the same to do. If some were passed over, others would be done long before them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_has_a_turn() {
    let budget = Duration::from_millis(30);
    let pod = plan(workload("slow"))
        .isolation(Isolation::Request)
        .request_cpu(budget)
        .cpu(500)
        .start()
        .await;
    let start = Instant::now();
    let spins = (0..64).map(|_| async {
        assert_eq!(failure(&pod, "/spin").await, Failure::Spinning(budget));
        start.elapsed()
    });
    let mut ends = in_time(join_all(spins)).await;
    ends.sort_unstable();
    // On a busy machine a guest may be charged for a tick in which it lost its processor.
    let (first, last) = (ends[63 / 10], ends[63]);
    assert!(first * 3 >= last, "{ends:?}");
    let usage = pod.usage();
    assert!(usage.cpu >= budget * 64, "{usage:?}");
    check(&usage, start.elapsed(), 500);
}

/// On any machine but the busiest there is a moment in which two have a processor each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_two_cores_lets_two_run_at_once() {
    if thread::available_parallelism().is_ok_and(|it| it.get() < 2) {
        return;
    }
    let pod = plan(workload("slow"))
        .isolation(Isolation::Request)
        .cpu(2000)
        .start()
        .await;
    let spins = join_all((0..2).map(|_| pod.call(get("/spin"), None)));
    let mut last = (Instant::now(), pod.usage().cpu);
    let seen = eventually(PATIENCE, || {
        let (now, cpu) = (Instant::now(), pod.usage().cpu);
        let (ran, used) = (now - last.0, cpu - last.1);
        if ran < SHORT {
            return Err((used, ran));
        }
        last = (now, cpu);
        match used * 10 > ran * 13 {
            true => Ok(()),
            false => Err((used, ran)),
        }
    });
    tokio::select! {
        _ = spins => panic!("they spin"),
        () = seen => {}
    }
}

#[tokio::test]
async fn without_a_limit_nobody_is_held_back() {
    let pod = plan(workload("slow")).request_cpu(SHORT).start().await;
    assert_eq!(failure(&pod, "/spin").await, Failure::Spinning(SHORT));
    assert_eq!(pod.usage().throttled, Duration::ZERO);
}

/// The first tick of a guest is more than this pod has in a second.
async fn held(isolation: Isolation, timeout: Duration) -> Pod {
    let plan = plan(workload("slow")).isolation(isolation).cpu(1);
    plan.request_timeout(timeout).start().await
}

/// The deadline of a request is on the wall clock, and ends one that is held back, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_of_a_request_goes_on_while_it_is_held_back() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let pod = held(isolation, SHORT).await;
        let start = Instant::now();
        let late = in_time(failure(&pod, "/spin")).await;
        assert_eq!(late, Failure::TimedOut(SHORT));
        no_instance(&pod, PATIENCE).await;
        check(&pod.usage(), start.elapsed(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_while_held_back_leaves_nothing() {
    let pod = held(Isolation::Request, PATIENCE).await;
    for path in ["/spin", "/?ms=1"] {
        let before = pod.usage().throttled;
        let is_held = eventually(PATIENCE, || match pod.usage() {
            usage if usage.throttled > before && usage.memory_bytes > 0 => Ok(()),
            usage => Err(usage),
        });
        tokio::select! {
            _ = pod.call(get(path), None) => panic!("it is held back"),
            () = is_held => {}
        }
        no_instance(&pod, PATIENCE).await;
        // No instance is held back any more.
        let throttled = pod.usage().throttled;
        tokio::task::yield_now().await;
        assert_eq!(pod.usage().throttled, throttled, "{path}");
    }
    assert_eq!(pod.usage().failures, 0);
}

/// Waits until an instance has been held back.
async fn throttled(pod: &Pod) {
    eventually(PATIENCE, || match pod.usage() {
        usage if usage.throttled > Duration::ZERO => Ok(()),
        usage => Err(usage),
    })
    .await;
}

async fn probe(pod: &Pod, timeout: Duration) -> Probed {
    let check = Check::Http("/burn?ms=0".to_owned());
    in_time(pod.probe(&check, ProbeKind::Liveness, timeout)).await
}

/// The instance computes for longer than the probe waits, most of it held back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_waits_for_a_guest_that_is_held_back() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let pod = plan(workload("hostile"))
            .isolation(isolation)
            .cpu(100)
            .start()
            .await;
        let busy = join_all((0..3).map(|_| ask(&pod, "/burn?ms=600")));
        let probed = async {
            throttled(&pod).await;
            probe(&pod, SHORT).await
        };
        let (answers, probed) = in_time(futures::future::join(busy, probed)).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        // A machine that is busy besides may have had no processor for it.
        let excused = [Probed::Success, Probed::Starved];
        assert!(excused.contains(&probed), "{isolation:?}: {probed:?}");
    }
}

/// It uses up all that it is given and never answers: that is no excuse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_hangs_is_found_out_although_it_is_held_back() {
    let pod = plan(workload("hostile"))
        .isolation(Isolation::Pod)
        .cpu(100)
        .start()
        .await;
    let found = async {
        throttled(&pod).await;
        loop {
            match probe(&pod, SHORT).await {
                Probed::Success => panic!("it spins"),
                // A machine that is busy besides.
                Probed::Starved => {}
                Probed::Failure(reason) => return reason,
            }
        }
    };
    let spin = pod.call(get("/spin"), None);
    let reason = tokio::select! {
        _ = spin => panic!("it spins"),
        reason = in_time(found) => reason,
    };
    assert!(reason.starts_with("no answer within 200ms"), "{reason}");
    assert!(reason.contains("`limits.cpu` held it back"), "{reason}");
}

#[tokio::test]
async fn what_each_request_costs_is_known_where_it_can_be() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let pod = plan(workload("hostile")).isolation(isolation).start().await;
        assert_eq!(pod.request_cpu().quantile(0.5), None);
        for _ in 0..5 {
            ask(&pod, "/burn?ms=20").await.expect("an answer");
        }
        assert!(matches!(failure(&pod, "/trap").await, Failure::Trapped(_)));
        // A guest ends a little after its answer does.
        eventually(PATIENCE, || match pod.request_cpu() {
            all if all.count() == 6 => Ok(()),
            all => Err(all.count()),
        })
        .await;
        let all = pod.request_cpu();
        let median = all.quantile(0.5).expect("some");
        assert!(median >= Duration::from_millis(5), "{median:?}");
        assert!(all.sum() <= pod.usage().cpu, "{all:?}, {:?}", pod.usage());
    }
    // One at a time, so that it is known even of a shared instance.
    let pod = plan(workload("hello-p3")).start().await;
    for n in 1..=5 {
        ask(&pod, "/").await.expect("an answer");
        eventually(PATIENCE, || match pod.request_cpu().count() {
            count if count == n => Ok(()),
            count => Err(count),
        })
        .await;
    }
    let all = pod.request_cpu();
    assert!(all.sum() > Duration::ZERO && all.sum() <= pod.usage().cpu);
}

#[tokio::test]
async fn probes_and_requests_that_are_given_up_are_not_counted() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let pod = plan(workload("hostile")).isolation(isolation).start().await;
        assert_eq!(probe(&pod, PATIENCE).await, Probed::Success);
        assert_eq!(pod.request_cpu().count(), 0);
    }
    let pod = plan(workload("slow"))
        .isolation(Isolation::Request)
        .start()
        .await;
    let call = pod.call(get("/?ms=60000"), None);
    assert!(tokio::time::timeout(SHORT, call).await.is_err());
    no_instance(&pod, PATIENCE).await;
    assert_eq!(pod.request_cpu().count(), 0);
}
