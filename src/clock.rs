//! One run of a node: its name, and its clock, which planners are told of.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sampan_core::{
    name::Name,
    record::{Boot, Boots, Moment},
    time::Timestamp,
};
use tokio::time::Instant;

/// The name of a node that is alone.
pub(crate) const LOCAL: &str = "local";

/// The runs of all nodes that run, as they are known now.
pub(crate) type BootsOf = Arc<dyn Fn() -> Boots + Send + Sync>;

/// The node of this process.
#[derive(Clone)]
pub(crate) struct LocalNode {
    pub(crate) name: Name,
    pub(crate) clock: Clock,
    /// Of all nodes, if there are others.
    boots: Option<BootsOf>,
}

impl LocalNode {
    /// A node that is alone, in a run which begins now.
    pub(crate) fn start() -> Self {
        Self {
            name: Name::parse(LOCAL).expect("a name"),
            clock: Clock::start(),
            boots: None,
        }
    }

    /// A node of a cluster.
    pub(crate) fn member(name: Name, clock: Clock, boots: BootsOf) -> Self {
        Self {
            name,
            clock,
            boots: Some(boots),
        }
    }

    /// All nodes that run: this one in any case, of which the store may not know yet.
    pub(crate) fn boots(&self) -> Boots {
        let own = (self.name.clone(), self.clock.boot());
        match &self.boots {
            Some(boots) => boots().and(own),
            None => [own].into_iter().collect(),
        }
    }
}

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
