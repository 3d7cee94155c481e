//! The law of the places: maps for slots that are used and for guards that are maps always fit.

use wasmtime::{Config, InstanceAllocationStrategy};

use super::*;
use crate::engine::{
    FIBER_STACK_BYTES, PoolSize,
    budget::{Budget, DEFAULT_MAP_COUNT},
    pooling,
    stacks::{Before, can_fold},
};

fn slots(instances: u32) -> Slots {
    let mut budget = Budget::of_maps(DEFAULT_MAP_COUNT, true);
    budget.take(PoolSize { instances }, 1).expect("room")
}

#[test]
fn guards_keep_their_maps_only_while_there_are_enough() {
    for slots in [slots(10_000), slots(4000), slots(1500)] {
        let mut last = true;
        for used in 0..u64::from(slots.memories) {
            let in_use = InUse {
                memories: used,
                stacks: used,
            };
            let has_room = in_use.has_room(slots);
            assert!(last || !has_room, "room again at {used} of {slots:?}");
            let plain = u64::from(slots.stacks) * MAPS_PER_STACK;
            let maps = (used + u64::from(BATCH)) * MAPS_PER_MEMORY + plain;
            let stays = (used + u64::from(BATCH)) <= STACKS_BEFORE_FOLDING.into();
            assert!(
                !has_room || maps <= slots.maps && stays,
                "{used} of {slots:?}"
            );
            last = has_room;
        }
        assert!(!last);
        // All memories, and the stacks that were in use before.
        let kept = u64::from(STACKS_BEFORE_FOLDING) * MAPS_PER_STACK;
        let folded = u64::from(slots.memories) * MAPS_PER_MEMORY + kept;
        assert!(folded <= slots.maps, "{folded} of {slots:?}");
    }
    // A node with few instances pays for no page tables.
    let (memories, stacks) = (1500, 750);
    assert!(InUse { memories, stacks }.has_room(slots(10_000)));
}

/// The places of a pool that folds, and its engine, where that can be.
fn folding(instances: u32) -> Option<(Arc<Places>, Engine)> {
    let slots = slots(instances);
    assert!(slots.maps < slots.maps_if_plain());
    if !can_fold() {
        return None;
    }
    let mut config = Config::new();
    config.async_stack_size(FIBER_STACK_BYTES);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(slots)));
    let before = Before::look().expect("maps");
    let engine = Engine::new(&config).expect("an engine");
    let stacks = before.find(&engine, slots.stacks, FIBER_STACK_BYTES);
    let stacks = stacks.expect("maps").expect("a row of stacks");
    let places = Places::folding(slots, engine.clone(), stacks);
    Some((Arc::new(places), engine))
}

fn are_folded(places: &Places) -> bool {
    let room = places.room.as_ref().expect("a pool that folds");
    room.stacks.lock().are_folded()
}

/// Memory maps of its stacks.
fn maps(places: &Places) -> usize {
    let room = places.room.as_ref().expect("a pool that folds");
    room.stacks.lock().maps()
}

#[tokio::test]
async fn guards_are_folded_when_many_places_are_taken() {
    let Some((places, _engine)) = folding(3000) else {
        return;
    };
    assert!(maps(&places) == 6000 && !are_folded(&places));
    let mut held = Vec::new();
    for taken in 1..=3000 {
        held.push(places.take(Memories(2)).await.expect("a place"));
        assert!(
            taken <= STACKS_BEFORE_FOLDING || are_folded(&places),
            "{taken}"
        );
        assert!(
            taken > STACKS_BEFORE_FOLDING / 2 || !are_folded(&places),
            "{taken}"
        );
    }
    assert_eq!(places.free.available_permits(), 0);
    // No stack has been used.
    assert_eq!(maps(&places), 1);
}

/// A guest of many memories is charged for each of them.
#[tokio::test]
async fn memories_count_as_well() {
    let Some((places, _engine)) = folding(1500) else {
        return;
    };
    let mut held = Vec::new();
    for _ in 0..STACKS_BEFORE_FOLDING / 2 {
        held.push(places.take(Memories(MOST_MEMORIES)).await.expect("a place"));
    }
    assert!(are_folded(&places));
}

/// What comes and goes uses the same slots again and again, however long.
#[tokio::test]
async fn places_that_are_given_back_fold_nothing() {
    let Some((places, _engine)) = folding(3000) else {
        return;
    };
    for _ in 0..20_000 {
        drop(places.take(Memories(2)).await.expect("a place"));
    }
    assert!(!are_folded(&places));
    let room = places.room.as_ref().expect("a pool that folds");
    assert_eq!(room.held.load(Ordering::Acquire), 0);
    assert_eq!(places.free.available_permits(), 3000);
}
