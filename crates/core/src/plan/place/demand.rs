//! What nodes have, and what services ask of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    name::{Name, ServiceKey},
    plan::node::NodeState,
};

/// A node, as placing sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// What it is called by beside its name.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes pods.
    pub state: NodeState,
    /// What it has room for.
    pub capacity: Capacity,
    /// The volumes that it keeps: app and name.
    pub volumes: BTreeSet<(Name, Name)>,
    /// Digests of the components whose code it has.
    pub code: BTreeSet<String>,
}

/// What a node has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Pods.
    pub pods: u32,
    /// Memory of pods, in bytes.
    pub memory: u64,
    /// Thousandths of a core.
    pub cpu_millis: u64,
}

/// What a service asks of the nodes of its pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// The service.
    pub service: ServiceKey,
    /// Memory that each pod reserves, in bytes.
    pub memory: u64,
    /// CPU that each pod reserves, in thousandths of a core.
    pub cpu_millis: u64,
    /// Labels that a node must have.
    pub labels: BTreeMap<String, String>,
    /// Over what pods are spread.
    pub spread: Spread,
    /// Volumes that pods write to: they are on one node, and so are the pods.
    pub volumes: BTreeSet<Name>,
    /// The component's digest.
    pub digest: String,
}

/// Over what the pods of a service are spread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// Over nodes.
    #[default]
    Node,
    /// Over the values of this label, and then over nodes. Nodes without the label count as those
    /// of one more value.
    Label(String),
}
