//! What one node has, the others get and show.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use rustix::process::Signal;
use serde_json::Value;

use super::Cluster;
use crate::rig::{eventually, guest};

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
    // `b` has the component, and `a`, which leads, runs the pods: it fetches what it needs.
    cluster.must("b", &["apply", "-f", &path, "--wait"]);
    let address = cluster.running("a").as_mut().expect("it runs").address();
    eventually(address, "hello.test", "/", |it| it.status == 200).await;

    let artifacts = |node: &str| {
        let found = std::fs::read_dir(cluster.place(node).join("artifacts/sha256"));
        found.map_or(0, |all| all.count())
    };
    assert!(artifacts("b") == 1 && artifacts("a") + artifacts("c") >= 1);
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
    // A node that is gone without a word is said not to have answered, as long as it counts as there.
    let stopped = cluster.running("c").as_ref().expect("it runs");
    stopped.signal(Signal::STOP);
    let api = cluster.api("b");
    let asked = crate::rig::done(&["get", "pods", "--api", &api]);
    let said = crate::rig::err(&asked);
    assert!(
        asked.status.success() && said.contains("not all nodes have answered: c"),
        "{said}"
    );
}

/// The metrics as a node gives them at its socket.
fn metrics(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    let request = b"GET /metrics HTTP/1.1\r\nHost: sampan\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("it is read");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}
