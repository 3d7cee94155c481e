//! What nodes have, and what services ask of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    name::{Name, ServiceKey},
    object::Spread,
    plan::node::NodeState,
    record::{
        Needs, Reserved, Service,
        cluster::{self, Capacity, NodeSession},
    },
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
    /// Since when it takes no more pods by a user's word, in milliseconds since the beginning of
    /// 1970.
    pub cordoned_ms: Option<u64>,
    /// The volumes that it keeps: app and name.
    pub volumes: BTreeSet<(Name, Name)>,
}

impl Node {
    /// A node of the cluster, with its session if it runs, and the volumes that it keeps.
    #[must_use]
    pub fn of(
        name: &Name,
        node: &cluster::Node,
        session: Option<&NodeSession>,
        volumes: BTreeSet<(Name, Name)>,
    ) -> Self {
        let ends = session.is_some_and(|session| session.ending);
        Self {
            name: name.clone(),
            labels: node.spec.labels.clone(),
            state: NodeState::of(
                session.is_some(),
                node.spec.cordoned_ms.is_some(),
                node.spec.draining || ends,
                // Whether there are any left makes no difference here.
                1,
            ),
            capacity: node.status.capacity,
            cordoned_ms: node.spec.cordoned_ms,
            volumes,
        }
    }
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
}

impl Demand {
    /// What a service asks of the nodes of pods that need this.
    #[must_use]
    pub fn of(service: &Service, needs: &Needs) -> Self {
        let placement = &service.spec.placement;
        Self {
            service: service.key.clone(),
            memory: placement.memory.map_or(needs.memory, |memory| memory.0),
            cpu_millis: needs.cpu_millis.into(),
            labels: placement.nodes.clone(),
            spread: placement.spread.clone(),
            volumes: needs.volumes.clone(),
        }
    }

    /// What each pod reserves.
    #[must_use]
    pub fn reserved(&self) -> Reserved {
        Reserved {
            memory: self.memory,
            cpu_millis: self.cpu_millis,
        }
    }
}
