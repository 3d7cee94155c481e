//! Verbs that come in the middle of a rollout, and what a user of kubectl expects of them.

use std::collections::BTreeMap;

use super::{Daemon, load::Load, variant};
use crate::rig::{done, err, eventually, guest};

fn spec(component: &str, min_ready: &str) -> String {
    format!(
        "[service.web]\ncomponent = '{component}'\nreplicas = 4\nroute = ['/']\n\
         debug_headers = true\n[service.web.rollout]\nmin_ready = '{min_ready}'\nmax_surge = 1\n"
    )
}

/// A daemon with a first version of a service, and the paths of five versions.
fn prepared(min_ready: &str) -> (Daemon, Vec<String>) {
    let mut daemon = Daemon::start();
    daemon.running().address();
    let versions: Vec<String> = (0..5)
        .map(|number| variant("hello", number, daemon.directory.path()))
        .map(|path| path.display().to_string())
        .collect();
    daemon.apply(&spec(&versions[0], min_ready));
    (daemon, versions)
}

fn begin(daemon: &Daemon, component: &str, min_ready: &str) {
    let path = daemon.spec(&spec(component, min_ready));
    daemon.must(&["apply", "-f", &path]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_answer_within_the_bounds() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    let one = variant("hello", 1, daemon.directory.path())
        .display()
        .to_string();
    let min_ready = std::env::var("SAMPAN_MIN_READY").unwrap_or_else(|_| "300ms".to_owned());
    daemon.apply(&spec(&guest("hello"), &min_ready));
    let first = daemon
        .events()
        .last()
        .map_or(0, |it| it["seq"].as_u64().expect("a number"));
    let load = Load::start(at, "/", 8);
    tokio::task::block_in_place(|| daemon.apply(&spec(&one, &min_ready)));
    let changes = load.seen.revisions.lock().expect("no panic").len();
    load.end("a slow rollout").await;
    assert!(
        changes > 20,
        "the versions have taken turns only {changes} times"
    );
    // From the events: never more than 5 alive, never fewer than 4 ready.
    let mut alive: BTreeMap<String, bool> =
        (0..4).map(|it| (format!("pod/web-1-{it}"), true)).collect();
    for event in daemon.events() {
        let object = event["object"].as_str().expect("text").to_owned();
        if event["seq"].as_u64() <= Some(first) || !object.starts_with("pod/") {
            continue;
        }
        match event["reason"].as_str().expect("text") {
            "Ready" => drop(alive.insert(object, true)),
            "Draining" => drop(alive.insert(object, false)),
            "Stopped" => drop(alive.remove(&object)),
            _ => {}
        }
        let ready = alive.values().filter(|ready| **ready).count();
        assert!(alive.len() <= 5, "{event}: {alive:?}");
        assert!(ready >= 4, "{event}: {alive:?}");
    }
}

#[test]
fn the_last_of_several_applies_wins() {
    let (daemon, versions) = prepared("50ms");
    for version in &versions[1..4] {
        begin(&daemon, version, "50ms");
    }
    daemon.must(&["rollout", "status", "web"]);
    let service = daemon.service("web");
    assert_eq!(
        (&service["revision"], &service["phase"]),
        (&4.into(), &"Complete".into())
    );
    assert_eq!(service["updated"], 4);
}

#[test]
fn two_applies_at_once_both_get_an_answer() {
    let (daemon, versions) = prepared("0s");
    let paths: Vec<String> = (1..3)
        .map(|number| {
            let path = daemon.place(&format!("{number}.toml"));
            let text = spec(&versions[number], "0s");
            std::fs::write(&path, format!("app = 'a'\n{text}")).expect("written");
            path
        })
        .collect();
    let api = daemon.api();
    let applied = std::thread::scope(|scope| {
        let apply = |path| done(&["apply", "-f", path, "--api", &api]);
        let both: Vec<_> = paths
            .iter()
            .map(|path| scope.spawn(move || apply(path)))
            .collect();
        both.into_iter()
            .map(|it| it.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    for applied in applied {
        assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
    }
    daemon.must(&["rollout", "status", "web"]);
    let service = daemon.service("web");
    assert_eq!(
        (&service["revision"], &service["updated"]),
        (&3.into(), &4.into())
    );
}

#[test]
fn an_undo_in_the_middle_goes_back() {
    let (daemon, versions) = prepared("200ms");
    begin(&daemon, &versions[1], "200ms");
    daemon.must(&["rollout", "undo", "web"]);
    daemon.must(&["rollout", "status", "web"]);
    let service = daemon.service("web");
    assert_eq!(
        (&service["revision"], &service["updated"]),
        (&1.into(), &4.into())
    );
}

#[test]
fn a_delete_in_the_middle_leaves_nothing() {
    let (daemon, versions) = prepared("200ms");
    begin(&daemon, &versions[1], "200ms");
    let path = daemon.place("sampan.toml");
    daemon.must(&["delete", "-f", &path, "--wait"]);
    for kind in ["apps", "services", "pods", "revisions"] {
        assert_eq!(daemon.json(&["get", kind]), serde_json::json!([]), "{kind}");
    }
    let again = daemon.ask(&["delete", "a"]);
    assert_eq!(again.status.code(), Some(1), "{}", err(&again));
}

#[test]
fn what_is_applied_while_paused_waits_for_resume() {
    let (daemon, versions) = prepared("0s");
    daemon.must(&["rollout", "pause", "web"]);
    begin(&daemon, &versions[1], "0s");
    let service = daemon.service("web");
    assert_eq!(
        (&service["revision"], &service["updated"]),
        (&2.into(), &0.into()),
        "{service:#}"
    );
    assert_eq!(service["available"], 4);
    let twice = daemon.ask(&["rollout", "pause", "web"]);
    assert_eq!(twice.status.code(), Some(1), "{}", err(&twice));
    daemon.must(&["rollout", "resume", "web"]);
    daemon.must(&["rollout", "status", "web"]);
    assert_eq!(daemon.service("web")["updated"], 4);
}

#[test]
fn the_same_again_changes_nothing() {
    let (daemon, versions) = prepared("0s");
    let before = daemon.service("web");
    daemon.apply(&spec(&versions[0], "0s"));
    assert_eq!(daemon.service("web")["generation"], before["generation"]);
    assert_eq!(
        daemon.json(&["get", "revisions"]).as_array().map(Vec::len),
        Some(1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_undone_to_a_command_has_no_route_until_it_answers_again() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    let (worker, hello) = (guest("worker"), guest("hello"));
    let autoscale = "[service.web.autoscale]\nmin = 0\nmax = 2\nconcurrency = 4\nidle = '1s'\n";
    let answers = format!(
        "[service.web]\ncomponent = '{hello}'\nroute = ['/']\nconcurrency = 8\n{autoscale}"
    );
    tokio::task::block_in_place(|| {
        daemon.apply(&format!("[service.web]\ncomponent = '{worker}'\n"));
        daemon.apply(&answers);
    });
    eventually(at, "a.test", "/", |it| it.status == 200).await;
    let told = daemon.must(&["rollout", "undo", "web"]);
    assert!(
        told.contains("its routes are not in use meanwhile"),
        "{told}"
    );
    eventually(at, "a.test", "/", |it| it.status == 404).await;
    daemon.must(&["rollout", "status", "web"]);
    let service = daemon.service("web");
    assert_eq!(
        (&service["kind"], &service["replicas"]),
        (&"command".into(), &1.into())
    );
    let described = daemon.must(&["describe", "service/web"]);
    assert!(described.contains("not in use: a command"), "{described}");
    daemon.must(&["rollout", "undo", "web"]);
    eventually(at, "a.test", "/", |it| it.status == 200).await;
}
