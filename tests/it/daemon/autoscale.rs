//! The number of pods follows the load, down to none and back.
//!
//! `SAMPAN_TRIES` says how often a service is woken, `SAMPAN_WAKE_MS` how long 99 of 100 times may
//! take; `SAMPAN_STEP_SECONDS` how long it may take to follow a step of the load: both are generous
//! for machines that do other things. `SAMPAN_CURVE` names a directory for the curve of the step, as
//! a table and as a picture.

mod curve;
mod step;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{Daemon, times};
use crate::rig::{PATIENCE, get, guest};

/// A service without requests has no pods, as far as the idle time goes: what ends them here is
/// the test.
fn asleep(daemon: &Daemon) {
    daemon.must(&["scale", "web=0"]);
    without_pods(daemon);
}

/// Waits until there are no pods: one that drains may answer a request yet.
fn without_pods(daemon: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    while daemon.json(&["get", "pods"]).as_array().map(Vec::len) != Some(0) {
        assert!(Instant::now() < deadline, "the pods stay");
    }
}

fn sleepy() -> (Daemon, SocketAddr) {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    let hello = guest("hello");
    daemon.apply(&format!(
        "[service.web]\ncomponent = '{hello}'\nroute = ['/']\n\
         [service.web.autoscale]\nmin = 0\nmax = 4\nconcurrency = 50\n"
    ));
    (daemon, at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_at_zero_answers_at_once() {
    let (daemon, at) = sleepy();
    let mut took = Vec::new();
    for _ in 0..times("SAMPAN_TRIES", 20) {
        tokio::task::block_in_place(|| asleep(&daemon));
        let asked = Instant::now();
        assert_eq!(get(at, "x", "/").await.status, 200);
        took.push(asked.elapsed());
    }
    took.sort();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    eprintln!("woken {} times: p50 {p50:?}, p99 {p99:?}", took.len());
    let limit = Duration::from_millis(times("SAMPAN_WAKE_MS", 1000) as u64);
    assert!(p99 <= limit, "{took:?}");
    let scalings = daemon.service("web")["scalings"].clone();
    let last = scalings.as_array().and_then(|all| all.last());
    let message = last.and_then(|it| it["message"].as_str());
    assert_eq!(message, Some("0 → 1: a request waits"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_of_500_is_lost_at_zero() {
    let (mut daemon, at) = sleepy();
    tokio::task::block_in_place(|| asleep(&daemon));
    let mut clients = JoinSet::new();
    for _ in 0..500 {
        clients.spawn(async move { get(at, "x", "/").await.status });
    }
    let statuses = clients.join_all().await;
    assert_eq!(statuses, [200; 500]);
    let (_, talk) = daemon.running.take().expect("it runs").interrupt();
    assert!(!talk.contains("failed"), "{talk}");
}

/// A service that has been idle goes to sleep by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_falls_asleep_when_nobody_calls() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    let hello = guest("hello");
    daemon.apply(&format!(
        "[service.web]\ncomponent = '{hello}'\nroute = ['/']\nreplicas = 3\n\
         [service.web.autoscale]\nmin = 0\nmax = 4\nconcurrency = 50\nidle = '1s'\n"
    ));
    let told = daemon.running().line_with("→ 0: no request");
    assert!(told.contains("a/web 3 → 0"), "{told}");
    tokio::task::block_in_place(|| without_pods(&daemon));
    assert_eq!(get(at, "x", "/").await.status, 200);
    daemon.running().line_with("0 → 1: a request waits");
    daemon.running().line_with("1 → 0: no request for");
}
