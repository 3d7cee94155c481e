//! Whether what somebody waits for has come about, from what the API shows.

use super::{Job, JobPhase, Phase, Service};

/// What there is to say to whoever waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on: how far it is, and what it waits for.
    Going(String),
    /// It has come about.
    Done(String),
    /// It will not come about by itself.
    Failed(String),
}

/// How far the rollout of a service is, for whoever waits for it, in the manner of
/// `kubectl rollout status`. `revision` is the one that is waited for, if it is a certain one.
pub fn rollout_verdict(service: &Service, revision: Option<u64>) -> Verdict {
    let because = || match &service.reason {
        Some(reason) => format!(": {reason}"),
        None => String::new(),
    };
    if let Some(refused) = &service.refused {
        return Verdict::Failed(format!("the last change was refused: {}", refused.reason));
    }
    let replaced = revision.is_some_and(|it| it != service.revision);
    match service.phase {
        Phase::Deleting => Verdict::Failed("it is being deleted".to_owned()),
        Phase::RollingBack => Verdict::Failed(format!(
            "going back to revision {}{}",
            service.revision,
            because()
        )),
        Phase::RolledBack => Verdict::Failed(format!(
            "went back to revision {}{}",
            service.revision,
            because()
        )),
        Phase::Failed => Verdict::Failed(format!("the rollout has failed{}", because())),
        Phase::Paused if service.reason.is_some() => Verdict::Failed(format!(
            "paused, because the rollout has failed{}",
            because()
        )),
        Phase::Progressing | Phase::Waiting | Phase::Complete | Phase::Paused if replaced => {
            Verdict::Failed(format!(
                "another change has taken its place: revision {}",
                service.revision
            ))
        }
        Phase::Complete => Verdict::Done(format!(
            "revision {} runs, {} of {} pods are available",
            service.revision, service.updated_available, service.replicas
        )),
        Phase::Waiting => Verdict::Going(format!("waiting{}", because())),
        Phase::Paused => Verdict::Going(format!("paused; {}", progress(service))),
        Phase::Progressing if service.observed_generation < service.generation => {
            Verdict::Going("waiting until the change has been looked at".to_owned())
        }
        Phase::Progressing => Verdict::Going(format!("{}{}", progress(service), because())),
    }
}

/// How many of how many, and of what.
fn progress(service: &Service) -> String {
    let (updated, replicas) = (service.updated, service.replicas);
    let old = service.pods.saturating_sub(updated);
    if updated < replicas {
        format!("{updated} of {replicas} pods are new")
    } else if old > 0 {
        format!("{old} old pods are still to go")
    } else {
        let available = service.updated_available;
        format!("{available} of {replicas} new pods are available")
    }
}

/// How far a job is, for whoever waits for it.
pub fn job_verdict(job: &Job) -> Verdict {
    let reason = job.reason.clone().unwrap_or_default();
    match job.phase {
        JobPhase::Pending => Verdict::Going("waiting to start".to_owned()),
        JobPhase::Running => Verdict::Going("running".to_owned()),
        JobPhase::BackOff => Verdict::Going(format!("failed, trying again: {reason}")),
        JobPhase::Completed => Verdict::Done("completed".to_owned()),
        JobPhase::Failed => Verdict::Failed(format!("failed: {reason}")),
        JobPhase::Deleting => Verdict::Failed("it is being deleted".to_owned()),
    }
}
