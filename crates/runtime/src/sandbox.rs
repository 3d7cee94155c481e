//! A store for one instance: its capabilities, its limits, and nothing else.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};
use sampan_core::{
    name::PodName,
    object::{Access, Grants, Limits},
    quantity::Cpu,
    spec::node::GuestLimits,
};
use wasmtime::{
    AsContextMut, Engine, Store, StoreContextMut, UpdateDeadline, WasmBacktrace,
    component::{Linker, ResourceTable},
};
use wasmtime_wasi::{
    FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
    filesystem::{WasiFilesystemCtx, WasiFilesystemCtxView},
};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::{
    engine::CodeClass,
    host::{
        files::{self, Files, Lent},
        outbound::{Hooks, Outbound},
        stdio::GuestOutput,
        waits::{self, labels::Labels},
    },
    lane::{FAST_SLICE, Pace},
    limiter::Limiter,
    logs::{CurrentRequest, LineWriter, PodLog, Quota, Stream},
    meter::{CpuMeter, Excess, Over, PodMeter, Standing},
    observe::{
        self,
        cell::{Cell, LeafNote},
        recorder::Recorder,
        source::Source,
        suspects::Suspects,
        turn::Turn,
    },
    pod::{Sample, frames},
    quota::CpuQuota,
    runtime::Runtime,
};

/// What wasmtime keeps for an instance.
pub(crate) struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    config: Arc<WasiConfigVariables>,
    limiter: Limiter,
    pub(crate) cell: Arc<Cell>,
    pub(crate) labels: Labels,
    pub(crate) recorder: Recorder,
    pub(crate) turn: Turn,
    /// Where the guest was at some moments of a long run.
    pub(crate) samples: Vec<Sample>,
    /// Files wake a guest of WASI 0.3 by ways of their own.
    _files: Option<LeafNote>,
    files: WasiFilesystemCtx,
    lent: Arc<Lent>,
    log: Arc<PodLog>,
    pace: Arc<Pace>,
    pub(crate) request: Arc<CurrentRequest>,
}

impl State {
    /// The files that are lent to the guest.
    pub(crate) fn files(&mut self) -> Files<'_> {
        Files {
            view: WasiFilesystemCtxView {
                ctx: &mut self.files,
                table: &mut self.table,
            },
            lent: &self.lent,
            log: &self.log,
            request: &self.request,
        }
    }

    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// What answers the request that was sent last, once.
    pub(crate) fn take_sent(&mut self) -> Option<Source> {
        self.hooks.sent.take()
    }

    /// Bytes of memory the guest wanted more than it may have.
    pub(crate) fn refused_bytes(&self) -> Option<u64> {
        self.limiter.refused().map(|bytes| bytes as u64)
    }

    /// Bytes of memory it holds, and may hold.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let (held, limit) = self.limiter.held();
        (held as u64, limit as u64)
    }

    /// Whether the guest still holds a body it has neither finished nor dropped.
    pub(crate) fn holds_unfinished_body(&mut self) -> bool {
        self.table
            .iter_mut()
            .any(|entry| entry.is::<wasmtime_wasi_http::p2::body::HostOutgoingBody>())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// A guest that used its CPU budget up. The error of the epoch callback, so of the call.
#[derive(Debug)]
pub(crate) struct OverBudget(pub(crate) Over);

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guest's CPU budget is spent")
    }
}

impl std::error::Error for OverBudget {}

/// In how many parts a budget is cut; at the end of each but the last it is noted where the guest is.
const SAMPLES: u32 = 4;

/// What happens to a guest that runs at an epoch tick.
fn look_at(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let is_turn = Turn::look(&mut store);
    let standing = store.data().cell.cpu.now();
    if let Some(Excess { over, .. }) = standing.excess {
        return Err(wasmtime::Error::new(OverBudget(over)));
    }
    sample(&mut store, &standing);
    let state = store.data();
    let is_long = standing.spent >= FAST_SLICE;
    if is_long {
        state.pace.set(true);
    }
    let is_soon = standing.running < FAST_SLICE && !is_throttled(&state.cell, &standing);
    if is_soon && (is_turn || !is_long) {
        // It was resumed a moment ago.
        return Ok(UpdateDeadline::Continue(1));
    }
    state.cell.run.expect_wake();
    // Not wasmtime's own yield: tokio may run a task that woke itself next, and again.
    Ok(UpdateDeadline::YieldCustom(
        1,
        Box::pin(tokio::task::yield_now()),
    ))
}

/// Whether the guest, once it has yielded, is held back.
fn is_throttled(cell: &Cell, standing: &Standing) -> bool {
    let quota = cell.cpu.quota();
    quota.is_some_and(|quota| quota.is_spent_after(standing.running))
}

/// Notes where a guest is that has used a quarter more of its budget, since it last waited, than
/// when that was last noted.
fn sample(store: &mut StoreContextMut<'_, State>, standing: &Standing) {
    let samples = &mut store.data_mut().samples;
    if samples
        .last()
        .is_some_and(|last| last.cpu > standing.unwaited)
    {
        // It has waited since.
        samples.clear();
    }
    let taken = samples.len();
    let due = standing.budget / SAMPLES * u32::try_from(taken + 1).unwrap_or(u32::MAX);
    if taken + 1 >= SAMPLES as usize || standing.unwaited < due {
        return;
    }
    let backtrace = frames(&WasmBacktrace::force_capture(&mut *store));
    let state = store.data_mut();
    state.samples.push(Sample {
        cpu: standing.unwaited,
        host_calls: state.recorder.made(),
        backtrace,
    });
}

/// Everything the host offers to guests of a class.
pub(crate) fn linker(engine: &Engine, class: CodeClass) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    files::add_p2(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if observe::ON {
        waits::observe_p2(&mut linker)?;
    }
    wasmtime_wasi_config::add_to_linker(&mut linker, |state: &mut State| {
        WasiConfig::from(&*state.config)
    })?;
    if class.concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        files::add_p3(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        if observe::ON {
            waits::observe_p3(&mut linker)?;
        }
    }
    Ok(linker)
}

/// Why a host directory cannot be lent to a guest.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the directory `{path}` for the guest's `{guest}`")]
pub struct MountError {
    path: PathBuf,
    guest: String,
    source: io::Error,
}

/// Where a guest's standard streams lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// Output becomes lines in the log ring, input is empty.
    Logs,
    /// Those of this process.
    Inherit,
}

/// What all stores of one pod template have in common.
pub(crate) struct Sandbox {
    env: Vec<(String, String)>,
    args: Vec<String>,
    config: Arc<WasiConfigVariables>,
    lent: Arc<Lent>,
    outbound: Arc<Outbound>,
    stdio: Stdio,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) request_cpu: Duration,
    fuel: Option<u64>,
    node: Arc<GuestLimits>,
}

/// Ends of a pod's instances that are looked at, at once and a second: a guest that traps at every
/// request must not cost more than one that answers.
const MAX_BURST_AUTOPSIES: u64 = 20;
const MAX_AUTOPSIES_A_SECOND: u64 = 5;
/// Core dumps of a pod's instances that are made at once, and seconds until one more may be: as
/// many as are kept, and so rarely that the first ones are there long enough to be looked at.
const MAX_BURST_DUMPS: u64 = 3;
const SECONDS_A_DUMP: u64 = 10;

/// The pod a store is made for.
#[derive(Clone)]
pub(crate) struct PodContext {
    pub(crate) meter: Arc<PodMeter>,
    pub(crate) log: Arc<PodLog>,
    suspects: Arc<Suspects<Cell>>,
    /// Whether its guests are of WASI 0.3.
    concurrent: bool,
    autopsies: Arc<Mutex<Quota>>,
    dumps: Arc<Mutex<Quota>>,
}

impl PodContext {
    /// A pod that has used nothing yet. `cpu` is its `limits.cpu`.
    pub(crate) fn new(
        name: PodName,
        runtime: &Runtime,
        concurrent: bool,
        cpu: Option<Cpu>,
    ) -> Self {
        let quota = cpu.map(|limit| CpuQuota::new(limit, &runtime.backlog));
        let meter = Arc::new(PodMeter::new(quota));
        let rate = runtime.limits.log_rate;
        Self {
            log: PodLog::new(runtime.logs(), name, &meter, rate),
            meter,
            suspects: Arc::clone(runtime.detector.suspects()),
            concurrent,
            autopsies: Arc::new(Mutex::new(Quota::new(
                MAX_BURST_AUTOPSIES,
                MAX_AUTOPSIES_A_SECOND,
            ))),
            dumps: Arc::new(Mutex::new(Quota::new(MAX_BURST_DUMPS * SECONDS_A_DUMP, 1))),
        }
    }

    /// Whether it may be found out how one more instance has ended.
    pub(crate) fn may_look(&self) -> bool {
        let mut quota = self
            .autopsies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        quota.take(Instant::now(), 1)
    }

    /// Whether one more instance may be dumped.
    pub(crate) fn may_dump(&self) -> bool {
        let mut quota = self.dumps.lock().unwrap_or_else(PoisonError::into_inner);
        quota.take(Instant::now(), SECONDS_A_DUMP)
    }

    fn cell(&self) -> Arc<Cell> {
        let cpu = CpuMeter::new(Arc::clone(&self.meter));
        let name = self.log.pod().clone();
        Cell::new(name, self.concurrent, cpu, &self.suspects)
    }
}

impl Sandbox {
    /// Opens the mounts; relative ones are relative to `base`.
    pub(crate) fn open(
        grants: &Grants,
        limits: &Limits,
        args: &[String],
        outbound: Outbound,
        stdio: Stdio,
        base: &Path,
        node: &Arc<GuestLimits>,
    ) -> Result<Self, MountError> {
        let mut lent = Lent::new(node.open_files);
        for mount in &grants.files {
            let path = base.join(&mount.host);
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let directory =
                rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| MountError {
                    path,
                    guest: mount.guest.clone(),
                    source: errno.into(),
                })?;
            let access = match mount.access {
                Access::ReadOnly => FsPerms::ReadOnly,
                Access::ReadWrite => FsPerms::ReadWrite,
            };
            lent.add(directory, &mount.guest, access);
        }
        Ok(Self {
            env: grants
                .env
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            args: args.to_vec(),
            config: Arc::new(
                grants
                    .config
                    .iter()
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
            ),
            lent: Arc::new(lent),
            outbound: Arc::new(outbound),
            stdio,
            memory_bytes: limits.memory.0,
            cpu: limits.cpu,
            request_cpu: limits.request_cpu,
            fuel: limits.fuel,
            node: Arc::clone(node),
        })
    }

    /// A new store for an instance of this pod, whose guest tells `pace` when it runs for long.
    pub(crate) fn store(
        &self,
        engine: &Engine,
        pod: &PodContext,
        pace: &Arc<Pace>,
    ) -> wasmtime::Result<Store<State>> {
        let request = Arc::new(CurrentRequest::default());
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(self.node.fields_bytes);
        let cell = pod.cell();
        let files = pod.concurrent && !self.lent.is_empty();
        let files = files.then(|| cell.leaf("files", Source::Outside("files".into())));
        let mut table = ResourceTable::new();
        table.set_max_capacity(self.node.handles);
        let state = State {
            table,
            wasi: self.wasi(pod, &request)?,
            http,
            hooks: Hooks {
                outbound: Arc::clone(&self.outbound),
                request: Arc::clone(&request),
                log: Arc::clone(&pod.log),
                cell: Arc::clone(&cell),
                sent: None,
            },
            config: Arc::clone(&self.config),
            limiter: Limiter::new(self.memory_bytes, Arc::clone(&pod.meter)),
            cell,
            labels: Labels::default(),
            recorder: Recorder::default(),
            turn: Turn::default(),
            samples: Vec::new(),
            _files: files,
            files: files::context(),
            lent: Arc::clone(&self.lent),
            log: Arc::clone(&pod.log),
            pace: Arc::clone(pace),
            request,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(self.node.hostcall_bytes);
        store.set_max_component_handles(self.node.handles);
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(self.node.handles);
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(look_at);
        self.refill(&mut store)?;
        Ok(store)
    }

    /// Gives the guest the budgets of one request.
    pub(crate) fn refill(
        &self,
        mut store: impl AsContextMut<Data = State>,
    ) -> wasmtime::Result<()> {
        let mut store = store.as_context_mut();
        store.data_mut().samples.clear();
        store.data().cell.cpu.set_budget(self.request_cpu);
        // The epochs that went by while it waited are not its own.
        store.set_epoch_deadline(1);
        match self.fuel {
            Some(fuel) => store.set_fuel(fuel),
            None => Ok(()),
        }
    }

    fn wasi(&self, pod: &PodContext, request: &Arc<CurrentRequest>) -> wasmtime::Result<WasiCtx> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.envs(&self.env)
            .args(&self.args)
            .max_random_size(self.node.random_bytes)
            // Every address is denied anyhow, but a socket without one takes a file descriptor too.
            .allow_tcp(false)
            .allow_udp(false);
        let output = |stream| {
            let writer = LineWriter::new(Arc::clone(&pod.log), stream, Arc::clone(request));
            GuestOutput(Arc::new(writer))
        };
        match self.stdio {
            Stdio::Logs => wasi
                .stdout(output(Stream::Stdout))
                .stderr(output(Stream::Stderr)),
            Stdio::Inherit => wasi.inherit_stdio(),
        };
        Ok(wasi.build())
    }
}
