//! Objects as the store holds them: what is wanted, and what has come of it.
//!
//! Each has a key below a prefix of its kind, and is written as JSON. What a user wants is in a
//! `spec`, what was observed in a `status`. A change of the spec raises `generation`;
//! `observed_generation` is the last generation that the component which acts on it has seen.
//!
//! **A record outlives the version that wrote it**, so what is stored may only grow. That holds for
//! these types and for those of [`crate::object`] that are parts of them.
//!
//! - A new field has `#[serde(default, skip_serializing_if = …)]`, and the default means what was so
//!   before there was the field. Without `default` a record of an earlier version cannot be read: its
//!   object counts as not there, and its pods go. Without `skip_serializing_if` the JSON of every
//!   [`Template`] changes, and with it the hash: the next apply replaces all pods of all services.
//!   (An `Option` needs no `default`; serde takes a missing one for `None`.)
//! - A field or variant is never renamed, removed or given another type, and the fields of what is
//!   part of a `Template` keep their order. A new variant is read by no earlier version.
//! - `tests/it/stored.json` has records as earlier versions wrote them. Its lines are never changed:
//!   for what is new a line is added.

pub mod cluster;
mod job;
mod key;
mod pod;
mod revision;
mod secret;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

pub use job::{Asked, Job, JobPhase, JobSpec, JobStatus, PresentRun, Run, Runs, Why};
pub use key::{Key, Kind};
pub use pod::{Pod, PodPhase, PodStatus, Reserved};
pub use revision::{Component, Needs, Revision, Template, key_value_stores};
pub use secret::Secret;
pub use service::{
    Begun, Condition, ConditionKind, Counts, MAX_REPLICAS, MAX_SCALINGS, Phase, Progress, Refusal,
    RolloutState, Scaling, Service, ServiceSpec, ServiceStatus,
};

use crate::{name::Name, object::Volume, time::Timestamp};

/// One run of a node's process. What was observed in another run holds no more: its pods are gone,
/// and its times counted from another moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Boot(pub u64);

/// The nodes that run, and which run of each it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boots(BTreeMap<Name, Boot>);

impl Boots {
    /// The same with this run of a node.
    #[must_use]
    pub fn and(mut self, (node, boot): (Name, Boot)) -> Self {
        self.0.insert(node, boot);
        self
    }

    /// The run of this node, if the node runs.
    pub fn of(&self, node: &Name) -> Option<Boot> {
        self.0.get(node).copied()
    }
}

impl FromIterator<(Name, Boot)> for Boots {
    fn from_iter<T: IntoIterator<Item = (Name, Boot)>>(nodes: T) -> Self {
        Self(nodes.into_iter().collect())
    }
}

/// What time it is, for a planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The run of the planner's own node.
    pub boot: Boot,
    /// On the run's own clock, which only goes forward.
    pub now: Timestamp,
    /// On the clock on the wall, for people: milliseconds since the beginning of 1970.
    pub wall_ms: u64,
}

/// An app: the names that belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Its name.
    pub name: Name,
    /// Raised by each change of what it consists of.
    pub generation: u64,
    /// Where relative paths of its spec start from, for people.
    pub base: PathBuf,
    /// Its services.
    pub services: BTreeSet<Name>,
    /// Its jobs.
    pub jobs: BTreeSet<Name>,
    /// Its volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<Name, Volume>,
    /// It is being deleted, with all that belongs to it.
    pub deleting: bool,
    /// When it was applied last, in milliseconds since the beginning of 1970.
    pub applied_ms: u64,
}
