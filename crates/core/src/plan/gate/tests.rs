//! What meets a dependency.

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::{
    name::ServiceKey,
    object::{Autoscale, Grants, Limits, OnFailure, Rollout, Strategy},
    quantity::{Amount, ByteSize},
    record::{Asked, Component, Counts, JobSpec, JobStatus, ServiceSpec, ServiceStatus},
    time::Timestamp,
};

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// A service with so many pods alive and ready.
fn a_service(replicas: u32, alive: u32, ready: u32) -> Service {
    Service {
        key: ServiceKey::new(&name("shop"), &name("db")),
        generation: 1,
        spec: ServiceSpec {
            revision: 1,
            kind: crate::object::ServiceKind::Http,
            previous: None,
            latest: 1,
            replicas,
            paused: false,
            deleting: false,
            rollout: Rollout {
                strategy: Strategy::Rolling,
                max_surge: Amount::Count(1),
                max_unavailable: Amount::Count(0),
                min_ready: Duration::ZERO,
                progress_deadline: Duration::from_secs(60),
                on_failure: OnFailure::Rollback,
                history: 10,
                drain: Duration::ZERO,
            },
            routes: Vec::new(),
            depends_on: BTreeMap::new(),
            calls: Default::default(),
            queue: 0,
            queue_timeout: Duration::ZERO,
            body_bytes: 0,
            debug_headers: false,
            autoscale: None,
            placement: Default::default(),
        },
        status: ServiceStatus {
            counts: Counts {
                alive,
                ready,
                ..Counts::default()
            },
            ..ServiceStatus::default()
        },
    }
}

/// A job of generation 2 in this phase of some generation, after one attempt.
fn a_job(phase: JobPhase, generation: u64, attempts: u32) -> Job {
    Job {
        key: ServiceKey::new(&name("shop"), &name("migrate")),
        generation: 2,
        spec: JobSpec {
            component: Component {
                digest: String::new(),
                path: PathBuf::new().display().to_string(),
            },
            args: Vec::new(),
            retries: 0,
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
        status: JobStatus {
            observed_generation: generation,
            phase,
            attempts,
            ..JobStatus::default()
        },
        deleting: false,
        asked: Asked::default(),
    }
}

fn failed() -> JobPhase {
    JobPhase::Failed {
        reason: "it trapped".to_owned(),
    }
}

fn waiting(what: &str) -> Gate {
    Gate::Waiting(what.to_owned())
}

fn never() -> Gate {
    Gate::Never("because job `migrate` has failed: it trapped".to_owned())
}

#[test]
fn services() {
    let started = waiting("for service `db` to be started");
    let ready = waiting("for service `db` to be ready");
    for (replicas, alive, ready_pods, condition, expected) in [
        (1, 0, 0, Condition::Started, &started),
        (0, 0, 0, Condition::Started, &Gate::Open),
        (1, 1, 0, Condition::Started, &Gate::Open),
        (1, 1, 0, Condition::Ready, &ready),
        (0, 0, 0, Condition::Ready, &ready),
        (3, 3, 1, Condition::Ready, &Gate::Open),
        (3, 3, 0, Condition::Completed, &ready),
        (3, 3, 1, Condition::Completed, &Gate::Open),
    ] {
        let service = a_service(replicas, alive, ready_pods);
        let depends_on = BTreeMap::from([(name("db"), condition)]);
        let found = gate(&depends_on, &|_| Some(&service), &|_| None);
        assert_eq!(
            found, *expected,
            "{condition:?} {replicas} {alive} {ready_pods}"
        );
    }
}

#[test]
fn a_service_at_zero_is_ready_for_its_callers() {
    let mut service = a_service(0, 0, 0);
    for (min, ready) in [(0, true), (1, false)] {
        service.spec.autoscale = Some(Autoscale {
            min,
            max: 5,
            cpu: None,
            concurrency: Some(1.0),
            rps: None,
            stabilization: Duration::ZERO,
            idle: Duration::from_secs(60),
        });
        let depends_on = BTreeMap::from([(name("db"), Condition::Ready)]);
        let found = gate(&depends_on, &|_| Some(&service), &|_| None);
        assert_eq!(found == Gate::Open, ready, "{min}");
    }
}

#[test]
fn jobs() {
    let back_off = JobPhase::BackOff {
        until: Timestamp::ZERO,
        reason: String::new(),
    };
    let started = waiting("for job `migrate` to be started");
    let complete = waiting("for job `migrate` to complete");
    for (phase, generation, attempts, on_start, on_completion) in [
        (JobPhase::Pending, 2, 0, &started, &complete),
        (JobPhase::Running, 2, 1, &Gate::Open, &complete),
        (back_off, 2, 1, &Gate::Open, &complete),
        (JobPhase::Completed, 2, 1, &Gate::Open, &Gate::Open),
        (failed(), 2, 1, &Gate::Open, &never()),
        // What it depends on has failed.
        (failed(), 2, 0, &never(), &never()),
        // What an earlier generation did says nothing.
        (JobPhase::Completed, 1, 1, &started, &complete),
        (failed(), 1, 1, &started, &complete),
        (JobPhase::Running, 1, 1, &started, &complete),
    ] {
        let job = a_job(phase, generation, attempts);
        for (condition, expected) in [
            (Condition::Started, on_start),
            (Condition::Completed, on_completion),
            (Condition::Ready, on_completion),
        ] {
            let depends_on = BTreeMap::from([(name("migrate"), condition)]);
            let found = gate(&depends_on, &|_| None, &|_| Some(&job));
            assert_eq!(found, *expected, "{condition:?} {:?}", job.status);
        }
    }
}

/// What has failed outweighs what is waited for; what does not exist is met.
#[test]
fn several() {
    let (service, job) = (a_service(1, 0, 0), a_job(failed(), 2, 1));
    let services = |wanted: &Name| (*wanted == name("db")).then_some(&service);
    let jobs = |wanted: &Name| (*wanted == name("migrate")).then_some(&job);
    let of = |names: &[(&str, Condition)]| {
        let depends_on = names
            .iter()
            .map(|&(text, condition)| (name(text), condition));
        gate(&depends_on.collect(), &services, &jobs)
    };
    let (db, migrate) = (("db", Condition::Ready), ("migrate", Condition::Completed));
    let absent = ("debug", Condition::Ready);
    assert_eq!(of(&[]), Gate::Open);
    assert_eq!(of(&[absent]), Gate::Open);
    assert_eq!(of(&[absent, db]), waiting("for service `db` to be ready"));
    assert_eq!(of(&[db, migrate]), never());
    assert_eq!(of(&[absent, migrate]), never());
}

/// What may be waited for at a point of its life, and what becomes of a wait for it to be `started`,
/// `ready`, `completed`: `o` opens, `w` waits, `n` never opens.
type Point = (&'static str, Option<Service>, Option<Job>, &'static str);

fn points_of_services() -> Vec<Point> {
    let mut asleep = a_service(0, 0, 0);
    asleep.spec.autoscale = Some(Autoscale {
        min: 0,
        max: 5,
        cpu: None,
        concurrency: Some(1.0),
        rps: None,
        stabilization: Duration::ZERO,
        idle: Duration::from_secs(60),
    });
    let points = [
        ("a service without a pod yet", a_service(2, 0, 0), "www"),
        ("it has begun", a_service(2, 1, 0), "oww"),
        ("it never becomes ready", a_service(2, 2, 0), "oww"),
        ("one pod is ready", a_service(2, 2, 1), "ooo"),
        ("all are", a_service(2, 2, 2), "ooo"),
        ("it crashes after it was ready", a_service(2, 2, 0), "oww"),
        ("all of its pods are gone", a_service(2, 0, 0), "www"),
        ("none are wanted", a_service(0, 0, 0), "oww"),
        ("it sleeps until it is called", asleep, "ooo"),
    ];
    let points = points.map(|(what, service, expected)| (what, Some(service), None, expected));
    points.into()
}

fn points_of_jobs() -> Vec<Point> {
    let back_off = JobPhase::BackOff {
        until: Timestamp::ZERO,
        reason: "exit code 1".to_owned(),
    };
    let (again, same) = (1, 2);
    let points = [
        ("a job that waits itself", JobPhase::Pending, same, 0, "www"),
        ("it runs", JobPhase::Running, same, 1, "oww"),
        ("it has failed with retries left", back_off, same, 1, "oww"),
        ("it has failed for good", failed(), same, 3, "onn"),
        ("it failed before it began", failed(), same, 0, "nnn"),
        ("it failed and is applied again", failed(), again, 3, "www"),
        ("it has completed", JobPhase::Completed, same, 1, "ooo"),
        (
            "it has, and is applied again",
            JobPhase::Completed,
            again,
            1,
            "www",
        ),
    ];
    let points = points.map(|(what, phase, generation, attempts, expected)| {
        let job = a_job(phase, generation, attempts);
        (what, None, Some(job), expected)
    });
    points.into()
}

#[test]
fn every_condition_at_every_point() {
    let gone = ("it was deleted meanwhile", None, None, "ooo");
    let points = [points_of_services(), points_of_jobs(), vec![gone]].concat();
    assert_eq!(points.len(), 18);
    let conditions = [Condition::Started, Condition::Ready, Condition::Completed];
    for (what, service, job, expected) in &points {
        let found = conditions.map(|condition| {
            let depends_on = BTreeMap::from([(name("it"), condition)]);
            match gate(&depends_on, &|_| service.as_ref(), &|_| job.as_ref()) {
                Gate::Open => 'o',
                Gate::Waiting(_) => 'w',
                Gate::Never(_) => 'n',
            }
        });
        assert_eq!(String::from_iter(found), *expected, "{what}");
    }
}
