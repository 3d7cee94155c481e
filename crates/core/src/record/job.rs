//! A job as the store holds it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Boot, Component};
use crate::{
    name::{Name, ServiceKey},
    object::{Condition, Grants, Limits},
    time::Timestamp,
};

/// A component to run to completion. It is run again only when its spec changes, or when it is
/// restarted.
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
    /// The run of the node in which this was so.
    pub boot: Boot,
    /// How far it is.
    pub phase: JobPhase,
    /// Attempts so far.
    pub attempts: u32,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum JobPhase {
    /// It waits for what it depends on.
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
}
