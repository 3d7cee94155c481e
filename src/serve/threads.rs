//! The threads of the control side.
//!
//! The API, the controllers, the mirrors of the store and the bookkeeping of pods run here; clients'
//! connections and guests run on the threads of the data side. So nothing that is decided, decoded
//! or listed keeps a request waiting, however long it takes.

use sampan_runtime::threads::{self, ThreadsError};
use tokio::runtime::{Handle, Runtime};

/// Tasks of the control side that run at once. They mostly wait; more of them than processors, so
/// that one that computes does not keep the others waiting.
const THREADS: usize = 4;
/// Threads for what the disk may take its time for and what is computed for long. What is computed
/// has tighter limits of its own.
const BLOCKING_THREADS: usize = 64;
/// How much less urgent the control side is than requests, as a `nice` value: when both want a
/// processor it has a third of the data side's share.
const NICENESS: i32 = 5;

/// The threads of the control side. They end, without being waited for, when this is dropped.
pub(crate) struct ControlThreads {
    // Only none while it is dropped.
    runtime: Option<Runtime>,
}

impl ControlThreads {
    /// Starts them.
    pub(crate) fn start() -> Result<Self, ThreadsError> {
        let runtime = threads::start(THREADS, |settings| {
            settings
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name("sampan-control")
                .on_thread_start(threads::less_urgent(NICENESS))
        })?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// What has tasks run there.
    pub(crate) fn handle(&self) -> &Handle {
        let runtime = self.runtime.as_ref();
        runtime.expect("only dropping takes it").handle()
    }
}

impl Drop for ControlThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_spawned_there_runs_on_threads_of_its_own_that_are_less_urgent() {
        let threads = ControlThreads::start().expect("threads");
        let task = threads.handle().spawn(async {
            let blocking = tokio::task::spawn_blocking(urgency);
            [urgency(), blocking.await.expect("it ends")]
        });
        let (_, here) = urgency();
        for (name, niceness) in task.await.expect("it ends") {
            assert_eq!(name, "sampan-control");
            assert_eq!(niceness, (here + NICENESS).min(19));
        }
        // On a thread of a runtime, where waiting for them would be refused.
        drop(threads);
    }

    fn urgency() -> (String, i32) {
        let thread = std::thread::current();
        let niceness = rustix::process::getpriority_process(Some(rustix::thread::gettid()));
        let name = thread.name().unwrap_or_default().to_owned();
        (name, niceness.expect("there"))
    }
}
