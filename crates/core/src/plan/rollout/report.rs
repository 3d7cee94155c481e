//! What is said of a service: numbers, conditions, and why a rollout has failed.

use std::time::Duration;

use super::{
    bounds::Bounds,
    pod_set::{Grade, PodSet, count},
};
use crate::{
    event::Reason,
    quantity::format_duration,
    record::{
        Condition, ConditionKind, Counts, Moment, Phase, RolloutState, Service, ServiceStatus,
    },
};

/// Fills in what follows from the rest of `status` and from the pods. `is_new` says that another
/// revision is wanted than before.
pub(super) fn fill(
    status: &mut ServiceStatus,
    service: &Service,
    set: &PodSet,
    bounds: Bounds,
    moment: Moment,
    is_new: bool,
) {
    status.observed_generation = service.generation;
    status.counts = Counts {
        alive: set.alive(),
        updated: count(set.active_of(status.target)),
        ready: count(set.active().filter(|it| it.grade >= Grade::Ready)),
        available: set.available(),
        updated_available: set.available_of(status.target),
    };
    let found = trouble(set, status.target);
    let stays = status.counts.ready < bounds.replicas;
    status.trouble = found.or(status.trouble.take().filter(|_| stays && !is_new));
    let available = available(status.counts, bounds, status.trouble.as_deref());
    let said = [available, progressing(status)];
    let before = std::mem::take(&mut status.conditions);
    status.conditions = said
        .into_iter()
        .map(|(kind, holds, reason, message)| {
            let before = before
                .iter()
                .find(|it| it.kind == kind && it.holds == holds);
            Condition {
                kind,
                holds,
                reason: reason.to_owned(),
                message,
                since_ms: before.map_or(moment.wall_ms, |it| it.since_ms),
            }
        })
        .collect();
}

type Said = (ConditionKind, bool, &'static str, String);

fn available(counts: Counts, bounds: Bounds, trouble: Option<&str>) -> Said {
    let holds = counts.available >= bounds.needed();
    let reason = match holds {
        true => "MinimumReplicasAvailable",
        false => "MinimumReplicasUnavailable",
    };
    let mut message = format!(
        "{} of {} pods are available, {} must be",
        counts.available,
        bounds.replicas,
        bounds.needed()
    );
    if let Some(trouble) = trouble {
        message.push_str(&format!("; {trouble}"));
    }
    (ConditionKind::Available, holds, reason, message)
}

fn progressing(status: &ServiceStatus) -> Said {
    let target = status.target;
    let (holds, reason, message) = match &status.phase {
        Phase::Progressing => {
            let message = format!("revision {target} is being rolled out");
            (true, "RolloutInProgress", message)
        }
        Phase::Waiting { on } => {
            let message = format!("revision {target} waits {on}");
            (false, "WaitingForDependencies", message)
        }
        Phase::Complete => {
            let message = format!("revision {target} has been rolled out");
            (true, "NewRevisionAvailable", message)
        }
        Phase::Paused { failure: None } => {
            let message = format!("revision {target} is held");
            (false, "RolloutPaused", message)
        }
        Phase::Paused {
            failure: Some(reason),
        }
        | Phase::Failed { reason }
        | Phase::RollingBack { reason, .. } => (false, "ProgressDeadlineExceeded", reason.clone()),
        Phase::RolledBack { from, reason } => {
            let message = format!("revision {target} runs again in place of {from}: {reason}");
            (false, "RolledBack", message)
        }
    };
    (ConditionKind::Progressing, holds, reason, message)
}

/// Why a rollout has failed: what is the matter with the first of its pods that says so.
pub(super) fn stuck(set: &PodSet, target: u64, replicas: u32, deadline: Duration) -> String {
    let mut text = format!(
        "no progress for {}: {} of {replicas} pods of revision {target} available",
        format_duration(deadline),
        set.available_of(target),
    );
    let waiting = || {
        set.active_of(target)
            .filter(|it| it.grade != Grade::Available)
    };
    let telling = waiting().find(|member| member.reason.is_some());
    if let Some(member) = telling.or_else(|| waiting().next()) {
        text.push_str(&format!("; {}", set.describe(member)));
    }
    text
}

/// What keeps a pod from serving that should: said of the first of `target` that is in trouble, or
/// else of another revision.
fn trouble(set: &PodSet, target: u64) -> Option<String> {
    let mut others = set.active().filter(|it| !it.is_settled(target));
    let member = set.active_of(target).find(|it| it.is_in_trouble());
    let member = member.or_else(|| others.find(|it| it.is_in_trouble()))?;
    Some(set.describe(member))
}

/// What is announced when the pods of a service whose rollout is over get into trouble, and when
/// they are out of it. `before` is the status of the service until now.
pub(super) fn turn(before: &ServiceStatus, now: &ServiceStatus, bounds: Bounds) -> Option<Turn> {
    let is_over = |phase: &Phase| match phase.rollout() {
        RolloutState::Complete | RolloutState::RolledBack { .. } => true,
        RolloutState::UnderWay
        | RolloutState::Waiting
        | RolloutState::Held { .. }
        | RolloutState::Failed { .. } => false,
    };
    if !is_over(&before.phase) || !is_over(&now.phase) {
        return None;
    }
    let (ready, replicas) = (now.counts.ready, bounds.replicas);
    let pods = format!("{ready} of {replicas} pods are ready");
    match (&before.trouble, &now.trouble) {
        (None, Some(trouble)) if ready > 0 => {
            Some((Reason::Degraded, format!("{pods}; {trouble}")))
        }
        (None, Some(trouble)) => Some((Reason::Unavailable, format!("{pods}; {trouble}"))),
        (Some(_), Some(trouble)) if ready == 0 && before.counts.ready > 0 => {
            Some((Reason::Unavailable, format!("{pods}; {trouble}")))
        }
        (Some(_), None) => Some((Reason::Available, format!("{pods} again"))),
        (None, None) | (Some(_), Some(_)) => None,
    }
}

/// What has happened, in one word and in a sentence.
type Turn = (Reason, String);
