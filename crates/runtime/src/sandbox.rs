//! A store for one instance: its capabilities, its limits, and nothing else.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use sampan_core::{
    name::{Name, PodName},
    object::{Access, Grants, Limits, MountSource, SecretUse, VolumeUse},
    quantity::Cpu,
    secret::{SecretValue, SecretValues},
    spec::node::GuestLimits,
};
use tokio::sync::Semaphore;
use wasmtime::{AsContextMut, Engine, Store, component::ResourceTable};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, filesystem::WasiFilesystemCtx};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::WasiHttpCtx;

use crate::{
    host::{
        files::{Handles, Lent, SecretDirectory},
        outbound::{Hooks, Outbound},
        sockets::{Dialler, Servers, SocketLimit, Sockets},
        state::State,
        stdio::GuestOutput,
        waits::{answered::Answered, labels::Labels},
    },
    keyvalue::{Granted, KeyValue},
    lane::Pace,
    limiter::Limiter,
    logs::{CurrentRequest, Hidden, LineWriter, PodLog, Ring, Stream, TokenBucket},
    meter::{CpuMeter, PodMeter},
    neighbours::Neighbours,
    observe::{cell::Cell, recorder::Recorder, source::Source, suspects::Suspects, turn::Turn},
    quota::{Backlog, CpuQuota},
    volumes::{Volume, VolumeError, Volumes},
    watchdog::on_epoch_tick,
};

/// Why a directory cannot be lent to a guest.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A directory of the host cannot be opened.
    #[error("cannot open the directory `{path}` for the guest's `{guest}`")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Where the guest would see it.
        guest: String,
        /// What the system says.
        source: io::Error,
    },
    /// A volume cannot be used.
    #[error("cannot use the volume `{name}` for the guest's `{guest}`")]
    Volume {
        /// Its name.
        name: Name,
        /// Where the guest would see it.
        guest: String,
        /// Why not.
        source: VolumeError,
    },
    /// A directory with secrets cannot be made.
    #[error("cannot make the directory with secrets for the guest's `{guest}`")]
    Secrets {
        /// Where the guest would see it.
        guest: String,
        /// What the system says.
        source: io::Error,
    },
    /// A secret cannot be lent.
    #[error("cannot lend the guest the secret `{name}`")]
    Secret {
        /// Its name.
        name: Name,
        /// Why not.
        source: io::Error,
    },
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
    /// Variables whose values are secrets.
    secret_env: Vec<(String, SecretValue)>,
    /// The secrets, for the log.
    pub(crate) hidden: Arc<Hidden>,
    args: Vec<String>,
    config: Arc<WasiConfigVariables>,
    lent: Arc<Lent>,
    outbound: Arc<Outbound>,
    servers: Arc<Servers>,
    keyvalue: Granted,
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

/// What a node has for all its pods.
pub(crate) struct NodeParts {
    /// Pods that have used up their share of the processors.
    pub(crate) backlog: Arc<Backlog>,
    /// Where instances report themselves that could be part of a deadlock.
    pub(crate) suspects: Arc<Suspects<Cell>>,
    /// What guests print.
    pub(crate) logs: Arc<Ring>,
    /// What holds for every guest.
    pub(crate) limits: Arc<GuestLimits>,
    /// TCP sockets that all guests may have open together.
    pub(crate) sockets: Arc<Semaphore>,
    /// Where volumes are, if there is a place for them.
    pub(crate) volumes: Option<Arc<Volumes>>,
}

/// The pod a store is made for.
pub(crate) struct PodContext {
    pub(crate) meter: Arc<PodMeter>,
    pub(crate) log: Arc<PodLog>,
    suspects: Arc<Suspects<Cell>>,
    /// Whether its guests are of WASI 0.3.
    concurrent: bool,
    autopsies: Mutex<TokenBucket>,
    dumps: Mutex<TokenBucket>,
    sockets: SocketLimit,
}

impl PodContext {
    /// A pod of a sandbox that has used nothing yet.
    pub(crate) fn new(
        name: PodName,
        node: &NodeParts,
        concurrent: bool,
        sandbox: &Sandbox,
    ) -> Self {
        let quota = sandbox.cpu.map(|limit| CpuQuota::new(limit, &node.backlog));
        let meter = Arc::new(PodMeter::new(quota));
        let log = PodLog::new(
            &node.logs,
            name,
            &meter,
            node.limits.log_rate,
            &sandbox.hidden,
        );
        log.begin();
        Self {
            log,
            meter,
            suspects: Arc::clone(&node.suspects),
            concurrent,
            sockets: SocketLimit {
                pod: Arc::new(Semaphore::new(node.limits.sockets)),
                node: Arc::clone(&node.sockets),
            },
            autopsies: Mutex::new(TokenBucket::new(
                MAX_BURST_AUTOPSIES,
                MAX_AUTOPSIES_A_SECOND,
            )),
            dumps: Mutex::new(TokenBucket::new(MAX_BURST_DUMPS * SECONDS_A_DUMP, 1)),
        }
    }

    /// Whether it may be found out how one more instance has ended.
    pub(crate) fn may_look(&self) -> bool {
        let mut bucket = self.autopsies.lock();
        bucket.take(Instant::now(), 1)
    }

    /// Whether one more instance may be dumped.
    pub(crate) fn may_dump(&self) -> bool {
        let mut bucket = self.dumps.lock();
        bucket.take(Instant::now(), SECONDS_A_DUMP)
    }

    fn cell(&self) -> Arc<Cell> {
        let cpu = CpuMeter::new(Arc::clone(&self.meter));
        let name = self.log.pod().clone();
        Cell::new(name, self.concurrent, cpu, &self.suspects)
    }
}

/// What a [`Sandbox`] is made of.
pub(crate) struct SandboxSpec<'a> {
    pub(crate) grants: &'a Grants,
    pub(crate) limits: &'a Limits,
    pub(crate) args: &'a [String],
    pub(crate) stdio: Stdio,
    /// The directory that relative mounts start from.
    pub(crate) base: &'a Path,
    pub(crate) neighbours: Option<Arc<dyn Neighbours>>,
    pub(crate) keyvalue: Option<Arc<dyn KeyValue>>,
    /// The values of the secrets in the grants. Without them no instance is made.
    pub(crate) secrets: Option<&'a SecretValues>,
    /// What holds for every guest of the node.
    pub(crate) node: &'a Arc<GuestLimits>,
    /// The volumes of the node, if there is a place for them.
    pub(crate) volumes: Option<&'a Arc<Volumes>>,
}

fn directory(path: PathBuf, guest: &str) -> Result<OwnedFd, MountError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| MountError::Directory {
        path,
        guest: guest.to_owned(),
        source: errno.into(),
    })
}

fn open_volume(
    volumes: Option<&Arc<Volumes>>,
    volume: &VolumeUse,
) -> Result<Arc<Volume>, VolumeError> {
    volumes.ok_or(VolumeError::NoPlace)?.open(volume)
}

/// The limits of a command, which may work as long as it likes: no client waits for it.
pub(crate) fn unhurried(limits: &Limits) -> Limits {
    Limits {
        request_cpu: Duration::ZERO,
        ..limits.clone()
    }
}

/// Opens the mounts.
fn lend(spec: &SandboxSpec<'_>) -> Result<Lent, MountError> {
    let mut lent = Lent::new(spec.node.open_files);
    let mut secrets: BTreeMap<&str, Vec<(String, &SecretValue)>> = BTreeMap::new();
    for mount in &spec.grants.files {
        let access = match mount.access {
            Access::ReadOnly => FsPerms::ReadOnly,
            Access::ReadWrite => FsPerms::ReadWrite,
        };
        let guest = &mount.guest;
        match &mount.source {
            MountSource::Host(host) => {
                lent.add(directory(spec.base.join(host), guest)?, guest, access);
            }
            MountSource::Volume(volume) => {
                let opened = open_volume(spec.volumes, volume);
                let added = opened.and_then(|it| {
                    let added = lent.add_volume(it, guest, access);
                    added.map_err(|source| VolumeError::Directory {
                        path: volume.name.as_str().into(),
                        source,
                    })
                });
                added.map_err(|source| MountError::Volume {
                    name: volume.name.clone(),
                    guest: guest.clone(),
                    source,
                })?;
            }
            MountSource::Secret(secret) => {
                let (above, name) = guest.rsplit_once('/').unwrap_or(("", guest));
                let above = if above.is_empty() { "/" } else { above };
                if let Some(value) = value(spec.secrets, secret)? {
                    let secrets = secrets.entry(above).or_default();
                    secrets.push((name.to_owned(), value));
                }
            }
        }
    }
    for (guest, secrets) in secrets {
        let made = SecretDirectory::new(&secrets);
        let made = made.map_err(|source| MountError::Secrets {
            guest: guest.to_owned(),
            source,
        })?;
        lent.add_secrets(made, guest);
    }
    Ok(lent)
}

/// The value of a secret. There is none where no instance is made.
fn value<'v>(
    values: Option<&'v SecretValues>,
    secret: &SecretUse,
) -> Result<Option<&'v SecretValue>, MountError> {
    let Some(values) = values else {
        return Ok(None);
    };
    let found = values.get(secret);
    found.map(Some).ok_or_else(|| MountError::Secret {
        name: secret.name.clone(),
        source: io::Error::other("the node does not have its value"),
    })
}

/// The variables whose values are secrets.
fn secret_env(spec: &SandboxSpec<'_>) -> Result<Vec<(String, SecretValue)>, MountError> {
    let mut variables = Vec::new();
    for (name, secret) in &spec.grants.secret_env {
        let Some(value) = value(spec.secrets, secret)? else {
            continue;
        };
        if value.text().is_none() {
            return Err(MountError::Secret {
                name: secret.name.clone(),
                source: io::Error::other("it is no text, as a variable has to be"),
            });
        }
        variables.push((name.clone(), value.clone()));
    }
    Ok(variables)
}

impl Sandbox {
    /// Opens the mounts.
    pub(crate) fn open(spec: SandboxSpec<'_>) -> Result<Self, MountError> {
        let (lent, secret_env) = (lend(&spec)?, secret_env(&spec)?);
        let SandboxSpec {
            grants,
            limits,
            node,
            ..
        } = spec;
        // A grant that is new asks here who opens it. `Outbound` has services and servers, `lend`
        // has files.
        let Grants {
            env,
            secret_env: _,
            config,
            files: _,
            services: _,
            outbound,
            keyvalue,
        } = grants;
        Ok(Self {
            env: env.clone().into_iter().collect(),
            secret_env,
            hidden: Arc::new(spec.secrets.map(Hidden::of).unwrap_or_default()),
            args: spec.args.to_vec(),
            config: Arc::new(config.clone().into_iter().collect()),
            lent: Arc::new(lent),
            outbound: Arc::new(Outbound::new(grants, spec.neighbours, node)),
            servers: Arc::new(Servers::new(outbound)),
            keyvalue: Granted {
                names: keyvalue.as_slice().into(),
                stores: spec.keyvalue,
            },
            stdio: spec.stdio,
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
        let files = files.then(|| cell.register("files", Source::Outside("files".into())));
        let dialler = Dialler::new(&self.servers, &pod.log, &request);
        let tcp = Sockets::new(Arc::clone(&dialler), &pod.sockets, &cell);
        let mut table = ResourceTable::new();
        table.set_max_capacity(self.node.handles);
        let wasi = self.wasi(pod, &request, dialler);
        let state = State {
            table,
            wasi,
            http,
            hooks: Hooks {
                outbound: Arc::clone(&self.outbound),
                request,
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
            // Directories are lent by `Lent`.
            files: WasiFilesystemCtx::default(),
            lent: Arc::clone(&self.lent),
            keyvalue: self.keyvalue.clone(),
            handles: Handles::default(),
            inherits: self.stdio == Stdio::Inherit,
            pace: Arc::clone(pace),
            tcp,
            answered: Answered::default(),
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(self.node.hostcall_bytes);
        store.set_max_component_handles(self.node.handles);
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(self.node.handles);
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_epoch_tick);
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

    fn wasi(
        &self,
        pod: &PodContext,
        request: &Arc<CurrentRequest>,
        dialler: Arc<Dialler>,
    ) -> WasiCtx {
        let mut wasi = WasiCtxBuilder::new();
        wasi.envs(&self.env);
        for (name, value) in &self.secret_env {
            wasi.env(name, value.text().unwrap_or_default());
        }
        wasi.args(&self.args)
            .max_random_size(self.node.random_bytes)
            // Without a grant every address is denied anyhow, but a socket without one takes a file
            // descriptor too.
            .allow_tcp(!self.servers.is_empty())
            .allow_ip_name_lookup(!self.servers.is_empty())
            .socket_addr_check(move |address, way| {
                let may = dialler.check(address, way);
                Box::pin(std::future::ready(may))
            })
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
        wasi.build()
    }
}
