//! The law of the budget: whatever is taken, in whatever order, the worst case fits.

use super::*;

const fn size(instances: u32) -> PoolSize {
    PoolSize { instances }
}

fn budget(foldable: bool) -> Budget {
    Budget::of_maps(DEFAULT_MAP_COUNT, foldable)
}

#[test]
fn a_pool_is_as_large_as_asked_for_if_that_fits() {
    for foldable in [false, true] {
        let mut budget = budget(foldable);
        let instances = |taken: Result<Slots, NoRoom>| taken.map(|it| it.instances);
        assert_eq!(instances(budget.take(size(5000), 1)), Ok(5000));
        assert_eq!(instances(budget.take(size(100), 4)), Ok(100));
        assert_eq!(instances(budget.take(size(0), 4)), Ok(0));
        let left = (budget.pooled, budget.memories);
        let taken = budget.take(size(50), 4).expect("room");
        budget.give_back(taken);
        assert_eq!((budget.pooled, budget.memories), left);
    }
}

#[test]
fn ten_thousand_pods_fit_the_default_of_linux_where_guards_need_no_maps() {
    let mut folding = budget(true);
    let taken = folding.take(size(10_000), 1).expect("room");
    assert_eq!(taken.instances, 10_000);
    assert!(taken.memories >= 10_500, "{taken:?}");
    // And others have a pool as well.
    assert!(folding.take(size(10_000), 4).expect("room").instances > 200);
    assert!(folding.take(size(10_000), 1).expect("room").instances > 100);
    let plain = budget(false).take(size(10_000), 1).expect("room");
    assert!((7000..10_000).contains(&plain.instances), "{plain:?}");
}

#[test]
fn a_pool_tells_what_kept_it_from_being_larger() {
    let bound = |limit, instances| {
        let taken = Budget::of_maps(limit, true).take(size(instances), 1);
        taken.expect("room").bound
    };
    assert_eq!(bound(DEFAULT_MAP_COUNT, 5000), PoolBound::Asked);
    assert_eq!(bound(DEFAULT_MAP_COUNT, 50_000), PoolBound::Maps);
    assert_eq!(bound(1_048_576, 50_000), PoolBound::Addresses);
}

#[test]
fn all_pools_and_all_code_together_stay_below_the_limit_of_the_process() {
    for (limit, foldable) in [65_530, 262_144, 1_048_576]
        .into_iter()
        .flat_map(|limit| [(limit, false), (limit, true)])
    {
        let budget = Budget::of_maps(limit, foldable);
        let shared = SharedBudget(Arc::new(Mutex::new(budget)));
        let (mut maps, mut memories) = (0, 0);
        for stacks in [1, 4, 1, 4, 1, 4, 1, 4] {
            let Ok(slots) = shared.0.lock().take(size(u32::MAX), stacks) else {
                continue;
            };
            // All memories and all guards, or all memories and the stacks that were in use before
            // the guards gave up their maps.
            let kept = match foldable && stacks == 1 {
                true => slots.stacks.min(STACKS_BEFORE_FOLDING),
                false => slots.stacks,
            };
            let worst = u64::from(slots.memories) * MAPS_PER_MEMORY + u64::from(kept) * 2;
            assert_eq!(slots.maps.max(worst), slots.maps, "{slots:?}");
            maps += slots.maps + MAPS_PER_POOL;
            memories += u64::from(slots.memories);
        }
        assert!(
            maps <= limit * POOLS_PERCENT / 100,
            "{maps} of {limit} maps"
        );
        assert!(memories <= MAX_POOLED_MEMORIES, "{memories} memories");
        assert!(maps > limit / 2 || memories > MAX_POOLED_MEMORIES / 2);
        let code: Vec<_> = std::iter::from_fn(|| shared.code().ok()).collect();
        let all = maps + code.len() as u64 * MAPS_PER_CODE;
        assert!(all <= limit * GUESTS_PERCENT / 100, "{all} of {limit} maps");
        assert!(code.len() > 1000, "room for {} components", code.len());
        let refused = shared.code().expect_err("no room").to_string();
        assert!(refused.contains("vm.max_map_count"), "{refused}");
        drop(code);
        assert_eq!(shared.0.lock().code, 0);
    }
}

/// Code that came first takes from what pools may have.
#[test]
fn pools_leave_what_code_has() {
    let shared = SharedBudget(Arc::new(Mutex::new(budget(true))));
    let code: Vec<_> = std::iter::from_fn(|| shared.code().ok())
        .take(15_000)
        .collect();
    let maps = code.len() as u64 * MAPS_PER_CODE;
    let taken = shared.0.lock().take(size(10_000), 1).expect("room");
    assert!(taken.instances < 4000);
    assert!(taken.maps + maps <= DEFAULT_MAP_COUNT * GUESTS_PERCENT / 100);
}

#[test]
fn the_largest_that_fits_is_taken() {
    for foldable in [false, true] {
        let (mut budget, wanted) = (budget(foldable), size(1_000_000));
        let (maps, memories) = budget.share();
        let taken = budget.take(wanted, 1).expect("room");
        assert!(taken.maps <= maps && u64::from(taken.memories) <= memories);
        let more = Slots::least(taken.instances + 1, 1, foldable).expect("a number");
        assert!(more.maps > maps || u64::from(more.memories) > memories);
    }
}

#[test]
fn a_pool_that_would_be_of_no_use_is_refused() {
    let refused = Budget::of_maps(100, true).take(size(1000), 1);
    let refused = refused.expect_err("it does not fit").to_string();
    assert!(refused.contains("vm.max_map_count"), "{refused}");
}

/// A small pool has a map for each guard, and a page of page tables for none.
#[test]
fn a_small_pool_has_room_for_its_guards() {
    let small = budget(true).take(size(100), 4).expect("room");
    assert_eq!(small.maps, small.maps_if_plain());
    let large = budget(true).take(size(4000), 1).expect("room");
    assert!(large.maps < large.maps_if_plain());
}
