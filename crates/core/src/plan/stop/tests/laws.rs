//! What holds for every app, whatever runs of it and however long that takes to end.

use proptest::prelude::*;

use super::*;

/// A service or job of an app that is made up.
#[derive(Clone, Debug)]
struct Made {
    is_job: bool,
    /// Which of those before it it depends on, as bits.
    depends_on: u8,
    /// Which of all it may call, as bits.
    calls: u8,
    /// Seconds.
    drain: u64,
    /// How many seconds its requests take, if it runs.
    busy: Option<u64>,
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    let busy = proptest::option::weighted(0.8, 0_u64..60);
    let one = (
        proptest::bool::weighted(0.2),
        any::<u8>(),
        any::<u8>(),
        any::<u8>(),
        0_u64..40,
        busy,
    );
    let one = one.prop_map(|(is_job, depends_on, calls, fewer, drain, busy)| Made {
        is_job,
        depends_on,
        calls: calls & fewer,
        drain,
        busy,
    });
    proptest::collection::vec(one, 1..8)
}

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn picked(bits: u8, of: usize) -> impl Iterator<Item = usize> {
    (0..of).filter(move |at| bits >> at & 1 == 1)
}

fn world(made: &[Made]) -> World {
    let text = made.iter().enumerate().map(|(number, it)| {
        let quoted = |names: Vec<usize>| {
            let names = names.into_iter().map(|at| format!("'{}'", NAMES[at]));
            names.collect::<Vec<_>>().join(", ")
        };
        let waits = quoted(picked(it.depends_on, number).collect());
        let callable = picked(it.calls, made.len()).filter(|&at| !made[at].is_job);
        let calls = quoted(callable.collect());
        let (kind, drain) = match it.is_job {
            true => ("job", String::new()),
            false => ("service", format!("rollout.drain = '{}s'\n", it.drain)),
        };
        format!(
            "[{kind}.{}]\ncomponent = 'x.wasm'\n{drain}depends_on = [{waits}]\nallow.services = [{calls}]\n",
            NAMES[number]
        )
    });
    let mut world = World::of(&text.collect::<String>());
    for (name, it) in NAMES.iter().zip(made) {
        if let Some(seconds) = it.busy {
            world.run(name);
            world.busy.insert(key(name), Duration::from_secs(seconds));
        }
    }
    world
}

/// For each workload all those that it needs, directly or not, by these steps.
fn needed(steps: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let mut all = steps.to_vec();
    // A way is no longer than there are workloads.
    for _ in 0..steps.len() {
        let before = all.clone();
        for needs in &mut all {
            let further: Vec<_> = needs.iter().flat_map(|&at| before[at].clone()).collect();
            needs.extend(further);
        }
    }
    all
}

/// Which of them stop before which, by a way of thinking of its own: one from which a way leads to the
/// other and none back, or one that depends on it, directly or not.
fn waits(made: &[Made]) -> Vec<BTreeSet<usize>> {
    let depends: Vec<BTreeSet<usize>> = made
        .iter()
        .enumerate()
        .map(|(number, it)| picked(it.depends_on, number).collect())
        .collect();
    let all = made.iter().zip(&depends).map(|(it, depends)| {
        let calls = picked(it.calls, made.len()).filter(|&at| !made[at].is_job);
        calls.chain(depends.iter().copied()).collect()
    });
    let reach = needed(&all.collect::<Vec<_>>());
    let depends = needed(&depends);
    (0..made.len())
        .map(|from| {
            let one_way = |to: &usize| !reach[*to].contains(&from);
            let one_way = reach[from].iter().copied().filter(one_way);
            one_way.chain(depends[from].iter().copied()).collect()
        })
        .collect()
}

/// When the last one has stopped that waits for `number`.
fn last(waits: &[BTreeSet<usize>], number: usize, log: &Log) -> Timestamp {
    let dependents = waits.iter().zip(NAMES).enumerate();
    let dependents = dependents.filter(|(at, (on, _))| on.contains(&number) && *at != number);
    let gone = dependents.filter_map(|(_, (_, name))| log.get(&key(name)).map(|it| it.gone));
    gone.max().unwrap_or_default()
}

fn check(made: &[Made], log: &Log) -> Result<(), TestCaseError> {
    let drains = made.iter().filter(|it| !it.is_job).map(|it| it.drain);
    let deadline = at(1000 * drains.max().unwrap_or_default());
    let waits = waits(made);
    for (number, it) in made.iter().enumerate() {
        let stopped = log.get(&key(NAMES[number])).copied();
        prop_assert_eq!(stopped.is_some(), it.busy.is_some(), "all that runs stops");
        let Some(stopped) = stopped else { continue };
        // Not before all that depend on it have stopped or the deadline has passed; and at once then,
        // so that what does not depend on another stops with it.
        let turn = last(&waits, number, log).min(deadline);
        let what = format!("{}: {log:?}", NAMES[number]);
        prop_assert_eq!(stopped.told, turn, "{}", what);
        prop_assert!(stopped.gone <= deadline, "{}", what);
        prop_assert!(stopped.gone >= stopped.told);
    }
    Ok(())
}

proptest! {
    #[test]
    fn nothing_stops_before_what_depends_on_it_and_all_stops_in_time(made in made()) {
        let world = world(&made);
        check(&made, &world.clone().stopped())?;
        check(&made, &world.deleted())?;
    }

    /// Records that are no good, such as a circle of dependencies, hold nothing up for ever.
    #[test]
    fn circles_of_dependencies_come_to_an_end(made in made(), circle in any::<[u8; 8]>()) {
        let mut world = world(&made);
        for (number, bits) in circle.iter().enumerate().take(made.len()) {
            let names = picked(*bits, made.len()).map(|at| (name(NAMES[at]), object::Condition::Started));
            let names: BTreeMap<_, _> = names.collect();
            let own = key(NAMES[number]);
            if let Some(service) = world.services.get_mut(&own) {
                service.spec.depends_on = names;
            } else if let Some(job) = world.jobs.get_mut(&own) {
                job.spec.depends_on = names;
            }
        }
        let there = world.there().len();
        prop_assert_eq!(world.clone().stopped().len(), there);
        prop_assert_eq!(world.deleted().len(), there);
    }
}
