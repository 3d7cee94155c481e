//! Commands as the pods of a service: they run until they end.

use std::{sync::Arc, time::Duration};

use sampan_core::{
    fault::Fault,
    object::{Check, ServiceKind},
    plan::probe::ProbeKind,
};
use sampan_runtime::{
    StartError,
    pod::{Failure, Pod, Probed},
};

use super::rig::{
    PATIENCE, Plan, SHORT, Witness, eventually, failure, in_time, lines, map, no_instance, plan,
    runtime, texts, workload,
};
use super::text::{command_p3_that, command_that, deaf_command, waiter};

/// A pod of the guest `worker`, whose rounds take a millisecond.
fn worker(arguments: &[&str], environment: &[(&str, &str)]) -> Plan {
    let mut plan = plan(workload("worker"));
    plan.args = owned(&[&["worker"], arguments].concat());
    plan.grants.env = map(&[&[("TICK_MS", "1")], environment].concat());
    plan
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&it| it.to_owned()).collect()
}

/// Waits until the pod's watch is told of an end, which is the only one.
async fn ended(witness: &Witness) -> (&'static str, Fault, Option<i32>, String) {
    eventually(PATIENCE, || match &witness.told()[..] {
        [_] => Ok(()),
        told => Err(told.to_vec()),
    })
    .await;
    let (what, verdict) = witness.told()[0];
    let last = witness.last();
    (what, verdict, last.exit_code, last.reason.clone())
}

async fn said(pod: &Pod, wanted: &str) {
    eventually(PATIENCE, || {
        let lines = lines(runtime(), pod.name());
        match texts(&lines).iter().any(|line| line.contains(wanted)) {
            true => Ok(()),
            false => Err(lines),
        }
    })
    .await;
}

#[tokio::test]
async fn a_command_that_ends_ends_its_pod() {
    let exits = |code: &'static str| worker(&["exit", code], &[]);
    let mut p2 = plan(workload("command"));
    p2.args = owned(&["command", "exit", "1"]);
    for (plan, code) in [
        (exits("0"), 0),
        (exits("1"), 1),
        (p2, 1),
        (plan(command_that("i32.const 0")), 0),
        (plan(command_p3_that("i32.const 1")), 1),
    ] {
        let witness = Arc::<Witness>::default();
        let pod = plan.watch(&witness).start().await;
        let reason = format!("the command ended with exit code {code}");
        let end = ("terminated", Fault::Exited, Some(code), reason.clone());
        assert_eq!(ended(&witness).await, end);
        said(&pod, &reason).await;
        // A good end is no failure.
        assert_eq!(pod.usage().failures, u64::from(code != 0));
        no_instance(&pod, PATIENCE).await;
    }
}

#[tokio::test]
async fn a_command_that_traps_is_reported_like_a_request() {
    let witness = Arc::<Witness>::default();
    let _pod = worker(&["crash"], &[]).watch(&witness).start().await;
    let (what, verdict, code, _) = ended(&witness).await;
    assert_eq!((what, verdict, code), ("terminated", Fault::Trapped, None));
    let told = witness.last().explain();
    assert!(told.contains("the call of `run`"), "{told}");
    assert!(told.contains("backtrace"), "{told}");
}

#[tokio::test]
async fn no_request_reaches_a_command() {
    let pod = worker(&["tick"], &[]).start().await;
    assert_eq!(failure(&pod, "/").await, Failure::NoHandler);
    said(&pod, "tick 2").await;
}

/// The same instance answers, while it runs.
#[tokio::test]
async fn a_command_of_wasi_0_3_is_asked_while_it_runs() {
    let pod = worker(&["tick"], &[("TICK_MS", "100"), ("SICK_AFTER", "2")])
        .start()
        .await;
    let probe = async |kind| in_time(pod.probe(&Check::Export, kind, PATIENCE)).await;
    assert_eq!(probe(ProbeKind::Startup).await, Probed::Success);
    let early = Probed::Failure("status 503: the first round is not over".to_owned());
    assert_eq!(probe(ProbeKind::Readiness).await, early);
    said(&pod, "tick 2").await;
    assert_eq!(probe(ProbeKind::Readiness).await, Probed::Success);
    let sick = Probed::Failure("status 503: sick".to_owned());
    assert_eq!(probe(ProbeKind::Liveness).await, sick);
}

#[tokio::test]
async fn a_guest_that_computes_answers_no_question_and_is_not_killed() {
    let witness = Arc::<Witness>::default();
    let pod = worker(&["spin"], &[])
        .request_cpu(Duration::from_millis(10))
        .cpu(200)
        .watch(&witness)
        .start()
        .await;
    let used = Duration::from_millis(100);
    eventually(PATIENCE, || match pod.usage() {
        usage if usage.cpu > used && !usage.throttled.is_zero() => Ok(()),
        usage => Err(usage),
    })
    .await;
    let probe = pod.probe(&Check::Export, ProbeKind::Liveness, SHORT);
    assert_ne!(in_time(probe).await, Probed::Success);
    assert_eq!(witness.told(), []);
    pod.end();
    no_instance(&pod, PATIENCE).await;
}

#[tokio::test]
async fn a_command_that_is_told_to_stop_ends_by_itself() {
    let witness = Arc::<Witness>::default();
    let pod = worker(&["tick"], &[]).watch(&witness).start().await;
    said(&pod, "tick 1").await;
    assert_eq!(in_time(pod.pre_stop(PATIENCE)).await, Ok(()));
    assert_eq!(ended(&witness).await.2, Some(0));
    said(&pod, "stopping").await;

    // One that does not is waited for: how long is its pod's business.
    let stubborn = worker(&["tick"], &[("STUBBORN", "1")]).start().await;
    let told = stubborn.pre_stop(PATIENCE);
    assert!(tokio::time::timeout(SHORT, told).await.is_err());
    said(&stubborn, "tick 9").await;

    // One that cannot be told is not.
    let mut deaf = plan(waiter());
    deaf.watch = Arc::clone(&witness) as _;
    let deaf = deaf.start().await;
    assert_eq!(in_time(deaf.pre_stop(PATIENCE)).await, Ok(()));
}

#[tokio::test]
async fn what_could_not_be_called_while_it_runs_must_not_be_exported() {
    let refused = plan(deaf_command()).try_start().await;
    let Err(StartError::Settings(reason)) = refused else {
        panic!("it has a `pre-stop` that nothing can call");
    };
    assert!(reason.contains("WASI 0.3"), "{reason}");
}

#[tokio::test]
async fn a_command_that_waits_for_nothing_is_a_proven_deadlock() {
    let witness = Arc::<Witness>::default();
    let _pod = plan(waiter()).watch(&witness).start().await;
    let (what, verdict, _, reason) = ended(&witness).await;
    assert_eq!((what, verdict), ("terminated", Fault::Deadlocked));
    assert!(reason.contains("the call of `run`"), "{reason}");
    // While a question can come it is none.
    let witness = Arc::<Witness>::default();
    let waits = worker(&["tick"], &[("TICK_MS", "600000")]);
    let pod = waits.watch(&witness).start().await;
    let probe = pod.probe(&Check::Export, ProbeKind::Liveness, PATIENCE);
    assert_eq!(in_time(probe).await, Probed::Success);
    assert_eq!(witness.told(), []);
}

#[tokio::test]
async fn what_exports_both_answers_requests() {
    for (name, kind, is_callable) in [
        ("hello", ServiceKind::Http, true),
        ("hello-p3", ServiceKind::Http, true),
        ("command", ServiceKind::Command, false),
        ("worker", ServiceKind::Command, true),
    ] {
        let found = super::rig::load(&workload(name)).await.found();
        assert_eq!(
            (found.kind, found.is_callable),
            (kind, is_callable),
            "{name}"
        );
    }
}
