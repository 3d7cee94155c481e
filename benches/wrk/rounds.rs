//! Rounds of `wrk` against servers on this machine, which the benchmarks of whole programs share.
#![allow(
    dead_code,
    reason = "each benchmark is a program of its own, which uses a part of it"
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Rounds of each subject.
pub(crate) const ROUNDS: usize = 7;
/// Seconds of a round, unless the command line says otherwise.
const DEFAULT_SECONDS: u64 = 2;

/// Seconds of a round: the first argument that is a number.
pub(crate) fn seconds() -> u64 {
    numbers().next().unwrap_or(DEFAULT_SECONDS)
}

/// Connections at once: the second argument that is a number, if there is one.
pub(crate) fn connections() -> Option<u32> {
    numbers().nth(1)?.try_into().ok()
}

fn numbers() -> impl Iterator<Item = u64> {
    std::env::args().filter_map(|argument| argument.parse().ok())
}

/// What one round measured.
pub(crate) struct Round {
    pub(crate) requests: u32,
    pub(crate) requests_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Round {
    /// Lets `wrk` ask for a URL until the seconds are over.
    pub(crate) fn of(url: &str, host: &str, connections: u32, seconds: u64) -> Self {
        let output = wrk(url, host, connections, seconds).output();
        let output = output.expect("`wrk` is on the path");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && !text.contains("Non-2xx") && !text.contains("Socket errors"),
            "{url}: {text}"
        );
        let word = |label: &str| {
            let line = text.lines().find(|line| line.trim().starts_with(label));
            let line = line.expect("wrk says so").trim();
            line.split_whitespace().nth(1).expect("a value").to_owned()
        };
        let requests = text.lines().find(|line| line.contains(" requests in "));
        let requests = requests.and_then(|line| line.split_whitespace().next()?.parse().ok());
        Self {
            requests: requests.expect("a number"),
            requests_per_second: word("Requests/sec:").parse().expect("a number"),
            p50: time(&word("50%")),
            p99: time(&word("99%")),
        }
    }
}

/// The median of a figure of several rounds.
pub(crate) fn of_rounds<T: PartialOrd + Copy>(rounds: &[Round], figure: fn(&Round) -> T) -> T {
    median(rounds.iter().map(figure))
}

/// The median of times of several rounds, in microseconds.
pub(crate) fn micros(rounds: &[Round], figure: fn(&Round) -> Duration) -> f64 {
    of_rounds(rounds, figure).as_secs_f64() * 1e6
}

/// `wrk` with one thread.
pub(crate) fn wrk(url: &str, host: &str, connections: u32, seconds: u64) -> Command {
    let mut wrk = Command::new("wrk");
    wrk.args([
        "-t1",
        "-c",
        &connections.to_string(),
        "-d",
        &format!("{seconds}s"),
    ])
    .args(["--latency", "-H", &format!("Host: {host}"), url])
    .stdout(Stdio::piped());
    wrk
}

/// A server's process, ended when this is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
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
    /// A server that says where it listens, after `http://`.
    pub(crate) fn start(command: &mut Command, says_on_stderr: bool) -> Self {
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
        while !line.contains("http://") {
            line.clear();
            let read = output.read_line(&mut line).expect("a line");
            assert_ne!(read, 0, "it has ended without saying where it listens");
        }
        let address = line.split("http://").nth(1).expect("an address");
        Self {
            address: address.trim().trim_end_matches('/').to_owned(),
            child,
            _output: output,
        }
    }

    /// `sampan up` with a spec, and with what it keeps below a directory.
    pub(crate) fn up(spec: &str, home: &tempfile::TempDir) -> Self {
        let file = home.path().join("sampan.toml");
        fs::write(&file, spec).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sampan"));
        command.args(["up", "--http", "127.0.0.1:0", "-f"]);
        command.arg(&file).env("XDG_STATE_HOME", home.path());
        Self::start(&mut command, false)
    }

    /// CPU time used so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.child.id())
    }
}

/// CPU time that a process has used so far, in clock ticks of 10 ms.
pub(crate) fn cpu_of(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.expect("it runs");
    let fields = stat.rsplit(')').next().expect("fields after the name");
    let ticks = |field: usize| -> u64 {
        let field = fields.split_whitespace().nth(field).expect("proc(5)");
        field.parse().expect("a number")
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

pub(crate) fn guest(name: &str) -> String {
    format!("{}/workloads/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

/// A time as wrk writes it.
pub(crate) fn time(text: &str) -> Duration {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text[..text.len() - unit.len()].parse().expect("a number");
    Duration::from_secs_f64(match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        _ => number,
    })
}

pub(crate) fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    values[values.len() / 2]
}
