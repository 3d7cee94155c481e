//! Waiting for what an apply changes, and running a job once more.

use super::Daemon;
use crate::rig::{err, guest};

/// Three jobs, each after the one before, and a service after them.
fn chain(first: &str) -> String {
    let command = guest("command");
    let job = |name: &str, args: &str, more: &str| {
        format!("[job.{name}]\ncomponent = {command:?}\nargs = {args}\n{more}\n")
    };
    [
        job("s1", first, ""),
        job("s2", "['args', 'two']", "depends_on = ['s1']"),
        job("s3", "['args', 'three']", "depends_on = ['s2']"),
        format!(
            "[service.web]\ncomponent = {:?}\ndepends_on = {{ s3 = 'completed' }}\n",
            guest("hello")
        ),
    ]
    .concat()
}

const GOOD: &str = "['args', 'one']";
const BAD: &str = "['exit', '1']";

/// Applies and waits: the exit code and what was said.
fn apply(daemon: &Daemon, text: &str) -> (Option<i32>, String) {
    let path = daemon.spec(text);
    let output = daemon.ask(&["apply", "-f", &path, "--wait"]);
    (output.status.code(), err(&output))
}

fn phases(daemon: &Daemon) -> Vec<String> {
    let jobs = daemon.json(&["get", "jobs"]);
    let jobs = jobs.as_array().expect("a list").iter();
    jobs.map(|job| job["phase"].as_str().expect("text").to_owned())
        .collect()
}

#[test]
fn a_failure_of_the_time_before_is_not_reported_again() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    for round in 0..3 {
        let (code, said) = apply(&daemon, &chain(BAD));
        assert_eq!(code, Some(1), "{round}: {said}");
        assert!(said.contains("job/s1: failed: exit code 1"), "{said}");
        assert!(said.contains("sampan restart s1"), "{said}");
        // The same again is not better.
        let (code, said) = apply(&daemon, &chain(BAD));
        assert_eq!(code, Some(1), "{round}: {said}");
        let (code, said) = apply(&daemon, &chain(GOOD));
        assert_eq!(code, Some(0), "{round}: {said}");
        assert_eq!(phases(&daemon), ["Completed"; 3], "{said}");
        assert_eq!(daemon.service("web")["ready"], 1);
        assert_eq!(apply(&daemon, &chain(GOOD)).0, Some(0));
    }
}

#[test]
fn what_is_not_touched_fails_no_wait() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    let web = |env: &str| {
        format!(
            "[service.web]\ncomponent = {:?}\nenv = {{ A = '{env}' }}\n",
            guest("hello")
        )
    };
    // A service that is never ready, and a job that has failed.
    let bad = format!(
        "[service.bad]\ncomponent = {:?}\nisolation = 'pod'\nenv = {{ START_MS = '600000' }}\n\
         [service.bad.readiness]\nhttp = '/started'\n[job.seed]\ncomponent = {:?}\nargs = {BAD}\n",
        guest("slow-start"),
        guest("command"),
    );
    let path = daemon.spec(&format!("{}{bad}", web("1")));
    daemon.must(&["apply", "-f", &path]);
    let (code, said) = apply(&daemon, &format!("{}{bad}", web("2")));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("service/bad: "), "{said}");
    assert!(said.contains("this was not changed"), "{said}");
    // What is new and waits for the job that has failed is not touched alone.
    let after = format!(
        "[service.after]\ncomponent = {:?}\ndepends_on = {{ seed = 'completed' }}\n",
        guest("hello")
    );
    let (code, said) = apply(&daemon, &format!("{}{bad}{after}", web("2")));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("job/seed: failed"), "{said}");
    assert!(!said.contains("service/bad"), "{said}");
}

#[test]
fn a_job_is_run_once_more() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    daemon.apply(&chain(GOOD));
    let completed = |daemon: &Daemon, job: &str| {
        let events = daemon.events();
        let object = format!("job/{job}");
        let of = events
            .iter()
            .filter(|event| event["object"] == object.as_str());
        of.filter(|event| event["reason"] == "Completed").count()
    };
    assert_eq!(completed(&daemon, "s1"), 1);
    let said = daemon.must(&["restart", "s1", "job/s3", "a/web", "--wait"]);
    for line in [
        "job/s1 runs once more",
        "job/s3 runs",
        "service/web restarted",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let runs = ["s1", "s2", "s3"].map(|job| completed(&daemon, job));
    assert_eq!(runs, [2, 1, 2]);
    assert_eq!(phases(&daemon), ["Completed"; 3]);
    // Once more is not another spec: the next apply changes nothing.
    let (code, said) = apply(&daemon, &chain(GOOD));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(completed(&daemon, "s1"), 2);
    let absent = daemon.ask(&["restart", "s4"]);
    assert_eq!(absent.status.code(), Some(1));
    let said = err(&absent);
    assert!(said.contains("there is no service or job `s4`"), "{said}");
}

#[test]
fn a_job_that_fails_once_more_is_said() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    assert_eq!(apply(&daemon, &chain(BAD)).0, Some(1));
    let again = daemon.ask(&["restart", "s1", "--wait"]);
    assert_eq!(again.status.code(), Some(1));
    let said = err(&again);
    assert!(said.contains("job/s1: failed: exit code 1"), "{said}");
    // What waits for it may be restarted, and says because of what it cannot run.
    let held = daemon.ask(&["restart", "s2", "--wait"]);
    assert_eq!(held.status.code(), Some(1));
    let said = err(&held);
    assert!(said.contains("because job `s1` has failed"), "{said}");
}
