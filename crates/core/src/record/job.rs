//! A job as the store holds it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Boot, Component};
use crate::{
    name::{Name, ServiceKey},
    object::{Condition, Grants, Limits, Schedule, is_usual_history, usual_history},
    quantity::optional_duration_text,
    schedule::Timetable,
    time::Timestamp,
};

/// A component to run to completion. Without a schedule it is run again only when its spec changes,
/// when it is restarted, or by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The app it belongs to, and its name.
    pub key: ServiceKey,
    /// Raised by each change of the spec and each restart.
    pub generation: u64,
    /// What is wanted.
    pub spec: JobSpec,
    /// What has come of it.
    pub status: JobStatus,
    /// It is being deleted.
    pub deleting: bool,
    /// What users have asked of it beside its spec.
    #[serde(default, skip_serializing_if = "Asked::is_nothing")]
    pub asked: Asked,
}

impl JobSpec {
    /// When it is due by its schedule after `seen_ms`, both in milliseconds since the beginning of 1970.
    pub fn next_due_ms(&self, seen_ms: u64) -> Option<u64> {
        let schedule = self.schedule.as_ref()?;
        Timetable::new(&schedule.expression, &schedule.timezone)?.next_after(seen_ms)
    }
}

/// What users have asked of a job beside its spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Runs by hand.
    pub runs: u64,
    /// The generation that came of the last restart.
    pub restart: u64,
}

impl Asked {
    /// Whether nothing was ever asked.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a job should do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What it runs.
    pub component: Component,
    /// Arguments after the program name.
    pub args: Vec<String>,
    /// How often a failed run is tried again.
    pub retries: u32,
    /// When it runs by itself. Without one it runs once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How long one attempt may take.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration_text"
    )]
    pub timeout: Option<Duration>,
    /// How many of its last runs are kept.
    #[serde(default = "usual_history", skip_serializing_if = "is_usual_history")]
    pub history: u32,
    /// What must have happened before it starts.
    pub depends_on: BTreeMap<Name, Condition>,
    /// What the guest sees and may do. Host directories are absolute.
    pub grants: Grants,
    /// What the guest may use.
    pub limits: Limits,
}

/// What has come of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The generation that this is about.
    pub observed_generation: u64,
    /// The run of the node in which this was so: of the one that runs the attempt, else of the one
    /// that plans.
    pub boot: Boot,
    /// The node that runs the attempt, or ran the last one, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// How far it is.
    pub phase: JobPhase,
    /// Attempts so far of the present run, or the last.
    pub attempts: u32,
    /// Its runs.
    #[serde(default, skip_serializing_if = "Runs::is_none")]
    pub runs: Runs,
}

/// The runs of a job, in all its generations. A run is one attempt, and the retries after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// Runs so far.
    pub count: u64,
    /// The run that is under way, or waits for what the job depends on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<PresentRun>,
    /// Why one more is to begin when the present one has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Why>,
    /// Runs by hand that have been seen to.
    #[serde(default)]
    pub by_hand: u64,
    /// The time up to which due times have been seen to, in milliseconds since the beginning of 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_ms: Option<u64>,
    /// The last runs that have ended, the latest last.
    #[serde(default)]
    pub ended: Vec<Run>,
}

impl Runs {
    /// Whether there was none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A run that has not ended. Times are in milliseconds since the beginning of 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentRun {
    /// Its number: the first is 1.
    pub number: u64,
    /// What brought it about.
    pub why: Why,
    /// When its first attempt began, or it began to wait.
    pub started_ms: u64,
}

/// A run that has ended. Times are in milliseconds since the beginning of 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its number: the first is 1.
    pub number: u64,
    /// What brought it about.
    pub why: Why,
    /// When its first attempt began.
    pub started_ms: u64,
    /// When its last attempt ended.
    pub ended_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// What brings a run about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The job is new, or its spec has changed.
    Applied,
    /// It is due by its schedule.
    Schedule,
    /// A user has asked for a run.
    Hand,
    /// A user has restarted it.
    Restart,
}

impl Why {
    /// The same in words: a run is …
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "by its spec",
            Self::Schedule => "by schedule",
            Self::Hand => "by hand",
            Self::Restart => "by restart",
        }
    }
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum JobPhase {
    /// It is to run, and waits for what it depends on.
    #[default]
    Pending,
    /// It is to run, or runs.
    Running,
    /// It failed and is tried again.
    BackOff {
        /// When, on the clock of the node's run.
        until: Timestamp,
        /// Why the last attempt failed.
        reason: String,
    },
    /// It ended well.
    Completed,
    /// It failed for good.
    Failed {
        /// Why the last attempt failed.
        reason: String,
    },
    /// It waits until it is due by its schedule.
    Scheduled,
}
