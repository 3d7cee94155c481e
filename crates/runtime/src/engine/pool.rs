//! How many instances fit: pools of slots, within the memory maps and addresses of one process.
//!
//! At its limit of memory maps a process can map nothing more, not even a stack for a thread, and
//! ends. So what the pools may come to need is counted when they are made, and a pool is made
//! smaller, or refused, before that can happen.

use std::{fs, io, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where Linux says how many memory maps a process may have.
const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";
/// What Linux sets there unless told otherwise.
const DEFAULT_MAP_COUNT: u64 = 65_530;
/// Share of the process's memory maps that pools may have, in percent.
const POOLS_PERCENT: u64 = 85;
/// Share of what is left that one pool may have, in percent: others may come later.
const POOL_PERCENT: u64 = 75;
/// Maps of a stack: itself and the page that guards it. There from the start.
const MAPS_PER_STACK: u64 = 2;
/// Maps of a memory once it has been used, and its share of the tables': what lies before its data,
/// the data, what lies behind it, and what it has not grown to.
const MAPS_PER_MEMORY: u64 = 5;
/// Linear memories of all pools together. Each takes 4 GiB of addresses and a guard, and the space
/// between the program and the stack has room for some 21,000.
const MAX_POOLED_MEMORIES: u64 = 20_000;
/// Memories more than instances, as far as there are so many: most components have one, those made
/// of several have more.
const SPARE_MEMORIES: u32 = 1000;
/// A pool of fewer instances is refused.
const MIN_INSTANCES: u32 = 4;

/// Time an instance waits for a place in its pool.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many instances may be alive at once in each engine class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSize {
    /// Live component instances.
    pub instances: u32,
}

impl PoolSize {
    /// Enough for most nodes, and made in a few milliseconds.
    pub const DEFAULT: Self = Self { instances: 1000 };

    /// Linear memories of a pool of this size.
    pub(super) fn memories(self) -> u32 {
        self.instances
            .saturating_add(self.instances.min(SPARE_MEMORIES))
    }

    /// Memory maps it may come to have.
    fn maps(self, stacks: u32) -> u64 {
        u64::from(self.instances) * u64::from(stacks) * MAPS_PER_STACK
            + u64::from(self.memories()) * MAPS_PER_MEMORY
    }
}

/// There is no room for a pool.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no room for another pool of instances: it could have {maps} memory maps and \
     {memories} memories; a higher `vm.max_map_count` makes room for more maps"
)]
pub(crate) struct NoRoom {
    maps: u64,
    memories: u64,
}

/// What is left for pools.
#[derive(Debug)]
pub(super) struct Budget {
    maps: u64,
    memories: u64,
}

impl Budget {
    /// What this process may have by its limits.
    pub(super) fn of_process() -> io::Result<Self> {
        let limit = match fs::read_to_string(MAX_MAP_COUNT) {
            Ok(text) => text.trim().parse().unwrap_or(DEFAULT_MAP_COUNT),
            Err(error) if error.kind() == io::ErrorKind::NotFound => DEFAULT_MAP_COUNT,
            Err(error) => return Err(error),
        };
        Ok(Self::of_maps(limit))
    }

    fn of_maps(limit: u64) -> Self {
        Self {
            maps: limit / 100 * POOLS_PERCENT,
            memories: MAX_POOLED_MEMORIES,
        }
    }

    /// Takes what a pool of that size needs, or of the largest that fits, with so many stacks for
    /// each instance.
    pub(super) fn take(&mut self, wanted: PoolSize, stacks: u32) -> Result<PoolSize, NoRoom> {
        let share = |whole: u64| whole / 100 * POOL_PERCENT;
        let (maps, memories) = (share(self.maps), share(self.memories));
        let fits = |instances: u32| {
            let size = PoolSize { instances };
            size.maps(stacks) <= maps && u64::from(size.memories()) <= memories
        };
        // The largest of 0..=wanted that fits: what fits is an unbroken run from 0 on.
        let (mut fitting, mut beyond) = (0, u64::from(wanted.instances) + 1);
        while beyond - u64::from(fitting) > 1 {
            let middle = u64::from(fitting).midpoint(beyond) as u32;
            match fits(middle) {
                true => fitting = middle,
                false => beyond = u64::from(middle),
            }
        }
        let size = PoolSize { instances: fitting };
        if fitting < MIN_INSTANCES.min(wanted.instances) {
            return Err(NoRoom { maps, memories });
        }
        if size != wanted {
            let (instances, wanted) = (size.instances, wanted.instances);
            tracing::warn!(
                instances,
                wanted,
                "the pool of instances is smaller than asked for"
            );
        }
        self.maps -= size.maps(stacks);
        self.memories -= u64::from(size.memories());
        Ok(size)
    }

    /// Takes back what a pool was to have that could not be made.
    pub(super) fn give_back(&mut self, size: PoolSize, stacks: u32) {
        self.maps += size.maps(stacks);
        self.memories += u64::from(size.memories());
    }
}

/// All places of a pool have been taken for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {0} places for instances of this process have been in use for {PATIENCE:?}; fewer pods, a \
     lower `concurrency`, or a higher `vm.max_map_count` make room"
)]
pub(crate) struct NoPlace(u32);

/// The places for instances in a pool.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    size: PoolSize,
}

/// A place in a pool, until it is dropped.
pub(crate) type Place = OwnedSemaphorePermit;

impl Places {
    pub(super) fn new(size: PoolSize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(size.instances as usize)),
            size,
        }
    }

    /// Waits for a free place, but not for ever: those that hold all of them may live for long.
    pub(crate) async fn take(&self) -> Result<Place, NoPlace> {
        // Nearly always there is one, and then no clock has to be read.
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(permit);
        }
        let permit = Arc::clone(&self.free).acquire_owned();
        match tokio::time::timeout(PATIENCE, permit).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(NoPlace(self.size.instances)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(instances: u32) -> PoolSize {
        PoolSize { instances }
    }

    #[test]
    fn a_pool_is_as_large_as_asked_for_if_that_fits() {
        let mut budget = Budget::of_maps(DEFAULT_MAP_COUNT);
        assert_eq!(budget.take(size(5000), 1), Ok(size(5000)));
        assert_eq!(budget.take(size(100), 4), Ok(size(100)));
        assert_eq!(budget.take(size(0), 4), Ok(size(0)));
        let left = (budget.maps, budget.memories);
        let taken = budget.take(size(50), 4).expect("room");
        budget.give_back(taken, 4);
        assert_eq!((budget.maps, budget.memories), left);
    }

    #[test]
    fn all_pools_together_stay_below_the_limit_of_the_process() {
        for limit in [65_530, 262_144, 1_048_576] {
            let mut budget = Budget::of_maps(limit);
            let (mut maps, mut memories) = (0, 0);
            for stacks in [1, 4, 1, 4] {
                let Ok(size) = budget.take(size(u32::MAX), stacks) else {
                    continue;
                };
                maps += size.maps(stacks);
                memories += u64::from(size.memories());
            }
            assert!(maps <= limit * 85 / 100, "{maps} of {limit} maps");
            assert!(memories <= MAX_POOLED_MEMORIES, "{memories} memories");
            assert!(maps > limit / 2 || memories > MAX_POOLED_MEMORIES / 2);
        }
    }

    #[test]
    fn the_largest_that_fits_is_taken() {
        let mut budget = Budget::of_maps(DEFAULT_MAP_COUNT);
        let (maps, wanted) = (budget.maps / 100 * POOL_PERCENT, size(1_000_000));
        let taken = budget.take(wanted, 1).expect("room");
        assert!(taken.maps(1) <= maps);
        assert!(size(taken.instances + 1).maps(1) > maps);
    }

    #[test]
    fn a_pool_that_would_be_of_no_use_is_refused() {
        let mut budget = Budget::of_maps(100);
        let refused = budget.take(size(1000), 1).expect_err("it does not fit");
        assert!(
            refused.to_string().contains("vm.max_map_count"),
            "{refused}"
        );
    }
}
