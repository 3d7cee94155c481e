//! The runtime of one node: engines, compiler, cache and the components loaded so far.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::AsRawFd as _,
    sync::{Arc, OnceLock, Weak},
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use sampan_core::{name::Name, spec::node::GuestLimits};
use tokio::sync::Semaphore;
use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker},
};

use crate::{
    admission::{
        LoadError, class_of, fit,
        inspect::Inspection,
        link::{self, LinkError},
    },
    artifact::{
        cache::{Cache, CacheKey, Kept, Miss},
        compile::{ChildCommand, CompileLimits, Compiler},
        sealed,
    },
    deadlock::Detector,
    engine::{CodeClass, EngineClass, Engines, Memories, PoolSize, PoolUse, Pooled, fingerprint},
    exports::Exports,
    host::linker::linker,
    host::sockets,
    host::state::State,
    lane::SlowLane,
    loaded::{Demands, Loaded, Origin},
    logs::Ring,
    report::{ComponentFile, Deadlock},
    sandbox::{MountError, NodeParts},
    threads::{ThreadsError, off_thread},
    timings::Timings,
    volumes::{Volumes, VolumesConfig},
};

/// Core dumps that one node makes at once: each takes a few times the memory of its instance.
pub(crate) const MAX_DUMPS_AT_ONCE: usize = 2;

/// What a node decides about its runtime.
#[derive(Clone)]
pub struct RuntimeConfig {
    /// The compile cache, if there is a place for one. It only saves time.
    pub cache: Option<Cache>,
    /// Makes the command that runs [`crate::artifact::compile::child::run`].
    pub compile_command: ChildCommand,
    /// Limits on one compilation.
    pub compile_limits: CompileLimits,
    /// Live instances.
    pub pool: PoolSize,
    /// What holds for every guest, whatever its spec says.
    pub guest: GuestLimits,
    /// Where volumes are kept, if there is a place for them.
    pub volumes: Option<VolumesConfig>,
}

/// Why a pod cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory or volume cannot be lent to it.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The component has no HTTP handler.
    #[error("the component exports no HTTP handler: it cannot be a service")]
    NoHandler,
    /// The component has no `wasi:cli/run`.
    #[error("the component exports no `wasi:cli/run`: it cannot be run to its end")]
    NoCommand,
    /// The settings do not fit the component's world.
    #[error("{0}")]
    Settings(String),
    /// No instance could be made.
    #[error("no instance can be made: {0}")]
    Instance(String),
}

/// One component's place: a second load waits for the first and finds its code. It may be
/// loaded twice, in an engine that makes core dumps and in one that does not.
type LoadSlot = Arc<tokio::sync::Mutex<[Weak<Loaded>; 2]>>;

/// Loads components and holds what all pods of a node share.
pub struct Runtime {
    engines: Engines,
    linkers: [OnceLock<Linker<State>>; EngineClass::COUNT],
    cache: Kept,
    compiler: Compiler,
    loaded: Mutex<HashMap<CacheKey, LoadSlot>>,
    pub(crate) slow_lane: SlowLane,
    /// What its pods share.
    pub(crate) node: NodeParts,
    detector: Arc<Detector>,
    /// Core dumps that may be made now.
    pub(crate) dumps: Arc<Semaphore>,
    pub(crate) timings: Arc<Timings>,
}

impl Runtime {
    /// Starts the epoch clock and the other threads. Fails when a thread cannot be started.
    pub fn new(config: RuntimeConfig) -> Result<Arc<Self>, ThreadsError> {
        let backlog = Arc::default();
        let detector = Detector::start().map_err(ThreadsError::one)?;
        Ok(Arc::new(Self {
            engines: Engines::new(config.pool, &backlog).map_err(ThreadsError::one)?,
            node: NodeParts {
                backlog,
                suspects: Arc::clone(detector.suspects()),
                logs: Arc::default(),
                limits: Arc::new(config.guest),
                sockets: Arc::new(Semaphore::new(sockets::of_node())),
                volumes: config.volumes.map(|it| Arc::new(Volumes::new(it))),
            },
            detector,
            linkers: Default::default(),
            cache: Kept::new(config.cache),
            compiler: Compiler::new(config.compile_command, config.compile_limits),
            loaded: Mutex::default(),
            slow_lane: SlowLane::start()?,
            dumps: Arc::new(Semaphore::new(MAX_DUMPS_AT_ONCE)),
            timings: Timings::new(),
        }))
    }

    /// Has `listener` told of every deadlock from now on. It is called by the thread that looks for
    /// them, and must be quick.
    pub fn on_deadlock(&self, listener: impl Fn(&Arc<Deadlock>) + Send + Sync + 'static) {
        self.detector.listen(Arc::new(listener));
    }

    /// What guests print.
    pub fn logs(&self) -> &Arc<Ring> {
        &self.node.logs
    }

    /// The volumes of the node, if there is a place for them.
    pub fn volumes(&self) -> Option<&Arc<Volumes>> {
        self.node.volumes.as_ref()
    }

    /// The pools of instances, each for components of one class, that were needed so far.
    pub fn pools(&self) -> Vec<PoolUse> {
        self.engines.pools()
    }

    /// How long components and instances have taken to be there.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Makes a component ready to be instantiated, from the cache or by compiling it.
    ///
    /// `compiling` is called when the cache has no code.
    pub async fn load(
        self: &Arc<Self>,
        bytes: Bytes,
        demands: Demands,
        compiling: impl FnOnce(),
    ) -> Result<Arc<Loaded>, LoadError> {
        let start = Instant::now();
        let (read, memory_bytes) = (bytes.clone(), demands.memory_bytes);
        let mut inspection = off_thread(move || inspect(&read, memory_bytes)).await?;
        if let Some(wanted) = demands.digest
            && wanted != inspection.digest.to_hex()
        {
            return Err(LoadError::Digest {
                wanted,
                found: inspection.digest,
            });
        }
        let class = class_of(&inspection, demands.metered, demands.coredump);
        let Pooled { engine, places } = self.engine(class)?;
        let key = CacheKey {
            digest: inspection.digest,
            fingerprint: fingerprint(&engine),
        };
        let slot = self.slot(&key);
        let mut slot = slot.lock().await;
        let place = &mut slot[usize::from(class.dumping)];
        if let Some(loaded) = place.upgrade() {
            return Ok(loaded);
        }
        let (this, sought) = (Arc::clone(self), key.clone());
        let (code, origin) = match off_thread(move || this.cache.load(&sought)).await {
            Ok(code) => (code, Origin::Cache),
            Err(miss) => {
                if miss == Miss::Damaged {
                    tracing::warn!(digest = %key.digest, "the cached code is damaged, compiling again");
                }
                // What is in the cache has passed this check before it was compiled.
                let (this, read) = (Arc::clone(self), bytes.clone());
                let check = move || {
                    let checked = link::check(this.linker(class)?, &read, &inspection);
                    checked.map(|()| inspection).map_err(LoadError::from)
                };
                inspection = off_thread(check).await?;
                compiling();
                self.compile(bytes, class.code, &key, &demands.app).await?
            }
        };
        let maps = self.engines.code_maps();
        let maps = maps.map_err(|error| LoadError::Engine(error.to_string()))?;
        let (component, pre) = self.link(engine, code, class).await?;
        let loaded = Arc::new(Loaded {
            inspection,
            origin,
            exports: Exports::of(&component),
            memories: Memories::of(&component),
            _code: maps,
            concurrent: class.code.concurrent,
            pre,
            places,
            limits: Arc::clone(&self.node.limits),
            volumes: self.node.volumes.clone(),
            file: demands.path.map(|path| {
                let digest = key.digest;
                Arc::new(ComponentFile { path, digest })
            }),
        });
        *place = Arc::downgrade(&loaded);
        self.timings.loaded(origin, start.elapsed());
        Ok(loaded)
    }

    /// Maps the code, and joins its imports with what the host has.
    async fn link(
        self: &Arc<Self>,
        engine: Engine,
        code: File,
        class: EngineClass,
    ) -> Result<(Component, InstancePre<State>), LoadError> {
        let this = Arc::clone(self);
        let linked = move || {
            let component = map_code(&engine, &code)?;
            let linked = this.linker(class)?.instantiate_pre(&component);
            let pre = linked.map_err(|error| LinkError::Differs(format!("{error:#}")))?;
            Ok((component, pre))
        };
        off_thread(linked).await
    }

    async fn compile(
        self: &Arc<Self>,
        bytes: Bytes,
        class: CodeClass,
        key: &CacheKey,
        app: &Option<Name>,
    ) -> Result<(File, Origin), LoadError> {
        let start = Instant::now();
        let mut output = self.compiler.compile(bytes, class, app).await?;
        let (this, key) = (Arc::clone(self), key.clone());
        let keep = move || {
            let code = sealed::seal(&mut output)?;
            this.cache.store(&key, &mut output);
            Ok(code)
        };
        let io = |error: io::Error| LoadError::Code(error.to_string());
        let code = off_thread(keep).await.map_err(io)?;
        Ok((code, Origin::Compiled(start.elapsed())))
    }

    fn slot(&self, key: &CacheKey) -> LoadSlot {
        let mut slots = self.loaded.lock();
        let in_use = |slot: &LoadSlot| {
            let is_loaded = |slot: &[Weak<Loaded>; 2]| slot.iter().any(|it| it.strong_count() > 0);
            Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|slot| is_loaded(&slot))
        };
        slots.retain(|_, slot| in_use(slot));
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    fn engine(&self, class: EngineClass) -> Result<Pooled, LoadError> {
        self.engines
            .get(class)
            .map_err(|error| LoadError::Engine(error.to_string()))
    }

    fn linker(&self, class: EngineClass) -> Result<&Linker<State>, LoadError> {
        let slot = &self.linkers[class.index()];
        if let Some(linker) = slot.get() {
            return Ok(linker);
        }
        let made = linker(&self.engine(class)?.engine, class.code)
            .map_err(|error| LoadError::Engine(format!("{error:#}")))?;
        Ok(slot.get_or_init(|| made))
    }
}

/// What a component says of itself, if it is one that could run here with so much memory.
fn inspect(bytes: &[u8], memory_bytes: u64) -> Result<Inspection, LoadError> {
    let inspection = Inspection::of(bytes)?;
    fit(&inspection, memory_bytes)?;
    Ok(inspection)
}

fn map_code(engine: &wasmtime::Engine, code: &File) -> Result<Component, LoadError> {
    let path = format!("/proc/self/fd/{}", code.as_raw_fd());
    // SAFETY: the file is anonymous and sealed, so it cannot change; its content was either made
    // by our own compiler in this very call, or carries a MAC that only this user's key can make.
    #[allow(unsafe_code)]
    let component = unsafe { Component::deserialize_file(engine, path) };
    component.map_err(|error| LoadError::Code(format!("{error:#}")))
}
