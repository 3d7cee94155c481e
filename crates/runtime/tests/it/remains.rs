//! What one guest leaves in memory, no other finds.

use std::sync::Arc;

use sampan_core::object::Isolation;
use sampan_runtime::{
    PoolSize, Runtime, RuntimeConfig,
    pod::{Failure, Pod},
};

use super::rig::{Plan, ask, config, plan};
use super::text::handler;

/// Rounds with memories of a few pages, whose slots are cleared by hand.
const ROUNDS: usize = 10_000;
/// Rounds with memories beyond that, which go back to the kernel.
const LARGE_ROUNDS: usize = 200;

/// A handler that fills all of its memory and its table, then dies.
fn writer(pages: u32) -> Vec<u8> {
    handler(&format!(
        r#"(memory {pages}) (table 100 funcref) (elem declare func $die)
        (func $die unreachable)
        (func (export "handle") (param i32 i32)
            (memory.fill (i32.const 0) (i32.const 0xa5) (i32.const {}))
            (table.fill (i32.const 0) (ref.func $die) (i32.const 100))
            (call $die))"#,
        pages << 16
    ))
}

/// A handler that looks at all of its memory and its table. It dies if something is there, and else
/// returns without a response.
fn reader(pages: u32) -> Vec<u8> {
    handler(&format!(
        r#"(memory {pages}) (table 100 funcref)
        (func (export "handle") (param i32 i32) (local $at i32)
            (loop $next
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const {}))))
            (local.set $at (i32.const 0))
            (loop $next
                (if (i32.eqz (ref.is_null (table.get (local.get $at)))) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const 100)))))"#,
        pages << 16
    ))
}

async fn failure(pod: &Pod) -> Failure {
    ask(pod, "/").await.expect_err("no answer")
}

#[tokio::test]
async fn an_instance_starts_with_nothing_of_another() {
    let runtime = Runtime::new(RuntimeConfig {
        // One place, so that each instance follows one of the other guest in the same slot.
        pool: PoolSize { instances: 1 },
        ..config()
    });
    let runtime = runtime.expect("a runtime");
    for (pages, rounds) in [(4, ROUNDS), (40, LARGE_ROUNDS)] {
        let start = |bytes| {
            let plan = Plan {
                runtime: Arc::clone(&runtime),
                ..plan(bytes)
            };
            plan.isolation(Isolation::Request).start()
        };
        let (writer, reader) = (start(writer(pages)).await, start(reader(pages)).await);
        for _ in 0..rounds {
            assert!(matches!(failure(&writer).await, Failure::Trapped(_)));
            assert_eq!(failure(&reader).await, Failure::NoResponse);
        }
    }
}
