//! Commands: arguments, environment, directories, streams, and how they end.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use sampan_core::{
    name::PodName,
    object::{Access, Grants, Limits, Mount, MountSource},
    quantity::ByteSize,
    secret::SecretValues,
};
use sampan_runtime::{
    Demands, Loaded, Runtime, StartError, Stdio,
    command::{self, CommandSpec, Ended, Exit},
    logs::Stream,
};

use super::rig::{
    SHORT, in_time, limits, lines, load, load_with, map, pod_name, runtime, texts, workload,
};
use super::text::{command_p3_that, command_that, component, networker};

pub(crate) async fn run_with(
    runtime: &Runtime,
    loaded: &Loaded,
    name: PodName,
    args: &[&str],
    grants: &Grants,
    limits: &Limits,
) -> Result<Ended, StartError> {
    let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let spec = CommandSpec {
        name,
        args: &args,
        grants,
        limits,
        base: Path::new("/"),
        stdio: Stdio::Logs,
        neighbours: None,
        keyvalue: None,
        secrets: &SecretValues::new(),
    };
    in_time(command::run(runtime, loaded, spec)).await
}

/// Runs a component that is loaded in the shared runtime.
pub(crate) async fn run(
    loaded: &Loaded,
    name: PodName,
    args: &[&str],
) -> Result<Ended, StartError> {
    run_with(runtime(), loaded, name, args, &Grants::default(), &limits()).await
}

/// Loads a component in a runtime and runs it there.
pub(crate) async fn run_in(
    runtime: &Arc<Runtime>,
    bytes: &[u8],
    name: PodName,
    args: &[&str],
) -> Result<Ended, StartError> {
    let loaded = runtime
        .load(Bytes::copy_from_slice(bytes), Demands::default(), || {})
        .await
        .expect("a good component");
    run_with(runtime, &loaded, name, args, &Grants::default(), &limits()).await
}

/// Runs the workload and returns how it ended and what it printed.
async fn outcome(name: &str, args: &[&str], grants: &Grants) -> (Exit, Vec<(Stream, String)>) {
    let loaded = load(&workload(name)).await;
    let pod = pod_name();
    let ended = run_with(runtime(), &loaded, pod.clone(), args, grants, &limits()).await;
    let printed = lines(runtime(), &pod)
        .into_iter()
        .map(|line| (line.stream, line.text));
    (ended.expect("a start").exit, printed.collect())
}

fn out(text: &str) -> (Stream, String) {
    (Stream::Stdout, text.to_owned())
}

#[tokio::test]
async fn arguments_are_passed_on() {
    let args = ["program", "args", "one", "two words", ""];
    let (exit, printed) = outcome("command", &args, &Grants::default()).await;
    assert_eq!(
        (exit, printed),
        (Exit::Code(0), vec![out("one"), out("two words"), out("")])
    );
    let args = ["program", "one", "two words"];
    let (exit, printed) = outcome("command-p3", &args, &Grants::default()).await;
    assert_eq!(
        (exit, printed),
        (Exit::Code(0), vec![out("one"), out("two words")])
    );
}

#[tokio::test]
async fn the_environment_and_the_directories_are_what_was_granted() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("file"), "content").expect("written");
    let grants = Grants {
        env: map(&[("ONE", "1")]),
        files: vec![Mount {
            source: MountSource::Host(directory.path().to_owned()),
            guest: "/data".to_owned(),
            access: Access::ReadOnly,
        }],
        ..Grants::default()
    };
    let (exit, printed) = outcome(
        "command",
        &["program", "env", "ONE", "PATH", "HOME"],
        &grants,
    )
    .await;
    assert_eq!((exit, printed), (Exit::Code(0), vec![out("ONE=1")]));
    let (exit, printed) = outcome("command", &["program", "ls", "/data"], &grants).await;
    assert_eq!((exit, printed), (Exit::Code(0), vec![out("file")]));
    let (exit, _) = outcome("command", &["program", "ls", "/"], &grants).await;
    assert_eq!(exit, Exit::Code(1));
}

#[tokio::test]
async fn input_is_empty_and_errors_go_to_their_own_stream() {
    let none = Grants::default();
    assert_eq!(
        outcome("command", &["program", "cat"], &none).await,
        (Exit::Code(0), vec![])
    );
    let (exit, printed) = outcome("command", &["program", "warn", "look"], &none).await;
    assert_eq!(
        (exit, printed),
        (Exit::Code(0), vec![(Stream::Stderr, "look".to_owned())])
    );
}

#[tokio::test]
async fn the_exit_code_says_how_it_ended() {
    for (name, args, code) in [
        ("command", ["program", "exit", "0"], 0),
        ("command", ["program", "exit", "1"], 1),
        ("command-p3", ["program", "exit", "1"], 1),
    ] {
        let (exit, _) = outcome(name, &args, &Grants::default()).await;
        assert_eq!(exit, Exit::Code(code), "{name}");
    }
    for (bytes, code) in [
        (command_that("(i32.const 0)"), 0),
        (command_that("(i32.const 1)"), 1),
        (command_p3_that("(i32.const 0)"), 0),
        (command_p3_that("(i32.const 1)"), 1),
    ] {
        let ended = run(&*load(&bytes).await, pod_name(), &[])
            .await
            .expect("a start");
        assert_eq!(ended.exit, Exit::Code(code));
        assert_eq!(ended.usage.instances, 1);
    }
}

#[tokio::test]
async fn a_trap_is_a_failure_that_says_what_and_where() {
    for bytes in [command_that("unreachable"), command_p3_that("unreachable")] {
        let ended = run(&*load(&bytes).await, pod_name(), &[])
            .await
            .expect("a start");
        let Exit::Failed(text) = ended.exit else {
            panic!("{:?}", ended.exit)
        };
        assert!(
            text.contains("unreachable") && text.contains("backtrace"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_command_has_no_deadline_but_may_have_fuel() {
    let spin = command_that("(loop $again (br $again)) (i32.const 0)");
    let metered = load_with(&spin, true).await.expect("a good component");
    let limits = Limits {
        fuel: Some(1_000_000),
        ..limits()
    };
    let ended = run_with(
        runtime(),
        &metered,
        pod_name(),
        &[],
        &Grants::default(),
        &limits,
    )
    .await;
    let exit = ended.expect("a start").exit;
    assert!(
        matches!(&exit, Exit::Failed(text) if text.contains("fuel")),
        "{exit:?}"
    );

    let limits = Limits {
        request_cpu: SHORT,
        request_timeout: SHORT,
        ..super::rig::limits()
    };
    let loaded = load(&spin).await;
    let grants = Grants::default();
    let forever = run_with(runtime(), &loaded, pod_name(), &[], &grants, &limits);
    assert!(tokio::time::timeout(SHORT * 3, forever).await.is_err());
}

#[tokio::test]
async fn the_memory_limit_holds_for_commands_too() {
    let body = "(memory.grow (i32.const 16)) (i32.const -1) (i32.ne)) (memory 1) (func";
    let loaded = load(&command_that(body)).await;
    for (bytes, code) in [(1 << 20, 0), (2 << 20, 1)] {
        let limits = Limits {
            memory: ByteSize(bytes),
            ..limits()
        };
        let (name, none) = (pod_name(), Grants::default());
        let ended = run_with(runtime(), &loaded, name.clone(), &[], &none, &limits);
        let ended = ended.await.expect("a start");
        assert_eq!(
            ended.exit,
            Exit::Code(code),
            "{:?}",
            texts(&lines(runtime(), &name))
        );
        assert_eq!(ended.usage.memory_bytes, 0);
        assert!(ended.usage.memory_peak_bytes >= 1 << 16);
    }
}

/// As Rust's standard library adds the older export to a program that has the newer one.
#[tokio::test]
async fn of_two_ways_to_run_the_newest_is_taken() {
    let older = r#"(export "wasi:cli/run@0.2.6" (instance $old))"#;
    let newer = r#"(export "wasi:cli/run@0.3.0" (instance $new))"#;
    for exports in [[older, newer], [newer, older]] {
        let both = component(&format!(
            r#"(component
                (core module $m
                    (func (export "old") (result i32) unreachable)
                    (func (export "new") (result i32) (i32.const 0)))
                (core instance $i (instantiate $m))
                (func $old (result (result)) (canon lift (core func $i "old")))
                (func $new async (result (result)) (canon lift (core func $i "new")))
                (instance $old (export "run" (func $old)))
                (instance $new (export "run" (func $new)))
                {})"#,
            exports.concat()
        ));
        let ended = run(&*load(&both).await, pod_name(), &[]).await;
        assert_eq!(ended.expect("a start").exit, Exit::Code(0));
    }
    // Alone the older one is run as ever.
    let old = load(&command_that("(i32.const 1)")).await;
    let ended = run(&old, pod_name(), &[]).await.expect("a start");
    assert_eq!(ended.exit, Exit::Code(1));
}

#[test]
fn a_program_is_called_by_its_file() {
    for (path, name) in [
        ("/srv/secret-project/job.wasm", "job.wasm"),
        ("job.wasm", "job.wasm"),
        ("../job.wasm", "job.wasm"),
    ] {
        assert_eq!(command::program_name(Path::new(path)), name);
    }
}

#[tokio::test]
async fn there_is_no_network() {
    let ended = run(&*load(&networker()).await, pod_name(), &[]).await;
    assert_eq!(ended.expect("a start").exit, Exit::Code(0));
}
