//! When a pod moves, and when none does.

use sampan_core::record::{Counts, Phase, ServiceStatus};

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// A service of three pods, all of them ready.
fn whole() -> Service {
    let text = r#"{"key": {"app": "shop", "name": "web"}, "generation": 1, "spec": {
        "revision": 1, "previous": null, "latest": 1, "replicas": 3, "paused": false,
        "deleting": false, "rollout": {"strategy": "rolling", "max_surge": "1",
        "max_unavailable": "0", "min_ready": "0s", "progress_deadline": "1m",
        "on_failure": "pause", "history": 1, "drain": "1s"}, "routes": [], "depends_on": {},
        "queue": 1, "queue_timeout": "1s", "body_bytes": 1, "debug_headers": false,
        "autoscale": null}, "status": {"observed_generation": 1, "target": 1, "last_good": 1,
        "scaled_to": 3, "phase": "Complete", "progress": {"boot": 1, "since": {"secs": 0, "nanos": 0},
        "most_available": 3, "fewest_old": 0}, "counts": {"alive": 3, "updated": 3, "ready": 3,
        "available": 3, "updated_available": 3}, "conditions": [], "refused": null}}"#;
    serde_json::from_str(text).expect("a service")
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::after(Duration::from_secs(seconds))
}

fn pods(nodes: &[&str]) -> Vec<(PodName, Name)> {
    let service = whole().key;
    let pods = (0..).zip(nodes);
    pods.map(|(slot, node)| (PodName::new(&service, 1, slot), name(node)))
        .collect()
}

/// Looks at a service whose pods are on these nodes, of which this one has too many.
fn look(
    balance: &mut Balance,
    service: &Service,
    nodes: &[&str],
    uneven: Option<&str>,
    seconds: u64,
) -> Option<u32> {
    let pods = pods(nodes);
    let pods = pods.iter().map(|(pod, node)| (pod, node));
    let uneven = uneven.map(name);
    let moves = balance.look(service, pods, uneven.as_ref(), at(seconds));
    moves.pod.map(|pod| pod.slot())
}

#[test]
fn a_pod_moves_after_a_minute_and_is_remembered_until_it_is_gone() {
    let (mut balance, web) = (Balance::default(), whole());
    let all = ["a", "a", "a"];
    assert_eq!(look(&mut balance, &web, &all, Some("a"), 0), None);
    assert_eq!(look(&mut balance, &web, &all, Some("a"), 59), None);
    assert_eq!(look(&mut balance, &web, &all, Some("a"), 60), Some(2));
    // Its replacement is there: nodes are even, and it goes all the same.
    let replaced = ["a", "a", "a", "b"];
    assert_eq!(look(&mut balance, &web, &replaced, None, 61), Some(2));
    // It is gone, and nothing moves any more.
    assert_eq!(look(&mut balance, &web, &["a", "a"], None, 62), None);
    assert_eq!(look(&mut balance, &web, &["a", "a"], None, 200), None);
}

#[test]
fn the_next_pod_of_a_service_moves_ten_seconds_after_the_one_before() {
    let (mut balance, web) = (Balance::default(), whole());
    let all = ["a", "a", "a"];
    look(&mut balance, &web, &all, Some("a"), 0);
    assert_eq!(look(&mut balance, &web, &all, Some("a"), 60), Some(2));
    assert_eq!(look(&mut balance, &web, &["a", "a"], Some("a"), 65), None);
    assert_eq!(look(&mut balance, &web, &["a", "a"], Some("a"), 74), None);
    assert_eq!(
        look(&mut balance, &web, &["a", "a"], Some("a"), 75),
        Some(1)
    );
}

#[test]
fn nothing_moves_while_the_service_is_rolled_out_or_not_whole() {
    let all = ["a", "a", "a"];
    let statuses: [fn(&mut ServiceStatus); 3] = [
        |status| status.phase = Phase::Progressing,
        |status| status.phase = Phase::Paused { failure: None },
        |status| status.counts = Counts::default(),
    ];
    for change in statuses {
        let (mut balance, mut web) = (Balance::default(), whole());
        look(&mut balance, &web, &all, Some("a"), 0);
        change(&mut web.status);
        assert_eq!(look(&mut balance, &web, &all, Some("a"), 60), None);
        // The minute begins anew.
        let web = whole();
        assert_eq!(look(&mut balance, &web, &all, Some("a"), 61), None);
        assert_eq!(look(&mut balance, &web, &all, Some("a"), 121), Some(2));
    }
}

#[test]
fn a_pod_that_does_not_get_away_stays() {
    let (mut balance, web) = (Balance::default(), whole());
    let all = ["a", "a", "a"];
    look(&mut balance, &web, &all, Some("a"), 0);
    assert_eq!(look(&mut balance, &web, &all, Some("a"), 60), Some(2));
    assert_eq!(look(&mut balance, &web, &all, Some("a"), 179), Some(2));
    assert_eq!(look(&mut balance, &web, &all, Some("a"), 180), None);
    assert_eq!(look(&mut balance, &web, &all, Some("a"), 190), Some(2));
}
