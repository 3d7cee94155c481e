//! What an apply brings about, so that `apply --wait` waits for that and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::present::Present;
use crate::{
    name::Name,
    object::{self, Condition},
    record::{Job, JobPhase, RolloutState, Service},
    view::{Plan, Verb},
};

/// A service or job of the spec.
struct Item<'a> {
    depends_on: &'a BTreeMap<Name, Condition>,
    /// It was not able to start so far, because of what it depends on.
    is_held: bool,
    /// It is a job that has not completed.
    is_unfinished: bool,
}

/// Marks the changes that are awaited: what is new or different, what was held and depends on one
/// that is awaited, and the unfinished jobs that one of these depends on. How anything else is has
/// nothing to do with this apply. One that changes nothing asks how all of it is.
///
/// Yields the jobs that come into their own again: they failed without an attempt, because of what
/// is awaited now. They get a new generation, so that the old failure does not pass for a new one.
pub(super) fn mark<'a>(app: &object::App, present: &'a Present, plan: &mut Plan) -> Vec<&'a Job> {
    let is_same = |verb| match verb {
        Verb::Unchanged => true,
        Verb::Added | Verb::Changed | Verb::Deleted => false,
    };
    if plan.changes.iter().all(|change| is_same(change.verb)) {
        return Vec::new();
    }
    let changed = plan.changes.iter().filter(|it| !is_same(it.verb));
    let awaited = closure(
        &items(app, present),
        changed.map(|it| it.name.clone()).collect(),
    );
    for change in &mut plan.changes {
        change.awaited = match change.verb {
            Verb::Deleted => false,
            Verb::Added | Verb::Changed => true,
            Verb::Unchanged => awaited.contains(change.name.as_str()),
        };
    }
    let unchanged = plan
        .changes
        .iter()
        .filter(|it| it.awaited && is_same(it.verb));
    let jobs = unchanged.filter(|it| it.kind == "job");
    let jobs = jobs.filter_map(|it| present.jobs.get(it.name.as_str()));
    jobs.filter(|job| failed_unattempted(job)).collect()
}

fn items<'a>(app: &'a object::App, present: &Present) -> BTreeMap<&'a str, Item<'a>> {
    let services = app.services.values().map(|service| {
        let item = Item {
            depends_on: &service.depends_on,
            is_held: present.services.get(&service.name).is_none_or(holds),
            is_unfinished: false,
        };
        (service.name.as_str(), item)
    });
    let jobs = app.jobs.values().map(|job| {
        let now = present.jobs.get(&job.name);
        let item = Item {
            depends_on: &job.depends_on,
            is_held: now.is_none_or(|now| !has_begun(now)),
            is_unfinished: now.is_none_or(|now| !has_completed(now)),
        };
        (job.name.as_str(), item)
    });
    services.chain(jobs).collect()
}

fn closure(items: &BTreeMap<&str, Item<'_>>, changed: Vec<String>) -> BTreeSet<String> {
    let mut dependents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, item) in items {
        for on in item.depends_on.keys() {
            dependents.entry(on.as_str()).or_default().push(name);
        }
    }
    let (mut awaited, mut new) = (BTreeSet::new(), changed);
    while let Some(name) = new.pop() {
        if !awaited.insert(name.clone()) {
            continue;
        }
        let held = dependents.get(name.as_str()).into_iter().flatten().copied();
        new.extend(held.filter(|it| items[it].is_held).map(str::to_owned));
        let on = items.get(name.as_str()).into_iter();
        let on = on.flat_map(|item| item.depends_on.keys().map(Name::as_str));
        let unfinished = on.filter(|it| items.get(it).is_some_and(|it| it.is_unfinished));
        new.extend(unfinished.map(str::to_owned));
    }
    awaited
}

/// Whether the wanted revision of a service waits for what it depends on, as far as is known.
fn holds(service: &Service) -> bool {
    !service.is_observed() || service.rollout() == RolloutState::Waiting
}

fn has_begun(job: &Job) -> bool {
    job.status.observed_generation == job.generation && job.status.attempts > 0
}

fn failed_unattempted(job: &Job) -> bool {
    let status = &job.status;
    status.observed_generation == job.generation
        && status.attempts == 0
        && matches!(status.phase, JobPhase::Failed { .. })
}

fn has_completed(job: &Job) -> bool {
    // One with a schedule has no end to wait for.
    job.status.observed_generation == job.generation
        && matches!(job.status.phase, JobPhase::Completed | JobPhase::Scheduled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// What is awaited of `a → b → c → …`, where each depends on the one before it.
    fn awaited(states: &[(&str, bool, bool)], changed: &str) -> Vec<String> {
        let mut on = BTreeMap::new();
        let mut all = Vec::new();
        for (name, is_held, is_unfinished) in states {
            all.push((*name, on, *is_held, *is_unfinished));
            let name = Name::parse(name).expect("a name");
            on = BTreeMap::from([(name, Condition::Completed)]);
        }
        let items = all
            .iter()
            .map(|(name, depends_on, is_held, is_unfinished)| {
                let item = Item {
                    depends_on,
                    is_held: *is_held,
                    is_unfinished: *is_unfinished,
                };
                (*name, item)
            });
        let found = closure(&items.collect(), names(changed));
        found.into_iter().collect()
    }

    #[test]
    fn what_was_held_follows_what_is_changed() {
        let (held, begun, done) = ((true, true), (false, true), (false, false));
        for (states, changed, wanted) in [
            ([begun, held, held, held], "a", "a b c d"),
            ([done, done, done, done], "a", "a"),
            ([done, begun, held, held], "a", "a"),
            ([done, held, done, held], "a", "a b"),
            // A job that failed keeps what is new from its start.
            ([done, begun, held, held], "d", "b c d"),
            ([begun, done, held, done], "d", "c d"),
            ([begun, begun, begun, begun], "", ""),
        ] {
            let states: Vec<_> = ["a", "b", "c", "d"]
                .into_iter()
                .zip(states)
                .map(|(name, (is_held, is_unfinished))| (name, is_held, is_unfinished))
                .collect();
            assert_eq!(awaited(&states, changed), names(wanted), "{states:?}");
        }
    }
}
