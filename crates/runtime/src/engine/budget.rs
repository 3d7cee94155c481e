//! How many memory maps and addresses guests may come to need, and what of that is left.
//!
//! At its limit of memory maps a process can map nothing more, not even a stack for a thread, and
//! ends. So what a pool or the code of a component may come to need is taken from a budget before
//! it is made, by its worst case, and a pool is made smaller, or refused, before that can happen.

use std::{fs, io, sync::Arc};

use parking_lot::Mutex;

/// Where Linux says how many memory maps a process may have.
const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";
/// What Linux sets there unless told otherwise.
pub(super) const DEFAULT_MAP_COUNT: u64 = 65_530;
/// Share of the process's memory maps that pools may have, in percent.
const POOLS_PERCENT: u64 = 90;
/// The same of pools and code together. What is left is for threads, which are two maps each, and
/// their allocators.
const GUESTS_PERCENT: u64 = 95;
/// Share of what pools may have that the first of them may have, in percent.
const FIRST_PERCENT: u64 = 93;
/// Share of what is left that each further one may have, and each of the addresses that are left.
const POOL_PERCENT: u64 = 75;
/// A pool that needs no more than this share of a process's maps with a map for each guard of a
/// stack has them, in percent.
const PLAIN_PERCENT: u64 = 10;

/// Stacks that may be in use before the guards of a pool give up their maps: each of these keeps
/// what it had.
pub(super) const STACKS_BEFORE_FOLDING: u32 = 1000;
/// Maps of a stack whose guard is a map: itself and its guard. There from the start.
pub(super) const MAPS_PER_STACK: u64 = 2;
/// Maps of a slot for a memory once it has been used. What lies before its data, the data, what
/// lies behind it, and what it has not grown to; and one more, because the kernel does not join two
/// neighbours again that were written to while the data of another component lay between them.
pub(super) const MAPS_PER_MEMORY: u64 = 5;
/// Maps of a pool, whatever is in it: what lies around its memories, and its tables, which are one
/// map.
const MAPS_PER_POOL: u64 = 8;
/// Maps of a component's code: what lies before the instructions, those, and what lies behind.
const MAPS_PER_CODE: u64 = 3;
/// Linear memories in one component.
pub(super) const MAX_MEMORIES: u32 = 4;
/// Linear memories of all pools together. Each takes 4 GiB of addresses and a guard, and the space
/// between the program and the stack has room for some 21,000.
const MAX_POOLED_MEMORIES: u64 = 20_000;
/// Memories more than instances, as far as there are so many and there is room: most components
/// have one, those made of several have more.
const SPARE_MEMORIES: u32 = 1000;
/// The least of that: one for so many instances.
const INSTANCES_PER_SPARE: u32 = 20;
/// A pool of fewer instances is refused.
const MIN_INSTANCES: u32 = 4;

/// How many instances may be alive at once in each engine class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSize {
    /// Live component instances.
    pub instances: u32,
}

impl PoolSize {
    /// Enough for most nodes, and made in a few milliseconds.
    pub const DEFAULT: Self = Self { instances: 1000 };
}

/// Why a pool has no more places for instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolBound {
    /// It has as many as were asked for.
    Asked,
    /// More could need more memory maps than a process may have.
    Maps,
    /// More could need more memories than there are addresses for.
    Addresses,
}

/// A pool of instances, and how much of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Places for instances.
    pub instances: u32,
    /// Places that are taken.
    pub taken: u32,
    /// Why there are no more.
    pub bound: PoolBound,
}

/// What a pool has, and the maps that were taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) bound: PoolBound,
    pub(super) instances: u32,
    pub(super) memories: u32,
    pub(super) stacks: u32,
    /// Maps that its memories and stacks may have together.
    pub(super) maps: u64,
}

impl Slots {
    /// With so many instances, and as few memories as are of use. `None` if that is too many.
    fn least(instances: u32, stacks_per_instance: u32, foldable: bool) -> Option<Self> {
        let memories = instances.checked_add(instances.div_ceil(INSTANCES_PER_SPARE))?;
        let stacks = instances.checked_mul(stacks_per_instance)?;
        // Where an instance has several stacks, these alone would be too many from the start.
        let kept = match foldable && stacks_per_instance == 1 {
            true => stacks.min(STACKS_BEFORE_FOLDING),
            false => stacks,
        };
        let maps = u64::from(memories) * MAPS_PER_MEMORY + u64::from(kept) * MAPS_PER_STACK;
        Some(Self {
            bound: PoolBound::Asked,
            instances,
            memories,
            stacks,
            maps,
        })
    }

    /// The same with as many memories as `wanted`, or as there are maps and addresses for.
    fn with_spare(self, wanted: u32, maps: u64, memories: u64) -> Self {
        let by_maps = (maps - self.maps) / MAPS_PER_MEMORY;
        let by_addresses = memories - u64::from(self.memories);
        let more = u64::from(wanted.saturating_sub(self.memories));
        let more = more.min(by_maps).min(by_addresses);
        Self {
            memories: self.memories + more as u32,
            maps: self.maps + more * MAPS_PER_MEMORY,
            ..self
        }
    }

    /// What it may come to if each guard of a stack is a map.
    pub(super) fn maps_if_plain(self) -> u64 {
        u64::from(self.memories) * MAPS_PER_MEMORY + u64::from(self.stacks) * MAPS_PER_STACK
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

/// There is no room for the code of a component.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no room for the code of another component: pools of instances and the code of \
     components have {taken} memory maps; fewer components or a higher `vm.max_map_count` make room"
)]
pub(crate) struct NoRoomForCode {
    taken: u64,
}

/// What is left for guests.
#[derive(Debug)]
pub(super) struct Budget {
    /// Maps of the process.
    limit: u64,
    /// Maps that pools were given.
    pooled: u64,
    /// Maps of code.
    code: u64,
    /// Memories that pools may still have.
    memories: u64,
    /// Whether the guards of stacks can be marked instead of mapped.
    foldable: bool,
}

impl Budget {
    /// What this process may have by its limits.
    pub(super) fn of_process() -> io::Result<Self> {
        let limit = match fs::read_to_string(MAX_MAP_COUNT) {
            Ok(text) => text.trim().parse().unwrap_or(DEFAULT_MAP_COUNT),
            Err(error) if error.kind() == io::ErrorKind::NotFound => DEFAULT_MAP_COUNT,
            Err(error) => return Err(error),
        };
        Ok(Self::of_maps(limit, super::stacks::can_fold()))
    }

    pub(super) fn of_maps(limit: u64, foldable: bool) -> Self {
        Self {
            limit,
            pooled: 0,
            code: 0,
            memories: MAX_POOLED_MEMORIES,
            foldable,
        }
    }

    /// From now on each guard of a stack is a map.
    pub(super) fn folds_no_more(&mut self) {
        self.foldable = false;
    }

    /// Takes what a pool of that size needs, or of the largest that fits, with so many stacks for
    /// each instance.
    pub(super) fn take(&mut self, wanted: PoolSize, stacks: u32) -> Result<Slots, NoRoom> {
        let (maps, memories) = self.share();
        let least = |instances: u32| Slots::least(instances, stacks, self.foldable);
        let fits = |instances: u32| {
            least(instances).filter(|it| it.maps <= maps && u64::from(it.memories) <= memories)
        };
        // The largest of 0..=wanted that fits: what fits is an unbroken run from 0 on.
        let (mut fitting, mut beyond) = (0, u64::from(wanted.instances) + 1);
        while beyond - u64::from(fitting) > 1 {
            let middle = u64::from(fitting).midpoint(beyond) as u32;
            match fits(middle) {
                Some(_) => fitting = middle,
                None => beyond = u64::from(middle),
            }
        }
        let fitted = fits(fitting).filter(|_| fitting >= MIN_INSTANCES.min(wanted.instances));
        let mut fitted = fitted.ok_or(NoRoom { maps, memories })?;
        if fitting != wanted.instances {
            fitted.bound = match least(fitting + 1) {
                Some(more) if more.maps <= maps => PoolBound::Addresses,
                _ => PoolBound::Maps,
            };
            let (instances, wanted) = (fitting, wanted.instances);
            tracing::warn!(
                instances,
                wanted,
                "the pool of instances is smaller than asked for"
            );
        }
        let wanted = fitting.saturating_add(fitting.min(SPARE_MEMORIES));
        let mut slots = fitted.with_spare(wanted, maps, memories);
        let plain = slots.maps_if_plain();
        if plain <= maps && plain <= self.limit / 100 * PLAIN_PERCENT {
            slots.maps = plain;
        }
        self.pooled += slots.maps + MAPS_PER_POOL;
        self.memories -= u64::from(slots.memories);
        Ok(slots)
    }

    /// The maps and memories that the next pool may have.
    fn share(&self) -> (u64, u64) {
        let part = |whole: u64, percent: u64| whole / 100 * percent;
        let pools = part(self.limit, POOLS_PERCENT);
        let all = part(self.limit, GUESTS_PERCENT);
        let left = pools
            .min(all.saturating_sub(self.code))
            .saturating_sub(self.pooled);
        let percent = if self.pooled == 0 {
            FIRST_PERCENT
        } else {
            POOL_PERCENT
        };
        let maps = part(left, percent).saturating_sub(MAPS_PER_POOL);
        (maps, part(self.memories, POOL_PERCENT))
    }

    /// Takes back what a pool was to have that could not be made.
    pub(super) fn give_back(&mut self, slots: Slots) {
        self.pooled -= slots.maps + MAPS_PER_POOL;
        self.memories += u64::from(slots.memories);
    }

    fn take_code(&mut self) -> Result<(), NoRoomForCode> {
        let taken = self.pooled + self.code;
        if taken + MAPS_PER_CODE > self.limit / 100 * GUESTS_PERCENT {
            return Err(NoRoomForCode { taken });
        }
        self.code += MAPS_PER_CODE;
        Ok(())
    }
}

/// The budget of a process, of which code takes its part and gives it back.
#[derive(Clone, Debug)]
pub(super) struct SharedBudget(pub(super) Arc<Mutex<Budget>>);

impl SharedBudget {
    /// Takes the maps of one component's code.
    pub(super) fn code(&self) -> Result<CodeMaps, NoRoomForCode> {
        self.0.lock().take_code()?;
        Ok(CodeMaps(self.clone()))
    }
}

/// The memory maps of one component's code, until it is dropped.
#[derive(Debug)]
pub(crate) struct CodeMaps(SharedBudget);

impl Drop for CodeMaps {
    fn drop(&mut self) {
        self.0.0.lock().code -= MAPS_PER_CODE;
    }
}

#[cfg(test)]
mod tests;
