//! wasmtime engines: one for each class of component, because their code is not interchangeable.

mod budget;
mod pool;
mod stacks;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use parking_lot::Mutex;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    WasmBacktraceDetails, error::Context as _,
};

pub(crate) use budget::{CodeMaps, NoRoomForCode};
pub use budget::{PoolBound, PoolSize, PoolUse};
pub(crate) use pool::{Memories, NoPlace, Place, Places};

use crate::{epoch::EpochTicker, observe, quota::Backlog};
use budget::{Budget, MAX_MEMORIES, NoRoom, SharedBudget, Slots};
use stacks::Before;

/// Frames kept in the backtrace of a trap.
const MAX_BACKTRACE_FRAMES: usize = 20;
/// Stack a guest may use. More of it is a trap, never a crash of the process.
const MAX_WASM_STACK_BYTES: usize = 512 << 10;
/// Stack of one fiber: the guest's, and what host functions need on top of it. Threads have other
/// sizes, so that stacks of fibers can be told from theirs.
const FIBER_STACK_BYTES: usize = (2 << 20) + (64 << 10);
/// Largest initial memory that is mapped copy-on-write rather than copied: wizened JavaScript and
/// Python components start with tens of megabytes.
const DENSE_IMAGE_BYTES: u64 = 64 << 20;
/// Memory of a slot that is kept and cleared by hand rather than given back to the kernel.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;
/// The same of a table, which is touched again at the first indirect call.
const KEEP_RESIDENT_TABLE_BYTES: usize = 64 << 10;
/// Largest linear memory of any guest; a spec's `limits.memory` is at most this.
pub(crate) const MAX_MEMORY_BYTES: usize = 4 << 30;
/// Elements in one table.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Tables in one component.
const MAX_TABLES: u32 = 16;
/// Core instances in one component. Go and composed components need a handful.
const MAX_CORE_INSTANCES: u32 = 64;
/// Host bookkeeping of one component instance.
const MAX_INSTANCE_BYTES: usize = 1 << 20;

/// What a component needs of its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CodeClass {
    /// WASI 0.3: the component model's async, which costs a WASI 0.2 guest a fifth of its speed.
    pub(crate) concurrent: bool,
    /// Fuel is counted: deterministic budgets at twice the price of a call.
    pub(crate) metered: bool,
}

impl CodeClass {
    const ALL: [Self; 4] = [
        Self::new(false, false),
        Self::new(true, false),
        Self::new(false, true),
        Self::new(true, true),
    ];

    const fn new(concurrent: bool, metered: bool) -> Self {
        Self {
            concurrent,
            metered,
        }
    }

    /// The class written as one word, for file names and the compile child.
    pub(crate) fn as_str(self) -> &'static str {
        match (self.concurrent, self.metered) {
            (false, false) => "p2",
            (true, false) => "p3",
            (false, true) => "p2-metered",
            (true, true) => "p3-metered",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }

    /// An engine that only compiles: the same code, without a pool of address space, so that the
    /// compiling process can be given a limit on it.
    pub(crate) fn compiler(self) -> wasmtime::Result<Engine> {
        Engine::new(&self.config())
    }

    /// Stacks an instance may need. One of WASI 0.3 holds a second one for its event loop, and one
    /// for each task that waits in the middle of a call.
    fn stacks(self) -> u32 {
        if self.concurrent { 4 } else { 1 }
    }

    fn config(self) -> Config {
        let mut config = Config::new();
        config
            .epoch_interruption(observe::ON)
            .consume_fuel(self.metered)
            .memory_init_cow(true)
            .memory_guaranteed_dense_image_size(DENSE_IMAGE_BYTES)
            .max_wasm_stack(MAX_WASM_STACK_BYTES)
            .async_stack_size(FIBER_STACK_BYTES)
            .native_unwind_info(false)
            .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(MAX_BACKTRACE_FRAMES))
            .wasm_backtrace_details(WasmBacktraceDetails::Disable)
            .wasm_multi_memory(true)
            .wasm_memory64(false)
            .wasm_component_model_async(self.concurrent)
            .concurrency_support(self.concurrent);
        config
    }
}

/// What a component needs of its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EngineClass {
    pub(crate) code: CodeClass,
    /// Every trap notes what the store holds, so that a core dump can be made. The code is the
    /// same as without.
    pub(crate) dumping: bool,
}

impl EngineClass {
    /// How many there are.
    pub(crate) const COUNT: usize = 8;

    pub(crate) fn index(self) -> usize {
        let CodeClass {
            concurrent,
            metered,
        } = self.code;
        usize::from(concurrent) | usize::from(metered) << 1 | usize::from(self.dumping) << 2
    }

    fn config(self) -> Config {
        let mut config = self.code.config();
        config.coredump_on_trap(self.dumping);
        config
    }
}

/// The engines of one process, made when first needed: each reserves terabytes of address space.
pub(crate) struct Engines {
    wanted: PoolSize,
    ticker: EpochTicker,
    budget: SharedBudget,
    made: Mutex<[Option<Pooled>; EngineClass::COUNT]>,
}

/// An engine, and the places for instances in its pool.
#[derive(Clone)]
pub(crate) struct Pooled {
    pub(crate) engine: Engine,
    pub(crate) places: Arc<Places>,
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engines")
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("{0:#}")]
    Wasmtime(wasmtime::Error),
}

impl Engines {
    /// None so far. The thread that ticks them looks after the backlog, too.
    pub(crate) fn new(wanted: PoolSize, backlog: &Arc<Backlog>) -> std::io::Result<Self> {
        Ok(Self {
            wanted,
            ticker: EpochTicker::start(backlog)?,
            budget: SharedBudget(Arc::new(Mutex::new(Budget::of_process()?))),
            made: Mutex::default(),
        })
    }

    /// The engine of a class, with as many places as were asked for or as there is room for.
    pub(crate) fn get(&self, class: EngineClass) -> Result<Pooled, EngineError> {
        // Under a lock: a second pool made only to be dropped may not fit beside the first.
        let mut made = self.made.lock();
        let slot = &mut made[class.index()];
        if let Some(pooled) = slot {
            return Ok(pooled.clone());
        }
        let (engine, places) = self.make(class)?;
        self.ticker.add(engine.weak());
        let places = Arc::new(places);
        Ok(slot.insert(Pooled { engine, places }).clone())
    }

    /// How much of each pool is taken.
    pub(crate) fn pools(&self) -> Vec<PoolUse> {
        let made = self.made.lock();
        let made = made.iter().flatten();
        made.map(|pooled| pooled.places.in_use()).collect()
    }

    /// Takes the memory maps of one component's code.
    pub(crate) fn code_maps(&self) -> Result<CodeMaps, NoRoomForCode> {
        self.budget.code()
    }

    fn make(&self, class: EngineClass) -> Result<(Engine, Places), EngineError> {
        loop {
            let slots = self
                .budget
                .0
                .lock()
                .take(self.wanted, class.code.stacks())?;
            let is_plain = slots.maps >= slots.maps_if_plain();
            let made = match is_plain {
                true => pooled(class, slots).map(|it| (it, Places::plain(slots))),
                false => folding(class, slots),
            };
            let error = match made {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            let mut budget = self.budget.0.lock();
            budget.give_back(slots);
            if is_plain {
                return Err(EngineError::Wasmtime(error));
            }
            // Then a smaller one, whose guards stay maps.
            tracing::warn!("no pool without maps for the guards of stacks: {error:#}");
            budget.folds_no_more();
        }
    }
}

/// An engine with a pool of slots.
fn pooled(class: EngineClass, slots: Slots) -> wasmtime::Result<Engine> {
    let mut config = class.config();
    // This process only compiles the code-less heads of components: not worth a thread pool.
    config.parallel_compilation(false);
    let pool = pooling(slots);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// The same, with stacks whose guards need not be maps.
fn folding(class: EngineClass, slots: Slots) -> wasmtime::Result<(Engine, Places)> {
    let before = Before::look()?;
    let engine = pooled(class, slots)?;
    let stacks = before.find(&engine, slots.stacks, FIBER_STACK_BYTES)?;
    let stacks = stacks.context("its stacks are not where they are expected")?;
    let places = Places::folding(slots, engine.clone(), stacks);
    Ok((engine, places))
}

fn pooling(slots: Slots) -> PoolingAllocationConfig {
    let instances = slots.instances;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * 4)
        .total_memories(slots.memories)
        .total_tables(instances * 4)
        .total_gc_heaps(instances)
        .total_stacks(slots.stacks)
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_memories_per_module(MAX_MEMORIES)
        .max_tables_per_module(MAX_TABLES)
        .max_component_instance_size(MAX_INSTANCE_BYTES)
        .max_core_instance_size(MAX_INSTANCE_BYTES)
        .max_memory_size(MAX_MEMORY_BYTES)
        .table_elements(MAX_TABLE_ELEMENTS)
        // One by one: what waits for others keeps its memory, and that may be all of its limit.
        .decommit_batch_size(1)
        .max_unused_warm_slots(instances / 8);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        // Only together: without the scan, keeping memory means clearing all of it each time.
        pool.pagemap_scan(Enabled::Auto)
            .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
            .table_keep_resident(KEEP_RESIDENT_TABLE_BYTES);
    }
    pool
}

/// Says whether code made for one engine may run in another: equal fingerprints, equal code.
///
/// It holds wasmtime's full version. wasmtime's own check when loading compares major versions
/// only, yet the fix that a patch release brings may be a fix of the code generator.
pub(crate) fn fingerprint(engine: &Engine) -> String {
    struct Feed(blake3::Hasher);
    impl Hasher for Feed {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut feed = Feed(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut feed);
    feed.0.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_compiling_engine_makes_code_for_the_pooled_ones() {
        let engines = Engines::new(PoolSize { instances: 4 }, &Arc::default()).expect("a ticker");
        let (mut seen, mut places) = (HashSet::new(), HashSet::new());
        for code in CodeClass::ALL {
            let compiler = code.compiler().expect("an engine");
            let print = fingerprint(&compiler);
            for dumping in [false, true] {
                let class = EngineClass { code, dumping };
                let pooled = engines.get(class).expect("an engine");
                assert_eq!(fingerprint(&pooled.engine), print, "{class:?}");
                assert!(places.insert(class.index()));
                assert!(class.index() < EngineClass::COUNT);
            }
            assert!(
                seen.insert(print),
                "{} is like another class",
                code.as_str()
            );
            assert_eq!(CodeClass::parse(code.as_str()), Some(code));
        }
    }
}
