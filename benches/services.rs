//! A call from service to service, side by side with a request to the callee and with the same two
//! components in two processes of `wasmtime serve`, in interleaved rounds of one run.
//!
//! `cargo bench --bench services [-- SECONDS]`: seconds of each round, 2 by default. The load comes
//! from `wrk -t1`, which must be on the path, with one connection for the latency and with 32 for
//! the throughput. The variable `WASMTIME` has the path of a `wasmtime`.

#[path = "wrk/rounds.rs"]
mod rounds;

use std::process::Command;

use rounds::{ROUNDS, Round, Server, guest, micros, of_rounds, seconds};

/// Connections that ask for as much as they get.
const CONNECTIONS: u32 = 32;

/// What is asked for.
struct Subject<'a> {
    name: &'static str,
    server: &'a Server,
    host: &'static str,
    path: String,
    alone: Vec<Round>,
    together: Vec<Round>,
}

impl<'a> Subject<'a> {
    fn new(name: &'static str, server: &'a Server, host: &'static str, path: &str) -> Self {
        Self {
            name,
            server,
            host,
            path: path.to_owned(),
            alone: Vec::new(),
            together: Vec::new(),
        }
    }

    fn round(&mut self, seconds: u64) {
        let url = format!("http://{}{}", self.server.address, self.path);
        self.alone.push(Round::of(&url, self.host, 1, seconds));
        let round = Round::of(&url, self.host, CONNECTIONS, seconds);
        self.together.push(round);
    }

    fn rate(&self) -> f64 {
        of_rounds(&self.together, |round| round.requests_per_second)
    }

    fn p50(&self) -> f64 {
        micros(&self.alone, |round| round.p50)
    }
}

/// `caller`, which calls `hello`.
fn app(isolation: &str, home: &tempfile::TempDir) -> Server {
    let (caller, hello) = (guest("caller"), guest("hello"));
    let spec = format!(
        "app = 'pair'\n\
         [service.caller]\ncomponent = '{caller}'\nroute = ['caller.test/']\nreplicas = 2\n\
         isolation = '{isolation}'\nallow.services = ['hello']\n\
         [service.hello]\ncomponent = '{hello}'\nroute = ['hello.test/']\nreplicas = 2\n\
         isolation = '{isolation}'\n"
    );
    Server::up(&spec, home)
}

fn wasmtime(program: &str, component: &str) -> Server {
    let mut command = Command::new(program);
    command.args(["serve", "-Scli", "--addr", "127.0.0.1:0", &guest(component)]);
    Server::start(&mut command, true)
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn print(subjects: &[Subject<'_>]) {
    println!("wrk -t1, medians of {ROUNDS} rounds");
    println!(
        "{:<36} {:>12} {:>12} {:>10} {:>10}",
        "", "p50 µs, -c1", "p99 µs, -c1", "req/s, -c32", "p50 µs"
    );
    for it in subjects {
        println!(
            "{:<36} {:>12.0} {:>12.0} {:>10.0} {:>10.0}",
            it.name,
            it.p50(),
            micros(&it.alone, |round| round.p99),
            it.rate(),
            micros(&it.together, |round| round.p50),
        );
    }
    for pair in subjects.chunks(2).take(2) {
        if let [callee, call] = pair {
            let more = call.p50() - callee.p50();
            println!("{}: {more:.0} µs above the callee", call.name);
        }
    }
    if let [_, call, .., serve] = subjects
        && subjects.len() % 2 == 1
    {
        let times = call.rate() / serve.rate();
        println!("{}: {times:.2} × {}", call.name, serve.name);
    }
}

fn main() {
    let seconds = seconds();
    let homes = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let [request, pod] =
        [("request", &homes[0]), ("pod", &homes[1])].map(|(it, home)| app(it, home));
    let call = "/call?url=http://hello/";
    let mut subjects = vec![
        Subject::new("hello, isolation=request", &request, "hello.test", "/"),
        Subject::new("caller → hello, request", &request, "caller.test", call),
        Subject::new("hello, isolation=pod", &pod, "hello.test", "/"),
        Subject::new("caller → hello, pod", &pod, "caller.test", call),
    ];
    let servers = std::env::var("WASMTIME").ok().map(|program| {
        let callee = wasmtime(&program, "hello");
        (wasmtime(&program, "caller"), callee)
    });
    if let Some((caller, callee)) = &servers {
        let path = format!("/call?url=http://{}/", callee.address);
        let name = "caller → hello, two wasmtime serve";
        subjects.push(Subject::new(name, caller, "localhost", &path));
    }
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            subject.round(seconds);
        }
    }
    print(&subjects);
}
