//! The places for instances in a pool, and the memory maps that those who have them may cause.
//!
//! Slots for memories cost maps when they are first used, and keep them. In a large pool there are
//! not enough for all slots and a map for each guard of a stack. So before an instance is made that
//! could use a slot for which there are no maps, the guards of stacks give up theirs
//! ([`super::stacks`]). Then all slots may be used: that fits, or the pool would not be so large
//! ([`super::budget`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::{Engine, component::Component};

use super::{
    budget::{
        MAPS_PER_MEMORY, MAPS_PER_STACK, MAX_MEMORIES, PoolUse, STACKS_BEFORE_FOLDING, Slots,
    },
    stacks::{Stacks, Unguarded},
};

/// Time an instance waits for a place in its pool.
const PATIENCE: Duration = Duration::from_secs(10);
/// Places that may be taken before it is counted again what is in use.
const BATCH: u32 = 64;
/// Instances that may be there without a place: one that is given up while another thread is inside
/// it goes a little later than its place.
const LATE: u32 = 64;
/// Memories of an instance at most, with a heap for what is collected.
const MOST_MEMORIES: u32 = MAX_MEMORIES + 1;

/// Why there is no place for an instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPlace {
    /// All have been taken for a while.
    #[error(
        "all {0} places for instances of this process have been in use for {PATIENCE:?}; fewer \
         pods, a lower `concurrency`, or a higher `vm.max_map_count` make room"
    )]
    Taken(u32),
    #[error(transparent)]
    Unguarded(#[from] Unguarded),
}

/// The places for instances in a pool.
#[derive(Debug)]
pub(crate) struct Places {
    free: Semaphore,
    slots: Slots,
    /// How maps are made room for, in a pool that has not maps for everything.
    room: Option<Room>,
}

/// What the maps of a pool go to.
#[derive(Debug)]
struct Room {
    /// Memories that the instances with places may have.
    held: AtomicU64,
    /// Places that may be taken before the next count.
    credit: AtomicI64,
    stacks: Mutex<Stacks>,
    engine: Engine,
}

/// How many memories an instance may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memories(u32);

impl Memories {
    /// Of a component. One more than it says: a heap for what is collected is a memory as well.
    pub(crate) fn of(component: &Component) -> Self {
        let required = component.resources_required();
        Self(required.map_or(MOST_MEMORIES, |it| it.num_memories + 1))
    }
}

/// A place in a pool, until it is dropped: not before what was made there.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    memories: Memories,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(room) = &self.places.room {
            room.held
                .fetch_sub(self.memories.0.into(), Ordering::AcqRel);
        }
        self.places.free.add_permits(1);
    }
}

impl Places {
    /// In a pool that has maps for all of its slots and the guards of all of its stacks.
    pub(super) fn plain(slots: Slots) -> Self {
        let free = Semaphore::new(slots.instances as usize);
        Self {
            free,
            slots,
            room: None,
        }
    }

    /// In a pool whose stacks give up the maps of their guards.
    pub(super) fn folding(slots: Slots, engine: Engine, stacks: Stacks) -> Self {
        let room = Room {
            held: AtomicU64::new(0),
            credit: AtomicI64::new(0),
            stacks: Mutex::new(stacks),
            engine,
        };
        Self {
            room: Some(room),
            ..Self::plain(slots)
        }
    }

    /// How much of the pool is taken.
    pub(super) fn in_use(&self) -> PoolUse {
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX);
        PoolUse {
            instances: self.slots.instances,
            taken: self.slots.instances.saturating_sub(free),
            bound: self.slots.bound,
        }
    }

    /// Waits for a free place, but not for ever: those that hold all of them may live for long.
    pub(crate) async fn take(self: &Arc<Self>, memories: Memories) -> Result<Place, NoPlace> {
        self.permit().await?;
        if let Some(room) = &self.room {
            room.held.fetch_add(memories.0.into(), Ordering::AcqRel);
        }
        let places = Arc::clone(self);
        let place = Place { places, memories };
        if let Some(room) = &self.room {
            room.admit(self)?;
        }
        Ok(place)
    }

    async fn permit(&self) -> Result<(), NoPlace> {
        const OPEN: &str = "the semaphore is never closed";
        // Nearly always there is one, and then no clock has to be read.
        if let Ok(permit) = self.free.try_acquire() {
            permit.forget();
            return Ok(());
        }
        match tokio::time::timeout(PATIENCE, self.free.acquire()).await {
            Ok(permit) => permit.expect(OPEN).forget(),
            Err(_) => return Err(NoPlace::Taken(self.slots.instances)),
        }
        Ok(())
    }
}

impl Room {
    /// Sees to it that there are maps for what one more instance may use, which has its place.
    fn admit(&self, places: &Places) -> Result<(), NoPlace> {
        if self.credit.fetch_sub(1, Ordering::AcqRel) >= 1 {
            return Ok(());
        }
        let mut stacks = self.stacks.lock();
        // Another may have counted in the meantime, and not this one.
        if self.credit.fetch_sub(1, Ordering::AcqRel) >= 1 {
            return Ok(());
        }
        if !stacks.are_folded() && !self.in_use(places).has_room(places.slots) {
            stacks.fold()?;
        }
        let credit = match stacks.are_folded() {
            true => i64::MAX / 2,
            false => i64::from(BATCH),
        };
        self.credit.store(credit, Ordering::Release);
        Ok(())
    }

    /// What has been used so far. The credit is spent, so each instance with a place is counted here or
    /// waits to count.
    fn in_use(&self, places: &Places) -> InUse {
        // First what is held: what is given back meanwhile is counted twice rather than not at all.
        let free = places.free.available_permits() as u64;
        let (instances, memories) = (
            u64::from(places.slots.instances) - free,
            self.held.load(Ordering::Acquire),
        );
        let Some(pool) = self.engine.pooling_allocator_metrics() else {
            return InUse {
                memories: u64::MAX,
                stacks: u64::MAX,
            };
        };
        InUse {
            memories: memories + u64::from(pool.unused_warm_memories()),
            stacks: instances + u64::from(pool.unused_warm_stacks()),
        }
    }
}

/// Slots of a pool that are in use or were once.
#[derive(Clone, Copy, Debug)]
struct InUse {
    memories: u64,
    stacks: u64,
}

impl InUse {
    /// Whether the guards can keep their maps until the next count.
    fn has_room(self, slots: Slots) -> bool {
        let soon = u64::from(BATCH + LATE);
        let stacks = self.stacks.saturating_add(soon);
        let memories = self
            .memories
            .saturating_add(soon * u64::from(MOST_MEMORIES));
        let maps = memories.saturating_mul(MAPS_PER_MEMORY);
        stacks <= STACKS_BEFORE_FOLDING.into()
            && maps.saturating_add(u64::from(slots.stacks) * MAPS_PER_STACK) <= slots.maps
    }
}

#[cfg(test)]
mod tests;
