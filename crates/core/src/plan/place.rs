//! Placing: which node runs a pod, and why a pod has none.
//!
//! Nodes that cannot run a pod are left out: those that take none, that lack a label, a volume of the
//! pod's service, memory or room for one more pod. Of the others the pod gets the one with, in this
//! order,
//!
//! 1. the fewest pods of its service in the node's spread domain: the node itself, or all nodes with
//!    the same value of a label;
//! 2. the fewest pods of its service;
//! 3. the fewest pods of its app;
//! 4. the smallest part of its memory or CPU reserved, whichever is the larger;
//! 5. the smallest hash of pod and node, so that nodes that are alike take turns.
//!
//! What is compiled on a node does not count: each node fetches the components of all apps as they
//! are applied.
//!
//! So pods are spread before nodes are filled. CPU is never a reason to leave a node out: guests
//! share it by time, and a pod's `limits.cpu` is the most that it gets.
//!
//! The laws (`tests.rs` has them over all small clusters): no node gets more than it has room for;
//! spread domains that got a pod have at most one more than any other with room; the order of the
//! input does not matter; no pod is without a node while a node fits.

mod demand;
mod fit;
mod tally;
mod why;

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::node::NodeState;
use crate::{
    name::{Name, PodName},
    object::Spread,
    record::cluster::Capacity,
};
pub use demand::{Demand, Node};
use fit::{Holders, missing_label, refusal};
pub use tally::{Reserved, Tally};
pub use why::Why;

/// What was decided about a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It runs on this node.
    Placed {
        /// The pod.
        pod: PodName,
        /// The node.
        node: Name,
    },
    /// No node fits.
    Unplaced {
        /// The pod.
        pod: PodName,
        /// The reason.
        why: Why,
    },
}

/// Decides on which nodes pods of one service run, in the order of their names, and counts them in.
///
/// `tally` has what is reserved already: the pods that there are, and those of transactions that are
/// under way, so that two services planned at one moment do not get the last room of a node both.
/// A pod that it has keeps its node.
#[must_use]
pub fn place(
    pods: &[PodName],
    demand: &Demand,
    nodes: &[Node],
    tally: &mut Tally,
) -> Vec<Decision> {
    let pods: BTreeSet<_> = pods.iter().collect();
    let decide = |pod: &PodName| {
        if let Some(node) = tally.node_of(pod) {
            let (pod, node) = (pod.clone(), node.clone());
            return Decision::Placed { pod, node };
        }
        let holders = Holders::of(demand, nodes, tally);
        let fitting = nodes
            .iter()
            .filter(|node| refusal(node, demand, &holders, tally).is_none());
        let best = fitting.min_by_key(|node| score(node, pod, demand, nodes, tally));
        let pod = pod.clone();
        match best {
            Some(node) => {
                let node = node.name.clone();
                tally.add(&Reserved::new(&pod, &node, demand));
                // Other pods that mount them follow.
                tally.keep(&demand.service.app, &demand.volumes, &node);
                Decision::Placed { pod, node }
            }
            None => {
                let why = Why::new(&pod, demand, nodes, tally);
                Decision::Unplaced { pod, why }
            }
        }
    };
    pods.into_iter().map(decide).collect()
}

/// Why a pod that runs on a node should run on another, as the end of a sentence about the pod.
#[must_use]
pub fn misplaced(node: Option<&Node>, demand: &Demand) -> Option<String> {
    let Some(node) = node else {
        return Some("its node has left the cluster".to_owned());
    };
    if let Some(why) = node.state.evicts() {
        return Some(format!("its node {} {why}", node.name));
    }
    let (label, value) = missing_label(node, demand)?;
    Some(format!(
        "its node {} has no label {label}={value}",
        node.name
    ))
}

/// Of a service whose pods are uneven the node that should give one up and the node that would get
/// it. `None` if no node that fits has two fewer than another: so a move ends in a state in which
/// nothing moves.
#[must_use]
pub fn uneven<'a>(
    demand: &Demand,
    nodes: &'a [Node],
    tally: &Tally,
) -> Option<(&'a Name, &'a Name)> {
    if !demand.volumes.is_empty() {
        return None;
    }
    let holders = Holders::of(demand, nodes, tally);
    let count = |node: &Node| {
        let domain = domain_count(node, demand, nodes, tally);
        (domain, tally.of_service(&demand.service, &node.name))
    };
    let has = |node: &&Node| tally.of_service(&demand.service, &node.name) > 0;
    let stays =
        |node: &&Node| node.state == NodeState::Ready && missing_label(node, demand).is_none();
    let most = nodes
        .iter()
        .filter(stays)
        .filter(has)
        .max_by_key(|node| (count(node), &node.name))?;
    let fits = |node: &&Node| refusal(node, demand, &holders, tally).is_none();
    let least = nodes
        .iter()
        .filter(fits)
        .min_by_key(|node| (count(node), &node.name))?;
    let is_one_domain = domain(most, demand) == domain(least, demand);
    let ((most_domain, most_node), (least_domain, least_node)) = (count(most), count(least));
    let gap = match is_one_domain {
        true => most_node.saturating_sub(least_node),
        false => most_domain.saturating_sub(least_domain),
    };
    (gap >= 2).then_some((&most.name, &least.name))
}

/// What nodes are compared by: the smallest is the best.
type Score = (u32, u32, u32, u64, u64);

fn score(node: &Node, pod: &PodName, demand: &Demand, nodes: &[Node], tally: &Tally) -> Score {
    let mut hasher = DefaultHasher::new();
    (pod.service(), pod.as_str(), &node.name).hash(&mut hasher);
    (
        domain_count(node, demand, nodes, tally),
        tally.of_service(&demand.service, &node.name),
        tally.of_app(&demand.service.app, &node.name),
        reserved_part(node, demand, tally),
        hasher.finish(),
    )
}

/// The domain of a node: its name, or the value of a label, which it may not have.
fn domain<'a>(node: &'a Node, demand: &Demand) -> Option<&'a str> {
    match &demand.spread {
        Spread::Node => Some(node.name.as_str()),
        Spread::Label(label) => node.labels.get(label).map(String::as_str),
    }
}

/// Pods of the service on all nodes of this one's domain.
fn domain_count(node: &Node, demand: &Demand, nodes: &[Node], tally: &Tally) -> u32 {
    let of = |node: &Node| tally.of_service(&demand.service, &node.name);
    match &demand.spread {
        Spread::Node => of(node),
        Spread::Label(_) => {
            let own = domain(node, demand);
            let same = nodes.iter().filter(|other| domain(other, demand) == own);
            same.map(of).sum()
        }
    }
}

/// The larger part of memory and CPU that would be reserved with one more pod, in thousandths.
fn reserved_part(node: &Node, demand: &Demand, tally: &Tally) -> u64 {
    let used = tally.of_node(&node.name);
    let part = |used: u64, more: u64, of: u64| {
        let all = u128::from(used) + u128::from(more);
        let part = all * 1000 / u128::from(of.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    let Capacity {
        memory, cpu_millis, ..
    } = node.capacity;
    let memory = part(used.memory, demand.memory, memory);
    memory.max(part(used.cpu_millis, demand.cpu_millis, cpu_millis))
}

#[cfg(test)]
mod tests;
