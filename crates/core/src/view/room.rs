//! What nodes of a cluster have room for, and what users change of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a node has room for, and what its pods reserve of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeRoom {
    /// Pods that may run there at most.
    pub pods: u32,
    /// Pods that are to run there.
    pub placed: u32,
    /// Memory that pods may reserve, in bytes.
    pub memory_bytes: u64,
    /// Memory that they reserve, in bytes.
    pub reserved_bytes: u64,
    /// Its processors, in thousandths of a core.
    pub cpu_millis: u64,
    /// What pods reserve of them, in thousandths of a core. It may be more than there is.
    pub reserved_millis: u64,
}

/// What is to change about a node of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeChange {
    /// Whether it takes no more pods. With `false` it is not drained any more either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<bool>,
    /// Whether its pods are to run elsewhere: it takes no more then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// Labels that it is to have, or with `null` not to have any more. Others stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}
