//! Another number of replicas, while more than one revision has pods or nothing may be replaced.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
};

use super::{
    goal::{Goal, worst_first},
    pod_set::{Grade, PodSet, count},
};
use crate::object::Strategy;

/// In the middle of a rollout the change is spread over all revisions in proportion, as Kubernetes
/// does: a rollout that gets stuck has then not taken all the new pods. A target that has no pods
/// yet has no share; then the rollout itself brings them.
pub(super) fn moving(set: &mut PodSet, goal: &Goal<'_>) {
    let sizes = set.sizes();
    if goal.scaled_from.is_none() || sizes.len() < 2 || !sizes.contains_key(&goal.target) {
        return;
    }
    let room = goal.bounds.most().saturating_sub(set.alive());
    let change = change(&sizes, goal).min(i64::from(room));
    resize(set, &spread(&sizes, change, goal), goal);
}

/// While nothing may be replaced. A service whose rollout was complete is kept at its replicas; in
/// the middle of one, pods are made and stopped only when the number of replicas changes. Says
/// whether such a change has been seen to.
pub(super) fn held(set: &mut PodSet, goal: &Goal<'_>) -> bool {
    let settled =
        |set: &PodSet| goal.last_good == Some(goal.target) && !set.has_others(goal.target);
    let seen = settled(set) || goal.scaled_from.is_none() || scale_held(set, goal);
    if settled(set) {
        let now = count(set.active_of(goal.target));
        let most = now.saturating_add(room(set, goal, goal.target));
        let size = goal.bounds.replicas.min(most);
        resize(set, &BTreeMap::from([(goal.target, size)]), goal);
    }
    seen
}

/// Scales a rollout that is held. That waits until what drains has left enough room: nothing would
/// make up later for what could not be made. Says whether it has been done.
fn scale_held(set: &mut PodSet, goal: &Goal<'_>) -> bool {
    let sizes = set.sizes();
    let size = |revision| sizes.get(revision).copied().unwrap_or_default();
    let only = match sizes.len() {
        // Nothing runs, and nothing has ever run well: the target is all there is.
        0 => goal.last_good.or(Some(goal.target).filter(|_| !goal.waits)),
        1 => sizes.keys().next().copied(),
        2.. => None,
    };
    let mut wanted = match only {
        Some(revision) => BTreeMap::from([(revision, goal.bounds.replicas)]),
        None => spread(&sizes, change(&sizes, goal), goal),
    };
    if goal.waits
        && let Some(wanted) = wanted.get_mut(&goal.target)
    {
        // Its pods are made when the rollout goes on.
        *wanted = (*wanted).min(size(&goal.target));
    }
    let mut added = 0_u32;
    let mut fits = true;
    for (revision, wanted) in &wanted {
        let more = wanted.saturating_sub(size(revision));
        added = added.saturating_add(more);
        fits &= more == 0 || added <= room(set, goal, *revision);
    }
    if fits {
        resize(set, &wanted, goal);
    }
    fits
}

/// How many pods of `revision` may be made. With `recreate` two revisions never run at once.
fn room(set: &PodSet, goal: &Goal<'_>, revision: u64) -> u32 {
    let apart = match goal.strategy {
        Strategy::Rolling => true,
        Strategy::Recreate => set.alive_beside(revision) == 0,
    };
    match apart {
        true => goal.bounds.most().saturating_sub(set.counted(revision)),
        false => 0,
    }
}

/// By how many pods all revisions together grow or shrink, to fill `replicas` + surge. More
/// replicas stop nothing, fewer make nothing.
fn change(sizes: &BTreeMap<u64, u32>, goal: &Goal<'_>) -> i64 {
    let now: i64 = sizes.values().copied().map(i64::from).sum();
    let change = i64::from(goal.bounds.most()) - now;
    match goal
        .scaled_from
        .map(|before| before.replicas.cmp(&goal.bounds.replicas))
    {
        Some(Ordering::Less) => change.max(0),
        Some(Ordering::Greater) => change.min(0),
        Some(Ordering::Equal) | None => 0,
    }
}

/// The sizes of all revisions once `change` pods have been spread over them: each gets its share
/// of what there may be, the largest what is left over. Of two that are equally large the newer
/// grows first and the older shrinks first.
fn spread(sizes: &BTreeMap<u64, u32>, change: i64, goal: &Goal<'_>) -> BTreeMap<u64, u32> {
    let total: i64 = sizes.values().copied().map(i64::from).sum();
    let after = i64::from(goal.bounds.most());
    let before = match goal
        .scaled_from
        .map_or(0, |before| i64::from(before.most()))
    {
        // It has not been spread before.
        0 => total.max(1),
        before => before,
    };
    let mut order: Vec<(u64, i64)> = sizes
        .iter()
        .map(|(&revision, &size)| (revision, i64::from(size)))
        .collect();
    match change > 0 {
        true => order.sort_by_key(|&(revision, size)| Reverse((size, revision))),
        false => order.sort_by_key(|&(revision, size)| (Reverse(size), revision)),
    }
    // More of the target than there should be in the end would only be stopped again.
    let room = |revision, size: i64| match revision == goal.target {
        true => (i64::from(goal.bounds.replicas) - size).max(0),
        false => i64::MAX,
    };
    let mut left = change;
    for (revision, size) in &mut order {
        // Half a pod is a pod.
        let share = (2 * *size * after + before) / (2 * before) - *size;
        let share = match change > 0 {
            true => share.clamp(0, left).min(room(*revision, *size)),
            false => share.clamp(left, 0).max(-*size),
        };
        *size += share;
        left -= share;
    }
    for (revision, size) in &mut order {
        let share = left.max(-*size).min(room(*revision, *size));
        *size += share;
        left -= share;
    }
    let left = order.iter_mut().filter(|(_, size)| *size > 0);
    if let [(_, size)] = &mut left.collect::<Vec<_>>()[..] {
        // The surge is for two.
        *size = (*size).min(i64::from(goal.bounds.replicas));
    }
    let size = |size| u32::try_from(size).unwrap_or_default();
    order
        .into_iter()
        .map(|(revision, it)| (revision, size(it)))
        .collect()
}

/// Brings revisions to these sizes. Where an available pod would have to go that must not, one of
/// any revision goes that is not available.
fn resize(set: &mut PodSet, wanted: &BTreeMap<u64, u32>, goal: &Goal<'_>) {
    let replicas = goal.bounds.replicas;
    let least = goal.bounds.least();
    let sizes = set.sizes();
    let mut kept = 0;
    for (&revision, &size) in wanted {
        let now = sizes.get(&revision).copied().unwrap_or_default();
        let surplus = now.saturating_sub(size) as usize;
        let reason = format!("scaled down to {replicas} replicas");
        let worst = set.ranked(|it| it.is_settled(revision), worst_first);
        for at in worst.into_iter().take(surplus) {
            let needed = set.member(at).grade == Grade::Available && set.available() <= least;
            match needed {
                true => kept += 1,
                false => set.stop(at, &reason),
            }
        }
        let reason = match goal.scaled_from {
            Some(before) => format!("scaled from {} to {replicas} replicas", before.replicas),
            None => format!("{replicas} replicas are wanted"),
        };
        set.create(revision, size.saturating_sub(now), &reason);
    }
    let reason = format!("scaled down to {replicas} replicas");
    let others = set.ranked(
        |member| member.grade != Grade::Available,
        |member| {
            (
                member.is_settled(goal.target),
                member.revision,
                worst_first(member),
            )
        },
    );
    for at in others.into_iter().take(kept) {
        set.stop(at, &reason);
    }
}
