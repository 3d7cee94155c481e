//! `sampan run`.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
};

use crate::rig::{Running, directory, done, err, get, guest, out, sampan, send};

fn serve(arguments: &[&str]) -> Running {
    Running::start(sampan(
        &[&["run", "--addr", "127.0.0.1:0"], arguments].concat(),
    ))
}

#[tokio::test]
async fn http_components_of_both_versions_are_served() {
    for name in ["hello", "hello-p3"] {
        let mut running = serve(&[&guest(name)]);
        let at = running.address();
        let response = get(at, "localhost", "/").await;
        assert_eq!(response.status, 200, "{name}: {response:?}");
        assert!(
            response.body.starts_with("Hello from Sampan"),
            "{name}: {response:?}"
        );
        let (status, talk) = running.interrupt();
        assert_eq!(status.code(), Some(0), "{name}: {talk}");
    }
}

#[tokio::test]
async fn grants_come_from_the_command_line_and_output_goes_through() {
    let data = directory(&[("greeting.txt", b"ahoy")]);
    let dir = format!("{}::/data", data.path().display());
    let component = guest("env-and-files");
    let arguments = [
        "--env",
        "A=1",
        "--env",
        "FROM_OUTSIDE",
        "--config",
        "k=v",
        "--dir",
        &dir,
    ];
    let mut command = sampan(
        &[
            &["run", "--addr", "127.0.0.1:0", &component],
            &arguments[..],
        ]
        .concat(),
    );
    command.env("FROM_OUTSIDE", "2");
    let mut running = Running::start(command);
    let at = running.address();
    assert_eq!(get(at, "x", "/env").await.body, "A=1\nFROM_OUTSIDE=2\n");
    assert_eq!(get(at, "x", "/config/k").await.body.trim(), "v");
    assert_eq!(get(at, "x", "/file/greeting.txt").await.body, "ahoy");
    assert!(
        send(at, "PUT", "x", "/file/new.txt", "written")
            .await
            .status
            < 300
    );
    assert_eq!(
        fs::read_to_string(data.path().join("new.txt")).expect("there"),
        "written"
    );
    assert_eq!(get(at, "x", "/print?text=land-ho").await.status, 204);
    running.line_with("land-ho");
}

#[test]
fn a_command_gets_arguments_and_environment_and_gives_its_exit_code() {
    let command = guest("command");
    let output = done(&["run", &command, "--", "args", "one", "two words"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("two words"), "{}", out(&output));
    assert_eq!(
        done(&["run", &command, "--", "exit", "1"]).status.code(),
        Some(1)
    );
    assert_eq!(
        done(&["run", &command, "--", "exit", "0"]).status.code(),
        Some(0)
    );
    let warned = done(&["run", &command, "--", "warn", "shoals ahead"]);
    assert!(err(&warned).contains("shoals ahead"), "{}", err(&warned));
    assert!(!out(&warned).contains("shoals"), "{}", out(&warned));
}

#[test]
fn a_command_reads_standard_input_and_its_directories() {
    let command = guest("command");
    let mut child = sampan(&["run", &command, "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(b"through and through")
        .expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "through and through"
    );

    let data = directory(&[("a.txt", b""), ("b.txt", b"")]);
    let dir = format!("{}::/data", data.path().display());
    let listed = done(&["run", &command, "--dir", &dir, "--", "ls", "/data"]);
    assert_eq!(listed.status.code(), Some(0), "{}", err(&listed));
    assert!(
        out(&listed).contains("a.txt") && out(&listed).contains("b.txt"),
        "{}",
        out(&listed)
    );
    assert_ne!(
        done(&["run", &command, "--", "ls", "/data"]).status.code(),
        Some(0)
    );
}

#[test]
fn commands_of_wasi_0_3_run_too() {
    let command = guest("command-p3");
    let output = done(&["run", &command, "--", "all", "aboard"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("aboard"), "{}", out(&output));
    assert_eq!(
        done(&["run", &command, "--", "exit", "1"]).status.code(),
        Some(1)
    );
}

/// A core module for WASI preview 1 that writes its number of arguments and exits.
const PREVIEW_1: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "0 arguments\n")
    (func (export "_start")
        (drop (call $sizes (i32.const 100) (i32.const 104)))
        (i32.store8 (i32.const 0) (i32.add (i32.const 48) (i32.load (i32.const 100))))
        (i32.store (i32.const 64) (i32.const 0))
        (i32.store (i32.const 68) (i32.const 12))
        (drop (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 108)))
        (call $exit (i32.gt_u (i32.load (i32.const 100)) (i32.const 2)))))"#;

#[test]
fn core_modules_for_preview_1_run() {
    let module = wat::parse_str(PREVIEW_1).expect("good text");
    let quiet = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
    let traps = wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#,
    );
    let files = directory(&[
        ("module.wasm", &module),
        ("quiet.wasm", &quiet.expect("good text")),
        ("traps.wasm", &traps.expect("good text")),
    ]);
    let path = |name: &str| files.path().join(name).display().to_string();
    let output = done(&["run", &path("module.wasm"), "--", "one"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "2 arguments\n");
    let output = done(&["run", &path("module.wasm"), "--", "one", "two"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert_eq!(done(&["run", &path("quiet.wasm")]).status.code(), Some(0));
    assert_eq!(done(&["run", &path("traps.wasm")]).status.code(), Some(134));
    let shown = out(&done(&["inspect", &path("module.wasm")]));
    assert!(shown.contains("wasi:cli/command 0.2"), "{shown}");
    assert!(shown.contains("runs     yes"), "{shown}");
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    let core = wat::parse_str("(module)").expect("good text");
    let neither = wat::parse_str("(component)").expect("good text");
    let browser = wat::parse_str(r#"(module (import "wbg" "f" (func)))"#).expect("good text");
    let files = directory(&[
        ("core.wasm", &core),
        ("none.wasm", &neither),
        ("browser.wasm", &browser),
        ("text.wat", b"(component)"),
    ]);
    let path = |name: &str| files.path().join(name).display().to_string();
    for (file, wanted) in [
        (path("core.wasm"), "core module"),
        (path("browser.wasm"), "imports from `wbg`"),
        (path("none.wasm"), "neither an HTTP handler nor"),
        (path("text.wat"), "WebAssembly text"),
        (path("absent.wasm"), "No such file"),
    ] {
        let output = done(&["run", &file]);
        assert_eq!(output.status.code(), Some(1), "{file}");
        assert!(err(&output).contains(wanted), "{file}: {}", err(&output));
    }
    let bad = done(&["run", &guest("hello"), "--outbound", "nowhere"]);
    assert_eq!(bad.status.code(), Some(2), "{}", err(&bad));
}

#[tokio::test]
async fn addresses_are_taken_as_people_write_them() {
    for address in ["localhost:0", ":0", "0", "[::1]:0"] {
        let arguments = ["run", &guest("hello"), "--addr", address];
        let mut running = Running::start(sampan(&arguments));
        let at = running.address();
        assert!(at.ip().is_loopback(), "{address}: {at}");
        assert_eq!(get(at, "localhost", "/").await.status, 200, "{address}");
    }
    for (address, remedy) in [
        ("localhost", "localhost:8080"),
        ("*:0", "0.0.0.0:0"),
        ("http://127.0.0.1:0/", "127.0.0.1:0"),
    ] {
        for verb in [
            &["run", "x.wasm", "--addr"][..],
            &["up", "--http"],
            &["serve", "--http"],
        ] {
            let output = done(&[verb, &[address]].concat());
            assert_eq!(output.status.code(), Some(2), "{verb:?} {address}");
            assert!(err(&output).contains(remedy), "{}", err(&output));
        }
    }
}

#[tokio::test]
async fn the_node_has_limits_of_its_own() {
    let files = directory(&[
        ("node.toml", b"[gateway]\nuri = '64B'\n"),
        (
            "bad.toml",
            b"[gateway]\nuri = '63B'\n[guest]\nhandels = 5\n",
        ),
    ]);
    let file = |name: &str| files.path().join(name).display().to_string();
    let mut running = serve(&[&guest("hello"), "--node", &file("node.toml")]);
    let at = running.address();
    for (length, status) in [(64, 200), (65, 414)] {
        let path = format!("/{}", "x".repeat(length - 1));
        assert_eq!(get(at, "localhost", &path).await.status, status);
    }
    running.interrupt();

    let refused = done(&["run", &guest("hello"), "--node", &file("bad.toml")]);
    assert_eq!(refused.status.code(), Some(2));
    for said in ["bad.toml:2:7", "bad.toml:4:1", "did you mean `handles`?"] {
        assert!(err(&refused).contains(said), "{}", err(&refused));
    }
    let missing = done(&["run", &guest("hello"), "--node", &file("absent.toml")]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("absent.toml"), "{}", err(&missing));
}

/// The least memory that a node's configuration takes for compiling is enough for a component.
#[tokio::test]
async fn the_least_memory_for_compiling_is_enough() {
    let files = directory(&[("node.toml", b"[compile]\nmemory = '256MiB'\n")]);
    let limits = files.path().join("node.toml").display().to_string();
    let hello = guest("hello");
    let mut command = sampan(&["run", "--addr", "127.0.0.1:0", &hello, "--node", &limits]);
    // Nothing is compiled yet.
    command.env("XDG_CACHE_HOME", files.path());
    let mut running = Running::start(command);
    let at = running.address();
    assert_eq!(get(at, "localhost", "/").await.status, 200);
    running.interrupt();
}

/// What guests print goes nowhere: the pipe is full, and has no reader.
#[tokio::test]
async fn a_reader_that_stops_keeps_no_guest_waiting() {
    let mut child = sampan(&["run", "--addr", "127.0.0.1:0", &guest("hostile")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    let at = line.trim().rsplit('/').next().expect("an address");
    let at = at.parse().expect("an address");
    for _ in 0..3 {
        let printed = get(at, "localhost", "/log?lines=5000").await;
        assert_eq!(printed.body, "5000 lines\n");
    }
    for _ in 0..100 {
        assert_eq!(get(at, "localhost", "/burn?ms=0").await.status, 200);
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}
