//! Which pods are made and stopped, given the revision that they should run.

use super::{
    bounds::Bounds,
    goal::{Goal, worst_first},
    pod_set::{PodSet, count},
    retire::{replaced, retire},
    scale,
};
use crate::object::Strategy;

/// Decides what is to be done. Says whether a change of the number of replicas has been seen to.
pub(super) fn steps(set: &mut PodSet, goal: &Goal<'_>) -> bool {
    // Of a service that is kept at its replicas pods leave their nodes, whether a rollout would be
    // held or not. In the middle of one that is held nothing moves.
    let is_kept = goal.last_good == Some(goal.target) && set.is_all_of(goal.target);
    let relocates = is_kept && set.is_leaving();
    if (goal.paused || goal.waits) && !relocates {
        return scale::held(set, goal);
    }
    match goal.strategy {
        Strategy::Rolling => {
            scale::moving(set, goal);
            trim(set, goal);
            rolling(set, goal);
        }
        Strategy::Recreate => {
            recreate(set, goal);
            trim(set, goal);
        }
    }
    true
}

/// Stops pods of the target beyond `replicas`. When one of them is available, so are all that are
/// left: enough are.
fn trim(set: &mut PodSet, goal: &Goal<'_>) {
    let replicas = goal.bounds.replicas;
    let surplus = count(set.active_of(goal.target)).saturating_sub(replicas);
    let reason = format!("scaled down to {replicas} replicas");
    let worst = set.ranked(|it| it.is_settled(goal.target), worst_first);
    for at in worst.into_iter().take(surplus as usize) {
        set.stop(at, &reason);
    }
}

/// Makes what there is room for and stops what can be spared, with the formulae of Kubernetes: of
/// all pods that are to stay, as many can go as are more than must be available, less the new ones
/// that are not yet. Old pods that are not available go first.
fn rolling(set: &mut PodSet, goal: &Goal<'_>) {
    let Bounds { replicas, .. } = goal.bounds;
    let room = goal.bounds.most().saturating_sub(set.counted(goal.target));
    let missing = replicas.saturating_sub(count(set.active_of(goal.target)));
    set.create(goal.target, room.min(missing), goal.cause);

    retire(set, goal, |member| member.is_settled(goal.target));
}

/// Stops all pods of other revisions, and makes new ones once the last of them is gone.
fn recreate(set: &mut PodSet, goal: &Goal<'_>) {
    let old = set.ranked(
        |member| !member.is_settled(goal.target),
        |member| (member.revision, member.slot),
    );
    for at in old {
        let reason = replaced(set.member(at), goal);
        set.stop(at, &reason);
    }
    if set.alive_beside(goal.target) == 0 {
        let room = goal.bounds.most().saturating_sub(set.counted(goal.target));
        let missing = goal.bounds.replicas;
        let missing = missing.saturating_sub(count(set.active_of(goal.target)));
        set.create(goal.target, room.min(missing), goal.cause);
    }
}
