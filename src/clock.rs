//! The clock of one run of a node: what planners are told of the time.

use std::time::{Duration, SystemTime};

use sampan_core::{
    record::{Boot, Moment},
    time::Timestamp,
};
use tokio::time::Instant;

/// When this run began, and which one it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    boot: Boot,
    began: Instant,
    /// What the clock on the wall says.
    wall_ms: fn() -> u64,
}

impl Clock {
    /// That of a run which begins now.
    pub(crate) fn start() -> Self {
        // Two runs of one node differ in the time, two processes of one time in their number.
        let nanos = u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX);
        Self {
            boot: Boot(nanos ^ (u64::from(std::process::id()) << 40)),
            began: Instant::now(),
            wall_ms,
        }
    }

    /// The same with another clock on the wall.
    #[cfg(test)]
    pub(crate) fn with_wall(self, wall_ms: fn() -> u64) -> Self {
        Self { wall_ms, ..self }
    }

    /// Which run this is.
    pub(crate) fn boot(&self) -> Boot {
        self.boot
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::after(self.began.elapsed())
    }

    /// The same as `at`, for timers.
    pub(crate) fn instant(&self, at: Timestamp) -> Option<Instant> {
        self.began.checked_add(at.since_zero())
    }

    /// What time it is, for a planner.
    pub(crate) fn moment(&self) -> Moment {
        Moment {
            boot: self.boot,
            now: self.now(),
            wall_ms: (self.wall_ms)(),
        }
    }
}

/// The clock on the wall: milliseconds since the beginning of 1970.
pub(crate) fn wall_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

fn since_1970() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}
