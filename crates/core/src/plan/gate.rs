//! Gates: whether what something depends on has happened.

use std::collections::BTreeMap;

use super::autoscale;
use crate::{
    name::Name,
    object::Condition,
    record::{Job, JobPhase, Service},
};

/// Whether something may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Not yet: for people, what it waits for.
    Waiting(String),
    /// What it waits for has failed for good, unless its spec changes: for people, what.
    Never(String),
}

/// Looks at everything in `depends_on`. One that has failed outweighs one that is waited for; of
/// several the first in the order of names is told. One that is neither a service nor a job was
/// left out with its profile, and is met.
pub fn gate<'a>(
    depends_on: &BTreeMap<Name, Condition>,
    services: &dyn Fn(&Name) -> Option<&'a Service>,
    jobs: &dyn Fn(&Name) -> Option<&'a Job>,
) -> Gate {
    let mut gate = Gate::Open;
    for (name, condition) in depends_on {
        let one = match (services(name), jobs(name)) {
            (Some(found), Some(_) | None) => service(found, *condition),
            (None, Some(found)) => job(found, *condition),
            (None, None) => Gate::Open,
        };
        gate = match (gate, one) {
            (Gate::Never(why), Gate::Open | Gate::Waiting(_) | Gate::Never(_))
            | (Gate::Open | Gate::Waiting(_), Gate::Never(why)) => Gate::Never(why),
            (Gate::Waiting(on), Gate::Open | Gate::Waiting(_)) => Gate::Waiting(on),
            (Gate::Open, one @ (Gate::Open | Gate::Waiting(_))) => one,
        };
    }
    gate
}

/// What a service has done for `condition`. A service does not end: one that should be `Completed`
/// is taken as `Ready`. One that has scaled to zero is ready for its callers.
fn service(service: &Service, condition: Condition) -> Gate {
    let counts = service.status.counts;
    let name = &service.key.name;
    let (met, what) = match condition {
        Condition::Started => {
            let met = counts.alive > 0 || service.spec.replicas == 0;
            (met, "to be started")
        }
        Condition::Ready | Condition::Completed => {
            let met = counts.ready > 0 || autoscale::is_asleep(service);
            (met, "to be ready")
        }
    };
    match met {
        true => Gate::Open,
        false => Gate::Waiting(format!("for service `{name}` {what}")),
    }
}

/// What a job has done for `condition`, in its present generation. A job is never ready: one that
/// should be is waited for until it has completed.
fn job(job: &Job, condition: Condition) -> Gate {
    let name = &job.key.name;
    let present = job.status.observed_generation == job.generation;
    let phase = match present {
        true => &job.status.phase,
        false => &JobPhase::Pending,
    };
    let failed = |reason| Gate::Never(format!("because job `{name}` has failed: {reason}"));
    match (phase, condition) {
        (JobPhase::Failed { reason }, Condition::Ready | Condition::Completed) => failed(reason),
        // It failed because it was never able to start.
        (JobPhase::Failed { reason }, Condition::Started) if job.status.attempts == 0 => {
            failed(reason)
        }
        (JobPhase::Completed, Condition::Started | Condition::Ready | Condition::Completed)
        | (
            JobPhase::Running | JobPhase::BackOff { .. } | JobPhase::Failed { .. },
            Condition::Started,
        ) => Gate::Open,
        // By its schedule it has run before.
        (JobPhase::Scheduled, Condition::Started) if job.status.attempts > 0 => Gate::Open,
        (JobPhase::Pending | JobPhase::Scheduled, Condition::Started) => {
            Gate::Waiting(format!("for job `{name}` to be started"))
        }
        (
            JobPhase::Pending | JobPhase::Running | JobPhase::BackOff { .. } | JobPhase::Scheduled,
            Condition::Ready | Condition::Completed,
        ) => Gate::Waiting(format!("for job `{name}` to complete")),
    }
}

#[cfg(test)]
mod tests;
