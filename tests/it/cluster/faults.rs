//! Three nodes on three members of etcd under a constant load, while nodes and members die, hang and
//! drain, and versions are rolled out.
//!
//! A short run is among the tests. `just cluster-faults` has an optimised build do each fault
//! more often, under the load of the table in `benches/README.md`, and prints the figures.

// The figures are what the run is for.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::Cluster;
use crate::{
    members::{self, Pace},
    rig::{done, guest},
};

/// The longest that pods of a lost node may take to be ready elsewhere: the promise.
const LOST: Duration = Duration::from_secs(20);
/// The longest that a drain may take.
const DRAIN: Duration = Duration::from_secs(30);
/// Pods of the service that is asked with GET.
const PODS: usize = 6;
/// Answers that may have begun at a node in the moment in which it is lost.
const MOST_BEGUN: usize = 3;
/// Time that a client waits for an answer.
const CLIENT: Duration = Duration::from_secs(40);

/// How much is done.
#[derive(Clone, Copy)]
struct Scale {
    gets_per_second: u32,
    posts_per_second: u32,
    rollouts: usize,
    kills: usize,
    /// How long etcd is away, and a node hangs.
    away: Duration,
}

impl Scale {
    fn chosen() -> Self {
        match std::env::var_os("SAMPAN_FAULTS") {
            Some(_) => Self {
                gets_per_second: 500,
                posts_per_second: 50,
                rollouts: 50,
                kills: 10,
                away: Duration::from_secs(60),
            },
            None => Self {
                gets_per_second: 60,
                posts_per_second: 6,
                rollouts: 3,
                kills: 1,
                away: Duration::from_secs(12),
            },
        }
    }
}

/// What has become of requests that came in at one node.
#[derive(Clone, Debug, Default)]
struct Seen {
    answered: u64,
    /// Each that was not answered with 200, and why.
    failed: Vec<String>,
    slowest: Duration,
}

/// What has become of all requests.
#[derive(Default)]
struct Ledger {
    gets: BTreeMap<String, Seen>,
    /// By the number of a POST: whether it was answered with 200.
    posts: BTreeMap<u64, bool>,
}

/// Clients at all nodes.
struct Load {
    ledger: Arc<Mutex<Ledger>>,
    /// Where each node answers now.
    addresses: Arc<Mutex<BTreeMap<String, SocketAddr>>>,
    _clients: JoinSet<()>,
}

impl Load {
    fn start(cluster: &mut Cluster, scale: Scale) -> Self {
        let ledger = Arc::<Mutex<Ledger>>::default();
        let addresses = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let mut clients = JoinSet::new();
        let names = ["a", "b", "c"];
        let nodes = u32::try_from(names.len()).expect("three");
        for (at, node) in (0..).zip(names) {
            let address = cluster.running(node).as_mut().expect("it runs").address();
            addresses.lock().insert(node.to_owned(), address);
            for (per_second, is_post) in [
                (scale.gets_per_second, false),
                (scale.posts_per_second, true),
            ] {
                let (ledger, addresses) = (Arc::clone(&ledger), Arc::clone(&addresses));
                let pause = Duration::from_secs(1) * nodes / per_second;
                clients.spawn(client(node, at, pause, is_post, ledger, addresses));
            }
        }
        Self {
            ledger,
            addresses,
            _clients: clients,
        }
    }

    /// What has become of GETs since the last time that this was asked, but for those that came in at
    /// these nodes.
    fn since(&self, but: &[&str]) -> Seen {
        let mut all = Seen::default();
        for (node, seen) in std::mem::take(&mut self.ledger.lock().gets) {
            if but.contains(&&*node) {
                continue;
            }
            all.answered += seen.answered;
            all.slowest = all.slowest.max(seen.slowest);
            all.failed.extend(seen.failed);
        }
        all
    }
}

/// Asks one node at a constant rate, however long answers take.
async fn client(
    node: &'static str,
    at: u64,
    pause: Duration,
    is_post: bool,
    ledger: Arc<Mutex<Ledger>>,
    addresses: Arc<Mutex<BTreeMap<String, SocketAddr>>>,
) {
    let mut turns = tokio::time::interval(pause);
    let mut asked = JoinSet::new();
    for turn in 0.. {
        turns.tick().await;
        while asked.try_join_next().is_some() {}
        let address = addresses.lock().get(node).copied();
        let ledger = Arc::clone(&ledger);
        let number = turn * 3 + at;
        asked.spawn(async move {
            let Some(address) = address else {
                return;
            };
            let began = Instant::now();
            let path = format!("/add?key=n{number}&delta=1");
            let answer = match is_post {
                true => ask(address, "POST", "visits.test", &path).await,
                false => ask(address, "GET", "hello.test", "/").await,
            };
            let is_good = matches!(answer, Ok((200, _)));
            let mut ledger = ledger.lock();
            if is_post {
                ledger.posts.insert(number, is_good);
                return;
            }
            let seen = ledger.gets.entry(node.to_owned()).or_default();
            seen.slowest = seen.slowest.max(began.elapsed());
            match answer {
                Ok((200, _)) => seen.answered += 1,
                Ok((status, body)) => seen.failed.push(format!("{node}: {status} {body}")),
                Err(error) => seen.failed.push(format!("{node}: {error}")),
            }
        });
    }
}

/// One request on a connection of its own: the status and the body, or what went wrong.
async fn ask(
    address: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
) -> Result<(u16, String), String> {
    let asked = async {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let _connection = tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("host", host).header("connection", "close");
        let request = request.body(Full::<Bytes>::default());
        let request = request.map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok((head.status.as_u16(), body))
    };
    let answered = timeout(CLIENT, asked).await;
    answered.unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// The cluster under its load, and what was seen.
struct Trial {
    cluster: Cluster,
    load: Load,
    scale: Scale,
}

impl Trial {
    fn start() -> Option<Self> {
        let scale = Scale::chosen();
        let mut cluster = Cluster::on(members::Cluster::start(3, Pace::Fast)?);
        let first = cluster.add();
        cluster.make(&first);
        for _ in 1..3 {
            cluster.join();
        }
        let spec = format!(
            "app = 'a'\n[service.web]\ncomponent = '{}'\nreplicas = {PODS}\nroute = ['hello.test/']\n\
             [service.visits]\ncomponent = '{}'\nroute = ['visits.test/']\nallow.keyvalue = ['visits']\n",
            guest("hello"),
            guest("visits")
        );
        let path = cluster.place("sampan.toml");
        std::fs::write(&path, spec).expect("written");
        cluster.must("a", &["apply", "-f", &path.display().to_string(), "--wait"]);
        for node in ["a", "b", "c"] {
            cluster.has_components(node, 2);
        }
        let load = Load::start(&mut cluster, scale);
        Some(Self {
            cluster,
            load,
            scale,
        })
    }

    /// Waits for a while, under the load.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Says what came of a fault, and that no GET has failed that came in at another node than these:
    /// but for answers that had begun at a node that was lost.
    fn report(&self, fault: &str, took: Duration, but: &[&str]) {
        let seen = self.load.since(but);
        println!(
            "{fault}: {took:.2?}; {} answered, {} failed, slowest {:.2?}",
            seen.answered,
            seen.failed.len(),
            seen.slowest
        );
        assert!(seen.answered > 0, "{fault}: there was no load");
        let begun = match but.is_empty() {
            true => 0,
            false => MOST_BEGUN,
        };
        assert!(seen.failed.len() <= begun, "{fault}: {:#?}", seen.failed);
    }

    /// Waits until all pods of the service are ready on other nodes than this.
    async fn ready_but_at(&self, asked: &str, lost: &str) -> Duration {
        let began = Instant::now();
        loop {
            let pods = self.pods(asked, "web");
            let is_good = |pod: &&Value| pod["ready"] == true && pod["node"] != lost;
            if pods.iter().filter(is_good).count() == PODS {
                return began.elapsed();
            }
            assert!(began.elapsed() < LOST, "after {LOST:?}: {pods:#?}");
            self.pass(Duration::from_millis(100)).await;
        }
    }

    /// The pods of a service, as a node says.
    fn pods(&self, asked: &str, service: &str) -> Vec<Value> {
        let text = self.cluster.must(asked, &["get", "pods", "-o", "json"]);
        let pods: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        let of_service = |pod: &Value| pod["service"] == service;
        pods.into_iter().filter(of_service).collect()
    }

    /// The node of the pod of a service.
    fn home(&self, service: &str) -> String {
        let pods = self.pods("a", service);
        pods[0]["node"].as_str().expect("a node").to_owned()
    }

    /// The node that leads, and another one.
    fn leader(&self, asked: &str) -> (String, String) {
        let nodes = self.cluster.until(asked, "one leads", |nodes| {
            let nodes = nodes.as_array().expect("a list");
            nodes.iter().any(|node| node["leads"] == true)
        });
        let nodes = nodes.as_array().expect("a list");
        let named = |leads: bool| {
            let node = nodes.iter().find(|node| node["leads"] == leads);
            let node = node.expect("of three nodes");
            node["name"].as_str().expect("a name").to_owned()
        };
        (named(true), named(false))
    }

    fn launch(&mut self, node: &str) {
        self.cluster.launch(node);
        let address = self
            .cluster
            .running(node)
            .as_mut()
            .expect("it runs")
            .address();
        self.load.addresses.lock().insert(node.to_owned(), address);
    }

    async fn rollouts(&mut self) {
        self.load.since(&[]);
        let began = Instant::now();
        for _ in 0..self.scale.rollouts {
            self.cluster.must("b", &["restart", "web", "--wait"]);
        }
        let each = began.elapsed() / u32::try_from(self.scale.rollouts).expect("few");
        self.report("a rollout", each, &[]);
    }

    async fn drains(&mut self) {
        self.load.since(&[]);
        // What keeps its data on a node stays there.
        let keeper = self.home("visits");
        for node in ["a", "b", "c"].into_iter().filter(|node| *node != keeper) {
            let began = Instant::now();
            self.cluster.must("a", &["drain", node, "--timeout", "30s"]);
            let took = began.elapsed();
            assert!(took < DRAIN, "{took:?}");
            self.cluster.must("a", &["uncordon", node]);
            self.report(&format!("drain of {node}"), took, &[]);
        }
    }

    async fn kills(&mut self) {
        for _ in 0..self.scale.kills {
            let (leader, other) = self.leader("b");
            for node in [leader, other] {
                let asked = ["a", "b", "c"].into_iter().find(|it| *it != node);
                let asked = asked.expect("of three");
                self.load.since(&[]);
                self.load.addresses.lock().remove(&node);
                let killed = self.cluster.running(&node).take().expect("it runs");
                killed.signal(Signal::KILL);
                let _ = killed.wait();
                let took = self.ready_but_at(asked, &node).await;
                self.report(&format!("kill -9 of {node}"), took, &[&node]);
                self.launch(&node);
            }
        }
    }

    async fn member_dies(&mut self) {
        self.load.since(&[]);
        let member = self.cluster.etcd.leader().expect("one leads");
        self.cluster.etcd.kill(member);
        let began = Instant::now();
        self.cluster.must("b", &["scale", "web=7"]);
        let took = began.elapsed();
        self.cluster.must("b", &["scale", &format!("web={PODS}")]);
        self.cluster.etcd.restart(member);
        self.report(
            "etcd's leader is killed, until a change is taken",
            took,
            &[],
        );
    }

    async fn etcd_is_away(&mut self) {
        self.load.since(&[]);
        for member in 0..3 {
            self.cluster.etcd.kill(member);
        }
        self.pass(self.scale.away).await;
        for member in 0..3 {
            self.cluster.etcd.restart(member);
        }
        let began = Instant::now();
        // Each pod is made anew: the node that leads plans again, and all nodes hear of it.
        let api = self.cluster.api("b");
        let restart = ["restart", "web", "--wait", "--api", &api];
        while !done(&restart).status.success() {
            assert!(began.elapsed() < LOST, "nothing is planned after {LOST:?}");
        }
        self.report(
            "etcd is away, until a rollout is done",
            began.elapsed(),
            &[],
        );
    }

    async fn leader_hangs(&mut self) {
        let (leader, other) = self.leader("b");
        self.load.since(&[]);
        let address = self.load.addresses.lock().remove(&leader);
        let signal = |trial: &mut Self, signal| {
            let running = trial.cluster.running(&leader);
            running.as_ref().expect("it runs").signal(signal);
        };
        signal(self, Signal::STOP);
        let took = self.ready_but_at(&other, &leader).await;
        self.report("the node that leads hangs", took, &[&leader]);
        signal(self, Signal::CONT);
        self.cluster.until(&other, "it is there again", |nodes| {
            super::status(nodes, &leader) == "Ready"
        });
        if let Some(address) = address {
            self.load.addresses.lock().insert(leader, address);
        }
    }

    /// Each POST has had its effect once if it was answered with 200, and at most once in any case.
    async fn once(&mut self) {
        let address = self.load.addresses.lock()["b"];
        let posts = std::mem::take(&mut self.load.ledger.lock().posts);
        let mut good = 0;
        for (number, was_good) in &posts {
            let path = format!("/add?key=n{number}&delta=0");
            let answer = ask(address, "GET", "visits.test", &path).await;
            let (status, body) = answer.expect("an answer");
            assert_eq!(status, 200, "{body}");
            let count: i64 = body.trim().parse().expect("a number");
            match was_good {
                true => assert_eq!(count, 1, "POST {number}"),
                false => assert!(count <= 1, "POST {number}: {count}"),
            }
            good += u32::from(*was_good);
        }
        println!("{good} of {} POSTs were answered with 200", posts.len());
        assert!(good > 0, "there was no load");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_no_request_at_another_node_is_lost_and_none_is_done_twice() {
    let Some(mut trial) = Trial::start() else {
        return;
    };
    trial.rollouts().await;
    trial.drains().await;
    trial.member_dies().await;
    trial.etcd_is_away().await;
    trial.kills().await;
    trial.leader_hangs().await;
    trial.once().await;
}
