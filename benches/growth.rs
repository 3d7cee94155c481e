//! How what a node does grows with its pods and services: starting, rolling out and applying the
//! same again, the lists of the API and the metrics.
//!
//! `cargo bench --bench growth [-- PODS/SERVICES ...]`: a node of its own for each pair, by default
//! for 10 to 10,000 pods and 1 to 1,000 services. Behind the table stand the exponents of the last
//! tenfold: 1 is as much work for each pod or service as before.

#[path = "wrk/rounds.rs"]
mod rounds;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use rounds::cpu_of;

/// Requests of which the median counts.
const REQUESTS: usize = 9;
/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what has become of the services.
const PAUSE: Duration = Duration::from_millis(10);
/// Measured unless the command line says otherwise. A service has at most 1,000 pods.
const SIZES: [Size; 8] = [
    Size::new(10, 1),
    Size::new(100, 1),
    Size::new(1000, 1),
    Size::new(10_000, 10),
    Size::new(10, 10),
    Size::new(100, 100),
    Size::new(1000, 1000),
    Size::new(10_000, 1000),
];
/// Tenfold of each other: pods in few services, services of one pod each.
const TENFOLD: [(usize, usize, &str); 2] = [(2, 3, "pods"), (5, 6, "services")];
/// What is asked for.
const ASKED: [(&str, &str); 4] = [
    ("pods", "/v1/pods"),
    ("services", "/v1/services"),
    ("top", "/v1/top"),
    ("metrics", "/metrics"),
];

/// So many pods in so many services.
#[derive(Clone, Copy)]
struct Size {
    pods: usize,
    services: usize,
}

impl Size {
    const fn new(pods: usize, services: usize) -> Self {
        Self { pods, services }
    }

    fn parse(text: &str) -> Option<Self> {
        let (pods, services) = text.split_once('/')?;
        Some(Self::new(pods.parse().ok()?, services.parse().ok()?))
    }

    /// The spec, in which each revision has another variable.
    fn spec(self, revision: u32) -> String {
        let hello = format!("{}/workloads/dist/hello.wasm", env!("CARGO_MANIFEST_DIR"));
        let replicas = self.pods / self.services;
        let service = |number: usize| {
            format!(
                "[service.s{number}]\ncomponent = '{hello}'\nreplicas = {replicas}\n\
                 route = ['s{number}.localhost/']\nenv = {{ REVISION = '{revision}' }}\n"
            )
        };
        let services: String = (0..self.services).map(service).collect();
        format!("app = 'growth'\n{services}")
    }
}

/// A node of its own, ended when this is dropped.
struct Node {
    child: Child,
    home: tempfile::TempDir,
    socket: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sampan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sampan"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Node {
    fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let socket = home.path().join("api.sock");
        let mut command = sampan();
        command.args(["serve", "--http", "127.0.0.1:0", "--api"]);
        command.arg(&socket);
        command.arg("--data").arg(home.path().join("data"));
        let child = command.spawn().expect("a node");
        let mut node = Self {
            child,
            home,
            socket,
        };
        until(|| {
            let ended = node.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the node has ended: {ended:?}");
            UnixStream::connect(&node.socket).is_ok()
        });
        node
    }

    /// What is answered.
    fn get(&self, target: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the node listens");
        write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 200 "), "{target}: {answer:.200}");
        answer
    }

    fn apply(&self, spec: &Path) {
        let mut command = sampan();
        command.args(["apply", "-f"]).arg(spec);
        command.arg("--api").arg(&self.socket);
        assert!(command.status().expect("it runs").success());
    }

    /// Applies a spec and waits until all services are as it says.
    fn reach(&self, size: Size, revision: u32) {
        let spec = self.home.path().join("sampan.toml");
        fs::write(&spec, size.spec(revision)).expect("a file");
        self.apply(&spec);
        until(|| {
            let answer = self.get("/v1/services");
            let body = answer.split("\r\n\r\n").nth(1).expect("a body");
            let services: Vec<Value> = serde_json::from_str(body).expect("services");
            let is_there = |it: &Value| {
                let all = &it["replicas"];
                let has_all = *all == it["updated"] && *all == it["available"];
                it["phase"] == "Complete" && it["revision"] == revision && has_all
            };
            services.len() == size.services && services.iter().all(is_there)
        });
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "no process tells another one how far it is"
)]
fn until(mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        if reached() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "it takes too long");
        // To answer takes a tenth of the time at most.
        thread::sleep(PAUSE.max(asked.elapsed() * 10));
    }
}

/// What one node took, in milliseconds, by what it was.
type Times = Vec<(&'static str, f64)>;

fn measure(size: Size) -> Times {
    let node = Node::start();
    let mut times = Times::new();
    // Once without the clock: the component is compiled.
    node.reach(Size::new(1, 1), 1);
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    for (name, cpu, revision) in [("start", "start, CPU", 1), ("rollout", "rollout, CPU", 2)] {
        let (before, start) = (cpu_of(node.child.id()), Instant::now());
        node.reach(size, revision);
        times.push((name, millis(start.elapsed())));
        times.push((cpu, millis(cpu_of(node.child.id()) - before)));
    }
    let start = Instant::now();
    node.apply(&node.home.path().join("sampan.toml"));
    times.push(("same again", millis(start.elapsed())));
    for (name, target) in ASKED {
        let one = |_| {
            let start = Instant::now();
            node.get(target);
            millis(start.elapsed())
        };
        let mut all: Vec<f64> = (0..REQUESTS).map(one).collect();
        all.sort_by(f64::total_cmp);
        times.push((name, all[REQUESTS / 2]));
    }
    times
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn main() {
    let asked: Vec<Size> = std::env::args().filter_map(|it| Size::parse(&it)).collect();
    let sizes = if asked.is_empty() { &SIZES[..] } else { &asked };
    let mut all: Vec<Times> = Vec::new();
    println!("milliseconds; lists are medians of {REQUESTS}");
    for size in sizes {
        let times = measure(*size);
        if all.is_empty() {
            let names: Vec<_> = times.iter().map(|(name, _)| *name).collect();
            println!("| pods | services | {} |", names.join(" | "));
            println!("|{}", "---|".repeat(2 + names.len()));
        }
        let cells: Vec<_> = times.iter().map(|(_, time)| format!("{time:.1}")).collect();
        println!(
            "| {} | {} | {} |",
            size.pods,
            size.services,
            cells.join(" | ")
        );
        all.push(times);
    }
    if !asked.is_empty() {
        return;
    }
    for (less, more, what) in TENFOLD {
        let exponents = all[less].iter().zip(&all[more]);
        let exponents = exponents.map(|((name, less), (_, more))| {
            // A tick is the least that is counted.
            format!("{name} {:.2}", (more.max(1.0) / less.max(1.0)).log10())
        });
        let exponents: Vec<_> = exponents.collect();
        println!(
            "exponents of ten times the {what}: {}",
            exponents.join(", ")
        );
    }
}
