//! Key-value stores as guests use them, side by side with the disk's own `fsync`, in interleaved
//! rounds of one run.
//!
//! `cargo bench --bench keyvalue [-- SECONDS]`: seconds of each round, 2 by default. The load comes
//! from `wrk -t1`, which must be on the path: with one connection for the latency, with 32 for the
//! throughput. What is kept lies in the directory for temporary files, which must be on a disk.

#[path = "wrk/rounds.rs"]
mod rounds;

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use rounds::{ROUNDS, Round, Server, guest, median, micros, of_rounds, seconds};

const CONNECTIONS: u32 = 32;

/// What is done to a store.
struct Subject<'a> {
    name: &'static str,
    server: &'a Server,
    path: &'static str,
    alone: Vec<Round>,
    together: Vec<Round>,
}

impl<'a> Subject<'a> {
    fn new(name: &'static str, server: &'a Server, path: &'static str) -> Self {
        Self {
            name,
            server,
            path,
            alone: Vec::new(),
            together: Vec::new(),
        }
    }

    fn round(&mut self, seconds: u64) {
        let url = format!("http://{}{}", self.server.address, self.path);
        self.alone.push(Round::of(&url, "localhost", 1, seconds));
        let round = Round::of(&url, "localhost", CONNECTIONS, seconds);
        self.together.push(round);
    }
}

/// So many pods that share a store.
fn app(pods: u32, home: &tempfile::TempDir) -> Server {
    let visits = guest("visits");
    let spec = format!(
        "app = 'kept-{pods}'\n[service.web]\ncomponent = '{visits}'\nreplicas = {pods}\n\
         route = ['/']\nallow.keyvalue = ['visits']\n"
    );
    Server::up(&spec, home)
}

/// How long a block that is written at the end of a file takes to the disk, over and over.
fn syncs(directory: &Path, seconds: u64) -> Duration {
    let mut file = File::create(directory.join("blocks")).expect("a file");
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(seconds) {
        let begun = Instant::now();
        file.write_all(&[1; 4096]).expect("room");
        file.sync_data().expect("a disk");
        times.push(begun.elapsed());
    }
    median(times.into_iter())
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn print(sync: Duration, subjects: &[Subject<'_>]) {
    let sync = sync.as_secs_f64() * 1e6;
    println!("wrk -t1, medians of {ROUNDS} rounds");
    println!(
        "4 KiB and an fsync: {sync:.0} µs, which is {:.0} a second",
        1e6 / sync
    );
    println!(
        "{:<24} {:>12} {:>12} {:>12} {:>10} {:>10} {:>9}",
        "", "p50 µs, -c1", "p99 µs, -c1", "req/s, -c32", "p50 µs", "p99 µs", "× fsync"
    );
    for it in subjects {
        let rate = of_rounds(&it.together, |round| round.requests_per_second);
        println!(
            "{:<24} {:>12.0} {:>12.0} {:>12.0} {:>10.0} {:>10.0} {:>9.2}",
            it.name,
            micros(&it.alone, |round| round.p50),
            micros(&it.alone, |round| round.p99),
            rate,
            micros(&it.together, |round| round.p50),
            micros(&it.together, |round| round.p99),
            rate * sync / 1e6,
        );
    }
}

fn main() {
    let seconds = seconds();
    let homes = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let (one, eight) = (app(1, &homes[0]), app(8, &homes[1]));
    let set = "/set?key=k&value=v";
    for server in [&one, &eight] {
        Round::of(
            &format!("http://{}{set}", server.address),
            "localhost",
            1,
            1,
        );
    }
    let mut subjects = [
        Subject::new("get, 1 pod", &one, "/get?key=k"),
        Subject::new("set, 1 pod", &one, set),
        Subject::new("increment, 1 pod", &one, "/"),
        Subject::new("get, 8 pods", &eight, "/get?key=k"),
        Subject::new("set, 8 pods", &eight, set),
        Subject::new("increment, 8 pods", &eight, "/"),
    ];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(syncs(homes[0].path(), seconds));
        for subject in &mut subjects {
            subject.round(seconds);
        }
    }
    print(median(times.into_iter()), &subjects);
}
