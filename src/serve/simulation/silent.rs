//! A node that runs and does not say what it measures: the controllers take no pod away meanwhile.

use std::collections::BTreeSet;

use sampan_core::{
    load::{Merged, Silent},
    record::cluster::ClusterKey,
};

use super::*;

const PODS: u32 = 5;
const ELSEWHERE: &str = "elsewhere";

async fn replicas(store: &Memory) -> u32 {
    service(store).await.spec.replicas
}

/// Measurements of pods that have nothing to do, once a second, with what is silent then.
async fn idle(
    store: &Memory,
    measured: &watch::Sender<Arc<Merged>>,
    silent: Option<Silent>,
    seconds: u64,
) {
    for _ in 0..seconds {
        let merged = day::measured(&pods(store).await, 0.0);
        let elsewhere = Name::parse(ELSEWHERE).expect("a name");
        measured.send_replace(Arc::new(Merged {
            silent: silent
                .clone()
                .map(|it| (elsewhere, it))
                .into_iter()
                .collect(),
            ..(*merged).clone()
        }));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A service of that many pods with an autoscaler, which is looked at from now on.
async fn begun(store: &Arc<Faulty>) -> (watch::Sender<Arc<Merged>>, JoinSet<()>) {
    autoscale(&store.memory, day::bounds(1, PODS)).await;
    let (measured, loads) = watch::channel(Arc::default());
    let node = start(store, &Arc::default(), &loads);
    tokio::time::sleep(SETTLE).await;
    (measured, node)
}

/// Longer than needs of before count.
fn long() -> u64 {
    2 * day::bounds(1, PODS).stabilization.as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_keeps_pods_that_its_requests_may_need() {
    let store = Faulty::new(0, false);
    begin(&store.memory, PODS).await;
    let (measured, _node) = begun(&store).await;
    // One that has said nothing yet, and one that had requests.
    for silent in [Silent::Unheard, Silent::Had(BTreeSet::from([web()]))] {
        idle(&store.memory, &measured, Some(silent), long()).await;
        assert_eq!(replicas(&store.memory).await, PODS);
    }
    // It had none of this service when it reported last.
    let none = Silent::Had(BTreeSet::new());
    idle(&store.memory, &measured, Some(none), long()).await;
    assert_eq!(replicas(&store.memory).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_with_a_pod_keeps_all_until_its_session_ends() {
    let store = Faulty::new(0, false);
    begin(&store.memory, PODS).await;
    let elsewhere = Name::parse(ELSEWHERE).expect("a name");
    let session = ClusterKey::Session(elsewhere.clone()).to_string();
    let there = Pod {
        node: Some(elsewhere),
        ..Pod::new(&web(), 1, 0)
    };
    let put = Transaction::new()
        .put(session.as_str(), "it runs")
        .put(Key::Pod(there.name()).to_string(), text(&there));
    let put = store.memory.commit(put).await;
    let _ = put.expect("memory does not fail");
    let (measured, _node) = begun(&store).await;
    let none = Silent::Had(BTreeSet::new());
    idle(&store.memory, &measured, Some(none), long()).await;
    assert_eq!(replicas(&store.memory).await, PODS);
    let ended = Transaction::new().delete(session);
    let ended = store.memory.commit(ended).await;
    let _ = ended.expect("memory does not fail");
    idle(&store.memory, &measured, None, long()).await;
    assert_eq!(replicas(&store.memory).await, 1);
}
