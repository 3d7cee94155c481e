//! The threads of the data side: one for each processor, and what begins on one stays there.
//!
//! Connections and pods are dealt to them. Each has a runtime of its own, so a task is polled by
//! the thread that it was spawned on and by no other: a request whose connection and pod share a
//! thread wakes no other, and all requests that are there at once go through each stage together. What
//! has to cross over does: any thread may wake a task of another one.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{Arc, Barrier},
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
};

use super::{KEEP_ALIVE, ThreadsError, keep_one_for_blocking, probe};

/// Threads that a data thread needs: itself, and one for work that may block.
const EACH: usize = 2;

/// The threads of the data side. They end, without being waited for, when this is dropped.
pub struct DataThreads {
    handles: Vec<Handle>,
    stop: watch::Sender<bool>,
}

impl DataThreads {
    /// Starts so many, at least one. Each calls `begin` with its number, from 0 on, before its first
    /// task.
    ///
    /// # Errors
    ///
    /// That the system lets no more threads be started.
    pub fn start(count: usize, begin: fn(usize)) -> Result<Self, ThreadsError> {
        let count = count.max(1);
        probe(count * EACH)?;
        let mut threads = Self {
            handles: Vec::with_capacity(count),
            stop: watch::Sender::default(),
        };
        // A task may wait for a timer of another thread, and finds it broken once that is gone.
        let all_stopped = Arc::new(Barrier::new(count));
        for number in 0..count {
            let after = ThreadsError::after(number * EACH, count * EACH);
            let runtime = Builder::new_current_thread()
                .thread_keep_alive(KEEP_ALIVE)
                .thread_name("sampan-blocking")
                .enable_all()
                .build();
            let runtime = runtime.map_err(&after)?;
            let handle = runtime.handle().clone();
            let (mut stop, all_stopped) = (threads.stop.subscribe(), Arc::clone(&all_stopped));
            let run = move || {
                begin(number);
                // A sender that is gone means the same as its word.
                let _ = runtime.block_on(stop.wait_for(|stop| *stop));
                all_stopped.wait();
                // What still blocks is not waited for.
                runtime.shutdown_background();
            };
            let name = format!("sampan-data-{number}");
            let thread = thread::Builder::new().name(name).spawn(run);
            thread.map_err(&after)?;
            keep_one_for_blocking(&handle);
            threads.handles.push(handle);
        }
        Ok(threads)
    }

    /// The runtime that this is called on in the place of threads: for tests on a clock that stands.
    ///
    /// # Panics
    ///
    /// Where there is none.
    pub fn here() -> Self {
        Self {
            handles: vec![Handle::current()],
            stop: watch::Sender::default(),
        }
    }

    /// What spawns tasks on each of them, in the order of their numbers.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// The thread for one of the pods of a service, or of the runs of a job: its number, and what
    /// spawns tasks there. Those of one owner are on all threads in turn, whatever others have been
    /// started in between, and owners begin on different ones.
    pub fn deal(&self, owner: &impl Hash, index: u64) -> (usize, &Handle) {
        let mut hasher = DefaultHasher::new();
        owner.hash(&mut hasher);
        let count = self.handles.len() as u64;
        let number = (hasher.finish() % count + index % count) % count;
        let number = number as usize;
        (number, &self.handles[number])
    }
}

impl Drop for DataThreads {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }

    #[test]
    fn a_task_stays_on_its_thread_and_threads_take_turns() {
        let threads = DataThreads::start(2, |number| NUMBER.set(Some(number))).expect("threads");
        let (first, _) = threads.deal(&"web", 0);
        let names = [0, 1, 2].map(|index: u64| {
            // Pods of others that start in between change nothing.
            let _ = threads.deal(&"api", index);
            let (dealt, handle) = threads.deal(&"web", index);
            assert_eq!(dealt, (first + index as usize) % 2);
            let here = || (NUMBER.get(), thread::current().name().map(str::to_owned));
            let task = handle.spawn(async move {
                let before = here();
                tokio::task::yield_now().await;
                let inner = tokio::spawn(async move { here() }).await.expect("it ends");
                super::super::off_thread(|| ()).await;
                assert_eq!((&before, before.clone()), (&inner, here()));
                before
            });
            let test = Builder::new_current_thread().build().expect("a runtime");
            test.block_on(task).expect("it ends")
        });
        let name = |number| (Some(number), Some(format!("sampan-data-{number}")));
        assert_eq!(names, [name(first), name(1 - first), name(first)]);
    }
}
