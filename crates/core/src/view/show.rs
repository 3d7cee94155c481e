//! From objects of the store to views.

use std::{collections::BTreeSet, time::Duration};

use super::{
    App, Bounds, Condition, Job, JobPhase, Phase, Pod, PresentRun, Refusal, Revision, Run, Scaling,
    Schedule, Service, Usage,
};
use crate::{
    name::{Name, ServiceKey},
    object::Overlap,
    quantity::format_duration,
    record::{self, ConditionKind, PodPhase},
    time::Utc,
};

/// The node of what is alone, which is not shown.
const ALONE: &str = "local";

fn time(millis: u64) -> String {
    Utc(Duration::from_millis(millis)).to_string()
}

impl App {
    /// What is shown of an app.
    pub fn of(app: &record::App) -> Self {
        Self {
            name: app.name.to_string(),
            generation: app.generation,
            base: app.base.display().to_string(),
            services: app.services.iter().map(ToString::to_string).collect(),
            jobs: app.jobs.iter().map(ToString::to_string).collect(),
            deleting: app.deleting,
            applied: time(app.applied_ms),
        }
    }
}

impl Service {
    /// What is shown of a service.
    pub fn of(service: &record::Service) -> Self {
        let (spec, status) = (&service.spec, &service.status);
        let (phase, reason) = phase(service);
        let mut counts = status.counts;
        if status.target != spec.revision {
            // What was counted as new is of the revision before.
            (counts.updated, counts.updated_available) = (0, 0);
        }
        Self {
            app: service.key.app.to_string(),
            name: service.key.name.to_string(),
            generation: service.generation,
            observed_generation: status.observed_generation,
            kind: spec.kind.to_string(),
            phase,
            reason,
            revision: spec.revision,
            previous: spec.previous,
            last_good: status.last_good,
            replicas: spec.replicas,
            autoscale: spec.autoscale.as_ref().map(|it| Bounds {
                min: it.min,
                max: it.max,
            }),
            pods: counts.alive,
            updated: counts.updated,
            ready: counts.ready,
            available: counts.available,
            updated_available: counts.updated_available,
            paused: spec.paused,
            deleting: spec.deleting,
            routes: spec.routes.iter().map(ToString::to_string).collect(),
            conditions: status.conditions.iter().map(condition).collect(),
            refused: status.refused.as_ref().map(|refused| Refusal {
                reason: refused.reason.clone(),
                time: time(refused.at_ms),
            }),
            scalings: status.scalings.iter().map(scaling).collect(),
        }
    }
}

fn condition(condition: &record::Condition) -> Condition {
    let kind = match condition.kind {
        ConditionKind::Available => "Available",
        ConditionKind::Progressing => "Progressing",
    };
    Condition {
        kind: kind.to_owned(),
        holds: condition.holds,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: time(condition.since_ms),
    }
}

fn scaling(scaling: &record::Scaling) -> Scaling {
    Scaling {
        message: scaling.message.clone(),
        time: time(scaling.at_ms),
    }
}

fn phase(service: &record::Service) -> (Phase, Option<String>) {
    if service.spec.deleting {
        let reason = match &service.status.phase {
            record::Phase::Waiting { on } if service.is_observed() => Some(format!("waits {on}")),
            _ => None,
        };
        return (Phase::Deleting, reason);
    }
    if service.status.observed_generation < service.generation {
        let reason = "the change has not been looked at yet".to_owned();
        return (Phase::Progressing, Some(reason));
    }
    let failed = |from: u64, reason: &str| Some(format!("revision {from} failed: {reason}"));
    match &service.status.phase {
        record::Phase::Progressing => (Phase::Progressing, service.status.trouble.clone()),
        record::Phase::Waiting { on } => (Phase::Waiting, Some(on.clone())),
        record::Phase::Complete => completed(service),
        record::Phase::Paused { failure } => (Phase::Paused, failure.clone()),
        record::Phase::RollingBack { from, reason } => (Phase::RollingBack, failed(*from, reason)),
        record::Phase::RolledBack { from, reason } => (Phase::RolledBack, failed(*from, reason)),
        record::Phase::Failed { reason } => (Phase::Failed, Some(reason.clone())),
    }
}

/// How a service is whose rollout is over: complete only if it serves.
fn completed(service: &record::Service) -> (Phase, Option<String>) {
    let (status, replicas) = (&service.status, service.spec.replicas);
    let ready = status.counts.ready;
    match (&status.trouble, &status.refused) {
        (Some(trouble), _) if !service.is_whole() => {
            let phase = match ready {
                0 => Phase::Unavailable,
                1.. => Phase::Degraded,
            };
            let reason = format!("{ready} of {replicas} pods are ready; {trouble}");
            (phase, Some(reason))
        }
        // The rollout ended before it began.
        (_, Some(refused)) => {
            let text = format!("refused before any pod was touched: {}", refused.reason);
            (Phase::RolledBack, Some(text))
        }
        // Nothing has failed: they start, as after a start of the node.
        (_, None) if ready == 0 && !service.is_whole() => {
            (Phase::Progressing, Some("no pod is ready yet".to_owned()))
        }
        (_, None) => (Phase::Complete, None),
    }
}

impl Pod {
    /// What is shown of a pod of the store that its node knows nothing of: one that has ended for
    /// good, or that the node has not looked at yet.
    pub fn unseen(pod: &record::Pod) -> Self {
        let status = &pod.status;
        let (phase, reason) = match status.phase {
            _ if pod.stop.is_some() => (PodPhase::Draining, pod.stop.clone()),
            PodPhase::Ended => (PodPhase::Ended, status.reason.clone()),
            PodPhase::Pending if pod.is_unplaced() && status.reason.is_some() => {
                (PodPhase::Pending, status.reason.clone())
            }
            PodPhase::Pending
            | PodPhase::Starting
            | PodPhase::Ready { .. }
            | PodPhase::Unready
            | PodPhase::BackOff
            | PodPhase::CrashLoopBackOff
            | PodPhase::Draining => {
                let reason = "the node has not looked at it yet".to_owned();
                (PodPhase::Pending, Some(reason))
            }
        };
        Self {
            name: pod.name().to_string(),
            app: pod.service.app.to_string(),
            service: pod.service.name.to_string(),
            phase: phase.word().to_owned(),
            ready: false,
            restarts: status.restarts,
            reason,
            next_try_ms: None,
            starved_probes: 0,
            usage: Usage::default(),
            terminations: Vec::new(),
            node: pod
                .node
                .as_ref()
                .filter(|node| node.as_str() != ALONE)
                .map(Name::to_string),
        }
    }
}

impl Revision {
    /// What is shown of a revision of a service whose pods should run `current`.
    pub fn of(service: &ServiceKey, revision: &record::Revision, current: Option<u64>) -> Self {
        let template = &revision.template;
        Self {
            app: service.app.to_string(),
            service: service.name.to_string(),
            revision: revision.number,
            current: current == Some(revision.number),
            hash: revision.hash.clone(),
            component: template.component.path.clone(),
            digest: template.component.digest.clone(),
            restarted: template.restarted,
            env: {
                let grants = &template.grants;
                let names = grants.env.keys().chain(grants.secret_env.keys());
                let names: BTreeSet<_> = names.cloned().collect();
                names.into_iter().collect()
            },
            created: time(revision.created_ms),
            cause: revision.cause.clone(),
        }
    }
}

impl Job {
    /// What is shown of a job.
    pub fn of(job: &record::Job) -> Self {
        let (phase, reason) = job_phase(job);
        let runs = &job.status.runs;
        let next_ms = runs
            .seen_ms
            .and_then(|seen_ms| job.spec.next_due_ms(seen_ms));
        let schedule = job.spec.schedule.as_ref().map(|schedule| Schedule {
            expression: schedule.expression.clone(),
            timezone: schedule.timezone.clone(),
            overlap: match schedule.overlap {
                Overlap::Skip => "skip",
                Overlap::Queue => "queue",
                Overlap::Replace => "replace",
            }
            .to_owned(),
        });
        Self {
            app: job.key.app.to_string(),
            name: job.key.name.to_string(),
            generation: job.generation,
            observed_generation: job.status.observed_generation,
            phase,
            reason,
            attempts: job.status.attempts,
            retries: job.spec.retries,
            component: job.spec.component.path.clone(),
            digest: job.spec.component.digest.clone(),
            deleting: job.deleting,
            schedule,
            next: next_ms.filter(|_| !job.deleting).map(time),
            timeout: job.spec.timeout.map(format_duration),
            run_count: runs.count,
            run: runs.present.map(|begun| PresentRun {
                number: begun.number,
                why: begun.why.as_str().to_owned(),
                started: time(begun.started_ms),
            }),
            runs: runs.ended.iter().map(run).collect(),
        }
    }
}

fn run(run: &record::Run) -> Run {
    let outcome = run.failure.as_deref().unwrap_or("exit code 0");
    Run {
        number: run.number,
        why: run.why.as_str().to_owned(),
        started: time(run.started_ms),
        ended: time(run.ended_ms),
        duration_ms: run.ended_ms.saturating_sub(run.started_ms),
        attempts: run.attempts,
        failed: run.failure.is_some(),
        outcome: outcome.to_owned(),
    }
}

fn job_phase(job: &record::Job) -> (JobPhase, Option<String>) {
    if job.deleting {
        return (JobPhase::Deleting, None);
    }
    if job.status.observed_generation < job.generation {
        // What it has come to so far is about another spec.
        return (JobPhase::Pending, None);
    }
    match &job.status.phase {
        record::JobPhase::Pending => (JobPhase::Pending, None),
        record::JobPhase::Running => (JobPhase::Running, None),
        record::JobPhase::BackOff { reason, .. } => (JobPhase::BackOff, Some(reason.clone())),
        record::JobPhase::Completed => (JobPhase::Completed, None),
        record::JobPhase::Failed { reason } => (JobPhase::Failed, Some(reason.clone())),
        record::JobPhase::Scheduled => (JobPhase::Scheduled, None),
    }
}
