//! The threads that a verb runs on.

use std::time::Duration;

use sampan_runtime::threads;

/// For how long the end of the program waits for threads that are in a system call. One that reads
/// from a disk or a server that is gone may never come back.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Tasks of a verb that run at once: a terminal or a pipe that takes nothing keeps the one that prints
/// events and the one that prints lines, and the rest goes on.
const WORKERS: usize = 3;

/// The runtime that a verb runs on; requests have threads of their own. Its end takes at most
/// [`LAST_CALLS`].
pub(super) struct Threads(Option<tokio::runtime::Runtime>);

pub(super) fn runtime() -> anyhow::Result<Threads> {
    let runtime = threads::start(WORKERS, |settings| settings)?;
    Ok(Threads(Some(runtime)))
}

impl Threads {
    pub(super) fn block_on<F: Future>(&self, work: F) -> F::Output {
        let runtime = self.0.as_ref();
        runtime.expect("taken only in drop").block_on(work)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(LAST_CALLS);
        }
    }
}

/// Whether the system lets another thread be started.
pub(super) fn may_start_thread() -> bool {
    threads::is_one_left()
}
