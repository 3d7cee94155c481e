//! What is kept, and what goes.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::*;
use crate::{
    name::{Name, ServiceKey},
    object::{Grants, Limits, OnFailure, Rollout, Strategy},
    quantity::{Amount, ByteSize},
    record::{Asked, Component, JobPhase, JobSpec, JobStatus, ServiceSpec, ServiceStatus},
};

const NO_SERVICES: [Service; 0] = [];
const NO_JOBS: [Job; 0] = [];
const NO_PODS: [Pod; 0] = [];

fn key(name: &str) -> ServiceKey {
    ServiceKey::parse(&format!("shop/{name}")).expect("a key")
}

/// A service that runs revision 9, ran 8 before and 5 well.
fn a_service(name: &str, history: u32, deleting: bool) -> Service {
    Service {
        key: key(name),
        generation: 1,
        spec: ServiceSpec {
            revision: 9,
            kind: crate::object::ServiceKind::Http,
            previous: Some(8),
            latest: 9,
            replicas: 1,
            paused: false,
            deleting,
            rollout: Rollout {
                strategy: Strategy::Rolling,
                max_surge: Amount::Count(1),
                max_unavailable: Amount::Count(0),
                min_ready: Duration::ZERO,
                progress_deadline: Duration::from_secs(60),
                on_failure: OnFailure::Rollback,
                history,
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
            target: 9,
            last_good: Some(5),
            ..ServiceStatus::default()
        },
    }
}

fn a_job(name: &str, phase: JobPhase, deleting: bool) -> Job {
    Job {
        key: key(name),
        generation: 1,
        spec: JobSpec {
            component: Component {
                digest: String::new(),
                path: String::new(),
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
            phase,
            ..JobStatus::default()
        },
        deleting,
        asked: Asked::default(),
    }
}

fn an_app(deleting: bool) -> App {
    App {
        name: Name::parse("shop").expect("a name"),
        generation: 1,
        base: PathBuf::new(),
        services: BTreeSet::new(),
        jobs: BTreeSet::new(),
        volumes: BTreeMap::new(),
        deleting,
        applied_ms: 0,
    }
}

#[test]
fn old_revisions() {
    let all = [9, 1, 2, 3, 4, 5, 6, 7, 8, 3];
    let pods = [Pod::new(&key("web"), 2, 0), Pod::new(&key("api"), 1, 0)];
    // 9, 8 and 5 are needed, and 2 has a pod; of 1, 3, 4, 6 and 7 the newest are kept.
    for (history, expected) in [
        (10, &[][..]),
        (5, &[]),
        (4, &[1]),
        (2, &[1, 3, 4]),
        (0, &[1, 3, 4, 6, 7]),
    ] {
        let service = a_service("web", history, false);
        assert_eq!(revisions(&service, &all, &pods), expected, "{history}");
    }
    let service = a_service("web", 0, false);
    assert_eq!(revisions(&service, &all, &NO_PODS), [1, 2, 3, 4, 6, 7]);
}

#[test]
fn revisions_of_what_is_deleted() {
    let service = a_service("web", 10, true);
    let own = [Pod::new(&key("web"), 9, 0)];
    let other = [Pod::new(&key("api"), 9, 0)];
    assert_eq!(revisions(&service, &[7, 8, 9], &own), [0; 0]);
    assert_eq!(revisions(&service, &[7, 8, 9], &other), [7, 8, 9]);
}

#[test]
fn what_is_deleted_goes_when_it_is_done() {
    let services = [a_service("api", 1, true), a_service("web", 1, true)];
    let kept = a_service("db", 1, false);
    let pods = [Pod::new(&key("web"), 9, 0)];
    let jobs = [
        a_job("a", JobPhase::Running, true),
        a_job("b", JobPhase::Completed, true),
        a_job("c", JobPhase::Completed, false),
    ];
    let app = an_app(false);
    let (api, web) = (Key::Service(key("api")), Key::Service(key("web")));
    let job = |name| Key::Job(key(name));
    let found = finished(&app, &services, &jobs, &pods);
    assert_eq!(found, [api.clone(), job("b")]);
    assert_eq!(finished(&app, &[kept], &jobs[2..], &NO_PODS), []);
    // The app goes last, with whatever else is left of it.
    let (app, gone) = (an_app(true), Key::App(an_app(true).name));
    let found = finished(&app, &services, &jobs[1..2], &pods);
    assert_eq!(found, [api.clone(), job("b")]);
    let found = finished(&app, &services, &jobs[1..2], &NO_PODS);
    assert_eq!(found, [api, web, job("b"), gone.clone()]);
    assert_eq!(finished(&app, &NO_SERVICES, &NO_JOBS, &pods), []);
    assert_eq!(finished(&app, &NO_SERVICES, &NO_JOBS, &NO_PODS), [gone]);
}

#[test]
fn artifacts_that_nothing_refers_to() {
    let present = [("a", 0), ("b", 99), ("c", 100), ("d", 5_000), ("e", 5_000)];
    let present = present.map(|(digest, age_ms)| (digest.to_owned(), age_ms));
    let found = artifacts(["d", "gone"].into_iter(), &present, 100);
    assert_eq!(found, ["c", "e"]);
}

#[test]
fn what_belongs_to_an_app_that_goes_follows_it() {
    let (stays, goes) = (an_app(false), an_app(true));
    for deleting in [false, true] {
        let service = a_service("web", 10, deleting);
        let job = a_job("init", JobPhase::Completed, deleting);
        assert_eq!(doomed_service(&stays, &service), None);
        assert_eq!(doomed_job(&stays, &job), None);
        let doomed = doomed_service(&goes, &service).map(|it| (it.spec.deleting, it.generation));
        assert_eq!(doomed, (!deleting).then_some((true, 2)));
        let doomed = doomed_job(&goes, &job).map(|it| (it.deleting, it.generation));
        assert_eq!(doomed, (!deleting).then_some((true, 2)));
    }
}

#[test]
fn what_belongs_to_no_service_goes_with_its_app() {
    let services = [a_service("web", 10, true)];
    let pod = |name: &str, slot| Pod::new(&key(name), 1, slot);
    let mut stopping = pod("lost", 1);
    stopping.stop = Some("it goes".to_owned());
    let pods = [pod("web", 0), pod("lost", 0), stopping];
    let revisions = [(key("lost"), 1), (key("lost"), 2), (key("web"), 1)];
    let found = |app: &App| orphans(app, &services, &pods, revisions.iter());
    let all = Orphans {
        stop: vec![pod("lost", 0).name()],
        revisions: vec![(key("lost"), 1), (key("lost"), 2)],
    };
    assert_eq!(found(&an_app(true)), all);
    assert_eq!(found(&an_app(false)), Orphans::default());
    // The app waits for the last pod.
    assert_eq!(finished(&an_app(true), &NO_SERVICES, &NO_JOBS, &pods), []);
}
