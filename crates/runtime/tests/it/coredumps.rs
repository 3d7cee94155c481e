//! Core dumps of real guests, read like any reader of such files would.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use sampan_core::{fault::Fault, object::Isolation, spec::node::GuestLimits};
use sampan_runtime::{Demands, Origin, Runtime, RuntimeConfig, pod::Pod};
use tempfile::TempDir;
use wasmparser::{CoreDumpSection, CoreDumpStackSection, KnownCustom, Parser, Payload};

use super::rig::{
    PATIENCE, Plan, SHORT, Witness, config, eventually, failure, in_time, plan, runtime, workload,
};
use super::text::{component, handler_p3_that};

/// A pod that dumps into this directory.
async fn start(plan: Plan, directory: &Path, witness: &Arc<Witness>) -> Pod {
    let plan = Plan {
        coredumps: Some(directory.to_owned()),
        ..plan
    };
    plan.watch(witness).start().await
}

/// What became of the dump of the instance that ended last.
async fn outcome(witness: &Witness) -> Result<PathBuf, String> {
    let termination = witness.last();
    let evidence = termination.evidence.as_ref().expect("it was looked at");
    let coredump = evidence.coredump.clone().expect("it was asked for");
    eventually(PATIENCE, || match coredump.outcome() {
        Some(_) => Ok(()),
        None => Err("being written"),
    })
    .await;
    coredump.outcome().expect("it is over").clone()
}

/// What becomes of the dump after this request.
async fn dumped(plan: Plan, path: &str) -> (TempDir, Fault, Result<PathBuf, String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let witness = Arc::new(Witness::default());
    let pod = start(plan, directory.path(), &witness).await;
    in_time(failure(&pod, path)).await;
    let outcome = in_time(outcome(&witness)).await;
    let termination = witness.last();
    let shown = match &outcome {
        Ok(path) => format!("  core dump     `{}`\n", path.display()),
        Err(reason) => format!("  core dump     none: {reason}\n"),
    };
    let text = termination.explain();
    assert!(text.contains(&shown), "no {shown} in\n{text}");
    (directory, termination.verdict, outcome)
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).expect("readable").count()
}

/// What is in a core dump.
#[derive(Debug, Default)]
struct Contents {
    name: String,
    modules: usize,
    instances: usize,
    /// Function and offset, the innermost frame first.
    frames: Vec<(u32, u32)>,
    memory_pages: u64,
    data: Vec<u8>,
}

fn parse(path: &Path) -> Contents {
    let bytes = std::fs::read(path).expect("readable");
    let mut contents = Contents::default();
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload.expect("a good module") {
            Payload::CustomSection(section) => match section.as_known() {
                KnownCustom::CoreDump(CoreDumpSection { name }) => contents.name = name.into(),
                KnownCustom::CoreDumpModules(section) => contents.modules = section.modules.len(),
                KnownCustom::CoreDumpInstances(it) => contents.instances = it.instances.len(),
                KnownCustom::CoreDumpStack(CoreDumpStackSection { frames, .. }) => {
                    let frames = frames.iter().map(|it| (it.funcidx, it.codeoffset));
                    contents.frames = frames.collect();
                }
                _ => {}
            },
            Payload::MemorySection(memories) => {
                let memories = memories.into_iter().map(|it| it.expect("good").initial);
                contents.memory_pages = memories.sum();
            }
            Payload::DataSection(segments) => {
                let segments = segments.into_iter().map(|it| it.expect("good").data);
                contents.data = segments.collect::<Vec<_>>().concat();
            }
            _ => {}
        }
    }
    contents
}

#[tokio::test]
async fn a_trap_leaves_a_dump_with_stack_and_memory() {
    let kept = plan(workload("crash-loop")).isolation(Isolation::Pod);
    let (directory, verdict, outcome) = dumped(kept, "/crash").await;
    assert_eq!(verdict, Fault::Trapped);
    let path = outcome.expect("a dump");
    assert_eq!(path.parent(), Some(directory.path()));
    let mode = std::fs::metadata(&path).expect("there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let dump = parse(&path);
    assert!(dump.name.starts_with("web-"), "{}", dump.name);
    assert!(dump.modules > 0 && dump.instances > 0 && dump.memory_pages > 1);
    assert!(dump.frames.len() > 1, "{:?}", dump.frames);
    // What it said last is still in its memory.
    let contains = |text: &str| {
        dump.data
            .windows(text.len())
            .any(|it| it == text.as_bytes())
    };
    assert!(contains("/crash"));
    assert_eq!(files(directory.path()), 1);
}

#[tokio::test]
async fn every_way_to_be_killed_leaves_a_dump() {
    let mut metered = plan(workload("slow"));
    metered.limits.fuel = Some(1_000_000);
    let leaky = plan(workload("leaky"))
        .isolation(Isolation::Pod)
        .memory(4 << 20);
    let mut stuck = plan(workload("deadlock-self"));
    stuck.limits.request_timeout = Duration::ZERO;
    let spinning = plan(workload("slow")).request_cpu(SHORT);
    for (plan, path, expected) in [
        (spinning, "/spin", Fault::Spinning),
        (metered, "/spin", Fault::OutOfFuel),
        (leaky, "/?kib=8192", Fault::OutOfMemory),
        (stuck, "/write-before-set", Fault::Deadlocked),
    ] {
        let (_directory, verdict, outcome) = dumped(plan, path).await;
        assert_eq!(verdict, expected);
        let dump = parse(&outcome.expect("a dump"));
        assert!(!dump.frames.is_empty(), "{expected}");
    }
}

#[tokio::test]
async fn of_an_instance_that_waited_outside_its_code_there_is_none() {
    let mut stuck = plan(workload("deadlock-self-p3")).isolation(Isolation::Request);
    stuck.limits.request_timeout = Duration::ZERO;
    let (directory, verdict, outcome) = dumped(stuck, "/read-own-stream").await;
    assert_eq!(verdict, Fault::Deadlocked);
    assert!(outcome.expect_err("no dump").contains("while it waited"));
    assert_eq!(files(directory.path()), 0);
}

#[tokio::test]
async fn wasi_0_3_is_dumped_too() {
    for isolation in [Isolation::Pod, Isolation::Request] {
        let trap = plan(handler_p3_that("unreachable")).isolation(isolation);
        let (_directory, verdict, outcome) = dumped(trap, "/").await;
        assert_eq!(verdict, Fault::Trapped);
        assert!(!parse(&outcome.expect("a dump")).frames.is_empty());
    }
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_dumped() {
    let witness = Arc::new(Witness::default());
    let pod = plan(workload("crash-loop")).isolation(Isolation::Pod);
    let pod = pod.watch(&witness).start().await;
    in_time(failure(&pod, "/crash")).await;
    let termination = witness.last();
    let evidence = termination.evidence.as_ref().expect("it was looked at");
    assert!(evidence.coredump.is_none());
    assert!(!termination.explain().contains("core dump"));
    // Nor is a request that only took too long.
    let directory = tempfile::tempdir().expect("a directory");
    let late = plan(workload("slow")).request_timeout(SHORT);
    let pod = start(late, directory.path(), &witness).await;
    in_time(failure(&pod, "/?ms=60000")).await;
    let termination = witness.last();
    assert_eq!(termination.verdict, Fault::TimedOut);
    let evidence = termination.evidence.as_ref().expect("it was looked at");
    assert!(evidence.coredump.is_none());
}

#[tokio::test]
async fn what_is_too_large_is_not_dumped() {
    let guest = GuestLimits {
        coredump_bytes: 64 << 10,
        ..GuestLimits::default()
    };
    let small = Runtime::new(RuntimeConfig { guest, ..config() });
    let large = Plan {
        runtime: small.expect("a runtime"),
        ..plan(workload("crash-loop")).isolation(Isolation::Pod)
    };
    let (directory, _, outcome) = dumped(large, "/crash").await;
    let reason = outcome.expect_err("no dump");
    assert!(reason.contains("limit of 64KiB"), "{reason}");
    assert_eq!(files(directory.path()), 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_to_is_said() {
    let witness = Arc::new(Witness::default());
    let file = tempfile::NamedTempFile::new().expect("a file");
    let kept = plan(workload("crash-loop")).isolation(Isolation::Pod);
    let pod = start(kept, &file.path().join("below"), &witness).await;
    in_time(failure(&pod, "/crash")).await;
    let reason = in_time(outcome(&witness)).await.expect_err("no dump");
    assert!(reason.contains("cannot write to `"), "{reason}");
}

/// A handler that traps in another component inside of it.
fn composed() -> Vec<u8> {
    component(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (component $inner
                (core module $m (func (export "f") (param i32) (result i32) unreachable))
                (core instance $i (instantiate $m))
                (func (export "f") (param "x" u32) (result u32) (canon lift (core func $i "f"))))
            (instance $inner (instantiate $inner))
            (component $outer
                (import "f" (func $f (param "x" u32) (result u32)))
                (import "request" (type $request (sub resource)))
                (import "out" (type $out (sub resource)))
                (core func $f (canon lower (func $f)))
                (core module $m
                    (import "" "f" (func $f (param i32) (result i32)))
                    (func (export "handle") (param i32 i32) (drop (call $f (i32.const 1)))))
                (core instance $i (instantiate $m (with "" (instance (export "f" (func $f))))))
                (func (export "handle") (param "request" (own $request))
                    (param "response-out" (own $out)) (canon lift (core func $i "handle"))))
            (instance $outer (instantiate $outer
                (with "f" (func $inner "f"))
                (with "request" (type $request))
                (with "out" (type $out))))
            (instance $handler (export "handle" (func $outer "handle")))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#,
    )
}

#[tokio::test]
async fn a_composed_component_that_cannot_be_dumped_hurts_nobody() {
    let (directory, verdict, outcome) = dumped(plan(composed()), "/").await;
    assert_eq!(verdict, Fault::Trapped);
    let reason = outcome.expect_err("no dump");
    assert!(reason.contains("composed"), "{reason}");
    assert_eq!(files(directory.path()), 0);
}

#[tokio::test]
async fn a_guest_that_traps_at_every_request_is_dumped_a_few_times() {
    let directory = tempfile::tempdir().expect("a directory");
    let witness = Arc::new(Witness::default());
    let trapping = plan(workload("crash-loop")).isolation(Isolation::Request);
    let pod = start(trapping, directory.path(), &witness).await;
    let mut outcomes = BTreeMap::<bool, usize>::new();
    for _ in 0..5 {
        in_time(failure(&pod, "/crash")).await;
        let outcome = in_time(outcome(&witness)).await;
        *outcomes.entry(outcome.is_ok()).or_default() += 1;
    }
    assert_eq!(outcomes, BTreeMap::from([(false, 2), (true, 3)]));
    assert_eq!(files(directory.path()), 3);
}

#[tokio::test]
async fn the_code_is_the_same_with_dumps_and_without() {
    let bytes = Bytes::from(workload("counter"));
    let load = |coredump| {
        let demands = Demands {
            coredump,
            ..Demands::default()
        };
        runtime().load(bytes.clone(), demands, || {})
    };
    let plain = load(false).await.expect("a good component");
    let dumping = load(true).await.expect("a good component");
    assert!(!Arc::ptr_eq(&plain, &dumping));
    assert_eq!(dumping.origin, Origin::Cache);
    assert!(Arc::ptr_eq(&dumping, &load(true).await.expect("loaded")));
}
