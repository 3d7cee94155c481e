//! A service as the store holds it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::Boot;
use crate::{
    name::{Name, ServiceKey},
    object::{self, Autoscale, Rollout, Route},
    quantity::duration_text,
    time::Timestamp,
};

/// A long-running HTTP workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The app it belongs to, and its name.
    pub key: ServiceKey,
    /// Raised by each change of the spec.
    pub generation: u64,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What has come of it.
    pub status: ServiceStatus,
}

/// What is wanted of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The revision that its pods should run.
    pub revision: u64,
    /// The one they should run before: `undo` goes back to it.
    pub previous: Option<u64>,
    /// The highest number that was given to a revision.
    pub latest: u64,
    /// How many pods.
    pub replicas: u32,
    /// Pods of another revision are neither made nor stopped.
    pub paused: bool,
    /// It is being deleted: its pods go, then it.
    pub deleting: bool,
    /// How a revision replaces another.
    pub rollout: Rollout,
    /// Which requests reach it from outside.
    pub routes: Vec<Route>,
    /// What must have happened before pods of a new revision are made.
    pub depends_on: BTreeMap<Name, object::Condition>,
    /// Requests that may wait for a pod.
    pub queue: u32,
    /// How long one of them may wait.
    #[serde(with = "duration_text")]
    pub queue_timeout: Duration,
    /// Largest request body, in bytes.
    pub body_bytes: u64,
    /// Whether responses carry `Sampan-Revision` and `Sampan-Pod`.
    pub debug_headers: bool,
    /// Autoscaler, when the service has one.
    pub autoscale: Option<Autoscale>,
}

/// What was observed of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The generation that this is about.
    pub observed_generation: u64,
    /// The revision that `phase` is about.
    pub target: u64,
    /// The last revision whose rollout was completed: what a rollback restores.
    pub last_good: Option<u64>,
    /// The number of replicas that the pods were last spread for.
    pub scaled_to: u32,
    /// How far the rollout is.
    pub phase: Phase,
    /// How it has got on.
    pub progress: Progress,
    /// Pods by how they are.
    pub counts: Counts,
    /// What holds, and since when.
    pub conditions: Vec<Condition>,
    /// What keeps a pod from serving that should, said of the first such pod. It stays until as
    /// many pods as wanted are ready, so that a pod that is tried again and again does not hide it.
    #[serde(default)]
    pub trouble: Option<String>,
    /// The last change that was refused before anything was touched, until another is accepted.
    pub refused: Option<Refusal>,
    /// How the autoscaler has changed the number of pods, the latest last: at most
    /// [`MAX_SCALINGS`].
    #[serde(default)]
    pub scalings: Vec<Scaling>,
}

impl Service {
    /// Whether as many pods are ready as are wanted.
    pub fn is_whole(&self) -> bool {
        self.status.counts.ready >= self.spec.replicas.min(MAX_REPLICAS)
    }
}

/// The most replicas of a service: as many as a spec can ask for. What the store holds beyond that
/// makes no more pods.
pub const MAX_REPLICAS: u32 = 1000;

/// Decisions of the autoscaler that are kept of a service.
pub const MAX_SCALINGS: usize = 10;

/// A decision of the autoscaler that changed the number of pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// From how many to how many, and why, with the numbers.
    pub message: String,
    /// When: milliseconds since the beginning of 1970.
    pub at_ms: u64,
}

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// Pods of the wanted revision take the place of others.
    #[default]
    Progressing,
    /// Pods of the wanted revision are made once this has happened.
    Waiting {
        /// For what, or because of what, in a few words that begin so.
        on: String,
    },
    /// All pods are of the wanted revision, and were available.
    Complete,
    /// A user paused it, or it has failed and is held.
    Paused {
        /// Why it has failed, if it has.
        failure: Option<String>,
    },
    /// It has failed, and pods of the last good revision take over again.
    RollingBack {
        /// The revision that failed.
        from: u64,
        /// The reason, as a sentence for people.
        reason: String,
    },
    /// It has failed, and the last good revision runs again.
    RolledBack {
        /// The revision that failed.
        from: u64,
        /// The reason, as a sentence for people.
        reason: String,
    },
    /// It has failed, and there is nothing to go back to. Its pods are tried further.
    Failed {
        /// The reason, as a sentence for people.
        reason: String,
    },
}

/// How a rollout has got on: marks that only get better, so that pods which come and go are no
/// progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The run of the node whose clock `since` is on.
    pub boot: Boot,
    /// When the last mark was made.
    pub since: Timestamp,
    /// The most pods of the wanted revision that were available at once.
    pub most_available: u32,
    /// The fewest pods of other revisions that were left, with those that drain.
    pub fewest_old: u32,
}

/// Pods by how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All that there are, with those that drain.
    pub alive: u32,
    /// Of the wanted revision, without those that drain.
    pub updated: u32,
    /// Ready, of any revision.
    pub ready: u32,
    /// Ready for `min_ready`, of any revision.
    pub available: u32,
    /// Ready for `min_ready`, of the wanted revision.
    pub updated_available: u32,
}

/// Something that holds of a service or does not, in the manner of Kubernetes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// What the condition says of the service.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// When it last began or ceased to hold: milliseconds since the beginning of 1970.
    pub since_ms: u64,
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionKind {
    /// Enough pods are available: `replicas` less `max_unavailable`.
    Available,
    /// The rollout gets on, or is complete.
    Progressing,
}

/// A change that was refused before anything was touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason, as a sentence for people.
    pub reason: String,
    /// When: milliseconds since the beginning of 1970.
    pub at_ms: u64,
}
