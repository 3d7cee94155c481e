//! Which pods go that are to be replaced, and why.

use super::{
    goal::{Goal, worst_first},
    pod_set::{Grade, Member, PodSet, count},
};

/// Stops pods that do not stay, as far as they can be spared: those first that are not available, of
/// those alike the ones that leave their nodes.
pub(super) fn retire(set: &mut PodSet, goal: &Goal<'_>, stays: impl Fn(&Member) -> bool) {
    let coming = set
        .active()
        .filter(|it| stays(it) && it.grade != Grade::Available);
    let coming = count(coming);
    let least = goal.bounds.least();
    let mut removable = count(set.active()).saturating_sub(least.saturating_add(coming));
    let mut spare = set.available().saturating_sub(least);
    let old = set.ranked(
        |member| !stays(member),
        |member| {
            let available = member.grade == Grade::Available;
            let is_placed = member.leaving.is_none();
            (available, is_placed, member.revision, worst_first(member))
        },
    );
    for at in old {
        let left = match set.member(at).grade {
            Grade::NotReady | Grade::Ready => &mut removable,
            Grade::Available => &mut spare,
        };
        if *left > 0 {
            *left -= 1;
            let reason = replaced(set.member(at), goal);
            set.stop(at, &reason);
        }
    }
}

/// Why a pod is stopped that does not stay.
pub(super) fn replaced(member: &Member, goal: &Goal<'_>) -> String {
    match &member.leaving {
        Some(reason) => reason.clone(),
        None => format!("revision {} replaces it", goal.target),
    }
}
