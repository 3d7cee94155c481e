//! A panic is a bug and ends the process: nothing carries on with half of its work undone.

use std::{thread, time::Duration};

use sampan_runtime::threads;

/// How long the report of a panic may take: whatever reads standard error may have stopped reading.
const MAX_REPORT: Duration = Duration::from_secs(1);

/// How panics of libraries begin that are the system's fault.
const NO_THREAD: [&str; 2] = ["OS can't spawn worker thread", "failed to spawn thread"];

/// Variable with which a test has a kind of task panic, in builds that tests run.
#[cfg(debug_assertions)]
const PROVOKE: &str = "SAMPAN_TEST_PANIC";

/// From now on a panic ends the process once it has been reported, whichever thread or task it is
/// in. Left alone are only those that are expected of wasmtime's writer of core dumps.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the hook that others must not replace"
)]
pub(crate) fn end_the_process() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if sampan_runtime::expects_panic() {
            return;
        }
        // Where no thread can be started the report may take longer.
        let _ = thread::Builder::new().spawn(|| {
            thread::park_timeout(MAX_REPORT);
            std::process::abort();
        });
        report(panic);
        match panic.payload_as_str() {
            Some(text) if NO_THREAD.iter().any(|it| text.starts_with(it)) => {
                tracing::error!("the system lets no thread be started: {}", threads::REMEDY);
            }
            _ => tracing::error!("a panic is a bug of this program, which ends; please report it"),
        }
        std::process::abort();
    }));
    #[cfg(debug_assertions)]
    if let Ok(task) = std::env::var(PROVOKE) {
        sampan_core::provoke::ask(task);
        sampan_core::provoke::panic_in(sampan_core::provoke::Task::Main);
    }
}

/// What a task has come to. A panic ends the process, so one without an outcome was on a runtime that
/// is being taken down, as it is where a second Ctrl-C ends the process at once: then there is
/// nothing to go on with, and this never resolves.
pub(crate) async fn joined<T>(done: Result<T, tokio::task::JoinError>) -> T {
    match done {
        Ok(outcome) => outcome,
        Err(error) => {
            debug_assert!(error.is_cancelled(), "a panic ends the process: {error}");
            std::future::pending().await
        }
    }
}
