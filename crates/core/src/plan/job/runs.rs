//! The runs of a job: what brings one about, what becomes of one that overlaps another, and what is
//! kept of those that have ended.
//!
//! Due times are on the clock on the wall. All that have passed since they were looked at last, as
//! while the node was down, come to one run. The time up to which they have been seen to is stored,
//! so that a clock that is set back makes no run a second one.

use std::time::Duration;

use crate::{
    event::Reason,
    object::Overlap,
    record::{Job, JobPhase, JobStatus, Moment, PresentRun, Run, Why},
    time::Timestamp,
};

/// A clock that is further back than this from what was seen to was wrong then: due times are counted
/// from now on, or the job would not run until the clock has caught up.
const MAX_STEP_BACK: Duration = Duration::from_secs(24 * 3600);
/// The longest reason of a failure that is kept, in characters.
const MAX_FAILURE: usize = 500;

/// What has become of what was due.
#[derive(Default)]
pub(super) struct Due {
    /// A run has begun.
    pub(super) has_begun: bool,
    /// The number of the run whose place it takes.
    pub(super) replaced: Option<u64>,
    /// What there is to tell of a run that has not begun.
    pub(super) told: Option<(Reason, String)>,
    /// When the job is due next, on the clock of the node's run.
    pub(super) next: Option<Timestamp>,
}

/// Begins anew, in a new generation or because what the job waited for has changed.
pub(super) fn anew(job: &Job, status: &mut JobStatus, moment: Moment) {
    if status.attempts > 0 {
        let reason = "the job was changed or restarted meanwhile".to_owned();
        close(job, status, Err(reason), moment);
    }
    let mut runs = std::mem::take(&mut status.runs);
    let why = match job.asked.restart == job.generation {
        true => Why::Restart,
        false if job.asked.runs > runs.by_hand => Why::Hand,
        false => Why::Applied,
    };
    runs.present = None;
    runs.queued = None;
    runs.by_hand = job.asked.runs;
    runs.seen_ms = job.spec.schedule.as_ref().map(|_| moment.wall_ms);
    *status = JobStatus {
        observed_generation: job.generation,
        boot: moment.boot,
        node: status.node.take(),
        phase: JobPhase::Scheduled,
        attempts: 0,
        runs,
    };
    if job.spec.schedule.is_none() || why != Why::Applied {
        begin(status, why, moment);
    }
}

/// Begins what is due by the schedule, was asked for by hand, or has waited for the run before it.
pub(super) fn due(job: &Job, status: &mut JobStatus, moment: Moment) -> Due {
    let mut due = Due::default();
    if !is_under_way(status)
        && let Some(why) = status.runs.queued.take()
    {
        begin(status, why, moment);
        due.has_begun = true;
    }
    let (is_due, next_ms) = see(job, status, moment);
    due.next = next_ms.map(|next_ms| {
        let wait_ms = next_ms.saturating_sub(moment.wall_ms);
        moment.now + Duration::from_millis(wait_ms)
    });
    let mut why = is_due.then_some(Why::Schedule);
    if job.asked.runs > status.runs.by_hand {
        status.runs.by_hand = job.asked.runs;
        why = Some(Why::Hand);
    }
    let Some(why) = why else {
        return due;
    };
    if !is_under_way(status) {
        begin(status, why, moment);
        due.has_begun = true;
        return due;
    }
    let words = why.as_str();
    let number = status.runs.count;
    match overlap(job) {
        Overlap::Skip => {
            let message = format!("the run {words} is left out: run {number} is under way");
            due.told = Some((Reason::JobSkipped, message));
        }
        Overlap::Queue if status.runs.queued.is_some() => {
            let message = format!(
                "the run {words} is left out: run {number} is under way, and another one waits for \
                 its end"
            );
            due.told = Some((Reason::JobSkipped, message));
        }
        Overlap::Queue => {
            status.runs.queued = Some(why);
            let message = format!("the run {words} begins when run {number} has ended");
            due.told = Some((Reason::JobQueued, message));
        }
        Overlap::Replace => {
            let reason = format!("run {} took its place", number.saturating_add(1));
            close(job, status, Err(reason), moment);
            begin(status, why, moment);
            (due.has_begun, due.replaced) = (true, Some(number));
        }
    }
    due
}

/// What becomes of a run of a job while another one is under way.
pub(in crate::plan) fn overlap(job: &Job) -> Overlap {
    let schedule = job.spec.schedule.as_ref();
    schedule.map_or(Overlap::Skip, |schedule| schedule.overlap)
}

/// Whether a run has begun and not ended.
pub(in crate::plan) fn is_under_way(status: &JobStatus) -> bool {
    match status.phase {
        JobPhase::Pending | JobPhase::Running | JobPhase::BackOff { .. } => true,
        JobPhase::Completed | JobPhase::Failed { .. } | JobPhase::Scheduled => false,
    }
}

/// Whether a due time has passed that was not seen to, which it is now; and the next one.
fn see(job: &Job, status: &mut JobStatus, moment: Moment) -> (bool, Option<u64>) {
    if job.spec.schedule.is_none() {
        return (false, None);
    }
    let wall_ms = moment.wall_ms;
    let back_ms = u64::try_from(MAX_STEP_BACK.as_millis()).unwrap_or(u64::MAX);
    let is_known = |seen_ms: &u64| *seen_ms <= wall_ms.saturating_add(back_ms);
    let seen_ms = status.runs.seen_ms.filter(is_known).unwrap_or(wall_ms);
    status.runs.seen_ms = Some(seen_ms);
    let next_ms = job.spec.next_due_ms(seen_ms);
    if next_ms.is_none_or(|next_ms| next_ms > wall_ms) {
        return (false, next_ms);
    }
    status.runs.seen_ms = Some(wall_ms);
    (true, job.spec.next_due_ms(wall_ms))
}

fn begin(status: &mut JobStatus, why: Why, moment: Moment) {
    status.phase = JobPhase::Pending;
    status.attempts = 0;
    status.runs.count = status.runs.count.saturating_add(1);
    status.runs.present = Some(PresentRun {
        number: status.runs.count,
        why,
        started_ms: moment.wall_ms,
    });
}

/// Notes that the first attempt of the present run begins.
pub(super) fn start(status: &mut JobStatus, moment: Moment) {
    if let Some(begun) = &mut status.runs.present {
        begun.started_ms = moment.wall_ms;
    }
}

/// That the first attempt has begun, in words.
pub(super) fn started(job: &Job, status: &JobStatus, replaced: Option<u64>) -> String {
    let usual = "attempt 1".to_owned();
    let Some(begun) = status.runs.present else {
        return usual;
    };
    if job.spec.schedule.is_none() && matches!(begun.why, Why::Applied | Why::Restart) {
        return usual;
    }
    let place = replaced.map(|number| format!(" in place of run {number}"));
    let (number, why) = (begun.number, begun.why.as_str());
    format!("run {number} {why}{}, attempt 1", place.unwrap_or_default())
}

/// Ends the present run, which failed because of the error.
pub(super) fn end(job: &Job, status: &mut JobStatus, result: Result<(), String>, moment: Moment) {
    close(job, status, result.clone(), moment);
    status.phase = match (&job.spec.schedule, result) {
        (Some(_), Ok(()) | Err(_)) => JobPhase::Scheduled,
        (None, Ok(())) => JobPhase::Completed,
        (None, Err(reason)) => JobPhase::Failed { reason },
    };
}

/// Keeps what came of the present run.
fn close(job: &Job, status: &mut JobStatus, result: Result<(), String>, moment: Moment) {
    let attempts = status.attempts;
    let runs = &mut status.runs;
    let Some(begun) = runs.present.take() else {
        return;
    };
    let failure = result.err();
    runs.ended.push(Run {
        number: begun.number,
        why: begun.why,
        started_ms: begun.started_ms,
        ended_ms: moment.wall_ms.max(begun.started_ms),
        attempts,
        failure: failure.map(|reason| reason.chars().take(MAX_FAILURE).collect()),
    });
    let kept = usize::try_from(job.spec.history).unwrap_or(usize::MAX);
    let surplus = runs.ended.len().saturating_sub(kept);
    runs.ended.drain(..surplus);
}
