//! Requests per second and latency through the whole gateway, side by side with a bare hyper
//! server that answers the same bytes, in interleaved rounds of one run.
//!
//! `cargo bench --bench gateway [-- SECONDS [CONNECTIONS]]`: seconds of each round, 2 by default, and
//! connections, 32. The load comes from `wrk -t1`, which must be on the path. With the path of a `wasmtime` in the variable
//! `WASMTIME`, its `serve` is measured in the same rounds; with that of a `sampan` built with the
//! feature `unobserved` in `UNOBSERVED`, so is that.

#[path = "wrk/rounds.rs"]
mod rounds;

use std::{convert::Infallible, fs, net::Ipv4Addr, process::Command, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use rounds::{ROUNDS, Round, Server, connections, guest, median, micros, of_rounds, seconds, wrk};

const BODY: &[u8] = b"Hello from Sampan!\n";
/// What makes this program the bare server.
const BARE: &str = "bare-hyper";
/// Connections that ask for hello, unless the command line says otherwise.
const CONNECTIONS: u32 = 32;
/// Connections that ask for 20 ms of CPU each, beside them.
const BURNING: u32 = 8;

/// A server under test.
struct Subject {
    name: &'static str,
    server: Server,
    rounds: Vec<Round>,
    /// Of the server in each round, for each request.
    cpu: Vec<Duration>,
    /// Whether guests of another service compute beside it.
    is_mixed: bool,
}

fn sampan(name: &'static str, component: &str, isolation: &str) -> Subject {
    sampan_at(env!("CARGO_BIN_EXE_sampan"), name, component, isolation)
}

fn sampan_at(program: &str, name: &'static str, component: &str, isolation: &str) -> Subject {
    let mut command = Command::new(program);
    command.args(["run", &guest(component), "--addr", "127.0.0.1:0"]);
    command.args(["--isolation", isolation, "--replicas", "2"]);
    Subject::new(name, Server::start(&mut command, false))
}

/// Hello beside a service whose guests compute.
fn mixed() -> Subject {
    let spec = format!(
        "app = 'mixed'\n[service.hello]\ncomponent = '{}'\nreplicas = 2\nroute = ['/']\n\
         [service.burn]\ncomponent = '{}'\nreplicas = 2\nroute = ['burn.test/']\n",
        guest("hello"),
        guest("hostile")
    );
    let file = std::env::temp_dir().join(format!("sampan-bench-{}.toml", std::process::id()));
    fs::write(&file, spec).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sampan"));
    command
        .args(["up", "--http", "127.0.0.1:0", "-f"])
        .arg(&file);
    let server = Server::start(&mut command, false);
    fs::remove_file(&file).expect("it has been read");
    Subject {
        is_mixed: true,
        ..Subject::new(
            "Sampan, 0.2, request, beside guests that burn 20 ms",
            server,
        )
    }
}

fn wasmtime(program: &str, name: &'static str, component: &str) -> Subject {
    let mut command = Command::new(program);
    command.args(["serve", "-Scli", "--addr", "127.0.0.1:0", &guest(component)]);
    Subject::new(name, Server::start(&mut command, true))
}

fn bare_hyper() -> Subject {
    let program = std::env::current_exe().expect("this program");
    let server = Server::start(Command::new(program).arg(BARE), false);
    Subject::new("bare hyper", server)
}

#[expect(clippy::print_stdout, reason = "it says where it listens")]
async fn serve_bare() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    println!("http://{}", listener.local_addr().expect("an address"));
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a TCP option");
        let answer = service_fn(async |_| {
            let response = http::Response::builder().header("content-type", "text/plain");
            let body = Full::new(Bytes::from_static(BODY));
            Ok::<_, Infallible>(response.body(body).expect("good"))
        });
        tokio::spawn(async move {
            // A client that leaves ends its connection, which is no failure here.
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

impl Subject {
    fn new(name: &'static str, server: Server) -> Self {
        Self {
            name,
            server,
            rounds: Vec::new(),
            cpu: Vec::new(),
            is_mixed: false,
        }
    }

    fn round(&mut self, seconds: u64, connections: u32) {
        let url = format!("http://{}/", self.server.address);
        let burning = self.is_mixed.then(|| {
            let url = format!("{url}burn?ms=20");
            let mut wrk = wrk(&url, "burn.test", BURNING, seconds + 1);
            wrk.spawn().expect("wrk starts")
        });
        let before = self.server.cpu();
        let round = Round::of(&url, "localhost", connections, seconds);
        let cpu = self.server.cpu() - before;
        if let Some(mut burning) = burning {
            burning.wait().expect("wrk ends");
        }
        self.cpu.push(cpu / round.requests);
        self.rounds.push(round);
    }
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn print(subjects: &[Subject], seconds: u64, connections: u32) {
    let rate = |s: &Subject| of_rounds(&s.rounds, |round| round.requests_per_second);
    let bare = rate(&subjects[0]);
    println!("{}", machine());
    println!("wrk -t1 -c{connections}, medians of {ROUNDS} interleaved rounds of {seconds} s\n");
    // As a table of Markdown, for benches/README.md.
    println!(
        "| {:<52} | {:>7} | {:>8} | {:>8} | {:>8} | {:>12} |",
        "", "req/s", "p50", "p99", "CPU", "× bare hyper"
    );
    println!("|{0:-<54}|{0:-<9}|{0:-<10}|{0:-<10}|{0:-<10}|{0:-<14}|", "");
    for subject in subjects {
        println!(
            "| {:<52} | {:>7.0} | {:>5.0} µs | {:>5.0} µs | {:>5.1} µs | {:>12.2} |",
            subject.name,
            rate(subject),
            micros(&subject.rounds, |round| round.p50),
            micros(&subject.rounds, |round| round.p99),
            median(subject.cpu.iter().map(Duration::as_secs_f64)) * 1e6,
            rate(subject) / bare,
        );
    }
}

/// The machine, as Linux names it.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|it| it.strip_prefix("model name"));
    let model = model.map_or("an unknown processor", |it| {
        it.trim_start_matches([' ', '\t', ':'])
    });
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{count} × {model}, Linux {}", kernel.trim())
}

fn main() {
    let mut arguments = std::env::args();
    if arguments.any(|argument| argument == BARE) {
        let tokio = tokio::runtime::Runtime::new().expect("threads");
        return tokio.block_on(serve_bare());
    }
    let seconds = seconds();
    let connections = connections().unwrap_or(CONNECTIONS);
    let mut subjects = vec![
        bare_hyper(),
        sampan("Sampan, 0.2, `isolation = \"request\"`", "hello", "request"),
        sampan("Sampan, 0.2, `isolation = \"pod\"`", "hello", "pod"),
        sampan(
            "Sampan, 0.3, `isolation = \"request\"`",
            "hello-p3",
            "request",
        ),
        sampan("Sampan, 0.3, `isolation = \"pod\"`", "hello-p3", "pod"),
        mixed(),
    ];
    if let Ok(program) = std::env::var("WASMTIME") {
        subjects.push(wasmtime(&program, "`wasmtime serve`, 0.2", "hello"));
        subjects.push(wasmtime(&program, "`wasmtime serve`, 0.3", "hello-p3"));
    }
    if let Ok(program) = std::env::var("UNOBSERVED") {
        for (name, component, isolation) in [
            ("unobserved, 0.2, request", "hello", "request"),
            ("unobserved, 0.2, pod", "hello", "pod"),
            ("unobserved, 0.3, request", "hello-p3", "request"),
            ("unobserved, 0.3, pod", "hello-p3", "pod"),
        ] {
            subjects.push(sampan_at(&program, name, component, isolation));
        }
    }
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            subject.round(seconds, connections);
        }
    }
    print(&subjects, seconds, connections);
}
