//! What is said about instances that were killed, word for word but for the measurements.

use std::{path::Path, sync::Arc};

use regex::Regex;
use sampan_core::{
    fault::Fault,
    object::{Check, Isolation},
    plan::probe::ProbeKind,
    quantity::ByteSize,
};
use sampan_runtime::{
    Runtime, Symbols,
    pod::{Probed, Termination},
};

use super::rig::{Plan, SHORT, Witness, config, failure, in_time, plan, workload};
use super::text::handler_that;

/// What is said after this request, with every measurement replaced.
async fn explained(plan: Plan, path: &str) -> (Fault, String) {
    let witness = Arc::new(Witness::default());
    let pod = plan.watch(&witness).start().await;
    in_time(failure(&pod, path)).await;
    let termination = witness.last();
    let text = without_measurements(termination.explain());
    (termination.verdict, text)
}

fn without_measurements(mut text: String) -> String {
    for (measured, shown) in [
        (r"[0-9.]+ (µs|ms|s)\b", "<time>"),
        (r"and [0-9]+ host calls", "and <n> host calls"),
        (r"\(0x[0-9a-f]+", "(<offset>"),
        (r"web-[0-9]+-0", "web-<n>-0"),
        (r"\[[0-9a-f]{16}\]", "[<hash>]"),
        (r"[0-9.]+ MiB of", "<size> of"),
    ] {
        let measured = Regex::new(measured).expect("a good expression");
        text = measured.replace_all(&text, shown).into_owned();
    }
    text
}

#[tokio::test]
async fn a_trap_is_explained() {
    let kept = plan(workload("crash-loop")).isolation(Isolation::Pod);
    let (verdict, text) = explained(kept, "/crash").await;
    assert_eq!(verdict, Fault::Trapped);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn spinning_is_explained() {
    let spin = plan(workload("slow")).request_cpu(SHORT);
    let (verdict, text) = explained(spin, "/spin").await;
    assert_eq!(verdict, Fault::Spinning);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn busy_polling_is_explained() {
    let poll = plan(workload("hostile")).request_cpu(SHORT);
    let (verdict, text) = explained(poll, "/poll").await;
    assert_eq!(verdict, Fault::Spinning);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn too_much_fuel_is_explained() {
    let mut plan = plan(workload("slow"));
    plan.limits.fuel = Some(1_000_000);
    let (verdict, text) = explained(plan, "/spin").await;
    assert_eq!(verdict, Fault::OutOfFuel);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn too_much_memory_is_explained() {
    let mut plan = plan(workload("leaky")).isolation(Isolation::Pod);
    plan.limits.memory = ByteSize(4 << 20);
    let (verdict, text) = explained(plan, "/?kib=8192").await;
    assert_eq!(verdict, Fault::OutOfMemory);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn a_deadlock_is_explained() {
    let mut plan = plan(workload("deadlock-self"));
    plan.limits.request_timeout = std::time::Duration::ZERO;
    let (verdict, text) = explained(plan, "/write-before-set").await;
    assert_eq!(verdict, Fault::Deadlocked);
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn a_deadline_is_explained() {
    let late = plan(workload("slow")).request_timeout(SHORT);
    let (verdict, text) = explained(late, "/?ms=60000").await;
    assert_eq!(verdict, Fault::TimedOut);
    insta::assert_snapshot!(text);
}

/// What the instance is at when liveness ends its pod.
#[tokio::test]
async fn a_guest_that_hangs_is_explained() {
    let pod = plan(workload("slow"))
        .isolation(Isolation::Pod)
        .start()
        .await;
    let check = Check::Http("/?ms=60000".to_owned());
    let missed = in_time(pod.probe(&check, ProbeKind::Liveness, SHORT)).await;
    let Probed::Failure(reason) = missed else {
        panic!("it hangs: {missed:?}");
    };
    let termination = pod.killed(format!("liveness probe failed 3 times in a row: {reason}"));
    assert_eq!(termination.verdict, Fault::Unhealthy);
    insta::assert_snapshot!(without_measurements(termination.explain()));
}

#[tokio::test]
async fn silence_is_explained() {
    let (verdict, text) = explained(plan(handler_that("")), "/").await;
    assert_eq!(verdict, Fault::NoResponse);
    insta::assert_snapshot!(text);
}

/// The report on a guest that was loaded from this file, and crashed.
async fn crash_of(path: &Path) -> Arc<Termination> {
    let witness = Arc::new(Witness::default());
    let kept = Plan {
        bytes: std::fs::read(path).expect("readable"),
        runtime: Runtime::new(config()).expect("a runtime"),
        path: Some(path.to_owned()),
        ..plan(Vec::new())
    };
    let pod = kept.isolation(Isolation::Pod).watch(&witness).start().await;
    in_time(failure(&pod, "/crash")).await;
    witness.last()
}

#[tokio::test]
async fn who_reads_a_report_sees_source_lines() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("crash-loop.wasm");
    std::fs::write(&path, workload("crash-loop")).expect("written");
    let termination = crash_of(&path).await;
    let plain = termination.explain();
    let source = "crash-loop/src/lib.rs:";
    assert!(!plain.contains(source), "{plain}");
    let symbols = Symbols::default();
    let text = symbols.explain(&termination);
    for (function, line) in [
        ("crash_as_asked", "crashed as asked\")"),
        ("incoming-handler@0.2.12#handle", "crash_as_asked(),"),
    ] {
        let frame = text.lines().find(|it| it.contains(function));
        let frame = frame.unwrap_or_else(|| panic!("no `{function}` in\n{text}"));
        let (_, number) = frame
            .split_once(source)
            .unwrap_or_else(|| panic!("{frame}"));
        let number = number.split(' ').next().expect("a number");
        let workloads = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workloads");
        let lines = std::fs::read_to_string(workloads.join("crash-loop/src/lib.rs"));
        let lines = lines.expect("the source");
        let place: usize = number.parse().expect("a number");
        let said = lines.lines().nth(place - 1).expect("a line");
        assert!(said.contains(line), "line {place} is `{said}`");
    }
    // The standard library's lines are those of any compiler's.
    assert!(text.contains("  library/core/src/panicking.rs:"), "{text}");
    // The component has changed: who has seen the lines keeps them, who has not sees none.
    std::fs::write(&path, workload("hello")).expect("written");
    assert_eq!(symbols.explain(&termination), text);
    assert_eq!(Symbols::default().explain(&termination), plain);
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(Symbols::default().explain(&termination), plain);
}

#[tokio::test]
async fn without_debug_information_there_are_no_lines() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workloads/dist");
    let termination = crash_of(&dist.join("counter.wasm")).await;
    let text = Symbols::default().explain(&termination);
    assert_eq!(text, termination.explain());
    assert!(text.contains("crash"), "{text}");
}
