//! The memory limit, and the account of what a pod uses.

use std::time::Duration;

use sampan_core::object::Isolation;
use sampan_runtime::pod::Failure;

use super::rig::{PATIENCE, ask, failure, load_with, no_instance, plan, workload};
use super::text::{component, handler};

const MIB: u64 = 1 << 20;

/// A handler that traps unless growing by `operation` says -1.
fn refused(declarations: &str, operation: &str) -> Vec<u8> {
    handler(&format!(
        r#"{declarations}
        (func (export "handle") (param i32 i32)
            (if (i32.ne ({operation}) (i32.const -1)) (then unreachable)))"#
    ))
}

/// Whether the host refused. A handler that is refused returns, without a response.
async fn is_refused(bytes: Vec<u8>, limit: u64) -> bool {
    match failure(&plan(bytes).memory(limit).start().await, "/").await {
        Failure::NoResponse => true,
        Failure::Trapped(_) => false,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn growth_over_the_limit_is_refused_and_within_it_is_not() {
    let grow = |pages: u32| refused("(memory 1)", &format!("memory.grow (i32.const {pages})"));
    assert!(!is_refused(grow(15), MIB).await);
    assert!(is_refused(grow(16), MIB).await);
    assert!(is_refused(grow(65_536), 64 * MIB).await);
}

#[tokio::test]
async fn memories_and_tables_share_the_limit() {
    let two = |pages: u32| {
        let declarations = "(memory $a 8) (memory $b 1)";
        refused(declarations, &format!("memory.grow $b (i32.const {pages})"))
    };
    assert!(!is_refused(two(7), MIB).await);
    assert!(is_refused(two(8), MIB).await);
    let table = |elements: u32| {
        let declarations = "(memory 15) (table $t 0 funcref)";
        let grow = format!("table.grow $t (ref.null func) (i32.const {elements})");
        refused(declarations, &grow)
    };
    // 64 KiB are left: 8192 elements of eight bytes.
    assert!(!is_refused(table(8192), MIB).await);
    assert!(is_refused(table(8193), MIB).await);
    assert!(is_refused(table(100_001), 64 * MIB).await);
}

#[tokio::test]
async fn too_large_from_the_start_is_no_start() {
    let module = r#"(memory 32) (func (export "handle") (param i32 i32))"#;
    for isolation in [Isolation::Request, Isolation::Pod] {
        let plan = plan(handler(module)).memory(MIB).isolation(isolation);
        let error = plan.try_start().await.err().expect("no start").to_string();
        assert!(
            error.contains("memory") && error.contains("limit"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[tokio::test]
async fn more_than_any_instance_may_have_is_not_loaded() {
    let twice = |declarations: &str| {
        component(&format!(
            r#"(component
                (core module $m {declarations} (func (export "run") (result i32) (i32.const 0)))
                (core instance (instantiate $m))
                (core instance $i (instantiate $m))
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $run-instance (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $run-instance)))"#
        ))
    };
    let cases = [
        ("(memory 65536) (memory 1)", "4096 MiB of initial memory"),
        ("(memory 0) (memory 0) (memory 0)", "6 Wasm linear memories"),
        (&"(table 1 funcref)".repeat(9), "18 tables"),
        (&"(memory 0)".repeat(5), "count of 5"),
        (&"(table 0 funcref)".repeat(17), "count of 17"),
        ("(table 100001 funcref)", "100001"),
    ];
    for (declarations, need) in cases {
        let loaded = load_with(&twice(declarations), false).await;
        let error = loaded.err().expect("refused");
        assert!(error.to_string().contains(need), "{error}");
    }
}

#[tokio::test]
async fn memory_is_given_back_and_the_peak_stays() {
    let pod = plan(workload("hello")).start().await;
    for _ in 0..3 {
        ask(&pod, "/").await.expect("an answer");
    }
    no_instance(&pod, PATIENCE).await;
    let usage = pod.usage();
    assert!(usage.memory_peak_bytes >= 1 << 16, "{usage:?}");
    assert!(usage.memory_peak_bytes < MIB * 64, "{usage:?}");

    let kept = plan(workload("hello"))
        .isolation(Isolation::Pod)
        .start()
        .await;
    ask(&kept, "/").await.expect("an answer");
    let usage = kept.usage();
    assert!(usage.memory_bytes >= 1 << 16, "{usage:?}");
    assert_eq!(usage.memory_bytes, usage.memory_peak_bytes);
}

#[tokio::test]
async fn cpu_grows_with_the_work() {
    let pod = plan(workload("slow"))
        .request_cpu(Duration::from_millis(100))
        .start()
        .await;
    let mut before = pod.usage().cpu;
    for _ in 0..3 {
        assert!(matches!(failure(&pod, "/spin").await, Failure::Spinning(_)));
        let now = pod.usage().cpu;
        assert!(
            now >= before + Duration::from_millis(90),
            "{before:?} {now:?}"
        );
        before = now;
    }
    // Waiting costs nothing: a thousand times less than it takes, if the machine is idle.
    ask(&pod, "/?ms=300").await.expect("an answer");
    assert!(
        pod.usage().cpu < before + Duration::from_millis(150),
        "{:?}",
        pod.usage()
    );
}
