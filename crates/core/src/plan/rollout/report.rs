//! What is said of a service: numbers, conditions, and why a rollout has failed.

use std::time::Duration;

use super::{
    bounds::Bounds,
    crew::{Crew, Grade, count},
};
use crate::{
    quantity::format_duration,
    record::{Condition, ConditionKind, Counts, Moment, Phase, Service, ServiceStatus},
};

/// Fills in what follows from the rest of `status` and from the pods.
pub(super) fn fill(
    status: &mut ServiceStatus,
    service: &Service,
    crew: &Crew,
    bounds: Bounds,
    moment: Moment,
) {
    status.observed_generation = service.generation;
    status.counts = Counts {
        alive: crew.alive(),
        updated: count(crew.active_of(status.target)),
        ready: count(crew.active().filter(|it| it.grade >= Grade::Ready)),
        available: crew.available(),
        updated_available: crew.available_of(status.target),
    };
    let said = [available(status.counts, bounds), progressing(status)];
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

fn available(counts: Counts, bounds: Bounds) -> Said {
    let holds = counts.available >= bounds.least();
    let reason = match holds {
        true => "MinimumReplicasAvailable",
        false => "MinimumReplicasUnavailable",
    };
    let message = format!(
        "{} of {} pods are available, {} must be",
        counts.available,
        bounds.replicas,
        bounds.least()
    );
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
pub(super) fn stuck(crew: &Crew, target: u64, replicas: u32, deadline: Duration) -> String {
    let mut text = format!(
        "no progress for {}: {} of {replicas} pods of revision {target} available",
        format_duration(deadline),
        crew.available_of(target),
    );
    let waiting = || {
        crew.active_of(target)
            .filter(|it| it.grade != Grade::Available)
    };
    let telling = waiting().find(|member| member.reason.is_some());
    if let Some(member) = telling.or_else(|| waiting().next()) {
        text.push_str(&format!("; {} {}", crew.name(member), member.state));
        if let Some(reason) = &member.reason {
            text.push_str(&format!(": {reason}"));
        }
    }
    text
}
