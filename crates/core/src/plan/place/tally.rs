//! What is reserved on nodes, counted as pods come and go.

use std::collections::{BTreeMap, BTreeSet};

use super::demand::Demand;
use crate::{
    name::{Name, PodName, ServiceKey},
    record::{self, cluster::Capacity},
};

/// What a pod takes of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The pod.
    pub pod: PodName,
    /// The node.
    pub node: Name,
    /// Memory in bytes.
    pub memory: u64,
    /// Thousandths of a core.
    pub cpu_millis: u64,
}

impl Reserved {
    /// What a pod of this service takes.
    pub fn new(pod: &PodName, node: &Name, demand: &Demand) -> Self {
        Self {
            pod: pod.clone(),
            node: node.clone(),
            memory: demand.memory,
            cpu_millis: demand.cpu_millis,
        }
    }
}

/// What is reserved on all nodes. It is kept as pods come and go, and not counted anew for each plan.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pods: BTreeMap<PodName, Reserved>,
    nodes: BTreeMap<Name, Capacity>,
    services: BTreeMap<ServiceKey, BTreeMap<Name, u32>>,
    apps: BTreeMap<Name, BTreeMap<Name, u32>>,
    /// Nodes of volumes, by app and name, that pods were placed with: their records may not say so
    /// yet.
    volumes: BTreeMap<(Name, Name), Name>,
}

impl Tally {
    /// Counts a pod in. One that was counted is counted as it is now.
    pub fn add(&mut self, reserved: &Reserved) {
        self.remove(&reserved.pod);
        let (service, node) = (reserved.pod.service(), &reserved.node);
        let used = self.nodes.entry(node.clone()).or_default();
        used.pods += 1;
        used.memory = used.memory.saturating_add(reserved.memory);
        used.cpu_millis = used.cpu_millis.saturating_add(reserved.cpu_millis);
        increment(self.services.entry(service.clone()).or_default(), node);
        increment(self.apps.entry(service.app.clone()).or_default(), node);
        self.pods.insert(reserved.pod.clone(), reserved.clone());
    }

    /// Counts a pod out.
    pub fn remove(&mut self, pod: &PodName) {
        let Some(gone) = self.pods.remove(pod) else {
            return;
        };
        if let Some(used) = self.nodes.get_mut(&gone.node) {
            used.pods -= 1;
            used.memory = used.memory.saturating_sub(gone.memory);
            used.cpu_millis = used.cpu_millis.saturating_sub(gone.cpu_millis);
        }
        let service = pod.service();
        decrement(&mut self.services, service, &gone.node);
        decrement(&mut self.apps, &service.app, &gone.node);
    }

    /// Counts in what this pod of the store reserves. One without a node reserves nothing.
    pub fn take(&mut self, pod: &record::Pod) {
        let name = pod.name();
        match &pod.node {
            Some(node) => self.add(&Reserved {
                pod: name,
                node: node.clone(),
                memory: pod.reserved.memory,
                cpu_millis: pod.reserved.cpu_millis,
            }),
            None => self.remove(&name),
        }
    }

    /// Notes that volumes are on a node from now on.
    pub(super) fn keep(&mut self, app: &Name, volumes: &BTreeSet<Name>, node: &Name) {
        for volume in volumes {
            let key = (app.clone(), volume.clone());
            self.volumes.insert(key, node.clone());
        }
    }

    /// The node of a volume that pods were placed with.
    pub(super) fn keeper(&self, app: &Name, volume: &Name) -> Option<&Name> {
        self.volumes.get(&(app.clone(), volume.clone()))
    }

    /// Forgets the nodes of volumes that pods were placed with, once records of nodes say them.
    pub fn forget_volumes(&mut self) {
        self.volumes.clear();
    }

    /// What is reserved on a node.
    pub fn of_node(&self, node: &Name) -> Capacity {
        self.nodes.get(node).copied().unwrap_or_default()
    }

    /// The node of a pod that was counted in.
    pub fn node_of(&self, pod: &PodName) -> Option<&Name> {
        self.pods.get(pod).map(|reserved| &reserved.node)
    }

    /// The pods that were counted in, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &PodName> {
        self.pods.keys()
    }

    /// Pods of a service on a node.
    pub fn of_service(&self, service: &ServiceKey, node: &Name) -> u32 {
        let counts = self.services.get(service);
        counts.and_then(|it| it.get(node)).copied().unwrap_or(0)
    }

    /// Pods of an app on a node.
    pub fn of_app(&self, app: &Name, node: &Name) -> u32 {
        let counts = self.apps.get(app);
        counts.and_then(|it| it.get(node)).copied().unwrap_or(0)
    }
}

fn increment(counts: &mut BTreeMap<Name, u32>, node: &Name) {
    *counts.entry(node.clone()).or_default() += 1;
}

/// One fewer of `key` on a node; what has none left is forgotten.
fn decrement<K: Ord>(all: &mut BTreeMap<K, BTreeMap<Name, u32>>, key: &K, node: &Name) {
    let Some(counts) = all.get_mut(key) else {
        return;
    };
    match counts.get_mut(node) {
        Some(count) if *count > 1 => *count -= 1,
        Some(_) | None => drop(counts.remove(node)),
    }
    if counts.is_empty() {
        all.remove(key);
    }
}
