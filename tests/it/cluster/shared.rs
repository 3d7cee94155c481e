//! What one node has, the others get and show.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Instant,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Cluster, PATIENCE};
use crate::rig::{Running, done, err, eventually, guest, sampan};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_applied_at_one_node_runs_and_is_seen_at_all() {
    let Some(mut cluster) = Cluster::start(3) else {
        return;
    };
    let spec = format!(
        "app = 'a'\n[service.web]\ncomponent = '{}'\nreplicas = 2\nroute = ['hello.test/']\n",
        guest("hello")
    );
    let path = cluster.place("sampan.toml");
    std::fs::write(&path, spec).expect("written");
    let path = path.display().to_string();
    // `b` has the component, and `a` runs the pods: it fetches what it needs.
    cluster.must("a", &["cordon", "b", "c"]);
    cluster.must("b", &["apply", "-f", &path, "--wait"]);
    let address = cluster.running("a").as_mut().expect("it runs").address();
    eventually(address, "hello.test", "/", |it| it.status == 200).await;

    let artifacts = |node: &str| {
        let found = std::fs::read_dir(cluster.place(node).join("artifacts/sha256"));
        found.map_or(0, |all| all.count())
    };
    assert!(artifacts("b") == 1 && artifacts("a") + artifacts("c") >= 1);
    // In the end each has it, so that any could run it.
    cluster.has_components("a", 1);
    cluster.has_components("c", 1);
    for node in ["a", "b", "c"] {
        let pods: Value = serde_json::from_str(&cluster.must(node, &["get", "pods", "-o", "json"]))
            .expect("JSON");
        let pods = pods.as_array().expect("a list");
        assert_eq!(pods.len(), 2, "{node}: {pods:#?}");
        for pod in pods {
            assert_eq!(
                (&pod["node"], &pod["ready"]),
                (&"a".into(), &true.into()),
                "{node}: {pod:#}"
            );
        }
        let table = cluster.must(node, &["get", "pods"]);
        assert!(
            table
                .lines()
                .next()
                .is_some_and(|head| head.ends_with("node")),
            "{table}"
        );
        let told = cluster.must(node, &["describe", "pod/web-1-0"]);
        assert!(told.contains("Running"), "{node}: {told}");
        let events = cluster.must(node, &["events", "--json"]);
        assert!(
            events.contains("PodCreated") && events.contains("\"node\":\"a\""),
            "{node}: {events}"
        );
        let metrics = metrics(&cluster.place(&format!("{node}.sock")));
        for other in ["a", "b", "c"] {
            assert!(
                metrics.contains(&format!("{{node=\"{other}\"")),
                "{node} without {other}: {metrics}"
            );
        }
    }
    shows_what_is_measured_elsewhere(&cluster);
    shows_what_it_knew(&mut cluster);
    eventually(address, "hello.test", "/", |it| it.status == 200).await;
}

/// Without etcd each node shows what it knew.
fn shows_what_it_knew(cluster: &mut Cluster) {
    cluster.etcd.kill(0);
    for node in ["a", "b", "c"] {
        let api = cluster.api(node);
        let shown = done(&["get", "services", "--api", &api]);
        assert!(shown.status.success(), "{node}: {}", err(&shown));
        assert!(String::from_utf8_lossy(&shown.stdout).contains("web"));
        let said = err(&shown);
        assert!(
            said.contains("the store of the node is away"),
            "{node}: {said}"
        );
    }
}

/// What is measured at `a` is shown at `c`, as soon as it was.
fn shows_what_is_measured_elsewhere(cluster: &Cluster) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let top: Value =
            serde_json::from_str(&ask(&cluster.place("c.sock"), "/v1/top")).expect("JSON");
        if top["services"][0]["ready"] == 2
            && top["pods"].as_array().is_some_and(|it| it.len() == 2)
        {
            break;
        }
        assert!(Instant::now() < deadline, "the last was {top:#}");
    }
    // What is advised, too: `c` has seen no pod itself.
    loop {
        let advice = ask(&cluster.place("c.sock"), "/v1/advice");
        let advice: Value = serde_json::from_str(&advice).expect("JSON");
        if advice[0]["seen"]["watched_ms"].as_u64() > Some(0) {
            break;
        }
        assert!(Instant::now() < deadline, "the last was {advice:#}");
    }
}

#[test]
fn a_node_that_hangs_is_said_not_to_have_answered_and_is_seen_to_go() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let api = cluster.api("a");
    let mut watch = Running::start(sampan(&["get", "nodes", "--watch", "--api", &api]));
    watch.line_with("leader");
    let hangs = cluster.running("b").as_ref().expect("it runs");
    hangs.signal(Signal::STOP);
    let asked = done(&["get", "pods", "--api", &api]);
    let said = err(&asked);
    let note = "not all nodes have answered: b: no answer in 1 s";
    assert!(asked.status.success() && said.contains(note), "{said}");
    watch.line_with("Unreachable");
    watch.line_with("Down");
}

/// A watch of pods at one node shows what becomes of them on another, and of that other.
#[test]
fn a_watch_of_pods_shows_those_of_other_nodes() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let spec = format!(
        "app = 'a'\n[service.web]\ncomponent = '{}'\n",
        guest("hello")
    );
    let path = cluster.place("sampan.toml");
    std::fs::write(&path, spec).expect("written");
    let api = cluster.api("b");
    let get = ["get", "pods", "--watch", "-o", "json", "--api", &api];
    let mut watch = Running::start(sampan(&get));
    watch.line_with("[]");
    // There was none when it began.
    cluster.must("a", &["cordon", "b"]);
    cluster.must("a", &["apply", "-f", &path.display().to_string(), "--wait"]);
    let mut until = |what: &dyn Fn(&Value) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = watch.line_with("\"web-1-");
            let pod: Value = serde_json::from_str(&line).expect("one pod a line");
            if what(&pod) {
                return;
            }
            assert!(Instant::now() < deadline, "the last was {pod:#}");
        }
    };
    let is_ready = |pod: &Value, name: &str, node: &str| {
        pod["name"] == name && pod["node"] == node && pod["ready"] == true
    };
    until(&|pod| is_ready(pod, "web-1-0", "a"));
    cluster.must("a", &["scale", "web=2"]);
    until(&|pod| is_ready(pod, "web-1-1", "a"));
    cluster.has_components("b", 1);
    cluster.must("a", &["uncordon", "b"]);
    let leads = cluster.running("a").take().expect("it runs");
    leads.signal(Signal::KILL);
    until(&|pod| {
        pod["reason"]
            .as_str()
            .is_some_and(|it| it.contains("node `a`"))
    });
    until(&|pod| is_ready(pod, "web-1-0", "b"));
}

/// The metrics as a node gives them at its socket.
pub(super) fn metrics(socket: &Path) -> String {
    ask(socket, "/metrics")
}

/// What a node answers at its socket.
fn ask(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    let request = format!("GET {path} HTTP/1.0\r\nHost: sampan\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (_, body) = text.split_once("\r\n\r\n").expect("a head");
    body.to_owned()
}
