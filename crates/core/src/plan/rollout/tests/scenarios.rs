//! Numbers worked by hand with the formulae of Kubernetes' page on Deployments.

use super::*;
use crate::quantity::Percent;

#[test]
fn bounds() {
    let percent = |number| Amount::Percent(Percent(number));
    for (replicas, surge, unavailable, most, least) in [
        // 25 % of each: a surge of 2.5 rounds up, 2.5 unavailable round down.
        (10, percent(25), percent(25), 13, 8),
        (4, percent(25), percent(25), 5, 3),
        (3, percent(25), percent(25), 4, 3),
        (1, percent(25), percent(25), 2, 1),
        (3, percent(25), Amount::Count(0), 4, 3),
        // Both come to nothing: one may be unavailable.
        (3, Amount::Count(0), percent(25), 3, 2),
        (3, percent(0), percent(0), 3, 2),
        (1, Amount::Count(0), Amount::Count(0), 1, 0),
        // No more can be unavailable than there should be.
        (2, Amount::Count(1), Amount::Count(9), 3, 0),
        (2, percent(100), percent(100), 4, 0),
        (0, percent(25), percent(25), 0, 0),
        (0, Amount::Count(3), Amount::Count(3), 0, 0),
        (u32::MAX, percent(100), Amount::Count(u32::MAX), 2000, 0),
    ] {
        let mut world = World::new(replicas, 0, 0);
        let rollout = &mut world.service.spec.rollout;
        (rollout.max_surge, rollout.max_unavailable) = (surge, unavailable);
        let found = Bounds::new(&world.service.spec);
        let shown = format!("{replicas} with {surge} and {unavailable}");
        assert_eq!((found.most(), found.least()), (most, least), "{shown}");
        world.service.spec.rollout.strategy = Strategy::Recreate;
        let found = Bounds::new(&world.service.spec);
        let replicas = replicas.min(1000);
        assert_eq!((found.most(), found.least()), (replicas, replicas));
    }
}

/// A pod of the old and of the new revision for each: how many are available, ready for too short
/// a time, not ready, ended or draining.
type Row = ([u32; 3], [(u32, u32); 3], [(u32, u32); 2]);

#[test]
fn one_step() {
    use Kind::{Available, Ended, NotReady, Ready, Stopping};
    let kinds = [Available, NotReady, Stopping];
    // replicas, surge, unavailable; old and new (available, not ready, draining);
    // what is made and stopped of the old and of the new
    let rows: [Row; 14] = [
        // The page's example: of 4 with 25 % each one is made and one stopped.
        ([4, 1, 1], [(4, 0), (0, 0), (0, 0)], [(0, 1), (1, 0)]),
        ([3, 1, 0], [(3, 0), (0, 0), (0, 0)], [(0, 0), (1, 0)]),
        ([3, 0, 1], [(3, 0), (0, 0), (0, 0)], [(0, 1), (0, 0)]),
        ([10, 3, 2], [(10, 0), (0, 0), (0, 0)], [(0, 2), (3, 0)]),
        // Nothing moves until a new one is available.
        ([3, 1, 0], [(3, 0), (0, 1), (0, 0)], [(0, 0), (0, 0)]),
        ([3, 1, 0], [(3, 1), (0, 0), (0, 0)], [(0, 1), (0, 0)]),
        // One that drains takes its place until it is gone.
        ([3, 1, 0], [(2, 1), (0, 0), (1, 0)], [(0, 0), (0, 0)]),
        ([3, 1, 0], [(2, 1), (0, 0), (0, 0)], [(0, 0), (1, 0)]),
        ([3, 0, 1], [(2, 0), (0, 0), (1, 0)], [(0, 0), (0, 0)]),
        ([3, 0, 1], [(2, 0), (0, 0), (0, 0)], [(0, 0), (1, 0)]),
        // Old ones that are not available go first: 5 − 3 − 1 = 1 of them.
        ([4, 1, 1], [(2, 0), (2, 1), (0, 0)], [(0, 1), (0, 0)]),
        ([4, 1, 1], [(3, 0), (1, 1), (0, 0)], [(0, 1), (0, 0)]),
        // All of the old ones are broken: what is not needed goes.
        ([3, 1, 0], [(0, 0), (3, 1), (0, 0)], [(0, 0), (0, 0)]),
        ([3, 1, 0], [(0, 1), (3, 0), (0, 0)], [(0, 1), (0, 0)]),
    ];
    for ([replicas, surge, unavailable], pods, expected) in rows {
        let mut world = World::running(replicas, surge, unavailable);
        world.pods.clear();
        world.want(2);
        for (kind, (old, new)) in kinds.into_iter().zip(pods) {
            world.add(1, old, kind);
            world.add(2, new, kind);
        }
        let found = moves(&world.plan());
        let of = |revision| found.get(&revision).copied().unwrap_or_default();
        let shown = format!("{replicas} ± {surge} {unavailable}: {pods:?}");
        assert_eq!([of(1), of(2)], expected, "{shown}");
    }
    // Neither ready for too short a time nor ended is available.
    for kind in [Ready, Ended] {
        let mut world = World::running(3, 1, 0);
        world.want(2);
        world.add(2, 1, kind);
        assert_eq!(moves(&world.plan()), BTreeMap::new(), "{kind:?}");
    }
}

/// Those that are not available go first, the oldest revision first, the highest slot first.
#[test]
fn the_order_in_which_old_pods_go() {
    let mut world = World::running(4, 0, 4);
    world.want(3);
    world.add(2, 2, Kind::Available);
    for at in [0, 4] {
        set(&mut world.pods[at], PodPhase::Unready);
    }
    let plan = world.plan();
    let expected = [
        "web-1-0", "web-2-0", "web-1-3", "web-1-2", "web-1-1", "web-2-1",
    ];
    assert_eq!(stopped(&plan), expected);
    // Every pod that is not to stay takes the place of a new one until it is gone.
    assert_eq!(moves(&plan).get(&3), None);
}

#[test]
fn what_has_ended_keeps_its_place() {
    let mut world = World::running(2, 1, 0);
    set(&mut world.pods[0], PodPhase::Ended);
    world.settle(|pod| match pod.slot {
        0 => Fate::Stuck,
        _ => Fate::Good,
    });
    let mut world = World::running(2, 1, 0);
    set(&mut world.pods[0], PodPhase::Ended);
    // So it does in another run of the node.
    for boot in [BOOT, Boot(8)] {
        world.moment.boot = boot;
        let plan = world.step();
        assert_eq!(moves(&plan), BTreeMap::new());
        assert_eq!(plan.status.counts.alive, 2);
    }
}

#[test]
fn counts_and_conditions() {
    let mut world = World::running(3, 1, 1);
    world.want(2);
    world.add(2, 1, Kind::Ready);
    world.moment.wall_ms += 1;
    let plan = world.step();
    let counts = plan.status.counts;
    assert_eq!((counts.alive, counts.updated), (4, 1));
    // One of the old ones is stopped by this plan.
    assert_eq!(
        (counts.ready, counts.available, counts.updated_available),
        (3, 2, 0)
    );
    assert_eq!(plan.status.observed_generation, 2);
    assert_eq!(plan.wake_at, Some(world.moment.now + MIN_READY));
    let text = |world: &World| {
        let conditions = world.service.status.conditions.iter();
        let line = conditions.map(|it| {
            let (kind, holds, ms) = (it.kind, it.holds, it.since_ms);
            format!("{kind:?} {holds} {ms} {}: {}", it.reason, it.message)
        });
        line.collect::<Vec<_>>()
    };
    let changed = world.moment.wall_ms;
    assert_eq!(
        text(&world),
        [
            "Available true 1005000 MinimumReplicasAvailable: \
             2 of 3 pods are available, 2 must be",
            // It has held since the first rollout began.
            "Progressing true 1000000 RolloutInProgress: revision 2 is being rolled out",
        ]
    );
    world.pods.retain(|pod| pod.revision == 2);
    let _ = world.step();
    assert_eq!(
        text(&world)[0],
        format!(
            "Available false {changed} MinimumReplicasUnavailable: \
             0 of 3 pods are available, 2 must be"
        )
    );
}

#[test]
fn deleting() {
    for paused in [false, true] {
        let mut world = World::running(3, 1, 0);
        world.want(2);
        let _ = world.step();
        world.pause(paused);
        world.service.spec.deleting = true;
        let plan = world.step();
        assert_eq!(moves(&plan), BTreeMap::from([(1, (0, 3)), (2, (0, 1))]));
        assert_eq!(plan.wake_at, None);
        world.live(|_| Fate::Good);
        assert_eq!(world.step().actions, []);
        assert_eq!(world.service.status.counts.alive, 0);
    }
}

/// A client that has seen the rollout complete gets no answer of the old revision any more.
#[test]
fn a_rollout_is_complete_once_the_last_old_pod_gets_no_requests() {
    let mut world = World::running(1, 1, 0);
    world.want(2);
    let _ = world.step();
    let new = world.pods.iter().position(|pod| pod.revision == 2);
    world.be_ready(new.expect("there is one"), Timestamp::ZERO);
    let stop = world.step();
    assert_eq!(stopped(&stop).len(), 1);
    assert_eq!(world.service.status.phase, Phase::Progressing);
    // Its node has not heard of it.
    let _ = world.step();
    assert_eq!(world.service.status.phase, Phase::Progressing);
    let old = world.pods.iter().position(|pod| pod.revision == 1);
    set(
        &mut world.pods[old.expect("there is one")],
        PodPhase::Draining,
    );
    let _ = world.step();
    assert_eq!(world.service.status.phase, Phase::Complete);
}
