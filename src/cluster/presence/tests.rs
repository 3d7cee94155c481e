//! Who is seen and who leads, on a store in memory and a paused clock.

use std::collections::BTreeMap;

use sampan_store::Memory;

use super::*;
use crate::cluster::registrar::newcomer;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

const CAPACITY: Capacity = Capacity {
    pods: 7,
    memory: 1 << 30,
    cpu_millis: 2000,
};

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// A store with the nodes `a` and `b`, and what is known of them.
async fn nodes() -> (Arc<dyn Store>, Arc<Members>) {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let about = || text(&newcomer(address(), BTreeMap::new(), "0.1.0"));
    let keys = ["a", "b"].map(|node| ClusterKey::Node(name(node)).to_string());
    let put = keys
        .into_iter()
        .fold(Transaction::new(), |all, key| all.put(key, about()));
    let _ = store.commit(put).await.expect("memory does not fail");
    let members = Members::follow(&store).await.expect("memory does not fail");
    (store, Arc::new(members))
}

/// A node that runs until it is told to leave, or dies.
struct Running {
    standing: watch::Receiver<Standing>,
    departure: watch::Sender<Departure>,
    task: tokio::task::JoinHandle<Option<String>>,
}

fn run(store: &Arc<dyn Store>, members: &Arc<Members>, node: &str, boot: u64) -> Running {
    let presence = Presence {
        store: Arc::clone(store),
        members: Arc::clone(members),
        node: name(node),
        boot: Boot(boot),
        address: address(),
        since_ms: 0,
        capacity: CAPACITY,
        standing: watch::Sender::default(),
        seen: watch::Sender::default(),
    };
    let (standing, departure) = (presence.standing.subscribe(), watch::Sender::default());
    let told = departure.subscribe();
    let task = tokio::spawn(async move { presence.run(told).await });
    Running {
        standing,
        departure,
        task,
    }
}

impl Running {
    async fn until(&mut self, is: impl Fn(&Standing) -> bool) {
        let reached = self.standing.wait_for(|now| is(now));
        let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
        let reached = reached.expect("it comes to that").map(|now| *now);
        assert!(reached.is_ok(), "it runs");
    }
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_another_when_that_one_is_gone() {
    let (store, members) = nodes().await;
    let mut a = run(&store, &members, "a", 1);
    a.until(|now| now.leads()).await;
    let mut b = run(&store, &members, "b", 2);
    b.until(|now| now.is_present).await;
    assert!(!b.standing.borrow().leads());

    // One that dies is missed when its session ends.
    a.task.abort();
    b.until(|now| now.leads()).await;
    assert_eq!(members.with(|roster| roster.sessions.len()), 1);

    // One that leaves is missed at once, and nothing is left of it.
    let mut a = run(&store, &members, "a", 3);
    a.until(|now| now.is_present).await;
    let before = tokio::time::Instant::now();
    b.departure.send_replace(Departure::Leaves);
    assert_eq!(b.task.await.expect("no panic"), None);
    a.until(|now| now.leads()).await;
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_started_again_is_seen_and_leads_at_once() {
    let (store, members) = nodes().await;
    let mut a = run(&store, &members, "a", 1);
    a.until(|now| now.leads()).await;
    a.task.abort();
    let before = tokio::time::Instant::now();
    let mut again = run(&store, &members, "a", 2);
    again.until(|now| now.leads()).await;
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
    // The end of its former session takes nothing of the present one.
    let lost = again.standing.wait_for(|now| !now.leads());
    let lost = tokio::time::timeout(2 * SESSION_TIME, lost).await.is_ok();
    assert!(!lost, "it leads no more");
    assert_eq!(
        members.with(|roster| roster.boots().of(&name("a"))),
        Some(Boot(2))
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_ends_that_was_removed_or_runs_elsewhere() {
    let (store, members) = nodes().await;
    let mut a = run(&store, &members, "a", 1);
    a.until(|now| now.leads()).await;
    let mut other = run(&store, &members, "a", 2);
    other.until(|now| now.is_present).await;
    let why = a.task.await.expect("no panic").expect("it must end");
    assert_eq!(why, "another process runs as node `a`");

    let gone = Transaction::new().delete(ClusterKey::Node(name("a")).to_string());
    let _ = store.commit(gone).await.expect("memory does not fail");
    let why = other.task.await.expect("no panic").expect("it must end");
    assert_eq!(why, "node `a` was removed from the cluster");
    let why = run(&store, &members, "a", 3).task.await.expect("no panic");
    assert_eq!(
        why.as_deref(),
        Some("node `a` was removed from the cluster")
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_says_what_it_has_room_for_and_that_it_drains() {
    let (store, members) = nodes().await;
    let mut a = run(&store, &members, "a", 1);
    a.until(|now| now.leads()).await;
    let seen = members.changes();
    let is = |drains: bool| {
        let mut seen = seen.clone();
        async move {
            let is = |roster: &crate::cluster::Roster| {
                let session = roster.sessions.get(&name("a"));
                let node = roster.nodes.get(&name("a"));
                session.is_some_and(|it| it.ending == drains)
                    && node.is_some_and(|it| it.status.capacity == CAPACITY)
            };
            let seen = seen.wait_for(is);
            let seen = tokio::time::timeout(Duration::from_secs(5), seen).await;
            assert!(seen.is_ok_and(|seen| seen.is_ok()), "drains: {drains}");
        }
    };
    is(false).await;
    a.departure.send_replace(Departure::Drains);
    is(true).await;
    assert!(a.standing.borrow().leads(), "it goes on until it leaves");
    a.departure.send_replace(Departure::Leaves);
    assert_eq!(a.task.await.expect("no panic"), None);
    assert!(members.with(|roster| roster.sessions.is_empty()));
}
