//! Members of etcd that are killed or stopped under a client that writes and watches: how long that
//! takes, that no acknowledged write is lost, and that a watch misses nothing and says nothing twice.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use sampan_store::{Etcd, Outcome, Revision, Store, Transaction, Watch};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    fixture::{put, within},
    members::{Cluster, Pace},
};

/// The longest time without a write, and without an event of a watch. Each test prints what it has
/// seen.
const WRITES: Duration = Duration::from_secs(4);
const EVENTS: Duration = Duration::from_secs(6);

/// The pause after a write that has failed.
const AGAIN: Duration = Duration::from_millis(10);

/// Writes before the fault and after what it did is over.
const SOME: usize = 30;

/// What is written below it is counted.
const COUNTED: &str = "/counted/";

/// A client that writes one key after another, and one that watches them.
struct Observed {
    store: Arc<Etcd>,
    stop: Arc<AtomicBool>,
    writing: JoinHandle<Written>,
    watching: JoinHandle<Watched>,
}

#[derive(Debug, Default)]
struct Written {
    acknowledged: BTreeSet<u64>,
    /// Whether these were written is not known.
    uncertain: BTreeSet<u64>,
    longest: Duration,
}

#[derive(Debug, Default)]
struct Watched {
    numbers: Vec<u64>,
    longest: Duration,
}

/// Writes numbers until it is stopped, and a last one.
async fn write(store: Arc<Etcd>, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    let mut last = Instant::now();
    for number in 0_u64.. {
        let key = format!("{COUNTED}{number:08}");
        let writing = Transaction::new().absent(&*key).put(&*key, "1");
        match store.commit(writing).await {
            Ok(Outcome::Committed(_)) => {
                written.acknowledged.insert(number);
                written.longest = written.longest.max(last.elapsed());
                last = Instant::now();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok(Outcome::Conflict(key)) => panic!("`{key}` was written twice"),
            Err(_) => {
                written.uncertain.insert(number);
                sleep(AGAIN).await;
            }
        }
    }
    written
}

/// Takes down what a watch says, until the last number comes.
async fn watch(mut watch: Watch, last: Arc<AtomicBool>) -> Watched {
    let mut watched = Watched::default();
    let mut before = Instant::now();
    loop {
        let batch = within(watch.next()).await.expect("nothing is compacted");
        watched.longest = watched.longest.max(before.elapsed());
        before = Instant::now();
        for change in batch.changes {
            if &*change.key == "/counted/last" {
                assert!(last.load(Ordering::Relaxed));
                return watched;
            }
            let number = change.key.strip_prefix(COUNTED).expect("below it");
            watched.numbers.push(number.parse().expect("a number"));
        }
    }
}

impl Observed {
    async fn start(cluster: &Cluster, asked: usize) -> Self {
        let store = Arc::new(cluster.open(asked).await);
        let stop = Arc::new(AtomicBool::new(false));
        let following = store.watch(COUNTED, Revision(0)).await.unwrap();
        let observed = Self {
            writing: tokio::spawn(write(Arc::clone(&store), Arc::clone(&stop))),
            watching: tokio::spawn(watch(following, Arc::clone(&stop))),
            store,
            stop,
        };
        observed.some().await;
        observed
    }

    /// Waits until some more has been written.
    async fn some(&self) {
        let mut watch = loop {
            if let Ok(listing) = self.store.list(COUNTED).await {
                break self.store.watch(COUNTED, listing.revision).await.unwrap();
            }
        };
        for _ in 0..SOME {
            within(watch.next()).await.unwrap();
        }
    }

    /// Ends both, and compares.
    async fn end(self) {
        self.some().await;
        self.stop.store(true, Ordering::Relaxed);
        let written = within(self.writing).await.unwrap();
        put(&*self.store, "/counted/last", "1").await;
        let watched = within(self.watching).await.unwrap();
        println!(
            "{} writes, {} uncertain; longest time without a write {:?}, without an event {:?}",
            written.acknowledged.len(),
            written.uncertain.len(),
            written.longest,
            watched.longest,
        );
        let numbers: BTreeSet<_> = watched.numbers.iter().copied().collect();
        assert_eq!(numbers.len(), watched.numbers.len(), "something came twice");
        let missed: Vec<_> = written.acknowledged.difference(&numbers).collect();
        assert!(missed.is_empty(), "missed {missed:?}");
        // One whose end is not known may come after those that were written later.
        let mut known = watched.numbers.clone();
        known.retain(|number| written.acknowledged.contains(number));
        assert!(known.is_sorted(), "out of order");
        let entries = self.store.list(COUNTED).await.unwrap().entries;
        let there: BTreeSet<u64> = entries
            .iter()
            .filter_map(|entry| entry.key.strip_prefix(COUNTED)?.parse().ok())
            .collect();
        let lost: Vec<_> = written.acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        // What was watched is what there is, and nothing but what was to be written.
        assert_eq!(there, numbers);
        let known =
            |it: &&u64| !written.acknowledged.contains(*it) && !written.uncertain.contains(*it);
        assert_eq!(there.iter().filter(known).count(), 0);
        assert!(
            written.longest <= WRITES,
            "{:?} without a write",
            written.longest
        );
        assert!(
            watched.longest <= EVENTS,
            "{:?} without an event",
            watched.longest
        );
    }
}

/// Three members; the leader, and a follower.
fn three() -> Option<(Cluster, usize, usize)> {
    let cluster = Cluster::start(3, Pace::Default)?;
    let leader = cluster.leader().expect("it has been waited for");
    Some((cluster, leader, (leader + 1) % 3))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_that_is_asked_is_killed() {
    let Some((mut cluster, leader, _)) = three() else {
        return;
    };
    let observed = Observed::start(&cluster, leader).await;
    cluster.kill(leader);
    observed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_and_a_follower_is_asked() {
    let Some((mut cluster, leader, follower)) = three() else {
        return;
    };
    let observed = Observed::start(&cluster, follower).await;
    cluster.kill(leader);
    observed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_follower_that_is_asked_is_killed() {
    let Some((mut cluster, _, follower)) = three() else {
        return;
    };
    let observed = Observed::start(&cluster, follower).await;
    cluster.kill(follower);
    observed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_that_is_asked_is_stopped() {
    let Some((cluster, leader, _)) = three() else {
        return;
    };
    let observed = Observed::start(&cluster, leader).await;
    cluster.signal(leader, Signal::STOP);
    observed.some().await;
    cluster.signal(leader, Signal::CONT);
    observed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_stopped_and_a_follower_is_asked() {
    let Some((cluster, leader, follower)) = three() else {
        return;
    };
    let observed = Observed::start(&cluster, follower).await;
    cluster.signal(leader, Signal::STOP);
    observed.some().await;
    cluster.signal(leader, Signal::CONT);
    observed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_follower_that_is_asked_is_stopped() {
    let Some((cluster, _, follower)) = three() else {
        return;
    };
    let observed = Observed::start(&cluster, follower).await;
    cluster.signal(follower, Signal::STOP);
    observed.some().await;
    cluster.signal(follower, Signal::CONT);
    observed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_killed_and_come_back() {
    let Some((mut cluster, leader, _)) = three() else {
        return;
    };
    let observed = Observed::start(&cluster, leader).await;
    for member in 0..3 {
        cluster.kill(member);
    }
    for member in 0..3 {
        cluster.restart(member);
    }
    observed.end().await;
}
