//! Probes, restarts and events, with real guests.

use crate::rig::{
    Running, STILLBORN, directory, done, err, eventually, get, guest, out, sampan, send,
};

/// An app in a directory of its own; `stillborn.wasm` is in it.
fn app(spec: &str) -> (tempfile::TempDir, String) {
    let mut text = format!("app = 'a'\n{spec}");
    for name in [
        "counter",
        "crash-loop",
        "hello",
        "flaky-ready",
        "slow-start",
    ] {
        text = text.replace(&format!("'{name}.wasm'"), &format!("'{}'", guest(name)));
    }
    let stillborn = wat::parse_str(STILLBORN).expect("a component");
    let directory = directory(&[
        ("sampan.toml", text.as_bytes()),
        ("stillborn.wasm", &stillborn),
    ]);
    let path = directory.path().join("sampan.toml").display().to_string();
    (directory, path)
}

fn up(path: &str, more: &[&str]) -> Running {
    let arguments = ["up", "-f", path, "--http", "127.0.0.1:0"];
    Running::start(sampan(&[&arguments[..], more].concat()))
}

#[tokio::test]
async fn a_crash_is_a_restart_in_place() {
    let (_directory, path) = app(
        "[service.c]\ncomponent = 'counter.wasm'\nisolation = 'pod'\nroute = ['/']\n\
         debug_headers = true\n",
    );
    let mut running = up(&path, &[]);
    let at = running.address();
    for crash in 1..=2 {
        assert_eq!(get(at, "x", "/").await.body.trim(), "1");
        let after = get(at, "x", "/").await;
        assert_eq!(after.body.trim(), "2");
        assert_eq!(after.headers["sampan-pod"], "c-1-0");
        assert_eq!(get(at, "x", "/crash").await.status, 500);
        running.line_with(&format!("c-1-0 restarting, restart {crash}"));
    }
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    for wanted in [
        "c-1-0 failed: Trapped: the guest trapped",
        "c-1-0 BackOff: next try in 200ms",
        "c-1-0 CrashLoopBackOff: next try in 400ms, after 2 failures in a row",
    ] {
        assert!(talk.contains(wanted), "`{wanted}` is missing in {talk}");
    }
}

#[tokio::test]
async fn a_crash_leaves_a_report_with_source_lines_and_a_core_dump() {
    let (directory, path) = app(
        "[service.c]\ncomponent = 'crash-loop.wasm'\nisolation = 'pod'\nroute = ['/']\n\
         coredump = true\n",
    );
    let state = directory.path().join("state");
    let socket = directory.path().join("api.sock").display().to_string();
    let http = "127.0.0.1:0";
    let mut command = sampan(&["up", "-f", &path, "--http", http, "--api", &socket]);
    command.env("XDG_STATE_HOME", &state);
    let mut running = Running::start(command);
    let at = running.address();
    assert_eq!(get(at, "x", "/crash").await.status, 500);
    let said = running.line_with("core dumped");
    let dumps = std::fs::read_dir(state.join("sampan/coredumps/a")).expect("a directory");
    let dumps: Vec<_> = dumps.map(|it| it.expect("readable").path()).collect();
    let [dump] = &dumps[..] else {
        panic!("{dumps:?}");
    };
    assert!(said.contains(&*dump.to_string_lossy()), "{said}");
    let bytes = std::fs::read(dump).expect("readable");
    assert!(bytes.starts_with(b"\0asm"));
    let described = done(&["describe", "pod/c-1-0", "--api", &socket]);
    let described = out(&described);
    for wanted in [&*dump.to_string_lossy(), "workloads/crash-loop/src/lib.rs:"] {
        assert!(described.contains(wanted), "{described}");
    }
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_and_the_delays_double() {
    let (_directory, path) = app("[service.c]\ncomponent = 'counter.wasm'\nroute = ['/']\n\
         [service.c.liveness]\nhttp = '/absent'\nperiod = '20ms'\nfailures = 2\n\
         [service.c.restart]\ninitial = '10ms'\nmax = '40ms'\n");
    let mut running = up(&path, &[]);
    running.line_with("killed: liveness probe failed 2 times in a row: status 404");
    for wanted in [
        "BackOff: next try in 10ms",
        "CrashLoopBackOff: next try in 20ms, after 2 failures in a row",
        "CrashLoopBackOff: next try in 40ms, after 3 failures in a row",
        "CrashLoopBackOff: next try in 40ms, after 4 failures in a row",
    ] {
        running.line_with(wanted);
    }
    // Between two restarts it answers.
    let at = running.address();
    eventually(at, "x", "/", |response| response.body.trim() == "1").await;
}

#[tokio::test]
async fn an_unready_pod_gets_no_request() {
    let (_directory, path) = app(
        "[service.c]\ncomponent = 'counter.wasm'\nroute = ['/']\nlimits.queue_timeout = '100ms'\n\
         readiness = { http = '/absent', period = '20ms' }\n\
         [service.late]\ncomponent = 'counter.wasm'\nroute = ['/late']\n\
         readiness = { http = '/', delay = '300ms' }\n\
         [service.h]\ncomponent = 'hello.wasm'\ndepends_on = ['late']\n",
    );
    let mut running = up(&path, &[]);
    let at = running.address();
    assert_eq!(get(at, "x", "/").await.status, 503);
    assert_eq!(get(at, "x", "/late").await.status, 404);
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    let place = |text: &str| {
        talk.find(text)
            .unwrap_or_else(|| panic!("no `{text}`: {talk}"))
    };
    assert!(
        place("waits for service `late` to be ready") < place("late-1-0 ready"),
        "{talk}"
    );
    assert!(place("late-1-0 ready") < place("h-1-0 ready"), "{talk}");
    assert!(talk.contains("c-1-0 readiness probe failed, the first time of 3: status 404"));
    assert!(!talk.contains("c-1-0 ready"), "{talk}");
}

#[tokio::test]
async fn the_others_run_while_one_cannot_start() {
    let spec = "[service.bad]\ncomponent = 'stillborn.wasm'\nroute = ['/bad']\n\
                [service.h]\ncomponent = 'hello.wasm'\nroute = ['/']\n";
    let (_directory, path) = app(spec);
    let mut running = up(&path, &[]);
    let at = running.address();
    assert_eq!(get(at, "x", "/").await.status, 200);
    running.line_with("bad-1-0 CrashLoopBackOff: next try in 800ms, after 3 failures in a row");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    assert!(
        talk.contains("bad-1-0 cannot start: no instance can be made"),
        "{talk}"
    );
}

#[test]
fn what_is_not_restarted_and_never_ran_ends_up() {
    let (_directory, path) = app(
        "[service.bad]\ncomponent = 'stillborn.wasm'\nrestart.policy = 'never'\n\
         [service.h]\ncomponent = 'hello.wasm'\ndepends_on = ['bad']\n",
    );
    let output = done(&["up", "-f", &path, "--http", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    for wanted in [
        "cannot start: no instance can be made",
        "its restart policy is `never`",
        "waits for service `bad` to be ready",
    ] {
        assert!(err(&output).contains(wanted), "{}", err(&output));
    }
}

#[test]
fn a_probe_by_an_export_that_is_not_there_is_refused() {
    let (_directory, path) =
        app("[service.c]\ncomponent = 'counter.wasm'\nliveness = { export = true }\n");
    let output = done(&["up", "-f", &path, "--http", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    let wanted =
        "a probe has `export = true`, and the component does not export `sampan:pod/health`";
    assert!(err(&output).contains(wanted), "{}", err(&output));
}

#[test]
fn a_single_component_that_cannot_start_is_the_end() {
    let (directory, _) = app("[service.h]\ncomponent = 'hello.wasm'\n");
    let component = directory.path().join("stillborn.wasm");
    let component = component.display().to_string();
    let output = done(&["run", &component, "--addr", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("no instance can be made"),
        "{}",
        err(&output)
    );
}

#[tokio::test]
async fn events_are_json_when_asked_for() {
    let (_directory, path) =
        app("[service.c]\ncomponent = 'counter.wasm'\nisolation = 'pod'\nroute = ['/']\n");
    let mut running = up(&path, &["--json"]);
    let at = running.address();
    assert_eq!(get(at, "x", "/crash").await.status, 500);
    running.line_with("\"reason\":\"BackOff\"");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    let mut seq = 0;
    let mut reasons = Vec::new();
    for line in talk.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        if let Some(number) = event["seq"].as_u64() {
            assert_eq!(number, seq + 1, "{talk}");
            seq = number;
        }
        assert!(
            event["time"].as_str().is_some_and(|it| it.len() == 24),
            "{line}"
        );
        if event["object"] == "pod/c-1-0" {
            reasons.push(event["reason"].as_str().expect("text").to_owned());
        }
    }
    reasons.retain(|reason| reason != "Log");
    assert_eq!(reasons[..3], ["Ready", "Failed", "BackOff"], "{talk}");
    assert_eq!(reasons.last().map(String::as_str), Some("Stopped"));
}

#[tokio::test]
async fn a_component_that_cannot_start_takes_nothing_over() {
    let (directory, path) =
        app("[service.c]\ncomponent = 'c.wasm'\nroute = ['/']\nrollout.progress_deadline = '1s'\n");
    let place = directory.path().join("c.wasm");
    std::fs::copy(guest("counter"), &place).expect("copied");
    let mut running = up(&path, &["--watch"]);
    let at = running.address();
    std::fs::write(&place, wat::parse_str(STILLBORN).expect("good")).expect("written");
    running.line_with("change refused, the old version stays: no progress for 1s");
    assert_eq!(get(at, "x", "/").await.body.trim(), "1");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[tokio::test]
async fn a_pod_that_says_it_is_not_ready_is_left_alone_while_the_other_answers_all() {
    let (_directory, path) = app(
        "[service.f]\ncomponent = 'flaky-ready.wasm'\nisolation = 'pod'\nreplicas = 2\n\
         route = ['/']\ndebug_headers = true\n\
         readiness = { http = '/ready', period = '20ms', failures = 1 }\n",
    );
    let mut running = up(&path, &[]);
    let at = running.address();
    for pod in ["f-1-0", "f-1-1"] {
        running.line_with(&format!("{pod} ready"));
    }
    let off = send(at, "POST", "x", "/ready/off", "").await;
    let off = off.headers["sampan-pod"]
        .to_str()
        .expect("ASCII")
        .to_owned();
    running.line_with(&format!(
        "{off} not ready: readiness probe failed: status 503"
    ));
    for number in 0..1_000 {
        let response = get(at, "x", "/").await;
        assert_eq!(response.status, 200, "request {number}: {response:?}");
        assert_ne!(response.headers["sampan-pod"], off, "request {number}");
    }
}

#[tokio::test]
async fn the_startup_probe_gives_a_pod_time_and_no_more() {
    let slow = "component = 'slow-start.wasm'\nisolation = 'pod'\nenv = { START_MS = '1000' }\n\
                liveness = { http = '/started', period = '10ms', failures = 1 }\n";
    let spec = format!(
        "[service.patient]\n{slow}startup = {{ http = '/started', period = '20ms', failures = 1000 }}\n\
         [service.hasty]\n{slow}startup = {{ http = '/started', period = '20ms', failures = 2 }}\n",
    );
    let (_directory, path) = app(&spec);
    let mut running = up(&path, &[]);
    running.address();
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    for wanted in [
        "patient-1-0 started, waiting for its startup probe",
        "patient-1-0 ready after",
        "hasty-1-0 killed: startup probe failed 2 times in a row: status 503",
    ] {
        assert!(talk.contains(wanted), "`{wanted}` is missing in {talk}");
    }
    assert!(!talk.contains("patient-1-0 killed"), "{talk}");
    assert!(!talk.contains("hasty-1-0 ready"), "{talk}");
}
