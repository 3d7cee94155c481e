//! Why a pod has no node: a sentence with numbers.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    demand::{Demand, Node},
    fit::{Holders, Refusal, refusal},
    tally::Tally,
};
use crate::{
    name::{Name, PodName},
    plan::node::NodeState,
    quantity::ByteSize,
    time::Utc,
};

/// Nodes that are named in one part of a sentence.
const MAX_NAMED: usize = 3;

/// Why no node fits a pod: each node is counted once, with the first reason that it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Why(String);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Why {
    pub(super) fn new(pod: &PodName, demand: &Demand, nodes: &[Node], tally: &Tally) -> Self {
        if nodes.is_empty() {
            return Self(format!("no node for {pod}: the cluster has none"));
        }
        let holders = Holders::of(demand, nodes, tally);
        let mut refused: BTreeMap<Refusal, Vec<&Node>> = BTreeMap::new();
        for node in nodes {
            if let Some(refusal) = refusal(node, demand, &holders, tally) {
                refused.entry(refusal).or_default().push(node);
            }
        }
        // What can be mended by a larger cluster comes first.
        let mut parts: Vec<_> = refused.into_iter().rev().collect();
        let all = nodes.len();
        let mut text = format!("no node for {pod}: ");
        for (at, (refusal, nodes)) in parts.iter_mut().enumerate() {
            nodes.sort_by(|one, other| one.name.cmp(&other.name));
            let of = match at {
                0 => format!("{} of {all}", nodes.len()),
                _ => format!(", {}", nodes.len()),
            };
            text += &of;
            text.push(' ');
            text += &part(*refusal, nodes, demand, &holders, tally);
        }
        Self(text)
    }
}

/// What nodes have in common that do not fit for this reason.
fn part(
    refusal: Refusal,
    nodes: &[&Node],
    demand: &Demand,
    holders: &Holders<'_>,
    tally: &Tally,
) -> String {
    let one = nodes.len() == 1;
    let is = if one { "is" } else { "are" };
    let has = if one { "has" } else { "have" };
    match refusal {
        Refusal::State(NodeState::Cordoned) => match nodes {
            [
                Node {
                    name,
                    cordoned_ms: Some(since),
                    ..
                },
            ] => {
                format!("is cordoned ({name}, since {})", minute(*since))
            }
            _ => format!("{is} cordoned ({})", names(nodes)),
        },
        Refusal::State(NodeState::Draining | NodeState::Drained) => {
            format!("{is} drained ({})", names(nodes))
        }
        Refusal::State(NodeState::Lost | NodeState::Ready) => {
            format!("{is} lost ({})", names(nodes))
        }
        Refusal::Label => {
            let labels = demand.labels.iter();
            let labels: Vec<_> = labels
                .map(|(label, value)| format!("{label}={value}"))
                .collect();
            format!(
                "{has} not the labels {} ({})",
                labels.join(" "),
                names(nodes)
            )
        }
        Refusal::Volume => {
            let volumes: Vec<_> = nodes
                .iter()
                .filter_map(|node| holders.elsewhere(&node.name))
                .map(|(volume, at)| format!("{volume} is on {at}"))
                .collect();
            let first = volumes.first().map_or("", String::as_str);
            format!("{has} not its volumes ({first})")
        }
        Refusal::Pods => {
            let capacity: u32 = nodes.iter().map(|node| node.capacity.pods).sum();
            format!(
                "{has} room for no pod more ({capacity} pods: {})",
                names(nodes)
            )
        }
        Refusal::Memory => {
            let lack = if one { "lacks" } else { "lack" };
            let needs = ByteSize(demand.memory);
            let most = most_free(nodes, tally);
            format!("{lack} memory (needs {needs}; most free: {most})")
        }
    }
}

/// The most memory that one of the nodes has left, and which one that is: of those with the same the
/// first in the order of names.
fn most_free(nodes: &[&Node], tally: &Tally) -> String {
    let free = |node: &&&Node| {
        let used = tally.of_node(&node.name).memory;
        node.capacity.memory.saturating_sub(used)
    };
    let most = nodes.iter().rev().max_by_key(free);
    most.map_or_else(String::new, |node| {
        format!("{} on {}", ByteSize(free(&node)), node.name)
    })
}

/// A time on the clock on the wall, to the minute.
fn minute(wall_ms: u64) -> String {
    let text = Utc(Duration::from_millis(wall_ms)).to_string();
    match (text.get(..10), text.get(11..16)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => text,
    }
}

/// The first names, and how many more there are.
fn names(nodes: &[&Node]) -> String {
    let names = |nodes: &[&Node]| -> Vec<String> {
        let names = nodes.iter().map(|node| Name::to_string(&node.name));
        names.collect()
    };
    match nodes.len().checked_sub(MAX_NAMED) {
        None | Some(0) => names(nodes).join(", "),
        Some(more) => format!("{} and {more} more", names(&nodes[..MAX_NAMED]).join(", ")),
    }
}
