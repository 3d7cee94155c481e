//! Another number of replicas, at rest and in the middle of a rollout.

use super::*;

/// Ten replicas with a surge of 3 and 2 unavailable, in the middle of a rollout from 1 to 2.
fn halfway(old: u32, new: u32) -> World {
    let mut world = World::running(10, 3, 2);
    world.pods.clear();
    world.want(2);
    let status = &mut world.service.status;
    (status.target, status.phase) = (2, Phase::Progressing);
    (status.progress.since, status.progress.fewest_old) = (world.moment.now, old);
    world.add(1, old, Kind::Available);
    world.add(2, new, Kind::NotReady);
    world
}

/// The example of "Proportional scaling" on Kubernetes' page on Deployments: of 15 replicas, 3 more
/// go to the old revision with 8 pods and 2 to the new one with 5.
#[test]
fn kubernetes_example_of_proportional_scaling() {
    let mut world = halfway(8, 5);
    assert_eq!(world.plan().actions, []);
    world.scale(15);
    for paused in [false, true] {
        let mut world = world.clone();
        world.service.spec.paused = paused;
        let plan = world.step();
        assert_eq!(moves(&plan), BTreeMap::from([(1, (3, 0)), (2, (2, 0))]));
        assert_eq!(plan.status.scaled_to, 15);
        assert_eq!(plan.status.counts.alive, 18);
        assert_eq!(world.plan().actions, []);
    }
}

#[test]
fn scaling_in_a_rollout_is_proportional() {
    for (old, new, replicas, expected) in [
        // 13 may be 8: 8 × 8 ÷ 13 = 4.9 and 5 × 8 ÷ 13 = 3.1.
        (8, 5, 5, [(1, (0, 3)), (2, (0, 2))].as_slice()),
        // 13 may be 4: 2.5 rounds up to 2 of 8, 1.5 to 2 of 5.
        (8, 5, 1, &[(1, (0, 6)), (2, (0, 3))]),
        // 13 may be 23: 8 × 23 ÷ 13 = 14.2 and 5 × 23 ÷ 13 = 8.8.
        (8, 5, 20, &[(1, (6, 0)), (2, (4, 0))]),
        // The old one is not enough to be available: only new pods go.
        (2, 11, 5, &[(2, (0, 5))]),
        (8, 5, 0, &[(1, (0, 8)), (2, (0, 5))]),
    ] {
        let mut world = halfway(old, new);
        world.scale(replicas);
        world.service.spec.paused = true;
        let plan = world.plan();
        let expected: BTreeMap<_, _> = expected.iter().copied().collect();
        assert_eq!(moves(&plan), expected, "{old} + {new} to {replicas}");
    }
}

/// What drains takes room that nothing would make up for while the rollout is paused.
#[test]
fn a_paused_rollout_is_scaled_up_when_there_is_room() {
    let mut world = halfway(8, 4);
    world.add(1, 1, Kind::Stopping);
    world.pause(true);
    let _ = world.step();
    world.scale(15);
    let plan = world.step();
    assert_eq!((moves(&plan).len(), plan.status.scaled_to), (0, 10));
    world.pods.retain(|pod| pod.stop.is_none());
    let plan = world.step();
    // 12 may be 18: 8 × 18 ÷ 13 = 11.1, 4 × 18 ÷ 13 = 5.5, and one is left over.
    assert_eq!(moves(&plan), BTreeMap::from([(1, (4, 0)), (2, (2, 0))]));
    assert_eq!(plan.status.scaled_to, 15);
}

#[test]
fn at_rest_the_worst_and_highest_go_first() {
    let mut world = World::running(5, 1, 0);
    set(&mut world.pods[1], PodPhase::BackOff);
    let now = world.moment.now;
    world.be_ready(2, now);
    world.scale(2);
    let plan = world.step();
    assert_eq!(stopped(&plan), ["web-1-1", "web-1-2", "web-1-4"]);
    assert_eq!(plan.status.phase, Phase::Complete);
    world.assert_told(&["Scaled"]);
    // The lowest free slots are taken, not those of pods that drain.
    world.pods.retain(|pod| pod.slot != 1);
    world.scale(4);
    let plan = world.step();
    assert_eq!(moves(&plan), BTreeMap::from([(1, (2, 0))]));
    assert!(world.pods.iter().any(|pod| pod.slot == 1));
    world.settle(|_| Fate::Good);
    assert_eq!(world.active(1), 4);
    assert_eq!(world.service.status.phase, Phase::Complete);
}

#[test]
fn a_complete_service_is_scaled_while_paused() {
    let mut world = World::running(3, 1, 0);
    world.pause(true);
    world.scale(5);
    world.settle(|_| Fate::Good);
    assert_eq!(world.active(1), 5);
    world.scale(1);
    world.settle(|_| Fate::Good);
    assert_eq!(world.active(1), 1);
    world.assert_told(&["RolloutPaused", "Scaled", "Scaled"]);
    world.pause(false);
    world.settle(|_| Fate::Good);
    assert_eq!(world.service.status.phase, Phase::Complete);
    world.assert_told(&["RolloutResumed"]);
}

/// A new revision that waits does not keep the old one from being scaled, and has no share in it.
#[test]
fn the_old_revision_is_scaled_while_the_new_one_waits() {
    let mut world = World::running(3, 1, 0);
    world.gate = Gate::Waiting("for job `migrate` to complete".to_owned());
    world.want(2);
    world.scale(5);
    world.settle(|_| Fate::Good);
    assert_eq!((world.active(1), world.active(2)), (5, 0));
    world.scale(0);
    world.settle(|_| Fate::Good);
    assert_eq!((world.active(1), world.active(2)), (0, 0));
    world.scale(2);
    world.settle(|_| Fate::Good);
    assert_eq!((world.active(1), world.active(2)), (2, 0));
}

/// With a new revision and more replicas at once, the rollout brings the new pods.
#[test]
fn a_target_without_pods_has_no_share() {
    let mut world = World::running(3, 1, 0);
    world.want(2);
    world.scale(5);
    let plan = world.step();
    assert_eq!(moves(&plan), BTreeMap::from([(2, (3, 0))]));
    world.settle(|_| Fate::Good);
    assert_eq!((world.active(1), world.active(2)), (0, 5));
}

/// Pods that drain do not delay a change of scale of the same revision, with whatever surge.
#[test]
fn a_service_wakes_while_its_last_pods_drain() {
    for strategy in [Strategy::Rolling, Strategy::Recreate] {
        for surge in [0, 1] {
            let mut world = World::running(4, surge, 1);
            world.service.spec.rollout.strategy = strategy;
            world.scale(0);
            let _ = world.step();
            assert_eq!((world.active(1), world.pods.len()), (0, 4));
            world.scale(1);
            let plan = world.step();
            assert_eq!(moves(&plan), BTreeMap::from([(1, (1, 0))]), "{strategy:?}");
            world.scale(8);
            let plan = world.step();
            assert_eq!(moves(&plan), BTreeMap::from([(1, (7, 0))]), "{strategy:?}");
        }
    }
}

#[test]
fn a_paused_service_that_was_never_complete_wakes() {
    let mut world = World::running(2, 1, 0);
    world.service.status.last_good = None;
    world.service.status.phase = Phase::Progressing;
    world.pause(true);
    world.scale(0);
    let _ = world.step();
    world.pods.clear();
    world.scale(1);
    let plan = world.step();
    assert_eq!(moves(&plan), BTreeMap::from([(1, (1, 0))]));
}
