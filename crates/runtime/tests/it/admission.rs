//! What is refused before anything is compiled, and in which words.

use std::{process::Command, sync::Arc};

use bytes::Bytes;
use sampan_runtime::{
    Demands, LoadError, Runtime, RuntimeConfig,
    admission::{check, inspect::Inspection},
    artifact::cache::Cache,
};

use super::rig::{config, load_with, runtime, workload};
use super::text::{command_that, component};

/// A runtime that cannot compile: there is no such program.
fn without_compiler(cache: &std::path::Path) -> Arc<Runtime> {
    let config = RuntimeConfig {
        cache: Cache::open(cache).ok(),
        compile_command: Arc::new(|| Command::new("/nowhere/compiler")),
        ..config()
    };
    Runtime::new(config).expect("a runtime")
}

/// An error with its causes, as users see it.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

async fn refused(bytes: &[u8]) -> LoadError {
    let cache = tempfile::tempdir().expect("a directory");
    let runtime = without_compiler(cache.path());
    let compiling = || panic!("it is compiled");
    runtime
        .load(Bytes::copy_from_slice(bytes), Demands::default(), compiling)
        .await
        .err()
        .expect("refused")
}

#[tokio::test]
async fn all_missing_imports_are_listed_at_once() {
    let head = r#"
        (import "wasi:io/poll@0.2.0" (instance (export "pollable" (type (sub resource)))))
        (import "demo:kv/store@1.0.0" (instance (export "get" (func (result u32)))))
        (import "demo:mail/send@0.1.0" (instance (export "send" (func (param "to" string)))))
        (import "wasi:sockets/quic@0.2.0" (instance (export "open" (func))))"#;
    let run = r#"
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run-instance (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run-instance))"#;
    let missing = "the component's imports cannot be satisfied: the host has no \
        `demo:kv/store@1.0.0`, `demo:mail/send@0.1.0`, `wasi:sockets/quic@0.2.0`";
    let before = component(&format!("(component {head} {run})"));
    assert_eq!(told(&refused(&before).await), missing);
    // The same, where the imports stand behind the code.
    let after = component(&format!("(component {run} {head})"));
    assert_eq!(told(&refused(&after).await), missing);
}

#[tokio::test]
async fn an_interface_that_differs_is_named_with_the_function() {
    let bytes = component(
        r#"(component
            (import "wasi:random/random@0.2.0" (instance (export "get-dice" (func (result u8)))))
            (core module $m (func (export "run") (result i32) (i32.const 0)))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $run-instance (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run-instance)))"#,
    );
    let error = told(&refused(&bytes).await);
    assert!(
        error.contains("wasi:random/random@0.2.0") && error.contains("get-dice"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_component_is_told_so() {
    let core = wat::parse_str("(module)").expect("good text");
    for (bytes, word) in [
        (&b"(component)"[..], "text"),
        (&core, "core module"),
        (&b"#!/bin/sh\n"[..], "not a WebAssembly binary"),
        (&workload("hello")[..9000], "damaged at byte"),
    ] {
        let error = refused(bytes).await;
        assert!(matches!(error, LoadError::Inspect(_)), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_component_that_exports_nothing_of_use_is_refused_with_what_it_exports() {
    let bytes =
        component(r#"(component (instance $i) (export "demo:app/main@1.0.0" (instance $i)))"#);
    let error = told(&refused(&bytes).await);
    assert!(error.contains("`demo:app/main@1.0.0`"), "{error}");
    assert!(
        error.contains("neither an HTTP handler nor `wasi:cli/run`"),
        "{error}"
    );
}

#[tokio::test]
async fn other_bytes_than_asked_for_are_refused_with_both_digests() {
    let bytes = command_that("(i32.const 0)");
    let wanted = "0".repeat(64);
    let load = runtime().load(
        Bytes::copy_from_slice(&bytes),
        Demands {
            digest: Some(wanted.clone()),
            ..Demands::default()
        },
        || {},
    );
    let error = load.await.err().expect("refused").to_string();
    let found = load_with(&bytes, false)
        .await
        .expect("good")
        .inspection
        .digest;
    assert!(
        error.contains(&wanted) && error.contains(&found.to_string()),
        "{error}"
    );
    let right = runtime()
        .load(
            Bytes::copy_from_slice(&bytes),
            Demands {
                digest: Some(found.to_hex()),
                ..Demands::default()
            },
            || {},
        )
        .await;
    assert!(right.is_ok());
}

#[test]
fn all_guests_are_admitted_without_compiling() {
    for name in [
        "caller",
        "command",
        "command-p3",
        "counter",
        "echo",
        "env-and-files",
        "hello",
        "hello-p3",
        "slow",
        "stream-p3",
    ] {
        let bytes = workload(name);
        let inspection = Inspection::of(&bytes).expect("a component");
        let admitted = check(&bytes, &inspection);
        assert!(admitted.is_ok(), "{name}: {admitted:?}");
    }
}
