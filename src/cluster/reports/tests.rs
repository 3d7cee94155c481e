//! Which nodes count, and which hold what may be there.

use std::collections::BTreeSet;

use sampan_core::{load::Load, name::ServiceKey};

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn web() -> ServiceKey {
    ServiceKey::parse("shop/web").expect("a key")
}

fn loads(in_flight: f64) -> Loads {
    let load = Load {
        in_flight: Some(in_flight),
        ..Load::default()
    };
    Loads::from([(web(), load)])
}

fn report(boot: u64, in_flight: f64) -> Report {
    Report {
        boot: Boot(boot),
        services: loads(in_flight).into_iter().collect(),
    }
}

/// Sessions of these nodes, in a run of this number.
fn sessions(nodes: &[(&str, u64)]) -> BTreeMap<Name, NodeSession> {
    let session = |&(node, boot): &(&str, u64)| {
        let session = NodeSession {
            boot: Boot(boot),
            address: ([127, 0, 0, 1], 1).into(),
            since_ms: 0,
            ending: false,
        };
        (name(node), session)
    };
    nodes.iter().map(session).collect()
}

/// What `a`, which has one request, knows: requests of all, and the silent nodes.
fn known(reports: &Reports, running: &[(&str, u64)]) -> (Option<f64>, BTreeMap<Name, Silent>) {
    let merged = reports.merged((&name("a"), loads(1.0)), &sessions(running));
    let web = merged.services.get(&web());
    (web.and_then(|load| load.in_flight), merged.silent)
}

#[tokio::test(start_paused = true)]
async fn a_node_counts_for_three_seconds_and_is_silent_then() {
    let (reports, both) = (Reports::default(), [("a", 1), ("b", 2)]);
    let unheard = BTreeMap::from([(name("b"), Silent::Unheard)]);
    assert_eq!(known(&reports, &both), (Some(1.0), unheard.clone()));
    reports.take(name("b"), report(2, 5.0));
    assert_eq!(known(&reports, &both), (Some(6.0), BTreeMap::new()));
    tokio::time::advance(SILENT_AFTER - Duration::from_millis(1)).await;
    assert_eq!(known(&reports, &both), (Some(6.0), BTreeMap::new()));
    tokio::time::advance(Duration::from_millis(1)).await;
    let had = Silent::Had(BTreeSet::from([web()]));
    let silent = BTreeMap::from([(name("b"), had)]);
    assert_eq!(known(&reports, &both), (Some(1.0), silent));
    // It says that it has none any more, and then nothing.
    reports.take(name("b"), report(2, 0.0));
    assert_eq!(known(&reports, &both), (Some(1.0), BTreeMap::new()));
    tokio::time::advance(SILENT_AFTER).await;
    let idle = BTreeMap::from([(name("b"), Silent::Had(BTreeSet::new()))]);
    assert_eq!(known(&reports, &both), (Some(1.0), idle));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_runs_no_more_counts_no_more() {
    let reports = Reports::default();
    reports.take(name("b"), report(2, 5.0));
    assert_eq!(known(&reports, &[("a", 1)]), (Some(1.0), BTreeMap::new()));
    // What it said is forgotten: it is back, and may have something else.
    let unheard = BTreeMap::from([(name("b"), Silent::Unheard)]);
    let both = [("a", 1), ("b", 2)];
    assert_eq!(known(&reports, &both), (Some(1.0), unheard.clone()));
    // Another run of it says nothing of this one.
    reports.take(name("b"), report(3, 5.0));
    assert_eq!(known(&reports, &both), (Some(1.0), unheard));
}
