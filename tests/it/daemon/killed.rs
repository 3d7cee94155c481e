//! A daemon that is killed at any moment of a rollout goes on where it was.

use std::{collections::BTreeSet, sync::atomic::Ordering::SeqCst, time::Instant};

use serde_json::Value;

use super::{Daemon, load::Load, times, variant};
use crate::rig::{PATIENCE, get};

fn spec(component: &str) -> String {
    format!(
        "[service.web]\ncomponent = '{component}'\nreplicas = 4\nroute = ['/']\n\
         rollout.min_ready = '20ms'\n"
    )
}

/// Waits until what is wanted has come about, and checks that nothing else is left.
fn converged(daemon: &Daemon) -> Value {
    daemon.must(&["rollout", "status", "web"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let service = daemon.service("web");
        let pods = daemon.json(&["get", "pods"]);
        let pods = pods.as_array().expect("a list");
        let revision = service["revision"].as_u64().expect("a number");
        let own = format!("web-{revision}-");
        let ours = |pod: &Value| {
            pod["ready"] == true && pod["name"].as_str().is_some_and(|it| it.starts_with(&own))
        };
        if pods.len() == 4 && pods.iter().all(ours) && service["available"] == 4 {
            return service;
        }
        assert!(Instant::now() < deadline, "{service:#}\n{pods:#?}");
    }
}

fn check_events(daemon: &Daemon, before: &mut u64) {
    let events = daemon.events();
    let numbers: Vec<u64> = events.iter().filter_map(|it| it["seq"].as_u64()).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "a hole: {numbers:?}"
    );
    let last = *numbers.last().expect("there are some");
    assert!(
        last >= *before,
        "{last} events, and before there were {before}"
    );
    *before = last;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_goes_on_where_it_was() {
    goes_on(Daemon::start()).await;
}

/// Kills a daemon at any moment of its rollouts.
pub(super) async fn goes_on(mut daemon: Daemon) {
    let mut at = daemon.running().address();
    let versions: Vec<String> = (1..=2)
        .map(|number| variant("hello", number, daemon.directory.path()))
        .map(|path| path.display().to_string())
        .collect();
    daemon.apply(&spec(&versions[0]));
    let (mut acknowledged, mut events) = (1, 0);
    let mut revisions = BTreeSet::new();
    for kill in 1..=times("SAMPAN_KILLS", 5) {
        let path = daemon.spec(&spec(&versions[kill % 2]));
        let applied = daemon.ask(&["apply", "-f", &path]);
        if applied.status.success() {
            acknowledged = if kill % 2 == 1 { 2 } else { 1 };
        }
        // Whatever it is doing after so many answers. What is in flight then may fail.
        let load = Load::start(at, "/", 4);
        let answers = (kill as u64 * 37) % 160 * 3;
        let answered = async {
            while load.seen.answered.load(SeqCst) < answers {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, answered)
            .await
            .expect("it answers");
        daemon.running().signal(rustix::process::Signal::KILL);
        daemon.running.take();
        drop(load);
        daemon.launch();
        at = daemon.running().address();
        let service = converged(&daemon);
        assert_eq!(
            service["revision"], acknowledged,
            "kill {kill}: {service:#}"
        );
        assert_eq!(get(at, "x", "/").await.status, 200);
        check_events(&daemon, &mut events);
        let found = daemon.json(&["get", "revisions", "web"]);
        let numbers = found.as_array().expect("a list").iter();
        revisions.extend(numbers.filter_map(|it| it["revision"].as_u64()));
        assert_eq!(
            revisions,
            BTreeSet::from([1, 2]),
            "no revision is lost or half made"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pods_are_there_again_at_once() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    let hello = crate::rig::guest("hello");
    daemon.apply(&format!(
        "[service.web]\ncomponent = '{hello}'\nreplicas = 100\nroute = ['/']\n"
    ));
    let (status, talk) = daemon.running.take().expect("it runs").interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    let began = Instant::now();
    daemon.launch();
    let at = daemon.running().address();
    assert_eq!(get(at, "x", "/").await.status, 200);
    daemon.must(&["rollout", "status", "web"]);
    let took = began.elapsed();
    eprintln!(
        "100 pods ready {} ms after the start of the process",
        took.as_millis()
    );
    assert_eq!(daemon.service("web")["available"], 100);
}
