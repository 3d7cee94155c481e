//! A node runs and writes only the pods that are its own.

use sampan_core::record::PodStatus;

use super::*;

/// A pod of this node, or of another one.
fn pod(slot: u32, node: Option<&str>) -> Pod {
    Pod {
        node: node.map(|node| Name::parse(node).expect("a name")),
        ..Pod::new(&web(), 1, slot)
    }
}

async fn put(store: &Memory, pod: &Pod) {
    let put = Transaction::new().put(Key::Pod(pod.name()).to_string(), text(pod));
    let _ = store.commit(put).await.expect("memory does not fail");
}

/// How often the pod has become ready in its node's run.
fn ready(pod: &Pod) -> Option<u32> {
    match pod.status.phase {
        PodPhase::Ready { nth } => Some(nth),
        _ => None,
    }
}

/// All pods, once the first one is ready.
async fn when_ready(store: &Memory) -> Vec<Pod> {
    let deadline = tokio::time::Instant::now() + SETTLE;
    loop {
        let pods = pods(store).await;
        if pods.first().is_some_and(|pod| ready(pod).is_some()) {
            return pods;
        }
        assert!(tokio::time::Instant::now() < deadline, "{pods:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The agent alone, with a mirror that has every change at once: what is wanted is written by the
/// test.
fn agent(store: &Arc<Faulty>) -> JoinSet<()> {
    let (_, loads) = watch::channel(Arc::default());
    let (agent, _) = node(store, &Arc::default(), &loads);
    let mut tasks = JoinSet::new();
    let store: Arc<dyn Store> = store.memory.clone();
    tasks.spawn(async move {
        let mirror = mirror(&store).await;
        agent.run(mirror.follow(&Kind::ALL), Arc::default()).await;
    });
    tasks
}

#[tokio::test(start_paused = true)]
async fn pods_of_other_nodes_are_left_alone() {
    let store = Faulty::new(0, false);
    put_revision(&store.memory, 1, "good").await;
    let mut others = [pod(1, Some("elsewhere")), pod(2, None)];
    others[0].stop = Some("it should".to_owned());
    for pod in others.iter().chain([&pod(0, Some(LOCAL))]) {
        put(&store.memory, pod).await;
    }
    let _agent = agent(&store);
    let pods = when_ready(&store.memory).await;
    assert_eq!(pods[1..], others);
}

#[tokio::test(start_paused = true)]
async fn another_pod_of_the_same_name_is_another_pod() {
    let store = Faulty::new(0, false);
    put_revision(&store.memory, 1, "good").await;
    let first = pod(0, Some(LOCAL));
    put(&store.memory, &first).await;
    let _agent = agent(&store);
    let pods = when_ready(&store.memory).await;
    let old = pods[0].status.clone();
    // It is put again before its node can see that it has gone.
    let key = Key::Pod(first.name()).to_string();
    let gone = Transaction::new().delete(key.as_str());
    let _ = store
        .memory
        .commit(gone)
        .await
        .expect("memory does not fail");
    let second = Pod {
        status: PodStatus {
            restarts: 7,
            ..PodStatus::default()
        },
        ..first
    };
    put(&store.memory, &second).await;
    let pods = when_ready(&store.memory).await;
    // The status is the new one's, and not that of the pod which had its name.
    assert_eq!((old.restarts, pods[0].status.restarts), (0, 7));
    assert_eq!(ready(&pods[0]), Some(1));
}
