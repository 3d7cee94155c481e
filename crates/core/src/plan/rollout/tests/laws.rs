//! What holds of every plan, in every small world and in many large ones.

use super::*;
use crate::quantity::Percent;

/// Checks a plan against everything that is absent from good plans.
pub(super) fn check(world: &World) {
    let plan = world.plan();
    let shown = || format!("{plan:#?}\nin {world:#?}");
    let mut turned = world.clone();
    turned.pods.reverse();
    assert_eq!(turned.plan(), plan, "the order of the pods matters");
    assert!(
        plan.wake_at.is_none_or(|at| at > world.moment.now),
        "{}",
        shown()
    );

    let mut after = world.clone();
    after.apply(&plan);
    let again = after.plan();
    assert_eq!(again.actions, [], "planned again after {}", shown());
    assert_eq!(again.status, plan.status, "planned again after {}", shown());
    assert_eq!(
        again.wake_at,
        plan.wake_at,
        "planned again after {}",
        shown()
    );

    bounds_hold(world, &plan, &after);
    nothing_moves_that_is_held(world, &plan);
    targets_stay(world, &plan);
}

/// What the law knows of availability, apart from the planner.
pub(super) fn available(world: &World) -> u32 {
    let now = world.moment.now;
    let min_ready = world.service.spec.rollout.min_ready;
    let available = world.pods.iter().filter(|pod| {
        let since = world.ready_since(pod);
        pod.stop.is_none() && since.is_some_and(|since| since + min_ready <= now)
    });
    u32::try_from(available.count()).expect("few pods")
}

/// `replicas` + surge and `replicas` − unavailable, worked out apart from the planner.
pub(super) fn limits(world: &World) -> (u32, u32) {
    let spec = &world.service.spec;
    let hundredths = |amount: Amount| match amount {
        Amount::Count(number) => number * 100,
        Amount::Percent(Percent(percent)) => spec.replicas * percent,
    };
    let surge = hundredths(spec.rollout.max_surge).div_ceil(100);
    let mut unavailable = hundredths(spec.rollout.max_unavailable) / 100;
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    match spec.rollout.strategy {
        Strategy::Recreate => (spec.replicas, spec.replicas),
        Strategy::Rolling => (
            spec.replicas + surge,
            spec.replicas.saturating_sub(unavailable),
        ),
    }
}

/// Pods that count towards the surge: where all are of one revision nothing is replaced, and those
/// that drain do not.
pub(super) fn counted(world: &World) -> u32 {
    let replaces = |two: &[Pod]| two[0].revision != two[1].revision;
    let leaves = |pod: &Pod| world.leaving.contains(&pod.name());
    let replaces = world.pods.windows(2).any(replaces) || world.pods.iter().any(leaves);
    let counted = |pod: &&Pod| replaces || pod.stop.is_none();
    let counted = world.pods.iter().filter(counted).count();
    u32::try_from(counted).expect("few pods")
}

fn bounds_hold(world: &World, plan: &Plan, after: &World) {
    let shown = || format!("{plan:#?}\nin {world:#?}");
    let (most, least) = limits(world);
    let creates = moves(plan).values().any(|&(created, _)| created > 0);
    if creates {
        let alive = counted(after);
        assert!(
            alive <= most,
            "{alive} pods are more than {most}: {}",
            shown()
        );
    }
    let recreate = world.service.spec.rollout.strategy == Strategy::Recreate;
    let (before, left) = (available(world), available(after));
    let deleting = world.service.spec.deleting;
    if left < before && !recreate && !deleting {
        assert!(left >= least, "{left} are fewer than {least}: {}", shown());
    }
    for (revision, _) in moves(plan)
        .iter()
        .filter(|(_, made)| recreate && made.0 > 0)
    {
        let others = world.pods.iter().any(|pod| pod.revision != *revision);
        assert!(!others, "two revisions at once: {}", shown());
    }
    assert!(!deleting || !creates, "{}", shown());
}

/// Paused, or behind a closed gate.
fn nothing_moves_that_is_held(world: &World, plan: &Plan) {
    let shown = || format!("{plan:#?}\nin {world:#?}");
    let (spec, status) = (&world.service.spec, &world.service.status);
    if spec.deleting || world.is_leaving() {
        return;
    }
    let scaled = spec.replicas != status.scaled_to;
    let target = plan.status.target;
    let moves = moves(plan);
    let paused = world.service.spec.paused;
    // What has been complete and is alone is kept at its replicas, held or not.
    let alone = world
        .pods
        .iter()
        .all(|pod| pod.revision == target || pod.stop.is_some());
    let settled = plan.status.last_good == Some(target) && alone;
    if paused && !scaled && !settled {
        assert_eq!(moves, BTreeMap::new(), "{}", shown());
    }
    let held = world.gate != Gate::Open && plan.status.last_good != Some(target);
    if held {
        let created = moves.get(&target).is_some_and(|&(created, _)| created > 0);
        assert!(!created, "the gate is closed: {}", shown());
        assert!(scaled || moves.is_empty(), "{}", shown());
    }
}

/// Pods of the target are not stopped while there are others, except to scale down.
fn targets_stay(world: &World, plan: &Plan) {
    let (spec, status) = (&world.service.spec, &world.service.status);
    let target = plan.status.target;
    let stops = plan.actions.iter().any(|action| match action {
        Action::Stop { pod, .. } => pod.revision() == target && !world.leaving.contains(pod),
        Action::Create { .. }
        | Action::RollBack { .. }
        | Action::Pause { .. }
        | Action::Announce { .. } => false,
    });
    let others = world
        .pods
        .iter()
        .any(|pod| pod.revision != target && pod.stop.is_none());
    let down = spec.replicas < status.scaled_to || world.active(target) > spec.replicas;
    assert!(
        !stops || !others || down || spec.deleting,
        "{plan:#?}\nin {world:#?}"
    );
}

/// All ways to have at most `most` pods of so many sorts.
pub(super) fn crews(sorts: usize, most: u32) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new()];
    for _ in 0..sorts {
        all = all
            .into_iter()
            .flat_map(|set: Vec<u32>| {
                let left = most - set.iter().sum::<u32>();
                (0..=left).map(move |number| {
                    let mut set = set.clone();
                    set.push(number);
                    set
                })
            })
            .collect();
    }
    all
}

/// How far a rollout is, and what holds it.
pub(super) fn statuses(world: &World) -> Vec<World> {
    let reason = || "it did not get on".to_owned();
    let phases = [
        (Phase::Progressing, Some(1)),
        (Phase::Progressing, None),
        (
            Phase::Waiting {
                on: "db".to_owned(),
            },
            Some(1),
        ),
        (Phase::Complete, Some(2)),
        (Phase::Paused { failure: None }, Some(2)),
        (
            Phase::RollingBack {
                from: 1,
                reason: reason(),
            },
            Some(2),
        ),
        (Phase::Failed { reason: reason() }, None),
    ];
    let mut worlds = Vec::new();
    for (phase, last_good) in phases {
        let runs = matches!(phase, Phase::Progressing | Phase::RollingBack { .. });
        for (gate, paused) in [(true, false), (false, false), (true, true)] {
            let moves = gate && !paused && runs;
            for late in [false, true].into_iter().filter(|late| moves || !late) {
                let mut world = world.clone();
                world.service.spec.paused = paused;
                if !gate {
                    world.gate = Gate::Waiting("db".to_owned());
                }
                let status = &mut world.service.status;
                status.phase = phase.clone();
                status.last_good = last_good;
                status.progress.boot = BOOT;
                if !late {
                    status.progress.since = world.moment.now;
                }
                worlds.push(world);
            }
        }
    }
    worlds
}

/// Every bound there is with few pods.
fn small_worlds(replicas: u32) -> Vec<World> {
    let mut worlds = Vec::new();
    for (surge, unavailable) in [(1, 0), (0, 1), (1, 1), (2, 0), (0, 2)] {
        worlds.push(World::new(replicas, surge, unavailable));
    }
    let mut recreate = World::new(replicas, 1, 0);
    recreate.service.spec.rollout.strategy = Strategy::Recreate;
    worlds.push(recreate);
    for world in &mut worlds {
        world.service.spec.revision = 2;
        world.service.spec.latest = 2;
        world.service.status.target = 2;
        world.service.status.scaled_to = replicas;
    }
    worlds
}

pub(super) const KINDS: [Kind; 4] = [Kind::Available, Kind::Ready, Kind::NotReady, Kind::Stopping];

/// The world with so many pods of each sort: revisions 1, 2, … with all kinds each.
pub(super) fn with_crew(world: &World, set: &[u32]) -> World {
    let mut world = world.clone();
    for (revision, numbers) in (1..).zip(set.chunks(KINDS.len())) {
        for (kind, &number) in KINDS.into_iter().zip(numbers) {
            world.add(revision, number, kind);
        }
    }
    world
}

/// Checks all small worlds with so many replicas, and says how many there are.
fn check_small(replicas: u32) -> usize {
    let reach = match replicas {
        0..=2 => replicas + 2,
        3.. => replicas + 1,
    };
    let crews = crews(2 * KINDS.len(), reach);
    let mut seen = 0;
    for world in small_worlds(replicas) {
        for status in statuses(&world) {
            for set in &crews {
                let mut world = with_crew(&status, set);
                check(&world);
                // Scaled, each way with some number of replicas.
                world.service.status.scaled_to = (replicas + 2) % 5;
                check(&world);
                // One pod of each revision leaves its node.
                world.leave(|slot| slot == 0);
                world.service.status.scaled_to = replicas;
                check(&world);
                seen += 3;
            }
        }
    }
    seen
}

#[test]
fn small_worlds_of_no_and_one() {
    assert_eq!(check_small(0) + check_small(1), 90_720);
}

#[test]
fn small_worlds_of_two() {
    assert_eq!(check_small(2), 213_840);
}

#[test]
fn small_worlds_of_three() {
    assert_eq!(check_small(3), 213_840);
}

#[test]
fn small_worlds_of_four() {
    assert_eq!(check_small(4), 555_984);
}
