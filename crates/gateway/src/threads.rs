//! The threads that serve connections, and which of them a connection goes to.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::runtime::Handle;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Gives this thread its number among those that serve connections: the home of a pod
/// ([`Endpoint::new`](crate::Endpoint::new)) is the thread with this number. A thread that is given
/// none has the number 0.
pub fn number_thread(number: usize) {
    NUMBER.set(number);
}

/// The number of this thread.
pub(crate) fn this_thread() -> usize {
    NUMBER.get()
}

/// What serves the connections of a server: threads with tasks of their own.
#[derive(Debug)]
pub(crate) struct Threads {
    all: Vec<Arc<Thread>>,
    /// Where the search for the next one begins, so that those with as many connections take turns.
    next: usize,
}

#[derive(Debug)]
struct Thread {
    handle: Handle,
    connections: AtomicUsize,
}

/// One connection of a thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Thread>);

impl Threads {
    /// Those that these runtimes run on.
    pub(crate) fn of(handles: impl IntoIterator<Item = Handle>) -> Self {
        let thread = |handle| {
            Arc::new(Thread {
                handle,
                connections: AtomicUsize::new(0),
            })
        };
        Self {
            all: handles.into_iter().map(thread).collect(),
            next: 0,
        }
    }

    /// A seat at the thread with the fewest connections.
    pub(crate) fn seat(&mut self) -> Seat {
        let (front, back) = self.all.split_at(self.next);
        let least = back
            .iter()
            .chain(front)
            .min_by_key(|thread| thread.connections.load(Relaxed))
            .expect("a server has a thread");
        least.connections.fetch_add(1, Relaxed);
        let seat = Seat(Arc::clone(least));
        self.next = (self.next + 1) % self.all.len();
        seat
    }
}

impl Seat {
    /// Runs the task that serves the connection on this thread, and keeps the seat until it ends.
    pub(crate) fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.0.handle.clone();
        handle.spawn(async move {
            task.await;
            drop(self);
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_to_the_thread_with_the_fewest() {
        let mut threads = Threads::of([Handle::current(), Handle::current(), Handle::current()]);
        let counts = |threads: &Threads| {
            let count = |thread: &Arc<Thread>| thread.connections.load(Relaxed);
            threads.all.iter().map(count).collect::<Vec<_>>()
        };
        let seats: Vec<_> = (0..7).map(|_| threads.seat()).collect();
        assert_eq!(counts(&threads), [3, 2, 2]);
        drop(seats);
        assert_eq!(counts(&threads), [0, 0, 0]);
        // Ties are taken in turn, also where each connection has gone when the next one comes.
        let began: Vec<_> = (0..6).map(|_| Arc::clone(&threads.seat().0)).collect();
        for thread in &threads.all {
            assert_eq!(began.iter().filter(|it| Arc::ptr_eq(it, thread)).count(), 2);
        }
    }
}
