//! Worked rows, and the laws over all small clusters and many random ones.

mod laws;
mod rows;

use std::collections::BTreeMap;

use super::*;
use crate::name::ServiceKey;

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

pub(super) const MIB: u64 = 1 << 20;

/// A node as a row writes it: `b[zone=x pods=2 mem=64 cpu=500 cordoned vol=data]`. Without more
/// it is ready and has room for 10 pods, 1 GiB and 4 cores.
pub(super) fn node(text: &str) -> Node {
    let (called, rest) = text.split_once('[').unwrap_or((text, "]"));
    let mut node = Node {
        name: name(called),
        labels: BTreeMap::new(),
        state: NodeState::Ready,
        capacity: Capacity {
            pods: 10,
            memory: 1024 * MIB,
            cpu_millis: 4000,
        },
        cordoned_ms: None,
        volumes: BTreeSet::new(),
    };
    for word in rest.trim_end_matches(']').split_whitespace() {
        let number = |text: &str| text.parse::<u64>().expect("a number");
        match word.split_once('=') {
            None => match word {
                "cordoned" => node.state = NodeState::Cordoned,
                "draining" => node.state = NodeState::Draining,
                "drained" => node.state = NodeState::Drained,
                "lost" => node.state = NodeState::Lost,
                other => panic!("{other}"),
            },
            Some(("pods", pods)) => node.capacity.pods = number(pods) as u32,
            Some(("mem", mib)) => node.capacity.memory = number(mib) * MIB,
            Some(("cordoned", minutes)) => {
                node.state = NodeState::Cordoned;
                node.cordoned_ms = Some(number(minutes) * 60_000);
            }
            Some(("cpu", millis)) => node.capacity.cpu_millis = number(millis),
            Some(("vol", volume)) => drop(node.volumes.insert((name("shop"), name(volume)))),
            Some((label, value)) => drop(node.labels.insert(label.to_owned(), value.to_owned())),
        }
    }
    node
}

/// Nodes as a row writes them, with spaces between those that are outside of brackets.
pub(super) fn nodes(text: &str) -> Vec<Node> {
    let mut depth = 0;
    let parts = text.split(|c: char| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        depth == 0 && c == ' '
    });
    parts.filter(|it| !it.is_empty()).map(node).collect()
}

/// A service of the app `shop`, or of another as in `bar/web`, whose pods reserve 64 MiB.
pub(super) fn demand(text: &str) -> Demand {
    let mut words = text.split_whitespace();
    let called = words.next().expect("a service");
    let key = match called.contains('/') {
        true => ServiceKey::parse(called).expect("a key"),
        false => ServiceKey::new(&name("shop"), &name(called)),
    };
    let mut demand = Demand {
        service: key,
        memory: 64 * MIB,
        cpu_millis: 0,
        labels: BTreeMap::new(),
        spread: Spread::Node,
        volumes: BTreeSet::new(),
    };
    for word in words {
        match word.split_once('=').expect("a key with a value") {
            ("mem", mib) => demand.memory = mib.parse::<u64>().expect("a number") * MIB,
            ("cpu", millis) => demand.cpu_millis = millis.parse().expect("a number"),
            ("spread", label) => demand.spread = Spread::Label(label.to_owned()),
            ("vol", volume) => drop(demand.volumes.insert(name(volume))),
            (label, value) => drop(demand.labels.insert(label.to_owned(), value.to_owned())),
        }
    }
    demand
}

/// Pods that there are, as in `web@a web@a bar/api@b`.
pub(super) fn tally(text: &str) -> Tally {
    let mut tally = Tally::default();
    for (slot, pod) in (0..).zip(text.split_whitespace()) {
        let (service, at) = pod.split_once('@').expect("a node");
        let demand = demand(service);
        let pod = PodName::new(&demand.service, 1, slot);
        tally.add(&Reserved::new(&pod, &name(at), &demand));
    }
    tally
}

/// Pods of revision 2 of a service.
pub(super) fn pods(demand: &Demand, count: u32) -> Vec<PodName> {
    let pod = |slot| PodName::new(&demand.service, 2, slot);
    (0..count).map(pod).collect()
}

#[test]
fn pods_that_mount_a_volume_run_on_one_node() {
    let nodes = nodes("a b c");
    let mut tally = Tally::default();
    let mut placed = BTreeSet::new();
    // Two services of one app mount it, and no record says where it is yet.
    for service in ["web vol=data", "api vol=data vol=logs", "jobs vol=logs"] {
        let demand = demand(service);
        for decision in place(&pods(&demand, 3), &demand, &nodes, &mut tally) {
            match decision {
                Decision::Placed { node, .. } => drop(placed.insert(node)),
                Decision::Unplaced { why, .. } => panic!("{why}"),
            }
        }
    }
    assert_eq!(placed.len(), 1, "{placed:?}");
    // That of another app is another volume.
    let other = demand("bar/web vol=data");
    let decisions = place(&pods(&other, 1), &other, &nodes, &mut tally);
    let [Decision::Placed { node, .. }] = &decisions[..] else {
        panic!("{decisions:?}");
    };
    assert!(!placed.contains(node), "{node}");
}
