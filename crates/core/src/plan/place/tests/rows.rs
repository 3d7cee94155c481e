//! Worked rows.

use super::*;

/// Where the pods of a service come to: the nodes in order, each as often as it got one, and then the
/// reason of the first pod that got none.
fn placed(nodes_text: &str, there: &str, service: &str, count: u32) -> String {
    let (nodes, demand) = (nodes(nodes_text), demand(service));
    let mut tally = tally(there);
    let decisions = place(&pods(&demand, count), &demand, &nodes, &mut tally);
    let (mut at, mut reason) = (Vec::new(), None);
    for decision in decisions {
        match decision {
            Decision::Placed { node, .. } => at.push(node.to_string()),
            Decision::Unplaced { why, .. } => {
                reason.get_or_insert_with(|| why.to_string());
            }
        }
    }
    at.sort();
    let at = at.join(" ");
    match reason {
        Some(reason) if at.is_empty() => reason,
        Some(reason) => format!("{at}; {reason}"),
        None => at,
    }
}

/// Nodes, pods that there are, the service, how many pods of it are to be placed, what comes of it.
type Row = (&'static str, &'static str, &'static str, u32, &'static str);

const SPREAD: &[Row] = &[
    ("a", "", "web", 1, "a"),
    ("a", "", "web", 3, "a a a"),
    ("a b", "", "web", 2, "a b"),
    ("a b c", "", "web", 3, "a b c"),
    ("a b c", "", "web", 6, "a a b b c c"),
    ("a b", "", "web", 0, ""),
    ("a b", "web@a", "web", 1, "b"),
    ("a b", "web@a web@a", "web", 2, "b b"),
    ("a b", "web@a web@a web@b", "web", 1, "b"),
    // Pods of the same app, then of other apps, come after those of the service.
    ("a b", "api@a", "web", 1, "b"),
    ("a b", "api@a api@a web@b", "web", 1, "a"),
    ("a b", "bar/api@a", "web", 1, "b"),
    ("a b", "bar/api@a bar/api@a api@b", "web", 1, "a"),
    // Spread over zones, and in a zone over nodes.
    (
        "a[zone=x] b[zone=x] c[zone=y]",
        "",
        "web spread=zone",
        2,
        "*c",
    ),
    (
        "a[zone=x] b[zone=x] c[zone=y]",
        "",
        "web spread=zone",
        4,
        "a b c c",
    ),
    ("a[zone=x] b[zone=x] c[zone=y]", "", "web", 3, "a b c"),
    (
        "a[zone=x] b[zone=x] c[zone=y]",
        "web@c",
        "web spread=zone",
        1,
        "*x",
    ),
    (
        "a[zone=x] b[zone=x] c[zone=y]",
        "web@c web@c",
        "web spread=zone",
        2,
        "a b",
    ),
    (
        "a[zone=x pods=1] b[zone=y]",
        "",
        "web spread=zone",
        3,
        "a b b",
    ),
    ("a[zone=x] b c", "", "web spread=zone", 4, "a a b c"),
    // The smaller part reserved, by memory or by CPU.
    ("a[mem=512] b", "", "web", 1, "b"),
    ("a[cpu=1000] b", "", "web mem=1 cpu=500", 1, "b"),
    ("a b", "bar/x@a bar/y@b bar/z@b", "web", 1, "a"),
];

const FILTERS: &[Row] = &[
    ("a[zone=x] b[zone=y]", "", "web zone=y", 2, "b b"),
    (
        "a[zone=x] b[zone=y disk=ssd]",
        "",
        "web zone=y disk=ssd",
        1,
        "b",
    ),
    ("a[zone=x] b", "", "web zone=x", 3, "a a a"),
    ("a[pods=1] b", "", "web", 3, "a b b"),
    ("a[pods=1] b", "bar/x@a", "web", 2, "b b"),
    ("a[mem=64] b[mem=128]", "", "web", 3, "a b b"),
    ("a[cordoned] b", "", "web", 2, "b b"),
    ("a[draining] b[drained] c", "", "web", 1, "c"),
    ("a[lost] b", "web@a", "web", 1, "b"),
    // A node that is back gets what it was not there for.
    ("a b", "web@b web@b", "web", 1, "a"),
    ("a b[vol=data]", "", "web vol=data", 2, "b b"),
    ("a b", "", "web vol=data", 1, "*any"),
    ("a[vol=logs] b[vol=data]", "", "web vol=data", 1, "b"),
    ("a[pods=0] b[pods=0] c[pods=1]", "", "web", 1, "c"),
];

const REASONS: &[Row] = &[
    (
        "a[cordoned=842] b[cordoned=900]",
        "",
        "web",
        1,
        "no node for web-2-0: 2 of 2 are cordoned (a, b)",
    ),
    (
        "a[cordoned=842]",
        "",
        "web",
        1,
        "no node for web-2-0: 1 of 1 is cordoned (a, since 1970-01-01 14:02 UTC)",
    ),
    (
        "",
        "",
        "web",
        1,
        "no node for web-2-0: the cluster has none",
    ),
    (
        "a[mem=64] b[mem=128] c[cordoned]",
        "",
        "web mem=256",
        1,
        "no node for web-2-0: 2 of 3 lack memory (needs 256MiB; most free: 128MiB on b), 1 is cordoned (c)",
    ),
    (
        "a[pods=1] b[pods=2]",
        "",
        "web",
        4,
        "a b b; no node for web-2-3: 2 of 2 have room for no pod more (3 pods: a, b)",
    ),
    (
        "a[zone=x] b[lost]",
        "",
        "web zone=y",
        1,
        "no node for web-2-0: 1 of 2 has not the labels zone=y (a), 1 is lost (b)",
    ),
    (
        "a b[lost vol=data]",
        "",
        "web vol=data",
        1,
        "no node for web-2-0: 1 of 2 has not its volumes (data is on b), 1 is lost (b)",
    ),
    (
        "a[cordoned] b[cordoned] c[cordoned] d[cordoned] e[draining]",
        "",
        "web",
        1,
        "no node for web-2-0: 1 of 5 is drained (e), 4 are cordoned (a, b, c and 1 more)",
    ),
    (
        "a[vol=data] b[vol=logs]",
        "",
        "web vol=data vol=logs",
        1,
        "no node for web-2-0: 2 of 2 have not its volumes (logs is on b)",
    ),
    (
        "a[mem=100]",
        "web@a",
        "web",
        1,
        "no node for web-2-0: 1 of 1 lacks memory (needs 64MiB; most free: 36MiB on a)",
    ),
];

#[test]
fn pods_come_to_the_nodes_of_these_rows() {
    let rows = [SPREAD, FILTERS, REASONS].concat();
    assert!(rows.len() >= 40, "{} rows", rows.len());
    for (nodes, there, service, count, expected) in rows {
        let found = placed(nodes, there, service, count);
        let row = format!("{nodes} with {there:?}: {count} of {service}");
        match expected.strip_prefix('*') {
            // One of several that are alike: the hash decides.
            Some("any") => assert!(["a", "b"].contains(&&*found), "{row}: {found}"),
            Some("x") => assert!(["a", "b"].contains(&&*found), "{row}: {found}"),
            Some("c") => assert!(["a c", "b c"].contains(&&*found), "{row}: {found}"),
            Some(other) => panic!("{other}"),
            None => assert_eq!(found, expected, "{row}"),
        }
    }
}

#[test]
fn nodes_that_are_alike_take_turns() {
    let nodes = nodes("a b c");
    let mut counts = BTreeMap::new();
    for number in 0..300 {
        let demand = demand(&format!("app-{number}/web"));
        let first = place(&pods(&demand, 1), &demand, &nodes, &mut Tally::default());
        let [Decision::Placed { node, .. }] = &first[..] else {
            panic!("{first:?}")
        };
        *counts.entry(node.clone()).or_insert(0) += 1;
    }
    assert!(counts.values().all(|count| *count >= 60), "{counts:?}");
    assert_eq!(counts.len(), 3);
}

#[test]
fn a_pod_moves_from_a_node_that_it_may_not_be_on() {
    let web = demand("web zone=x");
    let why = |text: &str| misplaced(Some(&node(text)), &web);
    assert_eq!(why("a[zone=x]"), None);
    assert_eq!(why("a[zone=x cordoned]"), None, "it keeps what it has");
    assert_eq!(
        why("a[zone=x draining]").as_deref(),
        Some("its node a is drained")
    );
    assert_eq!(why("a[zone=x lost]").as_deref(), Some("its node a is lost"));
    assert_eq!(
        why("a[zone=y]").as_deref(),
        Some("its node a has no label zone=x")
    );
    let gone = misplaced(None, &web);
    assert_eq!(gone.as_deref(), Some("its node has left the cluster"));
}

#[test]
fn a_service_is_uneven_if_a_node_has_two_more_than_one_with_room() {
    for (nodes_text, there, service, expected) in [
        ("a b", "web@a", "web", None),
        ("a b", "web@a web@a", "web", Some("a b")),
        ("a b", "web@a web@a web@b", "web", None),
        ("a b", "web@a web@a web@a web@b", "web", Some("a b")),
        ("a b[pods=0]", "web@a web@a", "web", None),
        ("a b[cordoned]", "web@a web@a", "web", None),
        ("a[cordoned] b", "web@a web@a", "web", None),
        ("a b[zone=y]", "web@a web@a", "web zone=x", None),
        ("a b", "web@a web@a", "web vol=data", None),
        ("a b c", "web@a web@a web@a web@b", "web", Some("a c")),
        (
            "a[zone=x] b[zone=x] c[zone=y]",
            "web@a web@b",
            "web spread=zone",
            Some("b c"),
        ),
        (
            "a[zone=x] b[zone=x]",
            "web@a web@a",
            "web spread=zone",
            Some("a b"),
        ),
    ] {
        let (nodes, demand) = (nodes(nodes_text), demand(service));
        let found = uneven(&demand, &nodes, &tally(there));
        let found = found.map(|(from, to)| format!("{from} {to}"));
        assert_eq!(
            found.as_deref(),
            expected,
            "{nodes_text} with {there}: {service}"
        );
    }
}
