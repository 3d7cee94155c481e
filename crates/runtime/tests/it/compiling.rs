//! Components that take too much to compile, or that do not compile.

use std::{fmt::Write as _, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use sampan_runtime::{
    Demands, LoadError, Runtime, RuntimeConfig,
    artifact::{
        cache::Cache,
        compile::{ChildCommand, CompileError, CompileLimits},
    },
};

use super::rig::{compile_command, config, in_time, workload};
use super::text::command_that;

async fn compile(
    bytes: &[u8],
    limits: CompileLimits,
    compile_command: ChildCommand,
) -> CompileError {
    let cache = tempfile::tempdir().expect("a directory");
    let config = RuntimeConfig {
        cache: Cache::open(cache.path()).ok(),
        compile_limits: limits,
        compile_command,
        ..config()
    };
    let runtime = Runtime::new(config).expect("a runtime");
    let loaded =
        in_time(runtime.load(Bytes::copy_from_slice(bytes), Demands::default(), || {})).await;
    match loaded.err().expect("not compiled") {
        LoadError::Compile(error) => error,
        other => panic!("{other:?}"),
    }
}

/// One function in which many values live for long: small to write, and much to compile.
fn bomb() -> Vec<u8> {
    const LOCALS: usize = 1000;
    let mut body = format!("(local {})", "i32 ".repeat(LOCALS));
    for block in 0..3000 {
        let (a, b) = (block * 7 % LOCALS, block * 13 % LOCALS);
        let _ = write!(
            body,
            "(if (local.get {a}) (then (local.set {b} (i32.add (local.get {a}) (i32.const {block})))))"
        );
    }
    command_that(&format!("{body} (local.get 0)"))
}

#[tokio::test]
async fn a_compile_bomb_hits_the_memory_limit_and_nothing_else() {
    let limits = CompileLimits {
        address_space_bytes: 256 << 20,
        ..CompileLimits::default()
    };
    let error = compile(&bomb(), limits, compile_command()).await;
    assert!(
        matches!(error, CompileError::Memory(bytes) if bytes == 256 << 20),
        "{error:?}"
    );
    assert!(error.to_string().contains("256 MiB"), "{error}");
}

#[tokio::test]
async fn a_compiler_that_computes_too_long_is_ended() {
    let limits = CompileLimits {
        cpu: Duration::from_secs(1),
        ..CompileLimits::default()
    };
    let spin: ChildCommand = Arc::new(|| {
        // Takes the limit that it was told as the compiler does, and then its time.
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "ulimit -t $SAMPAN_COMPILE_CPU_SECONDS; while :; do :; done",
        ]);
        command
    });
    let error = compile(&workload("hello"), limits, spin).await;
    assert!(matches!(error, CompileError::Cpu(_)), "{error:?}");
}

#[tokio::test]
async fn a_compiler_that_takes_too_long_is_ended() {
    let limits = CompileLimits {
        wall: Duration::from_millis(1),
        ..CompileLimits::default()
    };
    let error = compile(&workload("hello"), limits, compile_command()).await;
    assert!(matches!(error, CompileError::Wall(_)), "{error:?}");
}

#[tokio::test]
async fn code_that_is_not_valid_is_refused_with_the_compilers_words() {
    // Text cannot write it: the body of `run` leaves nothing where it should leave a number.
    let mut bytes = command_that("(i32.const 77)");
    let place = bytes.windows(3).position(|w| w == [0x41, 77 | 0x80, 0]);
    let place = place.or_else(|| bytes.windows(2).position(|w| w == [0x41, 77]));
    let place = place.expect("the constant");
    // `nop` in the place of each byte of the constant.
    let end = bytes[place..]
        .iter()
        .position(|&byte| byte == 0x0b)
        .expect("an end")
        + place;
    bytes[place..end].fill(0x01);
    let error = compile(&bytes, CompileLimits::default(), compile_command()).await;
    assert!(matches!(error, CompileError::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("type mismatch"), "{error}");
}

#[tokio::test]
async fn a_compiler_that_cannot_be_started_is_told() {
    let nowhere: ChildCommand = Arc::new(|| Command::new("/nowhere/compiler"));
    let error = compile(&workload("hello"), CompileLimits::default(), nowhere).await;
    assert!(matches!(error, CompileError::Process(_)), "{error:?}");
}
