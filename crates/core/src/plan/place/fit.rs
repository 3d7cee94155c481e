//! Whether a node can run a pod of a service.

use super::{
    demand::{Demand, Node},
    tally::Tally,
};
use crate::{name::Name, plan::node::NodeState};

/// Why a node does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// It takes no pods.
    State(NodeState),
    /// It lacks a label.
    Label,
    /// A volume is on another node.
    Volume,
    /// It has as many pods as it has room for.
    Pods,
    /// It has too little memory left.
    Memory,
}

/// The nodes on which volumes are that the pods of a service write to.
pub(super) struct Holders<'a> {
    /// Each volume that there is, with its node.
    volumes: Vec<(&'a Name, &'a Name)>,
}

impl<'a> Holders<'a> {
    pub(super) fn of(demand: &'a Demand, nodes: &'a [Node], tally: &'a Tally) -> Self {
        let app = &demand.service.app;
        let holder = |volume: &'a Name| {
            let key = (app.clone(), volume.clone());
            let holding = nodes.iter().filter(|node| node.volumes.contains(&key));
            // One that was left behind on a second node is not the volume.
            let kept = holding.map(|node| &node.name).min();
            let kept = kept.or_else(|| tally.keeper(app, volume))?;
            Some((volume, kept))
        };
        let volumes = demand.volumes.iter().filter_map(holder).collect();
        Self { volumes }
    }

    /// A volume that is on another node than this one.
    pub(super) fn elsewhere(&self, node: &Name) -> Option<(&'a Name, &'a Name)> {
        let mut others = self.volumes.iter().filter(|(_, at)| *at != node);
        others.next().copied()
    }
}

/// The first reason for which a node does not fit.
pub(super) fn refusal(
    node: &Node,
    demand: &Demand,
    holders: &Holders<'_>,
    tally: &Tally,
) -> Option<Refusal> {
    if !node.state.takes_pods() {
        return Some(Refusal::State(node.state));
    }
    if missing_label(node, demand).is_some() {
        return Some(Refusal::Label);
    }
    if holders.elsewhere(&node.name).is_some() {
        return Some(Refusal::Volume);
    }
    let used = tally.of_node(&node.name);
    if used.pods >= node.capacity.pods {
        return Some(Refusal::Pods);
    }
    let free = node.capacity.memory.saturating_sub(used.memory);
    (free < demand.memory).then_some(Refusal::Memory)
}

pub(super) fn missing_label<'a>(
    node: &Node,
    demand: &'a Demand,
) -> Option<(&'a String, &'a String)> {
    let mut labels = demand.labels.iter();
    labels.find(|(label, value)| node.labels.get(*label) != Some(value))
}
