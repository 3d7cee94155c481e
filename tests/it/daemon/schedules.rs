//! Jobs with a schedule: runs by hand, what is kept of them, and attempts that take too long.

use std::time::Instant;

use serde_json::Value;

use super::Daemon;
use crate::rig::{PATIENCE, err, guest};

/// A core module for WASI preview 1 that computes for ever: a memory, and a `_start` that loops.
const SPIN: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x13\x02\
    \x06_start\0\0\x06memory\x02\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";

/// A job that is never due while a test runs.
fn nightly(args: &str, more: &str) -> String {
    let command = guest("command");
    format!(
        "[job.nightly]\ncomponent = {command:?}\nargs = {args}\n\
         schedule = '0 2 29 2 *'\ntimezone = 'Europe/Berlin'\n{more}\n"
    )
}

fn job(daemon: &Daemon, name: &str) -> Value {
    let found = daemon.json(&["get", "jobs", name]);
    match found {
        Value::Array(mut all) => all.remove(0),
        one => one,
    }
}

/// What has come of the last runs, the latest last.
fn outcomes(daemon: &Daemon, name: &str) -> Vec<String> {
    let job = job(daemon, name);
    let runs = job["runs"].as_array().expect("a list").iter();
    let told = |run: &Value| {
        let (why, outcome) = (run["why"].as_str(), run["outcome"].as_str());
        format!(
            "{} {}: {}",
            run["number"],
            why.expect("text"),
            outcome.expect("text")
        )
    };
    runs.map(told).collect()
}

#[test]
fn a_job_with_a_schedule_is_run_by_hand() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    let path = daemon.spec(&nightly("['args', 'first']", ""));
    let planned = daemon.must(&["plan", "-f", &path]);
    assert!(planned.contains("it runs by its schedule"), "{planned}");
    // It does not run by itself, and nothing waits for that.
    daemon.must(&["apply", "-f", &path, "--wait"]);
    let found = job(&daemon, "nightly");
    assert_eq!(
        (&found["phase"], &found["run_count"]),
        (&"Scheduled".into(), &0.into())
    );
    let next = found["next"].as_str().expect("it is due");
    assert!(next.ends_with("-02-29T01:00:00.000Z"), "{next}");
    let said = daemon.must(&["job", "run", "nightly", "--app", "a", "--wait"]);
    assert!(said.contains("job/nightly runs: run 1"), "{said}");
    daemon.apply(&nightly("['exit', '1']", "retries = 1"));
    let failed = daemon.ask(&["job", "run", "nightly", "--wait"]);
    assert_eq!(failed.status.code(), Some(1));
    let said = err(&failed);
    assert!(said.contains("job/nightly: run 2: exit code 1"), "{said}");
    let failed = daemon.ask(&["restart", "nightly", "--wait"]);
    assert_eq!(failed.status.code(), Some(1), "{}", err(&failed));
    let expected = [
        "1 by hand: exit code 0",
        "2 by hand: exit code 1",
        "3 by restart: exit code 1",
    ];
    assert_eq!(outcomes(&daemon, "nightly"), expected);
    assert_eq!(job(&daemon, "nightly")["runs"][1]["attempts"], 2);
    let lines = daemon.must(&["logs", "nightly"]);
    assert!(
        lines.contains("nightly-1-0") && lines.contains("first"),
        "{lines}"
    );
    let table = daemon.must(&["get", "jobs"]);
    for cell in ["0 2 29 2 * Europe/Berlin", next, "exit code 1"] {
        assert!(table.contains(cell), "{table}");
    }
    let told = daemon.must(&["describe", "job/nightly"]);
    for line in [
        "0 2 29 2 * in Europe/Berlin",
        "by hand",
        "by restart",
        "exit code 0",
    ] {
        assert!(told.contains(line), "{told}");
    }
    // All of it outlives the daemon.
    daemon.running.take().expect("it runs").interrupt();
    daemon.launch();
    daemon.running().address();
    assert_eq!(outcomes(&daemon, "nightly"), expected);
    let absent = daemon.ask(&["job", "run", "weekly"]);
    assert!(err(&absent).contains("there is no job `weekly`"));
}

#[test]
fn an_attempt_that_takes_too_long_is_ended() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    std::fs::write(daemon.place("spin.wasm"), SPIN).expect("written");
    let path = daemon.spec(
        "[job.spin]\ncomponent = 'spin.wasm'\ntimeout = '300ms'\nretries = 1\n\
         [job.spin.limits]\nrequest_cpu = '0s'\n",
    );
    let applied = daemon.ask(&["apply", "-f", &path, "--wait"]);
    assert_eq!(applied.status.code(), Some(1));
    let said = err(&applied);
    let reason = "it took longer than its timeout of 300ms";
    assert!(
        said.contains(&format!("job/spin: failed: {reason}")),
        "{said}"
    );
    assert_eq!(
        outcomes(&daemon, "spin"),
        [format!("1 by its spec: {reason}")]
    );
    assert_eq!(job(&daemon, "spin")["runs"][0]["attempts"], 2);
}

/// Waits until a run with this number is under way.
fn until_running(daemon: &Daemon, number: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = job(daemon, "spin");
        if found["phase"] == "Running" && found["run"]["number"] == number {
            return;
        }
        assert!(Instant::now() < deadline, "{found:#}");
    }
}

#[test]
fn a_run_takes_the_place_of_another() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    std::fs::write(daemon.place("spin.wasm"), SPIN).expect("written");
    let spec = |overlap: &str| {
        format!(
            "[job.spin]\ncomponent = 'spin.wasm'\nschedule = '0 2 29 2 *'\n\
             overlap = '{overlap}'\n[job.spin.limits]\nrequest_cpu = '0s'\n"
        )
    };
    daemon.apply(&spec("replace"));
    for number in 1..=3 {
        daemon.must(&["job", "run", "spin"]);
        until_running(&daemon, number);
    }
    assert_eq!(
        outcomes(&daemon, "spin"),
        [
            "1 by hand: run 2 took its place",
            "2 by hand: run 3 took its place"
        ]
    );
    // Of a change of its spec too, which runs nothing by itself.
    daemon.apply(&spec("skip"));
    assert_eq!(job(&daemon, "spin")["phase"], "Scheduled");
    daemon.must(&["job", "run", "spin"]);
    until_running(&daemon, 4);
    let refused = daemon.ask(&["job", "run", "spin"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = err(&refused);
    assert!(
        said.contains("a run of `spin` is under way: `sampan restart spin`"),
        "{said}"
    );
}
