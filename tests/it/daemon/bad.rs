//! Bad new versions: no request fails, the old version goes on, and the reason is said.

use std::time::Instant;

use serde_json::Value;

use super::{Daemon, load::Load};
use crate::rig::{PATIENCE, STILLBORN, err, guest, out};

/// Needs something that no host has.
const NEEDY: &str = r#"(component
    (import "example:absent/thing@1.0.0" (instance (export "f" (func))))
    (import "wasi:http/types@0.2.0" (instance $types
        (export "incoming-request" (type (sub resource)))
        (export "response-outparam" (type (sub resource)))))
    (alias export $types "incoming-request" (type $request))
    (alias export $types "response-outparam" (type $out))
    (core module $m (func (export "handle") (param i32 i32)))
    (core instance $i (instantiate $m))
    (func $f (param "request" (own $request)) (param "response-out" (own $out))
        (canon lift (core func $i "handle")))
    (instance $handler (export "handle" (func $f)))
    (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

fn spec(component: &str, probes: &str, on_failure: &str) -> String {
    format!(
        "[service.web]\ncomponent = '{component}'\nreplicas = 3\nroute = ['/']\n\
         isolation = 'pod'\ndebug_headers = true\n{probes}\n\
         [service.web.rollout]\nmin_ready = '400ms'\nprogress_deadline = '2s'\n\
         on_failure = '{on_failure}'\n"
    )
}

/// Rolls out a bad version under load. Says how the service is then.
async fn bad(bytes: &[u8], probes: &str, on_failure: &str, wanted: &[&str]) -> Value {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    daemon.apply(&spec(&guest("hello"), "", on_failure));
    let place = daemon.place("bad.wasm");
    std::fs::write(&place, bytes).expect("written");
    let load = Load::start(at, "/", 8);
    let path = daemon.spec(&spec(&place, probes, on_failure));
    let (applied, status, service) = tokio::task::block_in_place(|| {
        let applied = daemon.ask(&["apply", "-f", &path, "--wait"]);
        let status = daemon.ask(&["rollout", "status", "web"]);
        (applied, status, settled(&daemon))
    });
    assert_eq!(applied.status.code(), Some(1), "{}", err(&applied));
    let said = err(&status) + &out(&status);
    assert_eq!(status.status.code(), Some(1), "{said}");
    for wanted in wanted {
        assert!(said.contains(wanted), "`{wanted}` is missing in {said}");
        assert!(
            err(&applied).contains(wanted),
            "`{wanted}`: {}",
            err(&applied)
        );
    }
    // The old version answers all, and did so all the time.
    let revisions = load.seen.revisions.lock().expect("no panic").clone();
    load.end("a bad version").await;
    assert_eq!(
        revisions.last().map(String::as_str),
        Some("1"),
        "{revisions:?}"
    );
    service
}

/// How the service is once it is on its way back no longer: the verdict comes before that.
fn settled(daemon: &Daemon) -> Value {
    let began = Instant::now();
    loop {
        let service = daemon.service("web");
        if service["phase"] != "RollingBack" {
            return service;
        }
        assert!(began.elapsed() < PATIENCE, "{service:#}");
    }
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a good component")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_component_is_refused() {
    let service = bad(b"\0asm but not quite", "", "rollback", &["refused"]).await;
    assert_eq!(service["revision"], 1);
    assert_eq!(service["phase"], "RolledBack");
    assert_eq!(service["pods"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lacks_an_import_is_refused_with_its_name() {
    let wanted = ["refused", "example:absent/thing@1.0.0"];
    let service = bad(&component(NEEDY), "", "rollback", &wanted).await;
    assert_eq!(service["revision"], 1);
    assert_eq!(service["phase"], "RolledBack");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_traps_at_its_start_is_rolled_back() {
    let wanted = ["unreachable", "web-2-0"];
    let service = bad(&component(STILLBORN), "", "rollback", &wanted).await;
    assert_eq!(
        (&service["revision"], &service["phase"]),
        (&1.into(), &"RolledBack".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_gets_ready_is_rolled_back() {
    let hello = std::fs::read(guest("counter")).expect("a guest");
    let probes = "readiness = { http = '/absent', period = '50ms' }";
    let service = bad(&hello, probes, "rollback", &["is not ready"]).await;
    assert_eq!(service["phase"], "RolledBack");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_gets_ready_is_held_where_that_is_wanted() {
    let hello = std::fs::read(guest("counter")).expect("a guest");
    let probes = "readiness = { http = '/absent', period = '50ms' }";
    let service = bad(&hello, probes, "pause", &["is not ready"]).await;
    assert_eq!(
        (&service["phase"], &service["paused"]),
        (&"Paused".into(), &true.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_its_liveness_before_it_counts_is_rolled_back() {
    let hello = std::fs::read(guest("counter")).expect("a guest");
    let probes = "liveness = { http = '/absent', period = '50ms', failures = 2 }";
    let service = bad(&hello, probes, "rollback", &["web-2-0"]).await;
    assert_eq!(service["phase"], "RolledBack");
}
