//! The races of the queue, one by one.

use std::sync::atomic::AtomicU64;

use sampan_core::name::{PodName, ServiceKey};

use super::*;
use crate::{
    body::Body,
    endpoint::{Endpoint, EndpointState},
    upstream::{RequestContext, Upstream, UpstreamFuture},
};

struct Never;

impl Upstream for Never {
    fn call(&self, _: http::Request<Body>, _: &RequestContext) -> UpstreamFuture {
        Box::pin(std::future::pending())
    }
}

fn targets(endpoint: &Arc<Endpoint>) -> Targets {
    Targets::from(Arc::<[_]>::from([Arc::clone(endpoint)]))
}

/// A queue in front of one pod that takes one request at a time.
fn queue_of_one() -> (Arc<Queue>, Arc<Endpoint>) {
    let name = PodName::new(&ServiceKey::parse("shop/web").unwrap(), 1, 0);
    let endpoint = Endpoint::new(name, 1, 1, Arc::new(Never));
    endpoint.set_state(EndpointState::Ready);
    let queue = Arc::new(Queue::default());
    endpoint.attach(&queue, &crate::stats::Counters::default());
    queue.install(targets(&endpoint), 10, true);
    (queue, endpoint)
}

fn slot(queue: &Arc<Queue>) -> Slot {
    match queue.enter(Asker::default(), Duration::from_secs(1)) {
        Ok(Entry::Slot(slot)) => slot,
        _ => panic!("the pod is free"),
    }
}

fn ticket(queue: &Arc<Queue>) -> Ticket {
    match queue.enter(Asker::default(), Duration::from_secs(1)) {
        Ok(Entry::Ticket(ticket)) => ticket,
        _ => panic!("the pod is busy"),
    }
}

/// Lets two threads do something at the same time, over and over, and checks each round.
fn race(rounds: u64, left: impl Fn(u64) + Sync, right: impl Fn(), check: impl Fn(u64)) {
    let at = [const { AtomicU64::new(0) }; 2];
    let meet = |own: usize, point: u64| {
        at[own].store(point, SeqCst);
        while at[1 - own].load(SeqCst) < point {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                meet(0, 2 * round);
                left(round);
                meet(0, 2 * round + 1);
            }
        });
        for round in 1..=rounds {
            meet(1, 2 * round);
            right();
            meet(1, 2 * round + 1);
            // The other side waits for the next round.
            check(round);
        }
    });
}

#[test]
fn a_slot_freed_while_another_enters_is_not_lost() {
    let (queue, endpoint) = queue_of_one();
    let held = Mutex::new(Some(slot(&queue)));
    let entered = Mutex::new(None);
    race(
        200_000,
        |round| {
            let slot = held.lock().take();
            // The two meet at ever other points of their way.
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            drop(slot);
        },
        || *entered.lock() = Some(queue.enter(Asker::default(), Duration::from_secs(1))),
        |round| {
            let slot = match entered.lock().take() {
                Some(Ok(Entry::Slot(slot))) => slot,
                Some(Ok(Entry::Ticket(mut ticket))) => match ticket.slot.try_recv() {
                    Ok(slot) => slot.unwrap(),
                    // Checked on the thread that both wait for: a panic there would hang.
                    Err(_) => {
                        LOST.fetch_add(1, SeqCst);
                        endpoint.try_acquire();
                        let place = Place::Pod(Arc::clone(&endpoint));
                        Slot::new(place, &queue, None, Instant::now())
                    }
                },
                _ => unreachable!("round {round}: the queue is open and empty"),
            };
            *held.lock() = Some(slot);
        },
    );
    assert_eq!(LOST.load(SeqCst), 0, "slots that no request took");
    assert_eq!((endpoint.in_flight(), queue.waiting()), (1, 0));
    drop(held.lock().take());
    assert_eq!(endpoint.in_flight(), 0);
}

/// Slots that were free while a request waited.
static LOST: AtomicU64 = AtomicU64::new(0);

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_even_while_a_slot_changes_hands() {
    let (queue, endpoint) = queue_of_one();
    let held = slot(&queue);
    let mut first = ticket(&queue);
    // The moment in which a slot is free and its owner has not looked into the queue yet.
    endpoint.release();
    let second = queue
        .acquire(
            &targets(&endpoint),
            Duration::from_secs(1),
            Instant::now(),
            Asker::default(),
            std::future::pending(),
        )
        .await;
    assert_eq!(second.err(), Some(Fault::QueueTimeout));
    let slot = first.slot.try_recv().expect("the first has it").unwrap();
    assert!(endpoint.room().is_none());
    std::mem::forget(held);
    drop(slot);
    assert_eq!(endpoint.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_comes_with_the_end_of_the_wait_is_taken() {
    let (queue, endpoint) = queue_of_one();
    let held = slot(&queue);
    let waiting = ticket(&queue);
    drop(held);
    let slot = waiting.leave().expect("it came before");
    assert_eq!((endpoint.in_flight(), queue.waiting()), (1, 0));
    let late = ticket(&queue);
    assert!(late.leave().is_none());
    drop(slot);
    assert_eq!((endpoint.in_flight(), queue.waiting()), (0, 0));
}

#[test]
fn a_slot_handed_to_one_that_goes_is_handed_on() {
    let (queue, endpoint) = queue_of_one();
    let held = slot(&queue);
    let (first, second, mut third) = (ticket(&queue), ticket(&queue), ticket(&queue));
    drop(held);
    assert_eq!(queue.waiting(), 2);
    drop(second);
    drop(first);
    assert_eq!((queue.waiting(), endpoint.in_flight()), (0, 1));
    drop(third.slot.try_recv().expect("the third has it").unwrap());
    assert_eq!(endpoint.in_flight(), 0);
}

#[test]
fn a_closed_queue_lets_nobody_in_until_it_is_opened_again() {
    let (queue, endpoint) = queue_of_one();
    let held = slot(&queue);
    let mut waiting = ticket(&queue);
    queue.close();
    assert!(waiting.slot.try_recv().is_err());
    drop(held);
    assert!(matches!(
        queue.enter(Asker::default(), Duration::from_secs(1)),
        Err(Fault::NoService)
    ));
    queue.install(targets(&endpoint), 1, true);
    drop(slot(&queue));
}

/// Whether the queue has told of a request that no pod can take, since this was last asked.
fn is_told(parked: &Notify) -> bool {
    let notified = std::pin::pin!(parked.notified());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    notified.poll(&mut cx).is_ready()
}

#[test]
fn the_last_pod_that_goes_while_another_enters_is_told_of() {
    let parked = Arc::<Notify>::default();
    let queue = Arc::new(Queue::new(&parked, &Arc::default()));
    let publish = |slot: u64| {
        let name = PodName::new(&ServiceKey::parse("shop/web").unwrap(), 1, slot as u32);
        let endpoint = Endpoint::new(name, 1, 1, Arc::new(Never));
        endpoint.attach(&queue, &crate::stats::Counters::default());
        queue.install(targets(&endpoint), 10, true);
        endpoint
    };
    let last = Mutex::new(publish(0));
    let entered = Mutex::new(None);
    let missed = AtomicU64::new(0);
    race(
        20_000,
        |round| {
            let endpoint = last.lock().clone();
            // The two meet at ever other points of their way.
            (0..round % 16).for_each(|_| std::hint::spin_loop());
            endpoint.set_state(EndpointState::Terminating);
        },
        || *entered.lock() = Some(ticket(&queue)),
        |round| {
            missed.fetch_add(u64::from(!is_told(&parked)), SeqCst);
            drop(entered.lock().take());
            *last.lock() = publish(round);
        },
    );
    assert_eq!(
        missed.load(SeqCst),
        0,
        "times that the control side was not told"
    );
}
