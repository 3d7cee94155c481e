//! What is told to which node, and when again.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::*;

fn key(number: usize) -> ServiceKey {
    ServiceKey::parse(&format!("shop/web{number}")).expect("a key")
}

/// Services at which requests wait.
#[derive(Default)]
struct Waiting {
    services: Mutex<Vec<ServiceKey>>,
    came: Notify,
}

impl Waiting {
    fn begin(&self, services: impl IntoIterator<Item = ServiceKey>) {
        self.services.lock().extend(services);
        self.came.notify_one();
    }
}

impl Callers for Waiting {
    fn called(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.came.notified())
    }

    fn waiting(&self) -> Vec<ServiceKey> {
        self.services.lock().clone()
    }
}

/// What a node knows of the one that leads, and what has come of it.
#[derive(Default)]
struct Cluster {
    leader: Mutex<Leader>,
    told: Mutex<Vec<(Duration, Vec<ServiceKey>)>>,
    changed: Notify,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Leader {
    #[default]
    None,
    Here,
    Elsewhere,
}

impl Cluster {
    fn lead(&self, leader: Leader) {
        *self.leader.lock() = leader;
        self.changed.notify_one();
    }

    fn took(&self) -> Vec<usize> {
        let told = self.told.lock();
        told.iter().map(|(_, services)| services.len()).collect()
    }
}

struct Reached(Arc<Cluster>, Instant);

impl Leading for Reached {
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.changed.notified())
    }

    fn is_here(&self) -> bool {
        *self.0.leader.lock() == Leader::Here
    }

    fn here(&self) {
        self.0.told.lock().push((self.1.elapsed(), Vec::new()));
    }

    fn tell<'a>(&'a self, services: &'a [ServiceKey]) -> BoxFuture<'a, Result<(), String>> {
        let told = match *self.0.leader.lock() {
            Leader::Elsewhere => {
                let mut told = self.0.told.lock();
                told.push((self.1.elapsed(), services.to_vec()));
                Ok(())
            }
            Leader::None | Leader::Here => Err("no node leads".to_owned()),
        };
        Box::pin(std::future::ready(told))
    }
}

fn start() -> (Arc<Waiting>, Arc<Cluster>, tokio::task::JoinHandle<()>) {
    let (waiting, cluster) = (Arc::<Waiting>::default(), Arc::<Cluster>::default());
    let (gateway, reached) = (
        Arc::clone(&waiting),
        Reached(Arc::clone(&cluster), Instant::now()),
    );
    let task = tokio::spawn(async move { run(&*gateway, reached).await });
    (waiting, cluster, task)
}

/// Lets the task do what it can, and some time pass.
async fn after(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn several_requests_at_a_service_are_told_of_once() {
    let (waiting, cluster, _task) = start();
    cluster.lead(Leader::Elsewhere);
    after(1).await;
    assert!(cluster.told.lock().is_empty());
    waiting.begin([key(1)]);
    after(1).await;
    waiting.came.notify_one();
    after(1).await;
    waiting.begin([key(2)]);
    after(1).await;
    let told = || -> Vec<_> {
        let told = cluster.told.lock();
        told.iter().map(|(_, it)| it.clone()).collect()
    };
    assert_eq!(told(), [vec![key(1)], vec![key(2)]]);
    // A pod was made, and is gone again before the next request.
    waiting.services.lock().clear();
    after(100).await;
    waiting.begin([key(1)]);
    after(1).await;
    assert_eq!(told()[2..], [vec![key(1)]]);
}

#[tokio::test(start_paused = true)]
async fn it_is_told_again_after_pauses_that_double_while_requests_wait() {
    let (waiting, cluster, _task) = start();
    cluster.lead(Leader::Elsewhere);
    after(1).await;
    waiting.begin([key(1)]);
    after(5000).await;
    let told = cluster.told.lock();
    let millis: Vec<_> = told.iter().map(|(at, _)| at.as_millis()).collect();
    let pauses: Vec<_> = millis.windows(2).map(|two| two[1] - two[0]).collect();
    // The clock of tokio has a millisecond.
    let wanted = [50, 100, 200, 400, 800, 1000, 1000, 1000];
    let is_near = |(pause, wanted): (&u128, u128)| pause.abs_diff(wanted) <= 1;
    assert!(pauses.iter().zip(wanted).all(is_near), "{pauses:?}");
    assert_eq!(pauses.len(), wanted.len(), "{pauses:?}");
}

/// A service that gets a pod and loses it again and again: no wait is longer than the shortest pause.
#[tokio::test(start_paused = true)]
async fn requests_that_begin_to_wait_again_are_told_of_soon() {
    let (waiting, cluster, _task) = start();
    cluster.lead(Leader::Elsewhere);
    after(1).await;
    for round in 1..20 {
        waiting.services.lock().clear();
        waiting.begin([key(1)]);
        after(51).await;
        // That it was told of at all, and perhaps once more after the pause.
        let told = cluster.took().len();
        assert!((round..2 * round + 1).contains(&told), "{told} in {round}");
        after(9).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_told_again_when_a_node_leads() {
    let (waiting, cluster, _task) = start();
    waiting.begin([key(1)]);
    after(10_000).await;
    assert!(cluster.told.lock().is_empty());
    cluster.lead(Leader::Elsewhere);
    after(1).await;
    assert_eq!(cluster.took(), [1]);
    let (when, _) = cluster.told.lock()[0];
    assert!(when <= Duration::from_secs(10) + RETRY, "{when:?}");

    // What waits no more is told to no node.
    let (waiting, cluster, _task) = start();
    waiting.begin([key(1)]);
    after(100).await;
    waiting.services.lock().clear();
    after(100).await;
    cluster.lead(Leader::Elsewhere);
    after(1000).await;
    assert!(cluster.told.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leads_tells_itself() {
    let (waiting, cluster, _task) = start();
    waiting.begin([key(1)]);
    cluster.lead(Leader::Here);
    after(1).await;
    let before = cluster.took().len();
    assert!(before >= 1);
    waiting.came.notify_one();
    after(1).await;
    assert_eq!(cluster.took().len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn many_services_are_told_of_in_parts() {
    let (waiting, cluster, _task) = start();
    cluster.lead(Leader::Elsewhere);
    waiting.begin((0..2 * MAX_AT_ONCE + 3).map(key));
    after(1).await;
    assert_eq!(cluster.took(), [MAX_AT_ONCE, MAX_AT_ONCE, 3]);
}
