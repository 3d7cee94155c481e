//! The rotation of turns, and work that changes lanes.

use std::sync::atomic::AtomicUsize;

use super::*;

fn key(number: usize) -> ServiceKey {
    ServiceKey(number)
}

/// A future that has been polled once and waits.
fn waiting(turns: &Arc<Turns>, service: usize) -> by_hand::Waiting {
    by_hand::Waiting::new(turns, key(service))
}

/// Futures polled by hand.
mod by_hand {
    use std::{
        pin::Pin,
        sync::Arc,
        task::{Context, Poll, Waker},
    };

    use super::super::{ServiceKey, Turn, Turns};

    pub(super) struct Waiting(Pin<Box<dyn Future<Output = Turn>>>);

    impl Waiting {
        pub(super) fn new(turns: &Arc<Turns>, service: ServiceKey) -> Self {
            let turns = Arc::clone(turns);
            let mut waiting = Self(Box::pin(async move { turns.take(service).await }));
            assert!(waiting.turn().is_none());
            waiting
        }

        pub(super) fn turn(&mut self) -> Option<Turn> {
            match self
                .0
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                Poll::Ready(turn) => Some(turn),
                Poll::Pending => None,
            }
        }
    }
}

#[tokio::test]
async fn services_take_turns_however_many_guests_they_have() {
    let turns = Arc::new(Turns::new(1));
    let mut current = turns.take(key(1)).await;
    let mut crowd: Vec<_> = (0..3).map(|_| waiting(&turns, 1)).collect();
    let mut single = waiting(&turns, 2);
    let mut order = Vec::new();
    for _ in 0..4 {
        drop(current);
        let of_crowd = (0..crowd.len()).find_map(|at| Some((at, crowd[at].turn()?)));
        current = match of_crowd {
            Some((at, turn)) => {
                // A finished future must not be polled again.
                crowd.remove(at);
                order.push(1);
                turn
            }
            None => {
                order.push(2);
                single.turn().expect("a turn")
            }
        };
    }
    assert_eq!(order, [1, 2, 1, 1]);
}

#[tokio::test]
async fn a_turn_passes_over_guests_that_are_gone() {
    let turns = Arc::new(Turns::new(1));
    let current = turns.take(key(1)).await;
    let gone = waiting(&turns, 1);
    let mut there = waiting(&turns, 1);
    drop(gone);
    drop(current);
    drop(there.turn().expect("its turn"));
    assert_eq!(turns.0.lock().free, 1);
    assert!(turns.0.lock().waiting.is_empty());
}

#[tokio::test]
async fn work_moves_to_the_slow_lane_and_back() {
    let lane = SlowLane::start().expect("threads");
    let pace = Arc::new(Pace::default());
    let names = Arc::new(Mutex::new(Vec::new()));
    let work: Work<u8> = Box::pin({
        let (pace, names) = (Arc::clone(&pace), Arc::clone(&names));
        async move {
            let note = || {
                let on_slow_lane = std::thread::current().name() == Some("sampan-long");
                names.lock().push(on_slow_lane);
            };
            for long in [false, true, true, false] {
                note();
                pace.set(long);
                tokio::task::yield_now().await;
            }
            note();
            7
        }
    });
    let output = lane.drive(key(1), &pace, work).await;
    assert_eq!(output, 7);
    assert_eq!(*names.lock(), [false, false, true, true, false]);
}

#[tokio::test]
async fn dropping_the_driver_drops_the_work() {
    struct Count(Arc<AtomicUsize>, Option<oneshot::Sender<()>>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
            // The receiver may have given up.
            let _ = self.1.take().map(|told| told.send(()));
        }
    }
    let lane = SlowLane::start().expect("threads");
    let pace = Arc::new(Pace::new(true));
    let dropped = Arc::new(AtomicUsize::new(0));
    let (told, gone) = oneshot::channel();
    let (begun, has_begun) = oneshot::channel();
    let count = Count(Arc::clone(&dropped), Some(told));
    let work: Work<()> = Box::pin(async move {
        let _count = count;
        let _ = begun.send(());
        std::future::pending().await
    });
    let key = key(1);
    tokio::select! {
        () = lane.drive(key, &pace, work) => unreachable!("it never ends"),
        begun = has_begun => begun.expect("it begins"),
    }
    gone.await.expect("it is dropped");
    assert_eq!(dropped.load(Relaxed), 1);
}
