//! Attempts, waits and ends.

mod schedule;

use std::collections::BTreeMap;

use super::*;
use crate::{
    name::ServiceKey,
    object::{Grants, Limits},
    quantity::ByteSize,
    record::{Asked, Boot, Component, JobSpec, Runs},
};

fn moment(boot: u64, ms: u64) -> Moment {
    Moment {
        boot: Boot(boot),
        now: at(ms),
        wall_ms: ms,
    }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::after(Duration::from_millis(ms))
}

fn a_job(retries: u32) -> Job {
    Job {
        key: ServiceKey::parse("shop/migrate").expect("a key"),
        generation: 1,
        spec: JobSpec {
            component: Component {
                digest: String::new(),
                path: String::new(),
            },
            args: Vec::new(),
            retries,
            schedule: None,
            timeout: None,
            history: 10,
            depends_on: BTreeMap::new(),
            grants: Grants::default(),
            limits: Limits {
                memory: ByteSize(1),
                cpu: None,
                request_timeout: Duration::ZERO,
                request_cpu: Duration::ZERO,
                fuel: None,
                queue: 0,
                queue_timeout: Duration::ZERO,
                body: ByteSize(1),
            },
        },
        status: JobStatus::default(),
        deleting: false,
        asked: Asked::default(),
    }
}

/// Plans and writes the status; planning again changes nothing.
fn step(job: &mut Job, gate: &Gate, moment: Moment) -> JobPlan {
    let done = plan(job, gate, &Runner::alone(job, moment), moment);
    job.status = done.status.clone();
    assert!(done.wake_at.is_none_or(|at| at > moment.now));
    let again = plan(job, gate, &Runner::alone(job, moment), moment);
    assert_eq!((again.status, again.announce), (done.status.clone(), None));
    assert_eq!(again.wake_at, done.wake_at);
    done
}

fn words(plan: &JobPlan) -> Vec<&str> {
    plan.announce
        .iter()
        .map(|(reason, _)| reason.as_str())
        .collect()
}

fn running(attempts: u32, boot: u64) -> JobStatus {
    JobStatus {
        observed_generation: 1,
        boot: Boot(boot),
        node: None,
        phase: JobPhase::Running,
        attempts,
        runs: Runs::default(),
    }
}

/// A status without the record of runs, which `schedule` tests.
fn bare(status: &JobStatus) -> JobStatus {
    JobStatus {
        runs: Runs::default(),
        ..status.clone()
    }
}

fn trap() -> Result<(), String> {
    Err("it trapped".to_owned())
}

#[test]
fn it_waits_runs_and_completes() {
    let mut job = a_job(3);
    let gate = Gate::Waiting("for service `db` to be ready".to_owned());
    assert_eq!(words(&step(&mut job, &gate, moment(1, 0))), ["JobWaiting"]);
    assert_eq!(job.status.phase, JobPhase::Pending);
    let plan = step(&mut job, &Gate::Open, moment(1, 1));
    assert_eq!((words(&plan), plan.wake_at), (vec!["JobStarted"], None));
    assert_eq!(bare(&job.status), running(1, 1));
    // What it depended on counts no more.
    assert_eq!(words(&step(&mut job, &gate, moment(1, 2))), [""; 0]);
    job.status = after(&job, Ok(()), moment(1, 3));
    assert_eq!(
        (&job.status.phase, job.status.attempts),
        (&JobPhase::Completed, 1)
    );
    // It is not run again, in no other run of the node either.
    assert_eq!(words(&step(&mut job, &Gate::Open, moment(2, 0))), [""; 0]);
    assert_eq!(job.status.phase, JobPhase::Completed);
}

#[test]
fn it_is_tried_again() {
    let mut job = a_job(8);
    let mut now = 0;
    for (attempt, wait) in (1..).zip([200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]) {
        let _ = step(&mut job, &Gate::Open, moment(1, now));
        assert_eq!(bare(&job.status), running(attempt, 1));
        job.status = after(&job, trap(), moment(1, now));
        let until = at(now + wait);
        let reason = "it trapped".to_owned();
        assert_eq!(job.status.phase, JobPhase::BackOff { until, reason });
        let plan = step(&mut job, &Gate::Open, moment(1, now + wait - 1));
        assert_eq!((words(&plan), plan.wake_at), (Vec::new(), Some(until)));
        now += wait;
    }
    let plan = step(&mut job, &Gate::Open, moment(1, now));
    assert_eq!(words(&plan), ["JobRetried"]);
    job.status = after(&job, trap(), moment(1, now));
    let reason = "it trapped".to_owned();
    assert_eq!(job.status.phase, JobPhase::Failed { reason });
    assert_eq!(job.status.attempts, 9, "the first and 8 retries");
    assert_eq!(words(&step(&mut job, &Gate::Open, moment(2, 0))), [""; 0]);
    // Without retries the first failure is the last.
    let mut job = a_job(0);
    let _ = step(&mut job, &Gate::Open, moment(1, 0));
    assert!(matches!(
        after(&job, trap(), moment(1, 0)).phase,
        JobPhase::Failed { .. }
    ));
}

/// The node's end is no failed attempt.
#[test]
fn another_run_of_the_node() {
    let mut job = a_job(1);
    job.status = running(1, 1);
    let ended = after(&job, trap(), moment(2, 0));
    assert_eq!(ended, job.status, "an attempt of another run");
    assert_eq!(
        words(&step(&mut job, &Gate::Open, moment(2, 0))),
        ["JobResumed"]
    );
    assert_eq!(bare(&job.status), running(1, 2));
    job.status = after(&job, trap(), moment(2, 5_000));
    let plan = step(&mut job, &Gate::Open, moment(3, 0));
    assert_eq!((words(&plan), plan.wake_at), (vec!["JobRetried"], None));
    assert_eq!(bare(&job.status), running(2, 3));
}

/// A change of the spec abandons what ran for the old one.
#[test]
fn another_generation() {
    let reason = || "it trapped".to_owned();
    for phase in [
        JobPhase::Pending,
        JobPhase::Running,
        JobPhase::Completed,
        JobPhase::Failed { reason: reason() },
        JobPhase::BackOff {
            until: at(9),
            reason: reason(),
        },
    ] {
        let mut job = a_job(1);
        job.status = JobStatus {
            phase,
            ..running(3, 1)
        };
        job.generation = 2;
        let unchanged = after(&job, Ok(()), moment(1, 0));
        assert_eq!(
            unchanged, job.status,
            "an attempt of the old one says nothing"
        );
        let gate = Gate::Waiting("for service `db` to be ready".to_owned());
        let _ = step(&mut job, &gate, moment(1, 0));
        let pending = JobStatus {
            observed_generation: 2,
            boot: Boot(1),
            node: None,
            phase: JobPhase::Pending,
            attempts: 0,
            runs: Runs::default(),
        };
        assert_eq!(bare(&job.status), pending);
        let _ = step(&mut job, &Gate::Open, moment(1, 0));
        assert_eq!(
            (&job.status.phase, job.status.attempts),
            (&JobPhase::Running, 1)
        );
    }
}

#[test]
fn what_it_depends_on_has_failed() {
    let mut job = a_job(3);
    let why = "because job `seed` has failed: it trapped";
    let plan = step(&mut job, &Gate::Never(why.to_owned()), moment(1, 0));
    assert_eq!(words(&plan), ["JobFailed"]);
    let reason = why.to_owned();
    assert_eq!(job.status.phase, JobPhase::Failed { reason });
    assert_eq!(job.status.attempts, 0);
    // It waits again once that has been changed.
    let gate = Gate::Waiting("for job `seed` to complete".to_owned());
    assert_eq!(words(&step(&mut job, &gate, moment(1, 1))), ["JobWaiting"]);
    assert_eq!(job.status.phase, JobPhase::Pending);
    assert_eq!(
        words(&step(&mut job, &Gate::Open, moment(1, 2))),
        ["JobStarted"]
    );
    // What was tried is not.
    job.spec.retries = 0;
    job.status = after(&job, trap(), moment(1, 3));
    assert_eq!(words(&step(&mut job, &Gate::Open, moment(1, 4))), [""; 0]);
}

#[test]
fn deleting() {
    for phase in [JobPhase::Pending, JobPhase::Running] {
        let mut job = a_job(3);
        job.deleting = true;
        job.status = JobStatus {
            phase,
            ..running(1, 1)
        };
        let before = job.status.clone();
        let plan = step(&mut job, &Gate::Open, moment(2, 0));
        assert_eq!((&plan.announce, plan.wake_at), (&None, None));
        assert_eq!(job.status, before);
    }
}

#[test]
fn no_number_is_too_large() {
    let mut job = a_job(u32::MAX);
    job.status = running(u32::MAX, 1);
    let end = Moment {
        now: Timestamp::after(Duration::MAX),
        ..moment(1, 0)
    };
    job.status = after(&job, trap(), end);
    assert!(matches!(job.status.phase, JobPhase::BackOff { .. }));
    let plan = plan(&job, &Gate::Open, &Runner::alone(&job, end), end);
    assert_eq!((plan.status.attempts, plan.wake_at), (u32::MAX, None));
}

/// An attempt that is to run on another node than the one that plans.
fn elsewhere(node: &str, boot: u64, goes_on: bool) -> Runner {
    Runner {
        node: Some(Name::parse(node).expect("a name")),
        boot: Boot(boot),
        goes_on,
    }
}

#[test]
fn an_attempt_on_another_node_goes_on_while_that_does() {
    let mut job = a_job(1);
    let planned = plan(&job, &Gate::Open, &elsewhere("b", 7, false), moment(1, 0));
    assert_eq!(planned.status.boot, Boot(7));
    assert_eq!(planned.status.node, elsewhere("b", 7, false).node);
    job.status = planned.status;
    // It is of that node, whichever node plans.
    for boot in [1, 2] {
        let planned = plan(&job, &Gate::Open, &elsewhere("c", 8, true), moment(boot, 5));
        assert_eq!(
            (planned.status, planned.announce),
            (job.status.clone(), None)
        );
    }
    // The node is lost: it is the same attempt on another one.
    let planned = plan(&job, &Gate::Open, &elsewhere("c", 8, false), moment(1, 5));
    assert_eq!(words(&planned), ["JobResumed"]);
    assert_eq!((planned.status.attempts, planned.status.boot), (1, Boot(8)));
}

#[test]
fn the_wait_after_a_failure_elsewhere_is_on_the_clock_of_the_planner() {
    let mut job = a_job(1);
    job.status = plan(&job, &Gate::Open, &elsewhere("b", 7, false), moment(1, 0)).status;
    // The clock of node b is far ahead.
    job.status = after(&job, trap(), moment(7, 1_000_000));
    let planned = plan(&job, &Gate::Open, &elsewhere("c", 8, true), moment(1, 50));
    assert_eq!(words(&planned), [""; 0]);
    let until = Timestamp::after(FIRST_DELAY + Duration::from_millis(50));
    assert_eq!(planned.wake_at, Some(until));
    job.status = planned.status;
    let planned = plan(&job, &Gate::Open, &elsewhere("c", 8, false), moment(1, 60));
    assert_eq!((planned.announce, planned.wake_at), (None, Some(until)));
    let planned = plan(&job, &Gate::Open, &elsewhere("c", 8, false), moment(1, 250));
    assert_eq!(words(&planned), ["JobRetried"]);
    assert_eq!((planned.status.attempts, planned.status.boot), (2, Boot(8)));
}
