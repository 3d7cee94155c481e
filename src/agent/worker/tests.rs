//! Workers of pods without guests, on a paused clock.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty};
use parking_lot::Mutex;
use sampan_core::{
    fault::Fault,
    histogram::LogLinear,
    object::{Isolation, RestartPolicy},
    plan::{
        pod::PodSpec,
        probe::{Outcome, ProbeKind},
    },
};
use sampan_gateway::{Body, RequestContext, Upstream as _};
use sampan_runtime::Usage;
use tokio::time::Instant;

use crate::agent::census::Census;
use crate::agent::fake::{FakeRotation, Rig, Stage, exit, probe, spec, termination};

const SECOND: Duration = Duration::from_secs(1);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn start(stage: Stage, spec: PodSpec) -> (Rig, Arc<FakeRotation>) {
    let rotation = Arc::<FakeRotation>::default();
    let rig = Rig::start(stage, spec, Arc::clone(&rotation) as _);
    (rig, rotation)
}

/// What comes of a request.
async fn ask(rig: &Rig) -> Result<(), Fault> {
    let body: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::new(body);
    let answer = rig.upstream.call(request, &RequestContext::fresh()).await;
    answer.map(drop).map_err(|error| error.kind())
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_longer_each_time_and_says_so() {
    let stage = Stage {
        lifetime: Mutex::new(Some(millis(10))),
        ..Stage::default()
    };
    let (rig, _) = start(stage, spec());
    rig.until_told("after 6 failures in a row").await;
    let made = rig.stage.made.lock().clone();
    let waits = made.windows(2).map(|pair| {
        let life = millis(10);
        (pair[1] - pair[0] - life).as_millis()
    });
    // The clock of a test goes in steps of a millisecond.
    let waits: Vec<_> = waits.map(|wait| wait / 10 * 10).collect();
    assert_eq!(waits, [200, 400, 800, 1_600, 2_000]);
    let told = rig.told();
    assert_eq!(
        &told[..6],
        [
            "ready after 0 µs",
            "failed: Trapped: it trapped",
            "BackOff: next try in 200ms",
            "restarting, restart 1",
            "ready after 0 µs",
            "failed: Trapped: it trapped",
        ]
    );
    assert_eq!(
        told[6],
        "CrashLoopBackOff: next try in 400ms, after 2 failures in a row"
    );
}

/// As in a Deployment: a command that ends well is started again too, after the same delays.
#[tokio::test(start_paused = true)]
async fn a_command_that_ends_is_started_again_as_its_policy_says() {
    let (rig, rotation) = start(Stage::default(), spec());
    for (code, told) in [
        (0, "BackOff: next try in 200ms"),
        (
            0,
            "CrashLoopBackOff: next try in 400ms, after 2 ends in a row",
        ),
        (
            3,
            "CrashLoopBackOff: next try in 800ms, after 3 failures in a row",
        ),
    ] {
        while !rotation.ready.load(SeqCst) {
            tokio::time::sleep(millis(10)).await;
        }
        rig.stage.watch().terminated(&exit(code));
        rig.until_told(told).await;
        assert!(!rotation.ready.load(SeqCst));
    }
    let told = rig.told();
    assert!(
        told.contains(&"ended by itself, with exit code 0".to_owned()),
        "{told:?}"
    );
    let bad = "failed: Exited: the command ended with exit code 3".to_owned();
    assert!(told.contains(&bad), "{told:?}");

    for (policy, code) in [
        (RestartPolicy::OnFailure, 0),
        (RestartPolicy::Never, 0),
        (RestartPolicy::Never, 1),
    ] {
        let mut spec = spec();
        spec.restart.policy = policy;
        let (rig, rotation) = start(Stage::default(), spec);
        rig.until_told("ready after").await;
        rig.stage.watch().terminated(&exit(code));
        rig.until_told("stopped, and not restarted").await;
        assert!(rotation.left.load(SeqCst));
        assert_eq!(rig.stage.made.lock().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_is_tried_again() {
    let stage = Stage {
        unmakeable: Mutex::new(Some("no instance can be made".to_owned())),
        ..Stage::default()
    };
    let (mut rig, rotation) = start(stage, spec());
    rig.until_told("next try in 200ms").await;
    let census = *rig.census.borrow_and_update();
    let wanted = Census {
        settled: 1,
        failed: 1,
        ..Census::default()
    };
    assert_eq!(census, wanted);
    assert_eq!(ask(&rig).await, Err(Fault::Unavailable));
    *rig.stage.unmakeable.lock() = None;
    rig.until_told("ready after").await;
    assert!(rotation.ready.load(SeqCst));
    assert_eq!(ask(&rig).await, Ok(()));
    let told = rig.told();
    assert_eq!(told[0], "cannot start: no instance can be made");
    assert_eq!(rig.census.borrow().been_ready, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_instance_has_ended_is_out_of_rotation_before_a_client_is_told() {
    let (rig, rotation) = start(Stage::default(), spec());
    rig.until_told("ready after").await;
    let before = rig.told().len();
    let watch = rig.stage.watch();
    watch.terminated(&termination("it trapped"));
    // In this very moment; the worker has not even run.
    assert!(!rotation.ready.load(SeqCst));
    assert_eq!(rig.told().len(), before);
    assert_eq!(ask(&rig).await, Err(Fault::Unavailable));
    rig.until_told("restarting, restart 1").await;
    rig.until_told("BackOff").await;
    tokio::time::sleep(SECOND).await;
    assert!(rotation.ready.load(SeqCst));
    // Late news of an instance that is gone harms no other one.
    watch.terminated(&termination("it trapped again"));
    assert!(rotation.ready.load(SeqCst));
    assert_eq!(ask(&rig).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_was_killed_has_no_say_any_more() {
    let watched = PodSpec {
        liveness: probe(SECOND, 1),
        ..spec()
    };
    let (rig, rotation) = start(Stage::default(), watched);
    rig.until_told("ready after").await;
    let old = rig.stage.watch();
    let answer = |outcome| rig.stage.answer(ProbeKind::Liveness, outcome);
    answer(Outcome::Failure("status 500".to_owned()));
    rig.until_told("killed").await;
    answer(Outcome::Success);
    tokio::time::sleep(SECOND).await;
    old.terminated(&termination("it was dropped"));
    assert!(rotation.ready.load(SeqCst));
    assert_eq!(ask(&rig).await, Ok(()));
    assert_eq!(rig.stage.made.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_instance_may_end_before_it_is_known_to_have_been_made() {
    let stage = Stage {
        lifetime: Mutex::new(Some(Duration::ZERO)),
        ..Stage::default()
    };
    let (rig, rotation) = start(stage, spec());
    rig.until_told("after 3 failures in a row").await;
    assert!(!rotation.ready.load(SeqCst));
    assert!(!rig.told().iter().any(|text| text.contains("ready")));
}

#[tokio::test(start_paused = true)]
async fn probes_are_asked_in_time_and_in_turn() {
    let all = PodSpec {
        startup: probe(SECOND, 30),
        readiness: probe(2 * SECOND, 1),
        liveness: probe(5 * SECOND, 3),
        ..spec()
    };
    let begin = Instant::now();
    let stage = Stage::default();
    stage.answer(ProbeKind::Startup, Outcome::Failure("not yet".to_owned()));
    let (rig, rotation) = start(stage, all);
    tokio::time::sleep(millis(3_500)).await;
    rig.stage.answer(ProbeKind::Startup, Outcome::Success);
    tokio::time::sleep(millis(10_000)).await;
    let asked = rig.stage.asked.lock().clone();
    let at = |wanted| -> Vec<u64> {
        let of_kind = asked.iter().filter(|(kind, _)| *kind == wanted);
        of_kind.map(|(_, at)| (*at - begin).as_secs()).collect()
    };
    assert_eq!(at(ProbeKind::Startup), [0, 1, 2, 3, 4]);
    assert_eq!(at(ProbeKind::Readiness), [4, 6, 8, 10, 12]);
    assert_eq!(at(ProbeKind::Liveness), [4, 9]);
    assert!(rotation.ready.load(SeqCst));
}

/// What a pod with this liveness or readiness probe tells when the probe answers so from now on.
async fn with_answers(kind: ProbeKind, outcome: Outcome) -> (Rig, Arc<FakeRotation>) {
    let spec = PodSpec {
        readiness: (kind == ProbeKind::Readiness)
            .then(|| probe(SECOND, 3))
            .flatten(),
        liveness: (kind == ProbeKind::Liveness)
            .then(|| probe(SECOND, 3))
            .flatten(),
        ..spec()
    };
    let (rig, rotation) = start(Stage::default(), spec);
    rig.until_told("ready").await;
    rig.stage.answer(kind, outcome);
    tokio::time::sleep(millis(3_100)).await;
    (rig, rotation)
}

#[tokio::test(start_paused = true)]
async fn what_probes_say_is_done() {
    let bad = || Outcome::Failure("status 500".to_owned());
    for (kind, outcome, ready, made, last) in [
        (ProbeKind::Readiness, Outcome::Success, true, 1, "ready"),
        (
            ProbeKind::Readiness,
            bad(),
            false,
            1,
            "not ready: readiness probe failed 3 times in a row: status 500",
        ),
        (
            ProbeKind::Readiness,
            Outcome::Starved,
            true,
            1,
            "readiness probe does not count, because the pod got no CPU: 2 times so far",
        ),
        (
            ProbeKind::Liveness,
            Outcome::Success,
            true,
            1,
            "ready after 0 µs",
        ),
        (
            ProbeKind::Liveness,
            bad(),
            false,
            1,
            "BackOff: next try in 200ms",
        ),
        (
            ProbeKind::Liveness,
            Outcome::Starved,
            true,
            1,
            "liveness probe does not count, because the pod got no CPU: 2 times so far",
        ),
    ] {
        let (rig, rotation) = with_answers(kind, outcome.clone()).await;
        let told = rig.told();
        assert_eq!(
            (told.last().map(String::as_str), rig.stage.made.lock().len()),
            (Some(last), made),
            "{kind} {outcome:?}: {told:#?}"
        );
        assert_eq!(rotation.ready.load(SeqCst), ready, "{kind} {outcome:?}");
        let killed = u32::from(kind == ProbeKind::Liveness && !ready);
        assert_eq!(rig.stage.ended.load(SeqCst), killed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_restarted_is_lost() {
    let mut never = spec();
    never.restart.policy = RestartPolicy::Never;
    let stage = Stage {
        lifetime: Mutex::new(Some(SECOND)),
        ..Stage::default()
    };
    let (rig, rotation) = start(stage, never);
    rig.until_told("its restart policy is `never`").await;
    assert!(rotation.left.load(SeqCst));
    let census = *rig.census.borrow();
    assert_eq!((census.ready, census.been_ready, census.lost), (0, 1, 1));
    rig.worker.stop(None).await;
}

#[tokio::test(start_paused = true)]
async fn one_bad_request_restarts_nothing_and_many_do() {
    let fresh = PodSpec {
        isolation: Isolation::Request,
        ..spec()
    };
    let (rig, rotation) = start(Stage::default(), fresh);
    rig.until_told("ready after").await;
    let traps = |instances, killed| {
        *rig.stage.usage.lock() = Usage {
            instances,
            killed,
            ..Usage::default()
        };
        rig.stage
            .watch()
            .instance_failed(&termination("it trapped"));
    };
    traps(1, 1);
    tokio::time::sleep(SECOND).await;
    traps(40, 20);
    tokio::time::sleep(SECOND).await;
    assert!(rotation.ready.load(SeqCst));
    traps(42, 22);
    rig.until_told("killed: 22 of 42 requests within 10 s trapped")
        .await;
    assert_eq!(rig.stage.ended.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_drains_and_has_an_end() {
    for (ends_after, told) in [
        (Some(5 * SECOND), "stopped"),
        (None, "stopped: requests were still in flight after 30s"),
    ] {
        let (rig, rotation) = start(Stage::default(), spec());
        rig.until_told("ready after").await;
        *rig.stage.usage.lock() = Usage {
            instances: 7,
            ..Usage::default()
        };
        rotation.in_flight.store(2, SeqCst);
        let begin = Instant::now();
        let Rig {
            worker,
            stage,
            journal,
            ..
        } = rig;
        let stopping = tokio::spawn(worker.stop(None));
        if let Some(time) = ends_after {
            tokio::time::sleep(time).await;
            assert!(rotation.left.load(SeqCst));
            assert_eq!(stage.ended.load(SeqCst), 0);
            rotation.idle.notify_one();
        }
        let used = stopping.await.expect("no panic");
        assert_eq!(used.instances, 7);
        assert_eq!(
            begin.elapsed().as_secs(),
            ends_after.map_or(30, |it| it.as_secs())
        );
        assert_eq!(stage.ended.load(SeqCst), 1);
        let events = journal.after(0).events;
        let texts: Vec<_> = events.iter().map(|event| event.change.message()).collect();
        assert_eq!(texts[1..], ["draining, 2 requests in flight", told]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_starts_or_waits_stops_at_once() {
    let stage = Stage {
        unmakeable: Mutex::new(Some("no".to_owned())),
        ..Stage::default()
    };
    let (rig, rotation) = start(stage, spec());
    rig.until_told("next try in 400ms").await;
    let begin = Instant::now();
    rig.worker.stop(None).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert!(rotation.left.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn what_all_instances_used_is_counted_together() {
    let requests = LogLinear::default();
    requests.record(SECOND);
    let stage = Stage {
        lifetime: Mutex::new(Some(SECOND)),
        usage: Mutex::new(Usage {
            instances: 3,
            memory_bytes: 100,
            throttled: SECOND,
            ..Usage::default()
        }),
        request_cpu: Mutex::new(requests.distribution()),
        ..Stage::default()
    };
    let (rig, _) = start(stage, spec());
    rig.until_told("restart 2").await;
    tokio::time::sleep(millis(10)).await;
    let used = rig.worker.usage();
    assert_eq!((used.instances, used.memory_bytes), (9, 100));
    assert_eq!(used.throttled, 3 * SECOND);
    assert_eq!(rig.worker.account.request_cpu().count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_dropped_leaves_no_pod() {
    let (rig, rotation) = start(Stage::default(), spec());
    rig.until_told("ready after").await;
    let Rig { worker, stage, .. } = rig;
    drop(worker);
    tokio::time::sleep(millis(1)).await;
    assert!(rotation.left.load(SeqCst));
    assert_eq!(stage.ended.load(SeqCst), 1);
}
