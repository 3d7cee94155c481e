//! What to write for the verbs that change one service or job: scale, restart, run, undo, pause
//! and resume.

use crate::{
    object::Overlap,
    plan::job::{is_under_way, overlap},
    record::{Job, MAX_REPLICAS, Phase, Revision, Service, Template},
};

/// A service whose pods should run another revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Retarget {
    /// The service.
    pub service: Service,
    /// The revision, if it is new.
    pub revision: Option<Revision>,
    /// What its pods will be: to be admitted first.
    pub template: Template,
}

/// Why a verb cannot be done to a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerbError {
    /// It goes away.
    #[error("`{0}` is being deleted")]
    Deleting(String),
    /// More pods than a service can have.
    #[error("`{replicas}` pods are too many: a service has at most `{MAX_REPLICAS}`")]
    TooMany {
        /// How many were asked for.
        replicas: u32,
    },
    /// The autoscaler would take it back at once.
    #[error(
        "`{service}` has an autoscaler, which keeps between `{min}` and `{max}` pods: `{replicas}` \
         are out of these bounds, which `min` and `max` in `[service.{service}.autoscale]` change"
    )]
    Autoscaled {
        /// The service.
        service: String,
        /// How many were asked for.
        replicas: u32,
        /// The fewest.
        min: u32,
        /// The most.
        max: u32,
    },
    /// It has to be resumed first.
    #[error("`{0}` is paused: `sampan rollout resume {0}` first")]
    Paused(String),
    /// A run of the job has not ended.
    #[error("a run of `{0}` is under way: `sampan restart {0}` ends it and begins another")]
    UnderWay(String),
    /// There is nothing to do.
    #[error("`{0}` is already paused")]
    AlreadyPaused(String),
    /// There is nothing to do.
    #[error("`{0}` is not paused")]
    NotPaused(String),
    /// It has no revision but one.
    #[error("`{0}` has no earlier revision to go back to")]
    NoPrevious(String),
    /// That revision is not kept.
    #[error("`{service}` has no revision `{revision}`; there are {kept}")]
    NoRevision {
        /// The service.
        service: String,
        /// The revision.
        revision: u64,
        /// Those that there are.
        kept: String,
    },
    /// There is nothing to do.
    #[error("`{service}` is at revision `{revision}` already")]
    AlreadyThere {
        /// The service.
        service: String,
        /// The revision.
        revision: u64,
    },
}

fn alive(service: &Service) -> Result<String, VerbError> {
    let name = service.key.name.to_string();
    match service.spec.deleting {
        true => Err(VerbError::Deleting(name)),
        false => Ok(name),
    }
}

/// Another number of pods; `None` if it has as many.
///
/// A service with an autoscaler can be scaled within its bounds. The autoscaler goes on from there,
/// as in Kubernetes: what it does not need goes again within a second. Beyond the bounds it would take the number back at once: that is
/// refused, where Kubernetes lets it happen.
pub fn scale(service: &Service, replicas: u32) -> Result<Option<Service>, VerbError> {
    let name = alive(service)?;
    if replicas > MAX_REPLICAS {
        return Err(VerbError::TooMany { replicas });
    }
    if let Some(bounds) = &service.spec.autoscale
        && !(bounds.min..=bounds.max).contains(&replicas)
    {
        return Err(VerbError::Autoscaled {
            service: name,
            replicas,
            min: bounds.min,
            max: bounds.max,
        });
    }
    if service.spec.replicas == replicas {
        return Ok(None);
    }
    let mut scaled = service.clone();
    scaled.spec.replicas = replicas;
    scaled.generation += 1;
    Ok(Some(scaled))
}

/// New pods just like the present ones, by way of a rollout.
pub fn restart(
    service: &Service,
    revisions: &[Revision],
    wall_ms: u64,
) -> Result<Retarget, VerbError> {
    let name = alive(service)?;
    if service.spec.paused {
        return Err(VerbError::Paused(name));
    }
    let present = find(service, revisions, service.spec.revision)?;
    let mut template = present.template.clone();
    template.restarted += 1;
    let number = service.spec.latest + 1;
    let revision = Revision {
        number,
        hash: template.hash(),
        template: template.clone(),
        created_ms: wall_ms,
        cause: format!("restart of revision {}", present.number),
    };
    let mut service = retargeted(service, number);
    service.spec.kind = template.kind;
    service.spec.latest = number;
    Ok(Retarget {
        service,
        revision: Some(revision),
        template,
    })
}

/// A job that runs once more, from its first attempt. One that runs is abandoned, as with a change
/// of its spec.
pub fn again(job: &Job) -> Result<Job, VerbError> {
    if job.deleting {
        return Err(VerbError::Deleting(job.key.name.to_string()));
    }
    let mut anew = job.clone();
    anew.generation += 1;
    anew.asked.restart = anew.generation;
    Ok(anew)
}

/// A job that is to run now, beside what its schedule says. While a run is under way, its `overlap`
/// says what becomes of that; one that would be left out is refused.
pub fn run(job: &Job) -> Result<Job, VerbError> {
    let name = job.key.name.to_string();
    if job.deleting {
        return Err(VerbError::Deleting(name));
    }
    let is_observed = job.status.observed_generation == job.generation;
    let is_due = !is_observed && job.spec.schedule.is_none();
    let has_asked = job.asked.runs > job.status.runs.by_hand;
    let is_busy = is_due || has_asked || is_observed && is_under_way(&job.status);
    if is_busy && overlap(job) == Overlap::Skip {
        return Err(VerbError::UnderWay(name));
    }
    let mut asked = job.clone();
    asked.asked.runs += 1;
    Ok(asked)
}

/// Back to another revision: `to`, or the one before.
///
/// A paused service has to be resumed first, as in kubectl, unless it is paused because its rollout
/// has failed: to go back is then what to do, and it ends the pause.
pub fn undo(
    service: &Service,
    revisions: &[Revision],
    to: Option<u64>,
) -> Result<Retarget, VerbError> {
    let name = alive(service)?;
    if service.spec.paused && !is_held(service) {
        return Err(VerbError::Paused(name));
    }
    let number = match to.or(service.spec.previous) {
        Some(number) => number,
        None => return Err(VerbError::NoPrevious(name)),
    };
    let found = find(service, revisions, number)?;
    if number == service.spec.revision {
        return Err(VerbError::AlreadyThere {
            service: name,
            revision: number,
        });
    }
    let mut service = retargeted(service, number);
    service.spec.kind = found.template.kind;
    service.spec.paused = false;
    Ok(Retarget {
        service,
        revision: None,
        template: found.template.clone(),
    })
}

/// Pods of another revision are neither made nor stopped from now on.
pub fn pause(service: &Service) -> Result<Service, VerbError> {
    let name = alive(service)?;
    match service.spec.paused {
        true => Err(VerbError::AlreadyPaused(name)),
        false => Ok(paused(service, true)),
    }
}

/// The end of a pause.
pub fn resume(service: &Service) -> Result<Service, VerbError> {
    let name = alive(service)?;
    match service.spec.paused {
        true => Ok(paused(service, false)),
        false => Err(VerbError::NotPaused(name)),
    }
}

fn paused(service: &Service, paused: bool) -> Service {
    let mut changed = service.clone();
    changed.spec.paused = paused;
    changed.generation += 1;
    changed
}

fn retargeted(service: &Service, number: u64) -> Service {
    let mut changed = service.clone();
    changed.spec.previous = Some(service.spec.revision);
    changed.spec.revision = number;
    if changed.spec.autoscale.is_some() {
        // One at zero shows whether the revision works, as after an apply.
        changed.spec.replicas = changed.spec.replicas.max(1);
    }
    changed.generation += 1;
    changed.status.refused = None;
    changed
}

fn find<'a>(
    service: &Service,
    revisions: &'a [Revision],
    number: u64,
) -> Result<&'a Revision, VerbError> {
    let found = revisions.iter().find(|it| it.number == number);
    found.ok_or_else(|| {
        let kept = revisions.iter().map(|it| format!("`{}`", it.number));
        let kept: Vec<_> = kept.collect();
        VerbError::NoRevision {
            service: service.key.name.to_string(),
            revision: number,
            kept: match kept.is_empty() {
                true => "none".to_owned(),
                false => kept.join(", "),
            },
        }
    })
}

/// Whether a service is paused because its rollout has failed.
pub(super) fn is_held(service: &Service) -> bool {
    match &service.status.phase {
        Phase::Paused { failure } => failure.is_some(),
        Phase::Progressing
        | Phase::Waiting { .. }
        | Phase::Complete
        | Phase::RollingBack { .. }
        | Phase::RolledBack { .. }
        | Phase::Failed { .. } => false,
    }
}
