//! What a fresh instance of a large component costs a request: Python and JavaScript beside hello,
//! each with `isolation = "request"`, in interleaved rounds of one run.
//!
//! `PYTHON=PATH JAVASCRIPT=PATH cargo bench --bench python [-- SECONDS]`: components made with
//! componentize-py and componentize-js, which are too large to be in this repository; one that is
//! not named is left out. With the path of another `sampan` in `BEFORE`, that is measured in the
//! same rounds. The load is one connection of `wrk`, so that requests do not wait for one another.

#[path = "wrk/rounds.rs"]
mod rounds;

use std::{process::Command, time::Duration};

use rounds::{ROUNDS, Round, Server, guest, median, micros, seconds};

/// Seconds without figures, in which the kernel learns which pages are asked for.
const WARM_UP_SECONDS: u64 = 1;

/// A server under test.
struct Subject {
    name: String,
    server: Server,
    rounds: Vec<Round>,
    /// Of the server in each round, for each request.
    cpu: Vec<Duration>,
}

impl Subject {
    fn new(program: &str, name: String, component: &str) -> Self {
        let mut command = Command::new(program);
        command.args(["run", component, "--addr", "127.0.0.1:0"]);
        command.args(["--isolation", "request"]);
        Self {
            name,
            server: Server::start(&mut command, false),
            rounds: Vec::new(),
            cpu: Vec::new(),
        }
    }

    fn ask(&self, seconds: u64) -> Round {
        let url = format!("http://{}/", self.server.address);
        Round::of(&url, "localhost", 1, seconds)
    }

    fn round(&mut self, seconds: u64) {
        let before = self.server.cpu();
        let round = self.ask(seconds);
        self.cpu.push((self.server.cpu() - before) / round.requests);
        self.rounds.push(round);
    }
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn print(subjects: &[Subject]) {
    println!("wrk -t1 -c1, medians of {ROUNDS} rounds");
    println!(
        "{:<24} {:>9} {:>7} {:>7}",
        "a fresh instance of", "CPU µs", "p50 µs", "p99 µs"
    );
    for subject in subjects {
        println!(
            "{:<24} {:>9.0} {:>7.0} {:>7.0}",
            subject.name,
            median(subject.cpu.iter().map(Duration::as_secs_f64)) * 1e6,
            micros(&subject.rounds, |round| round.p50),
            micros(&subject.rounds, |round| round.p99),
        );
    }
}

fn main() {
    let mut components = vec![("hello", guest("hello"))];
    for (name, variable) in [("Python", "PYTHON"), ("JavaScript", "JAVASCRIPT")] {
        components.extend(std::env::var(variable).ok().map(|path| (name, path)));
    }
    let before = std::env::var("BEFORE").ok();
    let mut subjects = Vec::new();
    for (name, component) in &components {
        let this = env!("CARGO_BIN_EXE_sampan");
        subjects.push(Subject::new(this, (*name).to_owned(), component));
        if let Some(before) = &before {
            subjects.push(Subject::new(before, format!("{name}, before"), component));
        }
    }
    for subject in &subjects {
        subject.ask(WARM_UP_SECONDS);
    }
    let seconds = seconds();
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            subject.round(seconds);
        }
    }
    print(&subjects);
}
