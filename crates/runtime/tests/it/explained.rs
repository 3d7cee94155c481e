//! What is said about instances that were killed, word for word but for the measurements.

use std::sync::Arc;

use regex::Regex;
use sampan_core::{object::Isolation, quantity::ByteSize};
use sampan_runtime::pod::Verdict;

use super::rig::{Plan, SHORT, Witness, failure, in_time, plan, workload};
use super::text::handler_that;

/// What is said after this request, with every measurement replaced.
async fn explained(plan: Plan, path: &str) -> (Verdict, String) {
    let witness = Arc::new(Witness::default());
    let pod = plan.watch(&witness).start().await;
    in_time(failure(&pod, path)).await;
    let termination = witness.last();
    let mut text = termination.explain();
    for (measured, shown) in [
        (r"[0-9.]+ (µs|ms|s)\b", "<time>"),
        (r"and [0-9]+ host calls", "and <n> host calls"),
        (r"\+0x[0-9a-f]+", "+<offset>"),
        (r"web-3-[0-9]+", "web-3-0"),
        (r"\[[0-9a-f]{16}\]", "[<hash>]"),
        (r"[0-9.]+ MiB of", "<size> of"),
    ] {
        let measured = Regex::new(measured).expect("a good expression");
        text = measured.replace_all(&text, shown).into_owned();
    }
    (termination.verdict, text)
}

#[tokio::test]
async fn a_trap_is_explained() {
    let kept = plan(workload("crash-loop")).isolation(Isolation::Pod);
    let (verdict, text) = explained(kept, "/crash").await;
    assert_eq!(verdict, Verdict::Trapped);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn spinning_is_explained() {
    let spin = plan(workload("slow")).request_cpu(SHORT);
    let (verdict, text) = explained(spin, "/spin").await;
    assert_eq!(verdict, Verdict::Spinning);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn busy_polling_is_explained() {
    let poll = plan(workload("hostile")).request_cpu(SHORT);
    let (verdict, text) = explained(poll, "/poll").await;
    assert_eq!(verdict, Verdict::Spinning);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn too_much_fuel_is_explained() {
    let mut plan = plan(workload("slow"));
    plan.limits.fuel = Some(1_000_000);
    let (verdict, text) = explained(plan, "/spin").await;
    assert_eq!(verdict, Verdict::OutOfFuel);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn too_much_memory_is_explained() {
    let mut plan = plan(workload("leaky")).isolation(Isolation::Pod);
    plan.limits.memory = ByteSize(4 << 20);
    let (verdict, text) = explained(plan, "/?kib=8192").await;
    assert_eq!(verdict, Verdict::OutOfMemory);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn a_deadlock_is_explained() {
    let mut plan = plan(workload("deadlock-self"));
    plan.limits.request_timeout = std::time::Duration::ZERO;
    let (verdict, text) = explained(plan, "/write-before-set").await;
    assert_eq!(verdict, Verdict::Deadlocked);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn a_deadline_is_explained() {
    let late = plan(workload("slow")).request_timeout(SHORT);
    let (verdict, text) = explained(late, "/?ms=60000").await;
    assert_eq!(verdict, Verdict::TimedOut);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn silence_is_explained() {
    let (verdict, text) = explained(plan(handler_that("")), "/").await;
    assert_eq!(verdict, Verdict::NoResponse);
    insta::assert_snapshot!(text);
}
