//! Threads to run tasks on, with an error instead of a panic where the system lets none be started.

use std::{io, thread, time::Duration};

use parking_lot::Mutex;
use sampan_core::provoke;
use tokio::runtime::{Builder, Handle, Runtime};

mod data;

pub use data::DataThreads;

/// What helps where no thread can be started.
pub const REMEDY: &str = "`ulimit -u` says how many this user may have, `pids.max` of the control \
    group how many it may have (`TasksMax=` for a unit of systemd), and each needs address space \
    (`ulimit -v`): raise the one that is reached";

/// Threads of a process that are started later and cannot be done without: what writes the store,
/// moves the epochs, looks for deadlocks, and blocks.
const LATER: usize = 4;
/// How long an idle thread for work that may block stays.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How often one of them is used: before the last one ends.
const USED: Duration = Duration::from_secs(4);

/// Why no threads can be had.
#[derive(Debug, thiserror::Error)]
#[error("the system lets this process start {started} of {wanted} threads; {REMEDY}")]
pub struct ThreadsError {
    started: usize,
    wanted: usize,
    source: io::Error,
}

impl ThreadsError {
    /// The one thread that was wanted cannot be started.
    pub(crate) fn one(source: io::Error) -> Self {
        Self::after(0, 1)(source)
    }

    /// So many of those that were wanted could be started.
    fn after(started: usize, wanted: usize) -> impl Fn(io::Error) -> Self {
        move |source| Self {
            started,
            wanted,
            source,
        }
    }
}

/// Starts `workers` threads that tasks run on. `settings` names and prepares them.
///
/// One thread for work that may block is always there: where no more can be started such work
/// waits for it, and does not fail.
pub fn start(
    workers: usize,
    settings: impl FnOnce(&mut Builder) -> &mut Builder,
) -> Result<Runtime, ThreadsError> {
    let wanted = workers + LATER;
    probe(wanted)?;
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(workers)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all();
    let threads = settings(&mut builder).build();
    let threads = threads.map_err(ThreadsError::after(wanted, wanted))?;
    keep_one_for_blocking(threads.handle());
    Ok(threads)
}

/// Keeps one thread for work that may block from ending for being idle.
fn keep_one_for_blocking(threads: &Handle) {
    threads.spawn(async {
        loop {
            off_thread(|| ()).await;
            tokio::time::sleep(USED).await;
        }
    });
}

/// Makes a thread so much less urgent than the thread that calls this, as a `nice` value: for the
/// start of threads. Where the system forbids that it stays as urgent.
pub fn less_urgent(by: i32) -> impl Fn() + Send + Sync + 'static {
    const LEAST_URGENT: i32 = 19;
    let this = || Some(rustix::thread::gettid());
    let here = rustix::process::getpriority_process(this()).unwrap_or_default();
    let niceness = (here + by).min(LEAST_URGENT);
    move || {
        let _ = rustix::process::setpriority_process(this(), niceness);
    }
}

/// What to add to an error of starting a thread or a process.
pub(crate) fn remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => format!(": {REMEDY}"),
        _ => String::new(),
    }
}

/// A worker for each processor.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Whether another thread could be started just now.
pub fn is_one_left() -> bool {
    probe(1).is_ok()
}

/// Starts as many threads as are wanted, all alive at once, and ends them again.
fn probe(wanted: usize) -> Result<(), ThreadsError> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        for started in 0..wanted {
            let wait = || drop(gate.lock());
            let thread = thread::Builder::new().spawn_scoped(scope, wait);
            thread.map_err(ThreadsError::after(started, wanted))?;
        }
        drop(closed);
        Ok(())
    })
}

/// Runs what may block, or takes milliseconds, on a thread where it keeps no request waiting. When
/// the threads are being stopped it never returns: what awaits it is being dropped.
pub async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let task = tokio::task::spawn_blocking(|| {
        provoke::panic_in(provoke::Task::Blocking);
        work()
    });
    match task.await {
        Ok(done) => done,
        Err(error) => {
            debug_assert!(error.is_cancelled(), "a panic ends the process: {error}");
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_run_and_may_block() {
        let threads = start(1, |it| it.thread_name("probed")).expect("threads");
        let name = threads.block_on(async {
            let named = tokio::spawn(async { thread::current().name().map(str::to_owned) });
            off_thread(|| ()).await;
            named.await.expect("it does not panic")
        });
        assert_eq!(name.as_deref(), Some("probed"));
    }
}
