//! Whether the state that a client waits for has been reached, from what the API shows.

use super::{Job, JobPhase, Phase, Service};

/// What a client that waits is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on: how far it is, and what it waits for.
    Going(String),
    /// It has come about.
    Done(String),
    /// It will not come about by itself.
    Failed(String),
}

/// How far the rollout of a service is, for a client that waits for it, in the manner of
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
        Phase::Progressing
        | Phase::Waiting
        | Phase::Complete
        | Phase::Degraded
        | Phase::Unavailable
        | Phase::Paused
            if replaced =>
        {
            Verdict::Failed(format!(
                "another change has taken its place: revision {}",
                service.revision
            ))
        }
        // Scaled since, or started again with the node: as with kubectl, what counts is that pods
        // are there now.
        Phase::Complete if service.updated_available < service.replicas => {
            let (available, replicas) = (service.updated_available, service.replicas);
            Verdict::Going(format!("{available} of {replicas} pods are available"))
        }
        Phase::Degraded | Phase::Unavailable => {
            Verdict::Going(service.reason.clone().unwrap_or_default())
        }
        Phase::Complete => Verdict::Done(format!(
            "revision {} runs, {} of {} pods are available",
            service.revision, service.updated_available, service.replicas
        )),
        // The reason says for what, or because of what.
        Phase::Waiting => {
            let on = service
                .reason
                .as_deref()
                .unwrap_or("for what it depends on");
            Verdict::Going(format!("waiting {on}"))
        }
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
        let (pods, are) = if old == 1 {
            ("pod", "is")
        } else {
            ("pods", "are")
        };
        format!("{old} old {pods} {are} still to go")
    } else {
        let available = service.updated_available;
        format!("{available} of {replicas} new pods are available")
    }
}

/// How far a job is, for a client that waits for it.
pub fn job_verdict(job: &Job) -> Verdict {
    let reason = job.reason.clone().unwrap_or_default();
    match job.phase {
        JobPhase::Pending => Verdict::Going("waiting to start".to_owned()),
        JobPhase::Running => Verdict::Going("running".to_owned()),
        JobPhase::BackOff => Verdict::Going(format!("failed, trying again: {reason}")),
        JobPhase::Completed => Verdict::Done("completed".to_owned()),
        // It has not run: what failed is another one.
        JobPhase::Failed if job.attempts == 0 => Verdict::Failed(format!("failed: {reason}")),
        JobPhase::Failed => Verdict::Failed(format!(
            "failed: {reason}; `sampan restart {}` runs it again",
            job.name
        )),
        JobPhase::Scheduled => Verdict::Done(match &job.next {
            Some(next) => format!("scheduled, due at {next}"),
            None => "scheduled".to_owned(),
        }),
        JobPhase::Deleting => Verdict::Failed("it is being deleted".to_owned()),
    }
}

/// How far a run of a job is, for a client that waits for that: the run with this number, or the first
/// one after it that is known.
pub fn run_verdict(job: &Job, number: u64) -> Verdict {
    if job.phase == JobPhase::Deleting {
        return Verdict::Failed("it is being deleted".to_owned());
    }
    if let Some(run) = job.runs.iter().find(|run| run.number >= number) {
        let told = format!("run {}: {}", run.number, run.outcome);
        return match run.failed {
            true => Verdict::Failed(told),
            false => Verdict::Done(told),
        };
    }
    let reason = job.reason.clone().unwrap_or_default();
    Verdict::Going(match &job.run {
        Some(run) if run.number >= number => match job.phase {
            JobPhase::Running => format!("run {} is running", run.number),
            JobPhase::BackOff => format!("run {} failed, trying again: {reason}", run.number),
            JobPhase::Pending
            | JobPhase::Completed
            | JobPhase::Failed
            | JobPhase::Scheduled
            | JobPhase::Deleting => format!("run {} is waiting to start", run.number),
        },
        Some(run) => format!("waiting for the end of run {}", run.number),
        None => "waiting to start".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(phase: Phase) -> Service {
        Service {
            app: "shop".to_owned(),
            name: "web".to_owned(),
            generation: 3,
            observed_generation: 3,
            kind: "http".to_owned(),
            phase,
            reason: None,
            revision: 2,
            previous: Some(1),
            last_good: Some(1),
            replicas: 3,
            autoscale: None,
            pods: 4,
            updated: 3,
            ready: 3,
            available: 3,
            updated_available: 2,
            paused: false,
            deleting: false,
            routes: Vec::new(),
            conditions: Vec::new(),
            refused: None,
            scalings: Vec::new(),
        }
    }

    fn with(phase: Phase, change: impl FnOnce(&mut Service)) -> Verdict {
        let mut changed = service(phase);
        change(&mut changed);
        rollout_verdict(&changed, Some(2))
    }

    #[test]
    fn what_a_client_that_waits_is_told() {
        let going = |text: &str| Verdict::Going(text.to_owned());
        let failed = |text: &str| Verdict::Failed(text.to_owned());
        let because = |it: &mut Service| it.reason = Some("not ready in time".to_owned());
        let progressing = Phase::Progressing;
        for (found, told) in [
            (
                with(progressing, |it| it.updated = 1),
                going("1 of 3 pods are new"),
            ),
            (with(progressing, |_| ()), going("1 old pod is still to go")),
            (
                with(progressing, |it| it.pods = 3),
                going("2 of 3 new pods are available"),
            ),
            (
                with(progressing, |it| it.generation = 4),
                going("waiting until the change has been looked at"),
            ),
            (
                with(Phase::Waiting, |it| {
                    it.reason = Some("for service `api` to be ready".to_owned())
                }),
                going("waiting for service `api` to be ready"),
            ),
            (
                with(Phase::Paused, |_| ()),
                going("paused; 1 old pod is still to go"),
            ),
            (
                with(Phase::Paused, because),
                failed("paused, because the rollout has failed: not ready in time"),
            ),
            (
                with(Phase::Complete, |it| it.updated_available = 3),
                Verdict::Done("revision 2 runs, 3 of 3 pods are available".to_owned()),
            ),
            (
                with(Phase::Complete, |_| ()),
                going("2 of 3 pods are available"),
            ),
            (
                with(Phase::Complete, |it| it.revision = 3),
                failed("another change has taken its place: revision 3"),
            ),
            (
                with(Phase::RolledBack, |it| {
                    it.revision = 1;
                    because(it);
                }),
                failed("went back to revision 1: not ready in time"),
            ),
            (
                with(Phase::Failed, because),
                failed("the rollout has failed: not ready in time"),
            ),
            (with(Phase::Deleting, |_| ()), failed("it is being deleted")),
        ] {
            assert_eq!(found, told);
        }
    }
}
