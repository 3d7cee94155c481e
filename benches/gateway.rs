//! Requests per second and latency through the whole gateway, side by side with a bare hyper
//! server that answers the same bytes, in interleaved rounds of one run.
//!
//! `cargo bench --bench gateway [-- SECONDS]`: seconds of each round, 2 by default. With the path of
//! a `wasmtime` in the variable `WASMTIME`, its `serve` is measured in the same rounds.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{client::conn::http1, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

const BODY: &[u8] = b"Hello from Sampan!\n";
const CONNECTIONS: usize = 32;
const ROUNDS: usize = 5;
const DEFAULT_ROUND: Duration = Duration::from_secs(2);

/// A server under test.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    rounds: Vec<Round>,
    _server: Option<Server>,
}

/// What one round measured.
struct Round {
    requests_per_second: f64,
    latencies: Histogram<u64>,
}

/// A server's process, ended when this is dropped. Closing its output would end it too early.
struct Server(
    Child,
    #[expect(dead_code, reason = "it is kept open")] Box<dyn BufRead>,
);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn guest(name: &str) -> String {
    format!("{}/workloads/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

fn sampan(name: &'static str, component: &str, isolation: &str) -> Subject {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sampan"));
    command.args(["run", &guest(component), "--addr", "127.0.0.1:0"]);
    command.args(["--isolation", isolation, "--replicas", "4"]);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("sampan starts");
    let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
    Subject::listening(name, child, lines)
}

fn wasmtime(program: &str, name: &'static str, component: &str) -> Subject {
    let mut command = Command::new(program);
    command.args(["serve", "--addr", "127.0.0.1:0", &guest(component)]);
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .expect("wasmtime starts");
    let lines = BufReader::new(child.stderr.take().expect("stderr is piped"));
    Subject::listening(name, child, lines)
}

impl Subject {
    /// A server that says where it listens in its first line, after `http://`.
    fn listening(name: &'static str, child: Child, mut lines: impl BufRead + 'static) -> Self {
        let mut line = String::new();
        lines
            .read_line(&mut line)
            .expect("it says where it listens");
        let address = line
            .split("http://")
            .nth(1)
            .map(|rest| rest.trim().trim_end_matches('/'));
        let address = address
            .and_then(|address| address.parse().ok())
            .expect("an address");
        Self {
            name,
            address,
            rounds: Vec::new(),
            _server: Some(Server(child, Box::new(lines))),
        }
    }
}

async fn bare_hyper() -> Subject {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a TCP option");
            let answer = service_fn(async |_| {
                let response = http::Response::builder().header("content-type", "text/plain");
                Ok::<_, Infallible>(
                    response
                        .body(Full::new(Bytes::from_static(BODY)))
                        .expect("good"),
                )
            });
            tokio::spawn(async move {
                // A client that leaves ends its connection, which is no failure here.
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    });
    Subject {
        name: "bare hyper",
        address,
        rounds: Vec::new(),
        _server: None,
    }
}

/// Latencies of up to a minute, in microseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are good")
}

/// One connection that asks again as soon as it has an answer.
async fn client(address: SocketAddr, until: Instant) -> Histogram<u64> {
    let mut latencies = histogram();
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a TCP option");
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    while Instant::now() < until {
        let request = http::Request::get("/")
            .header("host", "localhost")
            .body(Empty::new());
        let start = Instant::now();
        let response = sender
            .send_request(request.expect("good"))
            .await
            .expect("a response");
        assert_eq!(response.status(), 200);
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a whole body")
            .to_bytes();
        assert_eq!(body, BODY);
        latencies.saturating_record(start.elapsed().as_micros() as u64);
    }
    latencies
}

async fn round(address: SocketAddr, length: Duration) -> Round {
    let start = Instant::now();
    let clients = (0..CONNECTIONS).map(|_| tokio::spawn(client(address, start + length)));
    let clients: Vec<_> = clients.collect();
    let mut latencies = histogram();
    for client in clients {
        latencies
            .add(client.await.expect("no client fails"))
            .expect("histograms of one kind");
    }
    Round {
        requests_per_second: latencies.len() as f64 / start.elapsed().as_secs_f64(),
        latencies,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn print(subjects: &[Subject]) {
    let rate = |s: &Subject| median(s.rounds.iter().map(|r| r.requests_per_second).collect());
    let latency = |s: &Subject, quantile| {
        median(
            s.rounds
                .iter()
                .map(|r| r.latencies.value_at_quantile(quantile) as f64)
                .collect(),
        )
    };
    let bare = rate(&subjects[0]);
    println!("{CONNECTIONS} connections, medians of {ROUNDS} rounds");
    println!(
        "{:<24} {:>9} {:>9} {:>9} {:>8}",
        "", "req/s", "p50 µs", "p99 µs", "x bare"
    );
    for subject in subjects {
        println!(
            "{:<24} {:>9.0} {:>9.0} {:>9.0} {:>8.2}",
            subject.name,
            rate(subject),
            latency(subject, 0.5),
            latency(subject, 0.99),
            rate(subject) / bare,
        );
    }
}

fn main() {
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let length = seconds.map_or(DEFAULT_ROUND, Duration::from_secs_f64);
    let tokio = tokio::runtime::Runtime::new().expect("threads");
    tokio.block_on(async {
        let mut subjects = vec![
            bare_hyper().await,
            sampan("0.2, isolation=request", "hello", "request"),
            sampan("0.2, isolation=pod", "hello", "pod"),
            sampan("0.3, isolation=request", "hello-p3", "request"),
            sampan("0.3, isolation=pod", "hello-p3", "pod"),
        ];
        if let Ok(program) = std::env::var("WASMTIME") {
            subjects.push(wasmtime(&program, "wasmtime serve, 0.2", "hello"));
            subjects.push(wasmtime(&program, "wasmtime serve, 0.3", "hello-p3"));
        }
        for _ in 0..ROUNDS {
            for subject in &mut subjects {
                let round = round(subject.address, length).await;
                subject.rounds.push(round);
            }
        }
        print(&subjects);
    });
}
