//! How each measurement ends when it is asked to: with what it has, and with nothing left of it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Bench, group, schema, section};

/// The longest that a measurement may take to end.
const PROMPT: Duration = Duration::from_secs(20);
/// What a section says that was not measured to its end.
const UNFINISHED: &str = "not measured to its end: these are the figures until then";

/// A measurement that goes on for long, and what it has when it is interrupted.
struct Long {
    arguments: &'static [&'static str],
    /// The part of all that is done by then, in percent.
    done: u32,
    /// Sections that are whole by then.
    whole: &'static [&'static str],
    /// A group that has figures by then, in the section that is being measured.
    has: Option<(&'static str, &'static str)>,
}

const ALL: [Long; 7] = [
    Long {
        arguments: &[
            "cold-start",
            "--runs=5",
            "--compile-runs=2",
            "--at-once=1",
            "--rounds=40",
        ],
        done: 10,
        whole: &[],
        has: Some(("cold-start", "steps")),
    },
    Long {
        arguments: &[
            "rollout",
            "--replicas=1",
            "--rollouts=2000",
            "--rate=100",
            "--steady=1s",
        ],
        done: 10,
        whole: &[],
        has: Some(("rollout", "time")),
    },
    Long {
        arguments: &[
            "throughput",
            "--connections=2",
            "--rounds=10",
            "--round=100ms",
            "--rate=100",
        ],
        done: 10,
        whole: &[],
        has: Some(("throughput", "rate")),
    },
    Long {
        arguments: &["detect", "--tries=100"],
        done: 10,
        whole: &[],
        has: Some(("detect", "verdict")),
    },
    Long {
        arguments: &["scale", "--steps=2", "--pods=2", "--hold=100ms"],
        done: 20,
        whole: &[],
        has: Some(("scale", "time")),
    },
    Long {
        arguments: &["density", "--pods=4000"],
        done: 20,
        whole: &[],
        has: Some(("density", "memory")),
    },
    Long {
        arguments: &["all", "--smoke"],
        done: 50,
        whole: &["cold-start", "rollout", "throughput"],
        has: None,
    },
];

#[test]
fn ctrl_c_ends_each_measurement_with_what_it_has() {
    for long in &ALL {
        interrupted(long, Signal::INT, 130);
    }
}

/// As service managers and `kill` ask.
#[test]
fn a_polite_kill_ends_a_measurement_too() {
    interrupted(&ALL[0], Signal::TERM, 143);
}

fn interrupted(long: &Long, signal: Signal, code: i32) {
    let name = long.arguments[0];
    let bench = Bench::new();
    let page = bench.path("report.html");
    let mut command = bench.command(long.arguments);
    command.args(["--json", "--report", &page]);
    command.stdout(fs::File::create(bench.path("out.json")).expect("a file"));
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    // Read to its end: the last lines name the page.
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut asked = None;
    let mut told = Vec::new();
    for line in stderr.lines() {
        let line = line.expect("readable");
        let done = line
            .split_once(" %")
            .and_then(|it| it.0.trim().parse().ok());
        told.push(line);
        if asked.is_none() && done.is_some_and(|it: u32| it >= long.done) {
            kill_process(Pid::from_child(&child), signal).expect("it runs");
            asked = Some(Instant::now());
        }
    }
    let status = child.wait().expect("it ends");
    let asked = asked.unwrap_or_else(|| panic!("{name} came to no {} %: {told:#?}", long.done));
    assert!(asked.elapsed() < PROMPT, "{name}: {:?}", asked.elapsed());
    assert_eq!(status.code(), Some(code), "{name}: {told:#?}");
    bench.leaves_nothing();
    let report = fs::read_to_string(bench.path("out.json")).expect("a file");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    schema::check(&report);
    assert_eq!(report["end"], "interrupted", "{name}");
    for section in report["sections"].as_array().expect("sections") {
        let bench = section["bench"].as_str().expect("a name");
        let notes = section["notes"].as_array().expect("notes");
        let is_whole = !notes.iter().any(|it| it == UNFINISHED);
        assert_eq!(is_whole, long.whole.contains(&bench), "{bench} of {name}");
    }
    for bench in long.whole {
        section(&report, bench);
    }
    if let Some((bench, id)) = long.has {
        assert!(!group(section(&report, bench), id).is_empty(), "{name}");
    }
    let page = fs::read_to_string(page).expect("a page");
    assert!(
        page.contains("interrupted: these are the figures until then"),
        "{name}"
    );
}
