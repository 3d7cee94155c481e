//! Jobs: when to run one, and when to stop trying.
//!
//! ```text
//! Pending ──gate open──▶ Running ──ended well──▶ Completed
//!    │                    │   ▲
//!    │ never opens  failed│   │ time is up
//!    ▼                    ▼   │
//! Failed ◀─no retry left─ BackOff
//! ```
//!
//! A change of the spec, and a restart, leads to `Pending` from everywhere: an attempt of the old
//! generation is abandoned.
//! So does a change of what has failed before the job could start.
//!
//! A job with a schedule is `Scheduled` where another one has `Completed` or `Failed`, and before its
//! first run. When it is due, or a user asks for a run, it is `Pending` again. `plan::job::runs` decides
//! that.

mod runs;

use std::time::Duration;

pub(in crate::plan) use runs::{is_under_way, overlap};

use super::gate::Gate;
use crate::{
    event::Reason,
    name::Name,
    record::{Boot, Job, JobPhase, JobStatus, Moment},
    time::Timestamp,
};

/// The wait after the first attempt that failed. It doubles with each further one.
pub const FIRST_DELAY: Duration = Duration::from_millis(200);
/// The longest wait between two attempts.
pub const MAX_DELAY: Duration = Duration::from_secs(10);

/// What a job is now, and when to look again.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct JobPlan {
    /// What it is. In `Running` an attempt is to be under way, and only there.
    pub status: JobStatus,
    /// What has happened, if anything has: in one word, and in a sentence.
    pub announce: Option<(Reason, String)>,
    /// When to plan again at the latest. Always after `now`.
    pub wake_at: Option<Timestamp>,
}

/// Where the attempts of a job run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// The node of the next attempt, where there are several.
    pub node: Option<Name>,
    /// The run of the node of the next attempt.
    pub boot: Boot,
    /// Whether the run goes on that the status is of.
    pub goes_on: bool,
}

impl Runner {
    /// That of a node that is alone: it runs what it plans.
    pub fn alone(job: &Job, moment: Moment) -> Self {
        Self {
            node: None,
            boot: moment.boot,
            goes_on: job.status.boot == moment.boot,
        }
    }
}

/// Plans for `job`. One that is being deleted stays as it is.
pub fn plan(job: &Job, gate: &Gate, runner: &Runner, moment: Moment) -> JobPlan {
    let mut status = job.status.clone();
    let (announce, due) = match job.deleting {
        true => (None, None),
        false => advance(job, &mut status, gate, runner, moment),
    };
    let retry = match status.phase {
        JobPhase::BackOff { until, .. } => Some(until),
        JobPhase::Pending
        | JobPhase::Running
        | JobPhase::Completed
        | JobPhase::Failed { .. }
        | JobPhase::Scheduled => None,
    };
    let times = [retry, due];
    let times = times.into_iter().flatten().filter(|&at| at > moment.now);
    let wake_at = times.min().filter(|_| !job.deleting);
    JobPlan {
        status,
        announce,
        wake_at,
    }
}

/// Brings `status` up to date, and says what has happened, if anything has, and when it is due next.
fn advance(
    job: &Job,
    status: &mut JobStatus,
    gate: &Gate,
    runner: &Runner,
    moment: Moment,
) -> (Option<(Reason, String)>, Option<Timestamp>) {
    let changed = status.observed_generation != job.generation;
    let mut new = changed || has_hope(status, gate);
    if new {
        runs::anew(job, status, moment);
    }
    let due = runs::due(job, status, moment);
    new |= due.has_begun;
    let advanced = match (&status.phase, gate) {
        (JobPhase::Pending, Gate::Open) => {
            *status = running(status, 1, runner);
            runs::start(status, moment);
            let message = runs::started(job, status, due.replaced);
            Some((Reason::JobStarted, message))
        }
        (JobPhase::Pending, Gate::Never(why)) => {
            let reason = why.clone();
            runs::end(job, status, Err(reason.clone()), moment);
            status.boot = moment.boot;
            Some((Reason::JobFailed, reason))
        }
        (JobPhase::Pending, Gate::Waiting(on)) => {
            new.then(|| (Reason::JobWaiting, format!("waits {on}")))
        }
        (JobPhase::Running, Gate::Open | Gate::Waiting(_) | Gate::Never(_)) if !runner.goes_on => {
            // That the node went down is not the job's failure.
            let attempt = status.attempts;
            *status = running(status, attempt, runner);
            let message = format!("attempt {attempt} again, which the node's end cut short");
            Some((Reason::JobResumed, message))
        }
        (JobPhase::BackOff { reason, .. }, Gate::Open | Gate::Waiting(_) | Gate::Never(_))
            if status.boot != moment.boot && runner.goes_on =>
        {
            // It failed on another node, whose clock means nothing here.
            let (reason, until) = (reason.clone(), moment.now + delay(status.attempts));
            status.phase = JobPhase::BackOff { until, reason };
            status.boot = moment.boot;
            None
        }
        (JobPhase::BackOff { until, reason }, Gate::Open | Gate::Waiting(_) | Gate::Never(_))
            if status.boot != moment.boot || *until <= moment.now =>
        {
            let attempt = status.attempts.saturating_add(1);
            let message = format!("attempt {attempt} after: {reason}");
            *status = running(status, attempt, runner);
            Some((Reason::JobRetried, message))
        }
        (
            JobPhase::Running
            | JobPhase::BackOff { .. }
            | JobPhase::Completed
            | JobPhase::Failed { .. }
            | JobPhase::Scheduled,
            Gate::Open | Gate::Waiting(_) | Gate::Never(_),
        ) => None,
    };
    (advanced.or(due.told), due.next)
}

/// Whether it failed without an attempt, since what it depends on had failed, and that has changed.
fn has_hope(status: &JobStatus, gate: &Gate) -> bool {
    let changed = match gate {
        Gate::Open | Gate::Waiting(_) => true,
        Gate::Never(_) => false,
    };
    changed && status.attempts == 0 && matches!(status.phase, JobPhase::Failed { .. })
}

/// A job that runs its attempt of this number.
fn running(status: &JobStatus, attempts: u32, runner: &Runner) -> JobStatus {
    JobStatus {
        observed_generation: status.observed_generation,
        boot: runner.boot,
        node: runner.node.clone(),
        phase: JobPhase::Running,
        attempts,
        runs: status.runs.clone(),
    }
}

/// What `job` is after its present attempt has ended so. Only a job that runs, in this generation
/// and this run of the node, can have an attempt that counts; any other stays as it is.
pub fn after(job: &Job, result: Result<(), String>, moment: Moment) -> JobStatus {
    let mut status = job.status.clone();
    let counts = status.phase == JobPhase::Running
        && status.boot == moment.boot
        && status.observed_generation == job.generation;
    if !counts {
        return status;
    }
    match result {
        Err(reason) if status.attempts <= job.spec.retries => {
            let until = moment.now + delay(status.attempts);
            status.phase = JobPhase::BackOff { until, reason };
        }
        result => runs::end(job, &mut status, result, moment),
    }
    status
}

/// How long to wait after so many attempts.
fn delay(attempts: u32) -> Duration {
    let factor = 2_u32.checked_pow(attempts.saturating_sub(1));
    let delay = factor.and_then(|factor| FIRST_DELAY.checked_mul(factor));
    delay.map_or(MAX_DELAY, |delay| delay.min(MAX_DELAY))
}

#[cfg(test)]
mod tests;
