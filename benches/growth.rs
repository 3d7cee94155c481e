//! How what a node does grows with its pods and services: starting, rolling out and applying the
//! same again, the lists of the API and the metrics; and in this process, without a node around
//! them, the mirror of the store and the snapshots of the gateway.
//!
//! `cargo bench --bench growth [-- PODS/SERVICES ...]`: a node of its own for each pair, by default
//! for 10 to 10,000 pods and 1 to 1,000 services. Behind the tables stand the exponents of each
//! tenfold beside that of n log n: 1 is as much work for each pod or service as before. A step that
//! grows faster is named, and the benchmark fails.

#[path = "../src/edge.rs"]
#[allow(dead_code, reason = "a node uses all of it")]
mod edge;
#[path = "growth/inside.rs"]
mod inside;
#[path = "../src/mirror.rs"]
#[allow(dead_code, unused_imports, reason = "a node uses all of it")]
mod mirror;
#[path = "wrk/rounds.rs"]
mod rounds;

use std::{
    fs,
    hint::black_box,
    io::{Read as _, Write as _},
    num::NonZero,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use rounds::cpu_of;

/// Requests, or changes, of which the median counts.
const REQUESTS: usize = 9;
/// Rollouts of which the median counts.
const ROLLOUTS: u32 = 3;
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
/// Each ten times the one before: pods in few services, services of one pod each. These are the
/// places of [`SIZES`].
const TENFOLD: [(&str, &[usize]); 2] = [("pods", &[0, 1, 2, 3]), ("services", &[4, 5, 6])];
/// How much more a step may take before it counts as faster than n log n: 1.6 times as long. Two runs
/// of one step differ by a quarter.
const TOLERANCE: f64 = 0.2;
/// More than the caches of a processor hold.
const CACHE_BYTES: usize = 64 << 20;
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

/// What steps took, in milliseconds, by what they were.
type Times = Vec<(&'static str, f64)>;

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Writes to more memory than the caches of the processors hold. What 1,000 pods are stays in them and
/// what 10,000 are does not, which would look like growth.
fn empty_caches() {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| black_box(vec![1_u8; CACHE_BYTES]));
        }
    });
}

/// What one node took.
fn measure(size: Size) -> Times {
    let node = Node::start();
    let mut times = Times::new();
    // Once without the clock: the component is compiled.
    node.reach(Size::new(1, 1), 1);
    let reach = |revision| {
        let (before, start) = (cpu_of(node.child.id()), Instant::now());
        node.reach(size, revision);
        let took = millis(start.elapsed());
        (took, millis(cpu_of(node.child.id()) - before))
    };
    let (took, cpu) = reach(1);
    times.extend([("start", took), ("start, CPU", cpu)]);
    let (took, cpu) = (2..2 + ROLLOUTS).map(reach).unzip();
    times.extend([("rollout", median(took)), ("rollout, CPU", median(cpu))]);
    let start = Instant::now();
    node.apply(&node.home.path().join("sampan.toml"));
    times.push(("same again", millis(start.elapsed())));
    // It is measured once a second: before, `top` tells of what there was then.
    until(|| node.get("/v1/top").matches("\"pod\":").count() == size.pods);
    for (name, target) in ASKED {
        let one = |_| {
            empty_caches();
            let start = Instant::now();
            node.get(target);
            millis(start.elapsed())
        };
        times.push((name, median((0..REQUESTS).map(one).collect())));
    }
    times
}

/// The least of a step that is told from nothing, in milliseconds: a tick of the kernel's clock, and
/// what a request or a wake-up takes on its own.
fn least(step: &str) -> f64 {
    match step {
        "start" | "start, CPU" | "rollout" | "rollout, CPU" | "same again" => 10.0,
        "mirror, one" | "snapshot, one" => 0.01,
        _ => 0.1,
    }
}

/// The exponent of n log n from so many to ten times as many.
fn allowed(from: usize) -> f64 {
    let from = (from as f64).log10();
    1.0 + ((from + 1.0) / from).log10()
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn table(title: &str, sizes: &[Size], measure: fn(Size) -> Times) -> Vec<Times> {
    println!("\n{title}");
    let mut all = Vec::new();
    for size in sizes {
        let times = measure(*size);
        if all.is_empty() {
            let names: Vec<_> = times.iter().map(|(name, _)| *name).collect();
            println!("\n| pods | services | {} |", names.join(" | "));
            println!("|{}", "---|".repeat(2 + names.len()));
        }
        let cells: Vec<_> = times.iter().map(|(_, time)| format!("{time:.3}")).collect();
        println!(
            "| {} | {} | {} |",
            size.pods,
            size.services,
            cells.join(" | ")
        );
        all.push(times);
    }
    all
}

/// The exponents of each tenfold, and the steps that grew faster than n log n.
#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn exponents(all: &[Times]) -> Vec<String> {
    let mut beyond = Vec::new();
    println!("\n| ten times the | n log n | {} |", {
        let names: Vec<_> = all[0].iter().map(|(name, _)| *name).collect();
        names.join(" | ")
    });
    println!("|{}", "---|".repeat(2 + all[0].len()));
    for (what, places) in TENFOLD {
        for pair in places.windows(2) {
            let (from, allowed) = (SIZES[pair[0]].pods, allowed(SIZES[pair[0]].pods));
            let mut cells = Vec::new();
            for (&(step, less), &(_, more)) in all[pair[0]].iter().zip(&all[pair[1]]) {
                let least = least(step);
                let exponent = (more.max(least) / less.max(least)).log10();
                let is_beyond = exponent > allowed + TOLERANCE;
                cells.push(match is_beyond {
                    true => format!("**{exponent:.2}**"),
                    false => format!("{exponent:.2}"),
                });
                if is_beyond {
                    let to = 10 * from;
                    beyond.push(format!("{step}: {exponent:.2} from {from} to {to} {what}"));
                }
            }
            println!(
                "| {what}, from {from} | {allowed:.2} | {} |",
                cells.join(" | ")
            );
        }
    }
    beyond
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn main() -> ExitCode {
    let asked: Vec<Size> = std::env::args().filter_map(|it| Size::parse(&it)).collect();
    let sizes = if asked.is_empty() { &SIZES[..] } else { &asked };
    let node =
        format!("a node; milliseconds; lists are medians of {REQUESTS}, rollouts of {ROLLOUTS}");
    let inside = format!("in one process; milliseconds; medians of {REQUESTS}");
    let tables = [
        table(&node, sizes, measure),
        table(&inside, sizes, inside::measure),
    ];
    if !asked.is_empty() {
        return ExitCode::SUCCESS;
    }
    let beyond: Vec<String> = tables.iter().flat_map(|all| exponents(all)).collect();
    if beyond.is_empty() {
        println!("\nno step grows faster than n log n");
        return ExitCode::SUCCESS;
    }
    println!("\nfaster than n log n:\n{}", beyond.join("\n"));
    ExitCode::FAILURE
}
