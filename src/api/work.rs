//! What takes a processor for long: a little of each sort at once, on no thread that answers others.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{Semaphore, SemaphorePermit},
    task::block_in_place,
};

use super::error::ApiError;

/// One sort of work.
pub(super) struct Work {
    /// What is under way, in the plural.
    what: &'static str,
    limit: usize,
    /// All that is under way: what works and what waits.
    places: Semaphore,
    /// What works.
    turns: Semaphore,
}

/// A turn, until it is dropped.
#[must_use]
pub(super) struct Turn<'w> {
    _turn: SemaphorePermit<'w>,
    _place: SemaphorePermit<'w>,
}

impl Work {
    /// Work of which so much is done `at_once`, in the order in which it comes, while at most
    /// `waiting` more wait. `what` it is, in the plural, is for people.
    pub(super) fn new(what: &'static str, at_once: usize, waiting: usize) -> Self {
        let limit = at_once + waiting;
        Self {
            what,
            limit,
            places: Semaphore::new(limit),
            turns: Semaphore::new(at_once),
        }
    }

    /// Does it when its turn has come. Refused at once when too much waits already.
    pub(super) async fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, ApiError> {
        let _turn = self.turn().await?;
        Ok(compute(work))
    }

    /// Waits for a turn, which is over when it is dropped. What is gathered in it is in memory as
    /// often as there are turns at once.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, ApiError> {
        let busy = |_| ApiError::busy(self.what, self.limit);
        let place = self.places.try_acquire().map_err(busy)?;
        let turn = self.turns.acquire().await;
        Ok(Turn {
            _turn: turn.expect("the semaphore is never closed"),
            _place: place,
        })
    }
}

/// Computes something. The other tasks of this thread go on elsewhere meanwhile.
pub(super) fn compute<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        // There is no other thread for them.
        RuntimeFlavor::CurrentThread => work(),
        _ => block_in_place(work),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Condvar, Mutex},
        time::Duration,
    };

    use super::*;

    /// Work that takes until it is let go.
    #[derive(Default)]
    struct Gate {
        /// How many work, and whether they may end.
        state: Mutex<(usize, bool)>,
        changed: Condvar,
    }

    impl Gate {
        fn pass(&self) {
            let mut state = self.state.lock().expect("whole");
            state.0 += 1;
            self.changed.notify_all();
            while !state.1 {
                state = self.changed.wait(state).expect("whole");
            }
        }

        fn until(&self, working: usize) {
            let state = self.state.lock().expect("whole");
            let limit = Duration::from_secs(30);
            let (state, _) = self
                .changed
                .wait_timeout_while(state, limit, |state| state.0 < working)
                .expect("whole");
            assert_eq!(state.0, working, "work that has begun");
        }

        fn open(&self) {
            self.state.lock().expect("whole").1 = true;
            self.changed.notify_all();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_keeps_nothing_else_waiting_and_more_of_it_is_refused() {
        let work = Arc::new(Work::new("plans", 2, 1));
        let gate = Arc::<Gate>::default();
        let begin = || {
            let (work, gate) = (Arc::clone(&work), Arc::clone(&gate));
            tokio::spawn(async move { work.run(|| gate.pass()).await.map_err(|it| it.message) })
        };
        let begun = [begin(), begin(), begin()];
        gate.until(2);
        // The only thread for tasks is not among those that work. The third waits.
        while work.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.state.lock().expect("whole").0, 2);
        let refused = begin().await.expect("it ends");
        assert_eq!(refused, Err("3 plans are under way already".to_owned()));
        gate.open();
        for one in begun {
            assert_eq!(one.await.expect("it ends"), Ok(()));
        }
        assert_eq!(begin().await.expect("it ends"), Ok(()));
    }
}
