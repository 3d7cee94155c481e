//! Requests per second and latency through the whole gateway, side by side with a bare hyper
//! server that answers the same bytes, in interleaved rounds of one run.
//!
//! `cargo bench --bench gateway [-- SECONDS]`: seconds of each round, 2 by default. The load comes
//! from `wrk -t1 -c32`, which must be on the path. With the path of a `wasmtime` in the variable
//! `WASMTIME`, its `serve` is measured in the same rounds; with that of a `sampan` built with the
//! feature `unobserved` in `UNOBSERVED`, so is that.

use std::{
    convert::Infallible,
    fs,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

const BODY: &[u8] = b"Hello from Sampan!\n";
const ROUNDS: usize = 5;
const DEFAULT_SECONDS: u64 = 2;
/// What makes this program the bare server.
const BARE: &str = "bare-hyper";
/// Connections that ask for hello.
const CONNECTIONS: &str = "32";
/// Connections that ask for 20 ms of CPU each, beside them.
const BURNING: &str = "8";

/// A server under test.
struct Subject {
    name: &'static str,
    server: Server,
    rounds: Vec<Round>,
    /// Whether guests of another service compute beside it.
    is_mixed: bool,
}

/// What one round measured.
struct Round {
    requests_per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Of the server, for each request.
    cpu: Duration,
}

/// A server's process, ended when this is dropped.
struct Server {
    child: Child,
    address: String,
    /// Closing it would end the server too early.
    _output: Box<dyn BufRead>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A server that says where it listens in its first line, after `http://`.
    fn start(command: &mut Command, says_on_stderr: bool) -> Self {
        match says_on_stderr {
            true => command.stderr(Stdio::piped()),
            false => command.stdout(Stdio::piped()).stderr(Stdio::null()),
        };
        let mut child = command.spawn().expect("the server starts");
        let mut output: Box<dyn BufRead> = match (child.stdout.take(), child.stderr.take()) {
            (Some(out), _) => Box::new(BufReader::new(out)),
            (None, err) => Box::new(BufReader::new(err.expect("one of them is piped"))),
        };
        let mut line = String::new();
        output.read_line(&mut line).expect("a first line");
        let address = line.split("http://").nth(1).expect("an address");
        Self {
            address: address.trim().trim_end_matches('/').to_owned(),
            child,
            _output: output,
        }
    }

    /// CPU time used so far, in clock ticks of 10 ms.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        let fields = stat.rsplit(')').next().expect("fields after the name");
        let ticks = |field: usize| -> u64 {
            let field = fields.split_whitespace().nth(field).expect("proc(5)");
            field.parse().expect("a number")
        };
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

fn guest(name: &str) -> String {
    format!("{}/workloads/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
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
        ..Subject::new("0.2, request, beside 20 ms", server)
    }
}

fn wasmtime(program: &str, name: &'static str, component: &str) -> Subject {
    let mut command = Command::new(program);
    command.args(["serve", "--addr", "127.0.0.1:0", &guest(component)]);
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

fn wrk(url: &str, host: &str, connections: &str, seconds: u64) -> Command {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c", connections, "-d", &format!("{seconds}s")])
        .args(["--latency", "-H", &format!("Host: {host}"), url])
        .stdout(Stdio::piped());
    wrk
}

impl Subject {
    fn new(name: &'static str, server: Server) -> Self {
        Self {
            name,
            server,
            rounds: Vec::new(),
            is_mixed: false,
        }
    }

    fn round(&mut self, seconds: u64) {
        let url = format!("http://{}/", self.server.address);
        let burning = self.is_mixed.then(|| {
            let url = format!("{url}burn?ms=20");
            let mut wrk = wrk(&url, "burn.test", BURNING, seconds + 1);
            wrk.spawn().expect("wrk starts")
        });
        let before = self.server.cpu();
        let output = wrk(&url, "localhost", CONNECTIONS, seconds).output();
        let output = output.expect("`wrk` is on the path");
        let cpu = self.server.cpu() - before;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && !text.contains("Non-2xx") && !text.contains("Socket errors"),
            "{text}"
        );
        if let Some(mut burning) = burning {
            burning.wait().expect("wrk ends");
        }
        let word = |label: &str, nth: usize| {
            let line = text.lines().find(|line| line.trim().starts_with(label));
            let line = line.expect("wrk says so").trim();
            line.split_whitespace()
                .nth(nth)
                .expect("a value")
                .to_owned()
        };
        let requests = text.lines().find(|line| line.contains(" requests in "));
        let requests = requests.and_then(|line| line.split_whitespace().next()?.parse().ok());
        self.rounds.push(Round {
            requests_per_second: word("Requests/sec:", 1).parse().expect("a number"),
            p50: time(&word("50%", 1)),
            p99: time(&word("99%", 1)),
            cpu: cpu / requests.expect("a number"),
        });
    }
}

/// A time as wrk writes it.
fn time(text: &str) -> Duration {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text[..text.len() - unit.len()].parse().expect("a number");
    Duration::from_secs_f64(match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        _ => number,
    })
}

fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn print(subjects: &[Subject]) {
    let rate = |s: &Subject| median(s.rounds.iter().map(|r| r.requests_per_second));
    let micros = |s: &Subject, of: fn(&Round) -> Duration| {
        median(s.rounds.iter().map(of)).as_secs_f64() * 1e6
    };
    let bare = rate(&subjects[0]);
    println!("wrk -t1 -c{CONNECTIONS}, medians of {ROUNDS} rounds");
    println!(
        "{:<28} {:>8} {:>7} {:>7} {:>8} {:>7}",
        "", "req/s", "p50 µs", "p99 µs", "CPU µs", "x bare"
    );
    for subject in subjects {
        println!(
            "{:<28} {:>8.0} {:>7.0} {:>7.0} {:>8.1} {:>7.2}",
            subject.name,
            rate(subject),
            micros(subject, |round| round.p50),
            micros(subject, |round| round.p99),
            micros(subject, |round| round.cpu),
            rate(subject) / bare,
        );
    }
}

fn main() {
    let mut arguments = std::env::args();
    if arguments.any(|argument| argument == BARE) {
        let tokio = tokio::runtime::Runtime::new().expect("threads");
        return tokio.block_on(serve_bare());
    }
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let mut subjects = vec![
        bare_hyper(),
        sampan("0.2, isolation=request", "hello", "request"),
        sampan("0.2, isolation=pod", "hello", "pod"),
        sampan("0.3, isolation=request", "hello-p3", "request"),
        sampan("0.3, isolation=pod", "hello-p3", "pod"),
        mixed(),
    ];
    if let Ok(program) = std::env::var("WASMTIME") {
        subjects.push(wasmtime(&program, "wasmtime serve, 0.2", "hello"));
        subjects.push(wasmtime(&program, "wasmtime serve, 0.3", "hello-p3"));
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
            subject.round(seconds.unwrap_or(DEFAULT_SECONDS));
        }
    }
    print(&subjects);
}
