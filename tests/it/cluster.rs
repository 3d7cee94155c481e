//! Several nodes on one etcd: real processes on loopback.

mod across;
mod alone;
mod credentials;
mod faults;
mod guests;
mod loss;
mod nodes;
mod placing;
mod scaling;
mod shared;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    members::{self, Pace},
    rig::{Running, done, err, out, sampan},
};

/// Time that a node takes to be seen or missed, and more.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, of which each node has a directory.
struct Cluster {
    etcd: members::Cluster,
    directory: tempfile::TempDir,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    peer: String,
    running: Option<Running>,
}

impl Cluster {
    /// A cluster of this many nodes that run: `a`, `b` and so on. `None` without etcd.
    fn start(nodes: usize) -> Option<Self> {
        let mut cluster = Self::empty()?;
        let first = cluster.add();
        cluster.make(&first);
        for _ in 1..nodes {
            cluster.join();
        }
        Some(cluster)
    }

    /// An etcd that no node is on.
    fn empty() -> Option<Self> {
        members::Cluster::start(1, Pace::Fast).map(Self::on)
    }

    /// No node yet, on this etcd.
    fn on(etcd: members::Cluster) -> Self {
        Self {
            etcd,
            directory: tempfile::tempdir().expect("a directory"),
            nodes: Vec::new(),
        }
    }

    fn add(&mut self) -> String {
        let at = u8::try_from(self.nodes.len()).expect("few nodes");
        let name = char::from(b'a' + at).to_string();
        self.nodes.push(Node {
            name: name.clone(),
            peer: format!("127.0.0.1:{}", members::free_ports(1)[0].0),
            running: None,
        });
        name
    }

    /// Makes a cluster with this node, which runs then.
    fn make(&mut self, name: &str) {
        self.make_with(name, &[]);
    }

    /// The same with more to be said.
    fn make_with(&mut self, name: &str, more: &[&str]) {
        let (data, url) = (self.data(name), self.etcd.urls().join(","));
        let peer = &self.node(name).peer;
        let init = [
            "cluster", "init", "--node", name, "--etcd", &url, "--data", &data, "--peer", peer,
        ];
        let made = done(&[&init[..], more].concat());
        assert!(made.status.success(), "{}", err(&made));
        self.launch(name);
    }

    /// Another node, which runs.
    fn join(&mut self) -> String {
        let token = self.must("a", &["cluster", "token"]);
        let name = self.add();
        let joined = self.joining(&name, token.trim());
        assert!(joined.status.success(), "{}", err(&joined));
        self.launch(&name);
        name
    }

    fn joining(&self, name: &str, token: &str) -> std::process::Output {
        let (data, zone) = (self.data(name), format!("zone=z-{name}"));
        let peer = &self.node(name).peer;
        done(&[
            "cluster", "join", token, "--node", name, "--data", &data, "--peer", peer, "--label",
            &zone,
        ])
    }

    fn node(&self, name: &str) -> &Node {
        let mut nodes = self.nodes.iter();
        nodes.find(|node| node.name == name).expect("a node")
    }

    fn running(&mut self, name: &str) -> &mut Option<Running> {
        let mut nodes = self.nodes.iter_mut();
        &mut nodes
            .find(|node| node.name == name)
            .expect("a node")
            .running
    }

    fn launch(&mut self, name: &str) {
        let (data, api) = (self.data(name), self.api(name));
        let mut command = sampan(&["serve", "--data", &data, "--api", &api]);
        command.args(["--http", "127.0.0.1:0"]);
        let config = self.place(&format!("{name}.toml"));
        if config.exists() {
            command.arg("--config").arg(config);
        }
        let mut running = Running::start(command);
        running.line_with("the API is at");
        *self.running(name) = Some(running);
        self.until(name, "it is ready", |nodes| status(nodes, name) == "Ready");
    }

    fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data(&self, name: &str) -> String {
        self.place(name).display().to_string()
    }

    fn api(&self, name: &str) -> String {
        self.place(&format!("{name}.sock")).display().to_string()
    }

    /// Asks a node, which must say yes.
    fn must(&self, node: &str, arguments: &[&str]) -> String {
        let api = self.api(node);
        let arguments: Vec<_> = arguments.iter().copied().chain(["--api", &api]).collect();
        let output = done(&arguments);
        assert!(output.status.success(), "{arguments:?}: {}", err(&output));
        out(&output)
    }

    /// What a node says of all.
    fn seen_by(&self, node: &str) -> Value {
        let text = self.must(node, &["get", "nodes", "-o", "json"]);
        serde_json::from_str(&text).expect("JSON")
    }

    /// Waits until a node has this many components, which it fetches from others by itself.
    fn has_components(&self, node: &str, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let directory = self.place(node).join("artifacts/sha256");
        // What is being written has another name than a digest.
        let is_whole = |entry: &std::io::Result<std::fs::DirEntry>| {
            entry
                .as_ref()
                .is_ok_and(|entry| entry.file_name().len() == 64)
        };
        let found = || {
            let all = std::fs::read_dir(&directory);
            all.map_or(0, |all| all.filter(is_whole).count())
        };
        while found() < count {
            assert!(Instant::now() < deadline, "there are {}", found());
            std::thread::yield_now();
        }
    }

    /// Asks a node for all pods until they are as wanted.
    fn pods(&self, node: &str, wanted: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.must(node, &["get", "pods", "-o", "json"]);
            let pods: Vec<Value> = serde_json::from_str(&text).expect("JSON");
            if wanted(&pods) {
                return;
            }
            assert!(Instant::now() < deadline, "the last were {pods:#?}");
            std::thread::yield_now();
        }
    }

    /// Asks a node for all until they are as wanted.
    fn until(&self, node: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let nodes = self.seen_by(node);
            if wanted(&nodes) {
                return nodes;
            }
            assert!(Instant::now() < deadline, "{what}: the last was {nodes:#}");
            std::thread::yield_now();
        }
    }
}

/// How a node is, as another says.
fn status(nodes: &Value, name: &str) -> String {
    let nodes = nodes.as_array().expect("a list");
    let found = nodes.iter().find(|node| node["name"] == name);
    found
        .map_or("none", |node| node["status"].as_str().expect("text"))
        .to_owned()
}
