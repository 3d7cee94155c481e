//! The number of pods follows what comes in at any node, and what waits at any node wakes a service.
//!
//! `SAMPAN_TRIES` says how often a service is woken, `SAMPAN_WAKE_MS` how long 99 of 100 times may
//! take.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::{Cluster, PATIENCE};
use crate::rig::{Running, guest, sampan, times};
use rustix::process::Signal;
use serde_json::Value;

/// A cluster of two nodes, of which `a` leads, with a service that scales as this says.
fn scaled(component: &str, autoscale: &str) -> Option<Cluster> {
    let cluster = Cluster::start(2)?;
    let spec = format!(
        "app = 'a'\n[service.web]\ncomponent = '{}'\nroute = ['web.test/']\nconcurrency = 10\n\
         limits = {{ queue_timeout = '60s', request_timeout = '60s' }}\n\
         [service.web.autoscale]\n{autoscale}\n",
        guest(component)
    );
    let path = cluster.place("sampan.toml");
    std::fs::write(&path, spec).expect("written");
    cluster.must("a", &["apply", "-f", &path.display().to_string(), "--wait"]);
    Some(cluster)
}

/// Asks a node what is done until it is as wanted.
fn top(cluster: &Cluster, node: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = cluster.must(node, &["top", "-o", "json"]);
        let top: Value = serde_json::from_str(&text).expect("JSON");
        if wanted(&top) {
            return top;
        }
        assert!(Instant::now() < deadline, "the last was {top:#}");
        std::thread::yield_now();
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn are_ready(pods: &[Value], count: usize) -> bool {
    pods.len() == count && pods.iter().all(|pod| pod["ready"] == true)
}

#[test]
fn load_at_a_node_that_does_not_lead_makes_pods_and_its_silence_keeps_them() {
    let autoscale = "min = 1\nmax = 4\nconcurrency = 1\nstabilization = '1s'";
    let Some(mut cluster) = scaled("slow-but-live", autoscale) else {
        return;
    };
    let address = cluster.running("b").as_mut().expect("it runs").address();
    let clients = [(); 4].map(|()| ask(address, "/timer?ms=50000"));
    cluster.pods("a", |pods| are_ready(pods, 4));

    // Each request counts once, where it came in, whichever node is asked.
    for asked in ["a", "b"] {
        let at_pods = |top: &Value| -> f64 {
            let pods = top["pods"].as_array().expect("a list").iter();
            pods.map(|pod| number(&pod["in_flight"])).sum()
        };
        let top = top(&cluster, asked, |top| {
            number(&top["services"][0]["in_flight"]) > 3.9 && at_pods(top) > 3.9
        });
        assert!(at_pods(&top) < 4.1, "{asked}: {top:#}");
        let service = &top["services"][0];
        assert!(number(&service["in_flight"]) < 4.1, "{asked}: {service:#}");
        assert_eq!(service["wanted"], 4, "{asked}: {service:#}");
        let nodes = top["nodes"].as_array().expect("a list");
        let in_flight: Vec<_> = nodes.iter().map(|it| number(&it["in_flight"])).collect();
        assert!(
            in_flight[0] < 0.1 && in_flight[1] > 3.9,
            "{asked}: {nodes:#?}"
        );
        let pods = top["pods"].as_array().expect("a list");
        assert!(pods.iter().all(|pod| pod["node"].is_string()), "{pods:#?}");
    }

    // It hangs: while its session lasts it may have requests, and no pod goes.
    let signal = |cluster: &mut Cluster, signal| {
        let running = cluster.running("b").as_ref().expect("it runs");
        running.signal(signal);
    };
    signal(&mut cluster, Signal::STOP);
    let held = top(&cluster, "a", |top| {
        let why = top["services"][0]["why"].as_str();
        why.is_some_and(|why| why.ends_with("a node has not said what it measures"))
    });
    assert_eq!(held["services"][0]["replicas"], 4, "{held:#}");
    assert!(held["nodes"][1]["unanswered"].is_string(), "{held:#}");
    let table = cluster.must("a", &["top"]);
    assert!(table.contains("not answered"), "{table}");
    let metrics = super::shared::metrics(&cluster.place("a.sock"));
    let silent = "sampan_nodes_silent{node=\"a\"} 1";
    assert!(metrics.lines().any(|line| line == silent), "{metrics}");
    // Once its session has ended it has none any more.
    top(&cluster, "a", |top| top["services"][0]["replicas"] == 1);
    let nodes = cluster.seen_by("a");
    assert_eq!(super::status(&nodes, "b"), "Down", "{nodes:#}");
    signal(&mut cluster, Signal::CONT);
    drop(clients);
}

/// A request that is on its way until this is dropped.
fn ask(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    let request = format!("GET {path} HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is read");
    stream
}

/// Scales down until there is no pod: a report may still tell of a request that has gone.
fn asleep(cluster: &Cluster) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        cluster.must("a", &["scale", "web=0"]);
        let pods = cluster.must("b", &["get", "pods", "-o", "json"]);
        if pods.trim() == "[]" {
            return;
        }
        assert!(Instant::now() < deadline, "the last were {pods}");
    }
}

#[test]
fn a_request_at_any_node_wakes_a_service() {
    let Some(mut cluster) = scaled("hello", "min = 0\nmax = 4\nconcurrency = 50") else {
        return;
    };
    let address = cluster.running("b").as_mut().expect("it runs").address();
    // Its pod comes up at another node than the one that was asked.
    cluster.must("a", &["cordon", "b"]);
    asleep(&cluster);
    let api = cluster.api("b");
    let mut events = Running::start(sampan(&["events", "--follow", "--api", &api]));
    events.line_with("Applied");
    let asked = Instant::now();
    let client = ask(address, "/");
    cluster
        .running("a")
        .as_mut()
        .expect("it runs")
        .line_with("0 → 1: a request waits");
    eprintln!("told and decided after {:?}", asked.elapsed());
    events.line_with("0 → 1: a request waits (seen by a)");
    let (answered, took) = answer(client);
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    eprintln!("answered by the other node {took:?} after that");
    cluster.pods("b", |pods| are_ready(pods, 1) && pods[0]["node"] == "a");
    cluster.has_components("b", 1);
    cluster.must("a", &["uncordon", "b"]);

    // While no node leads it is told again, until one does.
    asleep(&cluster);
    let running = cluster.running("a").take().expect("it runs");
    running.signal(Signal::KILL);
    let (answer, _) = answer(ask(address, "/"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The answer to a request, and how long it took.
fn answer(mut client: TcpStream) -> (String, Duration) {
    let (begun, mut answer) = (Instant::now(), String::new());
    client
        .set_read_timeout(Some(PATIENCE))
        .expect("a time that is not zero");
    client.read_to_string(&mut answer).expect("an answer");
    (answer, begun.elapsed())
}

/// From the first byte of a request at a node that does not lead, over the decision at the other and
/// the pod that is made at the first, to the last byte of the answer.
#[test]
fn a_service_at_zero_answers_at_a_node_that_does_not_lead() {
    let Some(mut cluster) = scaled("hello", "min = 0\nmax = 4\nconcurrency = 50") else {
        return;
    };
    let address = cluster.running("b").as_mut().expect("it runs").address();
    cluster.has_components("b", 1);
    cluster.must("a", &["cordon", "a"]);
    let mut took = Vec::new();
    for _ in 0..times("SAMPAN_TRIES", 2) {
        asleep(&cluster);
        let (answer, time) = answer(ask(address, "/"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        took.push(time);
    }
    took.sort();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    eprintln!("woken {} times: p50 {p50:?}, p99 {p99:?}", took.len());
    let limit = Duration::from_millis(times("SAMPAN_WAKE_MS", 1000) as u64);
    assert!(p99 <= limit, "{took:?}");
}
