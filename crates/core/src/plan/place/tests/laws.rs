//! The laws: over all clusters of up to three nodes and four pods, and over random larger ones.

use proptest::prelude::*;

use super::*;

/// Places pods of a service and checks every law.
fn check(nodes: &[Node], demand: &Demand, before: &Tally, count: u32) {
    let pods = pods(demand, count);
    let mut tally = before.clone();
    let decisions = place(&pods, demand, nodes, &mut tally);
    assert_eq!(decisions.len(), pods.len());
    let at = |node: &Node| tally.of_service(&demand.service, &node.name);
    let was = |node: &Node| before.of_service(&demand.service, &node.name);
    let holders = Holders::of(demand, nodes, &tally);
    let fits = |node: &&Node| refusal(node, demand, &holders, &tally).is_none();
    for node in nodes {
        // No node has more than it has room for, unless it had before; and none that does not fit
        // has got one.
        let (used, had) = (tally.of_node(&node.name), before.of_node(&node.name));
        let Capacity { pods, memory, .. } = node.capacity;
        assert!(used.pods <= pods.max(had.pods), "{node:?}: {used:?}");
        assert!(used.memory <= memory.max(had.memory), "{node:?}: {used:?}");
        if at(node) > was(node) {
            assert!(node.state.takes_pods(), "{node:?}");
            assert_eq!(missing_label(node, demand), None);
            assert_eq!(holders.elsewhere(&node.name), None);
        }
    }
    // A domain that got a pod has at most one more than any with room.
    let domain_count = |node: &Node| domain_count(node, demand, nodes, &tally);
    for got in nodes.iter().filter(|node| at(node) > was(node)) {
        for other in nodes.iter().filter(fits) {
            let (most, least) = (domain_count(got), domain_count(other));
            assert!(most <= least + 1, "{got:?} has {most}, {other:?} {least}");
            if domain(got, demand) == domain(other, demand) {
                assert!(at(got) <= at(other) + 1, "{got:?}, {other:?}");
            }
        }
    }
    // No pod is without a node while one fits.
    let is_unplaced = |decision: &Decision| matches!(decision, Decision::Unplaced { .. });
    if decisions.iter().any(is_unplaced) {
        assert_eq!(nodes.iter().find(fits), None);
    }
    // The order of the input does not matter.
    let mut reversed_nodes = nodes.to_vec();
    reversed_nodes.reverse();
    let reversed_pods: Vec<_> = pods.iter().rev().cloned().collect();
    let mut other = before.clone();
    let found = place(&reversed_pods, demand, &reversed_nodes, &mut other);
    assert_eq!(found, decisions);
    // Placed twice is placed once.
    let placed = |decisions: &[Decision]| -> Vec<Decision> {
        let placed = decisions.iter().filter(|it| !is_unplaced(it));
        placed.cloned().collect()
    };
    let again = place(&pods, demand, nodes, &mut tally.clone());
    assert_eq!(placed(&again), placed(&decisions));
    // Moves come to an end, and then nothing moves.
    settle(nodes, demand, tally);
}

/// Moves pods of a service while it is uneven, at most as often as there are pods.
fn settle(nodes: &[Node], demand: &Demand, mut tally: Tally) {
    let all: u32 = nodes
        .iter()
        .map(|it| tally.of_service(&demand.service, &it.name))
        .sum();
    for slot in 0..=all {
        let Some((from, to)) = uneven(demand, nodes, &tally) else {
            return;
        };
        let (from, to) = (from.clone(), to.clone());
        let before = tally.of_service(&demand.service, &to);
        let on =
            |pod: &&PodName| tally.node_of(pod) == Some(&from) && *pod.service() == demand.service;
        let moved = tally.pods().find(on).cloned().expect("it has one");
        tally.remove(&moved);
        let pod = PodName::new(&demand.service, 3, slot);
        let placed = place(&[pod], demand, nodes, &mut tally);
        let [Decision::Placed { node, .. }] = &placed[..] else {
            panic!("a node fitted: {placed:?}")
        };
        assert_ne!(*node, from, "it comes back");
        assert!(tally.of_service(&demand.service, node) <= before + 1);
    }
    panic!("more moves than pods: {nodes:?} {tally:?}");
}

/// Every node of a small cluster: how many pods it has room for, where it is, and how it is.
fn small_nodes(called: &str) -> Vec<Node> {
    let mut nodes = Vec::new();
    for pods in [0, 1, 4] {
        for zone in ["zone=x", "zone=y"] {
            for state in ["", "cordoned"] {
                nodes.push(node(&format!("{called}[pods={pods} {zone} {state}]")));
            }
        }
    }
    nodes
}

#[test]
fn the_laws_hold_for_all_clusters_of_three_nodes_and_four_pods() {
    let demands = ["web", "web spread=zone", "web zone=x"].map(demand);
    let theres = [
        "",
        "web@a",
        "web@a web@a",
        "web@a web@b",
        "api@a web@b web@b",
    ]
    .map(tally);
    let mut clusters = Vec::new();
    for a in small_nodes("a") {
        clusters.push(vec![a.clone()]);
        for b in small_nodes("b") {
            clusters.push(vec![a.clone(), b.clone()]);
            let with = |c| vec![a.clone(), b.clone(), c];
            clusters.extend(small_nodes("c").into_iter().map(with));
        }
    }
    assert_eq!(clusters.len(), 12 + 12 * 12 + 12 * 12 * 12);
    for nodes in &clusters {
        for (demand, there) in demands
            .iter()
            .flat_map(|it| theres.iter().map(move |there| (it, there)))
        {
            for count in 1..=4 - there.pods().count().min(3) as u32 {
                check(nodes, demand, there, count);
            }
        }
    }
}

prop_compose! {
    fn any_node(index: usize)(
        pods in 0..6_u32, mib in 0..6_u64, zone in 0..3_u8, state in 0..8_u8,
        has_volume in prop::bool::weighted(0.1),
    ) -> Node {
        let state = ["", "", "", "", "cordoned", "draining", "drained", "lost"][usize::from(state)];
        let volume = if has_volume { "vol=data" } else { "" };
        let zone = ["zone=x", "zone=y", ""][usize::from(zone)];
        node(&format!("n{index}[pods={pods} mem={} {zone} {state} {volume}]", mib * 64))
    }
}

fn any_nodes() -> impl Strategy<Value = Vec<Node>> {
    (0..9_usize).prop_flat_map(|count| (0..count).map(any_node).collect::<Vec<_>>())
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let words = [
        "web",
        "web spread=zone",
        "web zone=x",
        "web vol=data",
        "web mem=128",
    ];
    prop::sample::select(words.to_vec()).prop_map(demand)
}

fn any_tally() -> impl Strategy<Value = Tally> {
    let pod = (0..9_u8, prop::sample::select(vec!["web", "api", "bar/web"]));
    prop::collection::vec(pod, 0..12).prop_map(|pods| {
        let pods: Vec<_> = pods
            .iter()
            .map(|(at, service)| format!("{service}@n{at}"))
            .collect();
        tally(&pods.join(" "))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn the_laws_hold_for_larger_clusters(
        nodes in any_nodes(), demand in any_demand(), there in any_tally(), count in 0..12_u32,
    ) {
        check(&nodes, &demand, &there, count);
    }

    #[test]
    fn a_tally_is_the_same_after_what_came_has_gone(there in any_tally(), more in any_tally()) {
        let mut both = there.clone();
        let renamed = |pod: &PodName| PodName::new(pod.service(), 9, pod.slot());
        for pod in more.pods() {
            let at = more.node_of(pod).expect("it has one");
            let demand = demand("web");
            both.add(&Reserved::new(&renamed(pod), at, &demand));
        }
        for pod in more.pods() {
            both.remove(&renamed(pod));
        }
        for index in 0..9 {
            let node = name(&format!("n{index}"));
            prop_assert_eq!(both.of_node(&node), there.of_node(&node));
            let app = name("shop");
            prop_assert_eq!(both.of_app(&app, &node), there.of_app(&app, &node));
        }
    }
}
