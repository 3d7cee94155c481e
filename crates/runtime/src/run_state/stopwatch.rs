//! For how long an instance has been in a state that comes and goes.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Sums up the times in which it runs. Readings are in nanoseconds.
#[derive(Default)]
pub(super) struct Stopwatch {
    /// When it was started; 0 if it stands.
    since: AtomicU64,
    total: AtomicU64,
}

impl Stopwatch {
    pub(super) fn start(&self, now: impl FnOnce() -> u64) {
        if self.since.load(Relaxed) == 0 {
            self.since.store(now().max(1), Relaxed);
        }
    }

    pub(super) fn stop(&self, now: impl FnOnce() -> u64) {
        let since = self.since.load(Relaxed);
        if since != 0 {
            self.since.store(0, Relaxed);
            self.total.fetch_add(now().saturating_sub(since), Relaxed);
        }
    }

    pub(super) fn read(&self, now: u64) -> Duration {
        let running = match self.since.load(Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        };
        Duration::from_nanos(self.total.load(Relaxed) + running)
    }
}
