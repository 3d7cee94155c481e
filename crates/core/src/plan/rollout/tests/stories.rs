//! Rollouts from beginning to end.

use std::cmp::Reverse;

use super::*;
use crate::{
    record::{ConditionKind, Progress},
    view,
};

fn bad(revision: u64) -> impl Fn(&Pod) -> Fate {
    move |pod| match pod.revision == revision {
        true => Fate::Bad,
        false => Fate::Good,
    }
}

#[test]
fn the_first_revision() {
    let mut world = World::new(3, 1, 0);
    let plan = world.step();
    assert_eq!(moves(&plan), BTreeMap::from([(1, (3, 0))]));
    assert_eq!(plan.status.phase, Phase::Progressing);
    assert_eq!(plan.wake_at, Some(world.moment.now + DEADLINE));
    world.settle(|_| Fate::Good);
    world.assert_told(&["RolloutStarted", "RolloutComplete"]);
    let status = &world.service.status;
    assert_eq!(status.phase, Phase::Complete);
    assert_eq!(
        (status.target, status.last_good, status.scaled_to),
        (1, Some(1), 3)
    );
    // Nothing ticks.
    world.pass(Duration::from_secs(10_000));
    let plan = world.plan();
    assert_eq!((plan.actions, plan.wake_at), (Vec::new(), None));
    assert_eq!(plan.status, world.service.status);
}

#[test]
fn a_rolling_update() {
    let mut world = World::running(3, 1, 0);
    world.want(2);
    world.settle(|_| Fate::Good);
    world.assert_told(&["RolloutStarted", "RolloutComplete"]);
    assert_eq!((world.active(1), world.active(2)), (0, 3));
    assert_eq!(world.service.status.last_good, Some(2));
}

/// A drained node has two pods of four: they are replaced within the bounds, by pods of the same
/// revision, and nothing else moves.
#[test]
fn pods_leave_their_node() {
    for (surge, unavailable) in [(1, 0), (0, 1), (2, 2)] {
        let mut world = World::running(4, surge, unavailable);
        world.leave(|slot| slot < 2);
        let plan = world.plan();
        let (created, stopped) = moves(&plan)[&1];
        assert_eq!((created, stopped), (surge.min(2), unavailable), "{plan:#?}");
        let said = |action: &Action| match action {
            Action::Stop { reason, .. } => reason == "its node a is drained",
            _ => true,
        };
        assert!(plan.actions.iter().all(said), "{plan:#?}");
        world.settle(|_| Fate::Good);
        assert_eq!(world.active(1), 4);
        assert!(!world.is_leaving(), "{world:#?}");
        assert_eq!(world.service.status.phase, Phase::Complete);
        world.assert_told(&[]);
    }
}

/// A service that is paused and complete leaves a drained node; a rollout that is held in its middle
/// stays as it is until it goes on.
#[test]
fn pods_leave_their_node_while_rollouts_are_paused() {
    let mut world = World::running(4, 1, 0);
    world.pause(true);
    world.settle(|_| Fate::Good);
    world.leave(|slot| slot == 0);
    world.settle(|_| Fate::Good);
    assert!(!world.is_leaving(), "{world:#?}");
    assert_eq!(world.active(1), 4);

    world.pause(false);
    world.settle(|_| Fate::Good);
    world.want(2);
    let _ = world.step();
    world.pause(true);
    world.settle(|_| Fate::Good);
    let held = (world.active(1), world.active(2));
    assert_eq!(held, (4, 1));
    world.leave(|slot| slot == 1);
    world.settle(|_| Fate::Good);
    assert_eq!((world.active(1), world.active(2)), held);
    world.pause(false);
    world.settle(|_| Fate::Good);
    assert_eq!((world.active(1), world.active(2)), (0, 4));
}

/// The new pod cannot come up: what serves stays where it is.
#[test]
fn a_pod_stays_on_a_drained_node_until_another_is_available() {
    let mut world = World::running(2, 1, 0);
    world.leave(|slot| slot == 0);
    world.settle(|pod| match pod.slot {
        0 | 1 => Fate::Good,
        _ => Fate::Stuck,
    });
    assert_eq!(world.active(1), 3, "{world:#?}");
    assert!(world.is_leaving());
    let available = world
        .pods
        .iter()
        .filter(|pod| world.ready_since(pod).is_some());
    assert_eq!(available.count(), 2);
}

#[test]
fn recreate() {
    let mut world = World::running(2, 1, 0);
    world.service.spec.rollout.strategy = Strategy::Recreate;
    world.want(2);
    let plan = world.step();
    assert_eq!(moves(&plan), BTreeMap::from([(1, (0, 2))]));
    world.pods.pop();
    assert_eq!(world.step().actions, [], "one of the old is left");
    world.pods.clear();
    let plan = world.step();
    assert_eq!(moves(&plan), BTreeMap::from([(2, (2, 0))]));
    world.settle(|_| Fate::Good);
    world.assert_told(&["RolloutStarted", "RolloutComplete"]);
    world.want(3);
    world.settle(bad(3));
    world.assert_told(&[
        "RolloutStarted",
        "ProgressDeadlineExceeded",
        "RollBack",
        "RolledBack",
    ]);
    assert_eq!((world.active(2), world.active(3)), (2, 0));
}

#[test]
fn pause_and_resume() {
    let mut world = World::running(4, 1, 0);
    world.want(2);
    let _ = world.step();
    world.live(|_| Fate::Good);
    world.pause(true);
    let plan = world.step();
    assert_eq!(moves(&plan), BTreeMap::new());
    assert_eq!(plan.status.phase, Phase::Paused { failure: None });
    world.pass(DEADLINE * 2);
    let plan = world.step();
    assert_eq!((plan.actions, plan.wake_at), (Vec::new(), None));
    world.assert_told(&["RolloutStarted", "RolloutPaused"]);
    world.pause(false);
    let plan = world.step();
    assert_eq!(moves(&plan), BTreeMap::from([(1, (0, 1))]));
    assert_eq!(plan.status.progress.since, world.moment.now);
    world.settle(|_| Fate::Good);
    world.assert_told(&["RolloutResumed", "RolloutComplete"]);
}

/// Another revision that is wanted while paused is rolled out once it goes on.
#[test]
fn a_change_while_paused() {
    let mut world = World::running(2, 1, 0);
    world.pause(true);
    world.want(2);
    world.settle(|_| Fate::Good);
    assert_eq!((world.active(1), world.active(2)), (2, 0));
    assert_eq!(world.service.status.target, 2);
    world.pause(false);
    world.settle(|_| Fate::Good);
    assert_eq!((world.active(1), world.active(2)), (0, 2));
}

#[test]
fn superseded() {
    let mut world = World::running(4, 1, 1);
    world.want(2);
    let _ = world.step();
    world.live(bad(2));
    let _ = world.step();
    world.want(3);
    world.settle(bad(2));
    assert_eq!(
        (world.active(1), world.active(2), world.active(3)),
        (0, 0, 4)
    );
    world.assert_told(&["RolloutStarted", "RolloutStarted", "RolloutComplete"]);
}

/// The old pods that are left are kept, and only what is missing is made.
#[test]
fn undone_midway() {
    let mut world = World::running(4, 1, 1);
    world.want(2);
    let _ = world.step();
    world.live(|_| Fate::Good);
    let kept: Vec<_> = world
        .pods
        .iter()
        .filter(|it| it.revision == 1)
        .cloned()
        .collect();
    assert_eq!(kept.len(), 3);
    world.want(1);
    world.settle(|_| Fate::Good);
    assert_eq!((world.active(1), world.active(2)), (4, 0));
    assert!(kept.iter().all(|pod| world.pods.contains(pod)));
}

#[test]
fn rolled_back() {
    let mut world = World::running(4, 1, 0);
    world.want(2);
    let _ = world.step();
    world.live(bad(2));
    let begun = world.moment.now;
    assert_eq!(world.step().wake_at, Some(begun + DEADLINE));
    world.pass(DEADLINE - Duration::from_millis(1));
    let _ = world.step();
    assert_eq!(world.service.status.phase, Phase::Progressing);
    world.pass(Duration::from_millis(1));
    let plan = world.step();
    let reason = "no progress for 1m: 0 of 4 pods of revision 2 available; \
                  web-2-0 is in BackOff: it trapped";
    let back = Action::RollBack {
        from: 2,
        to: 1,
        reason: reason.to_owned(),
    };
    assert!(plan.actions.contains(&back), "{plan:#?}");
    // All of the old ones are there still.
    let phase = Phase::RolledBack {
        from: 2,
        reason: reason.to_owned(),
    };
    assert_eq!((&plan.status.phase, plan.status.target), (&phase, 1));
    world.settle(bad(2));
    assert_eq!((world.active(1), world.active(2)), (4, 0));
    assert_eq!(world.service.spec.previous, Some(2));
    assert_eq!(world.service.status.phase, phase, "it stays");
    world.assert_told(&[
        "RolloutStarted",
        "ProgressDeadlineExceeded",
        "RollBack",
        "RolledBack",
    ]);
}

#[test]
fn rolled_back_step_by_step() {
    let mut world = World::running(4, 0, 2);
    world.want(2);
    let _ = world.step();
    world.live(bad(2));
    let _ = world.step();
    world.live(bad(2));
    world.pass(DEADLINE);
    let plan = world.step();
    // The failed ones make way first.
    assert_eq!(moves(&plan), BTreeMap::from([(2, (0, 2))]));
    assert!(matches!(
        plan.status.phase,
        Phase::RollingBack { from: 2, .. }
    ));
    assert_eq!(plan.wake_at, Some(world.moment.now + DEADLINE));
    world.settle(bad(2));
    assert_eq!((world.active(1), world.active(2)), (4, 0));
    assert!(matches!(
        world.service.status.phase,
        Phase::RolledBack { from: 2, .. }
    ));
}

/// Neither revision works: what was good once is tried on, and nothing swings to and fro.
#[test]
fn the_rollback_fails_too() {
    let mut world = World::running(2, 0, 1);
    world.want(2);
    world.settle(|_| Fate::Bad);
    world.assert_told(&[
        "RolloutStarted",
        "ProgressDeadlineExceeded",
        "RollBack",
        "ProgressDeadlineExceeded",
    ]);
    let Phase::Failed { reason } = &world.service.status.phase else {
        panic!("{world:#?}");
    };
    assert!(
        reason.contains("; then the rollback failed: no progress for 1m: "),
        "{reason}"
    );
    assert_eq!(world.service.spec.revision, 1);
    world.settle(|_| Fate::Good);
    assert_eq!(world.service.status.phase, Phase::Complete);
    world.assert_told(&["RolloutComplete"]);
}

#[test]
fn nothing_to_go_back_to() {
    let mut world = World::new(2, 1, 0);
    world.settle(|_| Fate::Bad);
    world.assert_told(&["RolloutStarted", "ProgressDeadlineExceeded"]);
    assert!(matches!(world.service.status.phase, Phase::Failed { .. }));
    assert_eq!(world.active(1), 2);
    world.settle(|_| Fate::Good);
    world.assert_told(&["RolloutComplete"]);
    assert_eq!(world.service.status.last_good, Some(1));
}

#[test]
fn held_after_a_failure() {
    let mut world = World::running(3, 1, 0);
    world.service.spec.rollout.on_failure = OnFailure::Pause;
    world.want(2);
    world.settle(bad(2));
    world.assert_told(&["RolloutStarted", "ProgressDeadlineExceeded", "Pause"]);
    assert!(world.service.spec.paused);
    let held = world.service.status.phase.clone();
    assert!(matches!(held, Phase::Paused { failure: Some(_) }));
    assert_eq!((world.active(1), world.active(2)), (3, 1));
    world.pause(false);
    world.settle(|_| Fate::Good);
    world.assert_told(&["RolloutResumed", "RolloutComplete"]);
    assert_eq!((world.active(1), world.active(2)), (0, 3));
}

/// Pods that come and go are no progress.
#[test]
fn marks_only_get_better() {
    let mut world = World::running(3, 0, 1);
    world.service.spec.rollout.min_ready = Duration::ZERO;
    world.want(2);
    let _ = world.step();
    let mut last = world.service.status.progress;
    let marks = |it: Progress| (it.most_available, Reverse(it.fewest_old));
    let begun = world.moment.now;
    while world.service.status.phase == Phase::Progressing {
        world.pass(Duration::from_secs(1));
        // The first one comes and goes, the others never come.
        let first = world.moment.now.since_zero().as_secs().is_multiple_of(2);
        world.live(|pod| match (pod.revision, pod.slot) {
            (1, _) => Fate::Good,
            (2, 0) if first => Fate::Good,
            _ => Fate::Stuck,
        });
        let _ = world.step();
        let progress = world.service.status.progress;
        if world.service.status.target == 2 {
            assert!(marks(progress) >= marks(last));
            assert_eq!(progress.since > last.since, marks(progress) > marks(last));
            last = progress;
        }
    }
    world.assert_told(&["RolloutStarted", "ProgressDeadlineExceeded", "RollBack"]);
    assert_eq!(world.moment.now, last.since + DEADLINE);
    assert!(last.since > begun && last.since < begun + Duration::from_secs(10));
}

/// Times of another run of the node say nothing, but what was done counts.
#[test]
fn another_run_of_the_node() {
    let mut world = World::running(3, 1, 0);
    world.want(2);
    let _ = world.step();
    world.live(bad(2));
    let _ = world.step();
    let before = world.service.status.progress;
    world.moment.boot = Boot(8);
    world.moment.now = Timestamp::after(Duration::from_secs(1));
    let plan = world.step();
    assert_eq!(plan.actions, [], "no pod of the old run is available");
    let after = plan.status.progress;
    assert_eq!((after.boot, after.since), (Boot(8), world.moment.now));
    assert_eq!(after.most_available, before.most_available);
    assert_eq!(after.fewest_old, before.fewest_old);
    assert_eq!(plan.status.counts.available, 0);
    // A complete service stays complete.
    let mut world = World::running(3, 1, 0);
    world.moment.boot = Boot(8);
    let plan = world.step();
    assert_eq!((plan.actions, plan.wake_at), (Vec::new(), None));
    assert_eq!(plan.status.phase, Phase::Complete);
}

#[test]
fn waiting_for_dependencies() {
    let mut world = World::new(2, 1, 0);
    world.gate = Gate::Waiting("for service `db` to be ready".to_owned());
    world.settle(|_| Fate::Good);
    let phase = Phase::Waiting {
        on: "for service `db` to be ready".to_owned(),
    };
    assert_eq!(world.service.status.phase, phase);
    assert_eq!(world.pods, []);
    world.pass(DEADLINE * 2);
    assert_eq!(world.step().actions, []);
    world.gate = Gate::Never("because job `migrate` has failed: it trapped".to_owned());
    let _ = world.step();
    let phase = Phase::Waiting {
        on: "because job `migrate` has failed: it trapped".to_owned(),
    };
    assert_eq!(world.service.status.phase, phase);
    world.gate = Gate::Open;
    let _ = world.step();
    assert_eq!(world.service.status.progress.since, world.moment.now);
    world.settle(|_| Fate::Good);
    world.assert_told(&["RolloutStarted", "RolloutWaiting", "RolloutComplete"]);
    // What has been complete waits for nothing.
    world.gate = Gate::Waiting("for service `db` to be ready".to_owned());
    world.pods.clear();
    let plan = world.step();
    assert_eq!(moves(&plan), BTreeMap::from([(1, (2, 0))]));
    // A new revision does, and nothing old goes for it, whatever the strategy.
    for strategy in [Strategy::Rolling, Strategy::Recreate] {
        let mut world = world.clone();
        world.service.spec.rollout.strategy = strategy;
        world.want(2);
        world.settle(|_| Fate::Good);
        assert_eq!((world.active(1), world.active(2)), (2, 0));
        // But it can be taken back.
        world.want(1);
        world.settle(|_| Fate::Good);
        assert_eq!(world.service.status.phase, Phase::Complete);
    }
}

fn available(world: &World) -> (bool, String) {
    let conditions = world.service.status.conditions.iter();
    let mut available = conditions.filter(|it| it.kind == ConditionKind::Available);
    let condition = available.next().expect("it is always said");
    (condition.holds, condition.message.clone())
}

fn shown(world: &World) -> (view::Phase, Option<String>) {
    let shown = view::Service::of(&world.service);
    (shown.phase, shown.reason)
}

#[test]
fn a_service_that_serves_nothing_is_not_complete() {
    let mut world = World::running(2, 1, 0);
    assert_eq!(shown(&world), (view::Phase::Complete, None));
    // One of two fails.
    world.live(|pod| if pod.slot == 0 { Fate::Bad } else { Fate::Good });
    let _ = world.step();
    world.assert_told(&["Degraded"]);
    let why = "1 of 2 pods are ready; web-1-0 is in BackOff: it trapped".to_owned();
    assert_eq!(shown(&world), (view::Phase::Degraded, Some(why)));
    // Then both.
    world.live(|_| Fate::Bad);
    let _ = world.step();
    world.assert_told(&["Unavailable"]);
    let why = "0 of 2 pods are ready; web-1-0 is in BackOff: it trapped".to_owned();
    assert_eq!(shown(&world), (view::Phase::Unavailable, Some(why)));
    let message = "0 of 2 pods are available, 2 must be; web-1-0 is in BackOff: it trapped";
    assert_eq!(available(&world), (false, message.to_owned()));
    assert_eq!(
        world.service.status.phase,
        Phase::Complete,
        "the rollout is over"
    );
    // They are tried again: what was said holds until they serve.
    world
        .pods
        .iter_mut()
        .for_each(|pod| set(pod, PodPhase::Starting));
    let _ = world.step();
    world.assert_told(&[]);
    assert_eq!(shown(&world).0, view::Phase::Unavailable);
    world.live(|_| Fate::Good);
    let _ = world.step();
    world.assert_told(&["Available"]);
    assert_eq!(shown(&world), (view::Phase::Complete, None));
}

#[test]
fn a_node_that_starts_again_is_no_outage() {
    let mut world = World::running(2, 1, 0);
    world.moment.boot = Boot(8);
    let _ = world.step();
    world.assert_told(&[]);
    let why = Some("no pod is ready yet".to_owned());
    assert_eq!(shown(&world), (view::Phase::Progressing, why));
    assert_eq!(world.service.status.phase, Phase::Complete);
}

#[test]
fn what_has_ended_for_good_is_an_outage_in_every_run_of_the_node() {
    let mut world = World::running(1, 1, 0);
    set(&mut world.pods[0], PodPhase::Ended);
    world.pods[0].status.reason = Some("exit code 3".to_owned());
    for boot in [BOOT, Boot(8)] {
        world.moment.boot = boot;
        let _ = world.step();
        let why = "0 of 1 pods are ready; web-1-0 has ended: exit code 3".to_owned();
        assert_eq!(shown(&world), (view::Phase::Unavailable, Some(why)));
    }
    world.assert_told(&["Unavailable"]);
}

#[test]
fn one_pod_at_least_must_be_available() {
    // All of them may be unavailable while a revision takes the place of another.
    let mut world = World::running(2, 0, 2);
    assert!(available(&world).0);
    world.live(|_| Fate::Bad);
    let _ = world.step();
    let message = "0 of 2 pods are available, 1 must be; web-1-0 is in BackOff: it trapped";
    assert_eq!(available(&world), (false, message.to_owned()));
    world.scale(0);
    let _ = world.step();
    assert_eq!(
        available(&world),
        (true, "0 of 0 pods are available, 0 must be".to_owned())
    );
}

#[test]
fn a_rollout_says_what_it_waits_for() {
    let mut world = World::running(2, 1, 0);
    world.want(2);
    let _ = world.step();
    assert_eq!(shown(&world), (view::Phase::Progressing, None));
    world.live(bad(2));
    let _ = world.step();
    let why = "web-2-0 is in BackOff: it trapped".to_owned();
    assert_eq!(shown(&world), (view::Phase::Progressing, Some(why)));
    // What was said of one revision is not said of the next.
    world.want(3);
    let _ = world.step();
    assert_eq!(world.service.status.trouble, None);
}
