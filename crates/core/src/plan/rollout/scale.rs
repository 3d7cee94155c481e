//! Another number of replicas, while more than one revision has pods or nothing may be replaced.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
};

use super::{
    crew::{Crew, Grade},
    steps::{Goal, Stance, worst_first},
};

/// In the middle of a rollout the change is spread over all revisions in proportion, as Kubernetes
/// does: a rollout that gets stuck has then not taken all the new pods. A target that has no pods
/// yet has no share; then the rollout itself brings them.
pub(super) fn moving(crew: &mut Crew, goal: &Goal<'_>) {
    let sizes = crew.sizes();
    if goal.scaled_from.is_none() || sizes.len() < 2 || !sizes.contains_key(&goal.target) {
        return;
    }
    let room = goal.bounds.most().saturating_sub(crew.alive());
    let change = change(&sizes, goal).min(i64::from(room));
    resize(crew, &spread(&sizes, change, goal), goal);
}

/// While nothing may be replaced. A service whose rollout was complete is kept at its replicas; in
/// the middle of one, pods are made and stopped only when the number of replicas changes. Says
/// whether such a change has been seen to: it waits until what drains has left enough room, since
/// nothing would make up for a part of it later.
pub(super) fn held(crew: &mut Crew, goal: &Goal<'_>) -> bool {
    let sizes = crew.sizes();
    let room = goal.bounds.most().saturating_sub(crew.alive());
    let replicas = goal.bounds.replicas;
    if goal.last_good == Some(goal.target) && !crew.has_others(goal.target) {
        let now = sizes.get(&goal.target).copied().unwrap_or_default();
        let size = replicas.min(now.saturating_add(room));
        resize(crew, &BTreeMap::from([(goal.target, size)]), goal);
        return true;
    }
    if goal.scaled_from.is_none() {
        return true;
    }
    let only = match sizes.len() {
        0 => goal.last_good,
        1 => sizes.keys().next().copied(),
        2.. => None,
    };
    let mut wanted = match only {
        Some(revision) => BTreeMap::from([(revision, replicas)]),
        None => spread(&sizes, change(&sizes, goal), goal),
    };
    if goal.stance == Stance::Waiting {
        // Its pods are made when the rollout goes on.
        let now = sizes.get(&goal.target).copied().unwrap_or_default();
        wanted
            .entry(goal.target)
            .and_modify(|size| *size = now.min(*size));
    }
    let added: u64 = wanted
        .iter()
        .map(|(revision, size)| {
            let now = sizes.get(revision).copied().unwrap_or_default();
            u64::from(size.saturating_sub(now))
        })
        .sum();
    let fits = added <= u64::from(room);
    if fits {
        resize(crew, &wanted, goal);
    }
    fits
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
    let mut left = change;
    for (_, size) in &mut order {
        // Half a pod is a pod.
        let share = (2 * *size * after + before) / (2 * before) - *size;
        let share = match change > 0 {
            true => share.clamp(0, left),
            false => share.clamp(left, 0).max(-*size),
        };
        *size += share;
        left -= share;
    }
    for (_, size) in &mut order {
        let share = left.max(-*size);
        *size += share;
        left -= share;
    }
    let size = |size| u32::try_from(size).unwrap_or_default();
    order
        .into_iter()
        .map(|(revision, it)| (revision, size(it)))
        .collect()
}

/// Brings revisions to these sizes. Where an available pod would have to go that must not, one of
/// any revision goes that is not available.
fn resize(crew: &mut Crew, wanted: &BTreeMap<u64, u32>, goal: &Goal<'_>) {
    let replicas = goal.bounds.replicas;
    let least = goal.bounds.least();
    let sizes = crew.sizes();
    let mut kept = 0;
    for (&revision, &size) in wanted {
        let now = sizes.get(&revision).copied().unwrap_or_default();
        let surplus = now.saturating_sub(size) as usize;
        let reason = format!("scaled down to {replicas} replicas");
        let worst = crew.ranked(|it| it.revision == revision, worst_first);
        for at in worst.into_iter().take(surplus) {
            let needed = crew.member(at).grade == Grade::Available && crew.available() <= least;
            match needed {
                true => kept += 1,
                false => crew.stop(at, &reason),
            }
        }
        let reason = match goal.scaled_from {
            Some(before) => format!("scaled from {} to {replicas} replicas", before.replicas),
            None => format!("{replicas} replicas are wanted"),
        };
        crew.create(revision, size.saturating_sub(now), &reason);
    }
    let reason = format!("scaled down to {replicas} replicas");
    let others = crew.ranked(
        |member| member.grade != Grade::Available,
        |member| {
            (
                member.revision == goal.target,
                member.revision,
                worst_first(member),
            )
        },
    );
    for at in others.into_iter().take(kept) {
        crew.stop(at, &reason);
    }
}
