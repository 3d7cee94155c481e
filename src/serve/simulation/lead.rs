//! What a node that leads may write, and what becomes of pods of nodes that are gone.

use sampan_core::record::cluster::ClusterKey;
use sampan_store::Revision;

use super::*;

const ELSEWHERE: &str = "elsewhere";

async fn write(store: &Memory, transaction: Transaction) -> Revision {
    match store.commit(transaction).await {
        Ok(Outcome::Committed(revision)) => revision,
        other => panic!("memory does not fail: {other:?}"),
    }
}

/// The agent and the controllers, which compare this.
fn run(store: &Arc<Faulty>, lead: Option<(String, Revision)>) -> JoinSet<()> {
    let (_, loads) = watch::channel(Arc::default());
    let (agent, mut controllers) = node(store, &Arc::default(), &loads);
    controllers.lead = lead;
    let dynamic: Arc<dyn Store> = store.memory.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mirror = mirror(&dynamic).await;
        let (pods, all) = (mirror.follow(&Kind::ALL), mirror.follow(&Kind::ALL));
        tokio::join!(agent.run(pods, Arc::default()), controllers.run(all));
    });
    tasks
}

/// Waits until everything is as it is wanted.
async fn settled(store: &Memory) {
    let deadline = tokio::time::Instant::now() + SETTLE;
    while !is_settled(store).await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:#?}",
            pods(store).await
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leads_no_more_writes_nothing() {
    let store = Faulty::new(0, false);
    begin(&store.memory, 2).await;
    let key = ClusterKey::Leader.to_string();
    let put = |leader: &'static str| Transaction::new().put(key.as_str(), leader);
    let first = write(&store.memory, put("this node")).await;
    let second = write(&store.memory, put("another one")).await;
    let before = store.memory.revision().await.expect("it is open");
    let deposed = run(&store, Some((key.clone(), first)));
    tokio::time::sleep(SETTLE).await;
    let after = store.memory.revision().await.expect("it is open");
    assert_eq!(before, after, "{:#?}", pods(&store.memory).await);
    drop(deposed);
    let _leads = run(&store, Some((key, second)));
    settled(&store.memory).await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_another_node_go_once_the_store_has_no_session_of_it() {
    let store = Faulty::new(0, false);
    begin(&store.memory, 2).await;
    let elsewhere = Name::parse(ELSEWHERE).expect("a name");
    let session = ClusterKey::Session(elsewhere.clone()).to_string();
    let mut put = Transaction::new().put(session.as_str(), "it runs");
    for slot in 0..2 {
        let pod = Pod {
            node: Some(elsewhere.clone()),
            ..Pod::new(&web(), 1, slot)
        };
        put = put.put(Key::Pod(pod.name()).to_string(), text(&pod));
    }
    write(&store.memory, put).await;
    let before = pods(&store.memory).await;
    let _node = run(&store, None);
    tokio::time::sleep(SETTLE).await;
    // This node does not know of the session, and the store does.
    assert_eq!(pods(&store.memory).await, before);
    write(&store.memory, Transaction::new().delete(session)).await;
    settled(&store.memory).await;
    let pods = pods(&store.memory).await;
    let local = Name::parse(LOCAL).expect("a name");
    assert!(
        pods.iter().all(|pod| pod.node.as_ref() == Some(&local)),
        "{pods:#?}"
    );
}
