//! From objects of the store to views.

use std::time::Duration;

use super::{App, Bounds, Condition, Job, JobPhase, Phase, Refusal, Revision, Scaling, Service};
use crate::{
    name::ServiceKey,
    object::Route,
    record::{self, ConditionKind},
    time::Utc,
};

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
        let counts = status.counts;
        Self {
            app: service.key.app.to_string(),
            name: service.key.name.to_string(),
            generation: service.generation,
            observed_generation: status.observed_generation,
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
            routes: spec.routes.iter().map(route).collect(),
            conditions: status.conditions.iter().map(condition).collect(),
            refused: status.refused.as_ref().map(|refused| Refusal {
                reason: refused.reason.clone(),
                time: time(refused.at_ms),
            }),
            scalings: status.scalings.iter().map(scaling).collect(),
        }
    }
}

/// A route as in the spec.
pub(crate) fn route(route: &Route) -> String {
    let host = route.host.as_deref().unwrap_or_default();
    format!("{host}{}", route.prefix)
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
        return (Phase::Deleting, None);
    }
    if service.status.observed_generation < service.generation {
        let reason = "the change has not been looked at yet".to_owned();
        return (Phase::Progressing, Some(reason));
    }
    let failed = |from: u64, reason: &str| Some(format!("revision {from} failed: {reason}"));
    match &service.status.phase {
        record::Phase::Progressing => (Phase::Progressing, None),
        record::Phase::Waiting { on } => (Phase::Waiting, Some(on.clone())),
        record::Phase::Complete => match &service.status.refused {
            // The rollout ended before it began.
            Some(refused) => {
                let reason = &refused.reason;
                let text = format!("refused before any pod was touched: {reason}");
                (Phase::RolledBack, Some(text))
            }
            None => (Phase::Complete, None),
        },
        record::Phase::Paused { failure } => (Phase::Paused, failure.clone()),
        record::Phase::RollingBack { from, reason } => (Phase::RollingBack, failed(*from, reason)),
        record::Phase::RolledBack { from, reason } => (Phase::RolledBack, failed(*from, reason)),
        record::Phase::Failed { reason } => (Phase::Failed, Some(reason.clone())),
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
            env: template.grants.env.keys().cloned().collect(),
            created: time(revision.created_ms),
            cause: revision.cause.clone(),
        }
    }
}

impl Job {
    /// What is shown of a job.
    pub fn of(job: &record::Job) -> Self {
        let (phase, reason) = job_phase(job);
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
        }
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
    }
}
