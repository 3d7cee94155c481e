//! wasmtime engines: one for each class of component, because their code is not interchangeable.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::OnceLock,
};

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::epoch::EpochTicker;

/// Frames kept in the backtrace of a trap.
const MAX_BACKTRACE_FRAMES: usize = 20;
/// Stack a guest may use. More of it is a trap, never a crash of the process.
const MAX_WASM_STACK_BYTES: usize = 512 << 10;
/// Stack of one fiber: the guest's, and what host functions need on top of it.
const FIBER_STACK_BYTES: usize = 2 << 20;
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
/// Linear memories in one component.
const MAX_MEMORIES: u32 = 4;
/// Tables in one component.
const MAX_TABLES: u32 = 16;
/// Core instances in one component. Go and composed components need a handful.
const MAX_CORE_INSTANCES: u32 = 64;
/// Host bookkeeping of one component instance.
const MAX_INSTANCE_BYTES: usize = 1 << 20;

/// What a component needs of its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EngineClass {
    /// WASI 0.3: the component model's async, which costs a WASI 0.2 guest a fifth of its speed.
    pub(crate) concurrent: bool,
    /// Fuel is counted: deterministic budgets at twice the price of a call.
    pub(crate) metered: bool,
}

impl EngineClass {
    const ALL: [Self; 4] = [
        Self {
            concurrent: false,
            metered: false,
        },
        Self {
            concurrent: true,
            metered: false,
        },
        Self {
            concurrent: false,
            metered: true,
        },
        Self {
            concurrent: true,
            metered: true,
        },
    ];

    pub(crate) fn index(self) -> usize {
        usize::from(self.concurrent) | usize::from(self.metered) << 1
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

    fn config(self) -> Config {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
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

/// How many instances may be alive at once in each engine class.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize {
    /// Live component instances.
    pub instances: u32,
}

impl PoolSize {
    /// Fits the default limit of 65,530 memory maps with a wide margin: about five a live instance.
    pub const DEFAULT: Self = Self { instances: 1000 };
}

/// The engines of one process, made when first needed: each reserves terabytes of address space.
pub(crate) struct Engines {
    pool: PoolSize,
    ticker: EpochTicker,
    slots: [OnceLock<Engine>; 4],
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engines")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

impl Engines {
    pub(crate) fn new(pool: PoolSize) -> std::io::Result<Self> {
        Ok(Self {
            pool,
            ticker: EpochTicker::start()?,
            slots: Default::default(),
        })
    }

    /// The engine of a class.
    pub(crate) fn get(&self, class: EngineClass) -> wasmtime::Result<Engine> {
        let slot = &self.slots[class.index()];
        if let Some(engine) = slot.get() {
            return Ok(engine.clone());
        }
        let mut config = class.config();
        // This process only compiles the code-less heads of components: not worth a thread pool.
        config.parallel_compilation(false);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(self.pooling(class)));
        let engine = Engine::new(&config)?;
        // Of two threads that come here at once, one engine wins and the other is dropped.
        let engine = slot.get_or_init(|| {
            self.ticker.add(engine.weak());
            engine
        });
        Ok(engine.clone())
    }

    fn pooling(&self, class: EngineClass) -> PoolingAllocationConfig {
        let instances = self.pool.instances;
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances)
            .total_core_instances(instances * 4)
            .total_memories(instances * 2)
            .total_tables(instances * 4)
            .total_gc_heaps(instances)
            // A 0.3 instance holds a second stack for its event loop, and one for each blocked task.
            .total_stacks(if class.concurrent { instances * 4 } else { instances })
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
    use super::*;

    #[test]
    fn a_compiling_engine_makes_code_for_the_pooled_one() {
        let engines = Engines::new(PoolSize { instances: 4 }).expect("a ticker");
        let mut seen = std::collections::HashSet::new();
        for class in EngineClass::ALL {
            let pooled = engines.get(class).expect("an engine");
            let compiler = class.compiler().expect("an engine");
            assert_eq!(
                fingerprint(&pooled),
                fingerprint(&compiler),
                "{}",
                class.as_str()
            );
            assert!(
                seen.insert(fingerprint(&pooled)),
                "{} is like another class",
                class.as_str()
            );
            assert_eq!(EngineClass::parse(class.as_str()), Some(class));
        }
    }
}
