//! Larger worlds, drawn at random, and where they end.

use proptest::prelude::{Strategy as Draw, any, prop, prop_assert_eq, proptest};

use super::{
    laws::{KINDS, available, check, counted, crews, limits, with_crew},
    *,
};
use crate::quantity::Percent;

fn amounts() -> impl Draw<Value = Amount> {
    let draw = (any::<bool>(), 0..=100_u32);
    draw.prop_map(|(percent, number)| match percent {
        true => Amount::Percent(Percent(number)),
        false => Amount::Count(number % 8),
    })
}

fn phases() -> impl Draw<Value = Phase> {
    let reason = || "it did not get on".to_owned();
    prop::sample::select(vec![
        Phase::Progressing,
        Phase::Waiting { on: reason() },
        Phase::Complete,
        Phase::Paused { failure: None },
        Phase::Paused {
            failure: Some(reason()),
        },
        Phase::RollingBack {
            from: 3,
            reason: reason(),
        },
        Phase::RolledBack {
            from: 3,
            reason: reason(),
        },
        Phase::Failed { reason: reason() },
    ])
}

fn gates() -> impl Draw<Value = Gate> {
    prop::sample::select(vec![
        Gate::Open,
        Gate::Open,
        Gate::Waiting("db".to_owned()),
        Gate::Never("db has failed".to_owned()),
    ])
}

/// A pod of a few revisions, some of them unknown, at some time in some run of the node.
fn pods() -> impl Draw<Value = Vec<(u64, u32, u8, u64, bool)>> {
    prop::collection::vec(
        (0..4_u64, 0..12_u32, 0..9_u8, 0..7300_u64, any::<bool>()),
        0..40,
    )
}

fn draw(world: &mut World, (revision, slot, phase, second, stop): (u64, u32, u8, u64, bool)) {
    let mut pod = pod(&world.service.key, revision, slot);
    let at = Timestamp::after(Duration::from_secs(second));
    world.ready.insert(pod.name(), at);
    let phase = match phase {
        0 => PodPhase::Pending,
        1 => PodPhase::Starting,
        2 => PodPhase::Unready,
        3 => PodPhase::BackOff,
        4 => PodPhase::Ended,
        5 => PodPhase::Draining,
        _ => PodPhase::Ready { nth: 1 },
    };
    set(&mut pod, phase);
    pod.status.boot = Boot(7 - u64::from(second % 11 == 0));
    // One that no node runs yet.
    pod.node = pod.node.filter(|_| second % 13 > 0);
    pod.stop = stop.then(|| "it should".to_owned());
    if second % 5 == 0 {
        world.leaving.insert(pod.name());
    }
    world.pods.push(pod);
}

fn worlds() -> impl Draw<Value = World> {
    let spec = (
        0..30_u32,
        amounts(),
        amounts(),
        0..5_u64,
        any::<(bool, bool, bool)>(),
    );
    let status = (phases(), 0..4_u64, prop::option::of(0..4_u64), 0..30_u32);
    let progress = (0..8000_u64, 0..10_u32, 0..10_u32);
    (spec, status, progress, gates(), pods()).prop_map(|(spec, status, progress, gate, pods)| {
        let mut world = World::new(spec.0, 0, 0);
        let wanted = &mut world.service.spec;
        (wanted.rollout.max_surge, wanted.rollout.max_unavailable) = (spec.1, spec.2);
        wanted.revision = spec.3;
        let (recreate, hold, paused) = spec.4;
        wanted.paused = paused && hold;
        if recreate && !paused {
            wanted.rollout.strategy = Strategy::Recreate;
        }
        if hold {
            wanted.rollout.on_failure = OnFailure::Pause;
        }
        wanted.deleting = pods.len() % 17 == 16;
        let observed = &mut world.service.status;
        (
            observed.phase,
            observed.target,
            observed.last_good,
            observed.scaled_to,
        ) = status;
        observed.progress.since = Timestamp::after(Duration::from_secs(progress.0));
        observed.progress.boot = Boot(7 - progress.0 % 2);
        observed.progress.most_available = progress.1;
        observed.progress.fewest_old = progress.2;
        world.gate = gate;
        let pods: BTreeMap<_, _> = pods.into_iter().map(|it| ((it.0, it.1), it)).collect();
        for it in pods.into_values() {
            draw(&mut world, it);
        }
        world
    })
}

proptest! {
    #[test]
    fn the_laws_hold_of_any_world(world in worlds()) {
        check(&world);
    }

    /// Whatever there was, in whatever order things happen.
    #[test]
    fn every_rollout_ends_within_its_bounds(
        world in worlds(),
        lots in prop::collection::vec(any::<u32>(), 60),
    ) {
        let mut world = world;
        let spec = &mut world.service.spec;
        (spec.paused, spec.deleting) = (false, false);
        spec.rollout.on_failure = OnFailure::Rollback;
        spec.revision = spec.revision.max(1);
        world.gate = Gate::Open;
        for lot in lots {
            let before = available(&world);
            let alive = counted(&world);
            let plan = world.step();
            let (most, least) = limits(&world);
            let rolling = world.service.spec.rollout.strategy == Strategy::Rolling;
            assert!(counted(&world) <= alive.max(most), "{plan:#?}");
            assert!(!rolling || available(&world) >= before.min(least), "{plan:#?}");
            // Some of what can happen does.
            let now = world.moment.now;
            world.pods.retain(|pod| pod.stop.is_none() || lot >> (pod.slot % 32) & 1 == 0);
            for at in 0..world.pods.len() {
                let pod = &world.pods[at];
                let ready = world.ready_since(pod).is_some();
                if !ready && lot >> (31 - pod.slot % 32) & 1 == 0 && pod.stop.is_none() {
                    world.be_ready(at, now);
                }
            }
            world.pass(Duration::from_secs(u64::from(lot % 7)));
        }
        world.settle(|_| Fate::Good);
        let target = world.service.spec.revision;
        prop_assert_eq!(world.active(target), world.service.spec.replicas);
        prop_assert_eq!(world.pods.len(), world.service.spec.replicas as usize);
        let phase = &world.service.status.phase;
        assert!(matches!(phase, Phase::Complete | Phase::RolledBack { .. }), "{phase:?}");
    }

    #[test]
    fn no_number_is_too_large(
        replicas in any::<u32>(),
        surge in any::<u32>(),
        unavailable in any::<u32>(),
        scaled_to in any::<u32>(),
        slot in any::<u32>(),
        times in any::<[u64; 4]>(),
        percent in any::<bool>(),
    ) {
        let mut world = World::new(replicas, surge, unavailable);
        let spec = &mut world.service.spec;
        if percent {
            spec.rollout.max_surge = Amount::Percent(Percent(surge));
            spec.rollout.max_unavailable = Amount::Percent(Percent(unavailable));
        }
        let [min_ready, deadline, now, since_then] = times.map(Duration::from_secs);
        (spec.rollout.min_ready, spec.rollout.progress_deadline) = (min_ready, deadline);
        world.service.status.scaled_to = scaled_to;
        world.moment.now = Timestamp::after(now);
        for revision in [0, 1, u64::MAX] {
            let pod = pod(&world.service.key, revision, slot);
            world.pods.extend([pod.clone(), pod]);
        }
        for at in 0..world.pods.len() {
            world.be_ready(at, Timestamp::after(since_then));
        }
        let plan = world.plan();
        assert!(plan.wake_at.is_none_or(|at| at > world.moment.now));
        assert!(plan.actions.len() <= 1004);
        world.moment.now = Timestamp::after(Duration::MAX);
        let plan = world.plan();
        prop_assert_eq!(plan.wake_at, None);
    }
}

/// From every small world, with every fate.
#[test]
fn small_worlds_end_well() {
    let (mut ends, mut longest) = (0, 0);
    for replicas in 0..=4 {
        for (surge, unavailable) in [(1, 0), (0, 1), (2, 1)] {
            let mut world = World::new(replicas, surge, unavailable);
            world.service.spec.revision = 2;
            world.service.status.target = 1;
            world.service.status.last_good = Some(1);
            world.service.status.scaled_to = replicas;
            world.service.status.phase = Phase::Complete;
            for set in crews(2 * KINDS.len(), (replicas + 1).min(4)) {
                let mut good = with_crew(&world, &set);
                let mut bad = good.clone();
                longest = longest.max(good.settle(|_| Fate::Good));
                assert_eq!(good.service.status.phase, Phase::Complete);
                assert_eq!((good.active(1), good.active(2)), (0, replicas));
                let fate = |pod: &Pod| match pod.revision {
                    2 => Fate::Bad,
                    _ => Fate::Good,
                };
                longest = longest.max(bad.settle(fate));
                if replicas > 0 {
                    let phase = &bad.service.status.phase;
                    let back = matches!(phase, Phase::RolledBack { from: 2, .. });
                    let early =
                        matches!(phase, Phase::Complete) && available_at_once(&set, replicas);
                    assert!(back || early, "{bad:#?}");
                    if back {
                        assert_eq!((bad.active(1), bad.active(2)), (replicas, 0));
                    }
                }
                ends += 2;
            }
        }
    }
    assert_eq!(
        (ends, longest),
        (7_254, 10),
        "how many, and the most rounds"
    );
}

/// Whether the second revision has all its pods from the beginning: then its rollout is complete
/// before any of them fails.
fn available_at_once(set: &[u32], replicas: u32) -> bool {
    set[KINDS.len()] >= replicas
}
