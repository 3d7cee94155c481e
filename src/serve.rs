//! The composition root: joins the runtime, the gateway and the agent, and runs an app on them.

pub(crate) mod across;
pub(crate) mod app;
pub(crate) mod bench;
pub(crate) mod context;
pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod data;
mod descriptors;
mod endpoints;
pub(crate) mod etcd;
mod event_history;
mod fetching;
mod format;
mod keeping;
pub(crate) mod kept;
mod keyvalue;
mod line_history;
pub(crate) mod member;
mod memory;
mod metrics;
mod neighbours;
mod nodes;
mod release;
mod reporting;
mod sampler;
mod seen;
#[cfg(test)]
mod simulation;
pub(crate) mod single;
mod sketch;
mod sweep;
mod threads;
mod told;
mod views;
mod waking;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use sampan_core::{
    name::Name,
    object::{App, Isolation, Service},
    plan::quota::Quota,
    secret::SecretValue,
    spec::{
        SpecText,
        node::{KeyValueLimits, Node as NodeLimits},
    },
};
use sampan_gateway::Gateway;
use sampan_runtime::{
    PoolSize, Runtime, RuntimeConfig, VolumesConfig,
    artifact::cache::Cache,
    pod::template::DEFAULT_CONCURRENCY,
    threads::{DataThreads, ThreadsError, processors},
};

use crate::{
    agent::{handle::one_line, registry::PodRegistry},
    edge::Edge,
    telemetry,
};

use self::{descriptors::Shares, threads::ControlThreads};

pub(crate) use crate::events;
pub(crate) use sampan_runtime::logs;

/// Instances that are only made to see whether they can be, at once.
const TRIAL_INSTANCES: u32 = 8;

/// One node: everything that pods of any app share.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) edge: Arc<Edge>,
    pub(crate) registry: Arc<PodRegistry>,
    /// Where core dumps go, if there is a place for them.
    pub(crate) coredumps: Option<PathBuf>,
    /// How much apps may have.
    pub(crate) quota: Quota,
    /// How much a key-value store may hold.
    pub(crate) keyvalue: KeyValueLimits,
    /// Where everything runs that is not on the way of a request.
    pub(crate) control: Arc<ControlThreads>,
    /// Where requests are answered: connections, pods and jobs.
    pub(crate) threads: Arc<DataThreads>,
    /// Connections at once at each entrance of the API.
    api_connections: usize,
}

impl Node {
    /// Opens the compile cache in `cache`, if that can be, and starts the engines' clock. `instances` is how many may
    /// be alive at once in each engine, if so many fit. Core dumps go below `coredumps`,
    /// volumes of apps below `volumes`.
    pub(crate) fn open(
        cache: Option<PathBuf>,
        coredumps: Option<PathBuf>,
        volumes: Option<PathBuf>,
        instances: u32,
        mut limits: NodeLimits,
    ) -> Result<Self, ThreadsError> {
        telemetry::start();
        let runtime = Runtime::new(RuntimeConfig {
            cache: open_cache(cache.as_deref()),
            compile_command: Arc::new(|| std::process::Command::new("/proc/self/exe")),
            compile_limits: limits.compile,
            pool: PoolSize { instances },
            guest: limits.guest,
            volumes: volumes.map(VolumesConfig::at),
        })?;
        let control = ControlThreads::start()?;
        let threads = DataThreads::start(processors(), sampan_gateway::number_thread)?;
        let shares = Shares::take(limits.gateway.connections);
        limits.gateway.connections = shares.gateway;
        let edge = Arc::new(Edge::new(Gateway::new(limits.gateway)));
        Ok(Self {
            runtime,
            edge,
            coredumps,
            quota: limits.quota,
            keyvalue: limits.keyvalue,
            control: Arc::new(control),
            threads: Arc::new(threads),
            api_connections: shares.api,
            registry: Arc::default(),
        })
    }
}

/// The compile cache. It only saves time, so what keeps it from being used is said and no more.
fn open_cache(directory: Option<&Path>) -> Option<Cache> {
    const LOST: &str = "components are compiled again at each start";
    let Some(directory) = directory else {
        tracing::warn!(
            "{LOST}: there is no place for compiled code; `XDG_CACHE_HOME` or `HOME` names one"
        );
        return None;
    };
    let opened = Cache::open(directory);
    let told = |error| {
        let reason = one_line(&error);
        tracing::warn!("{LOST}: {reason}; `XDG_CACHE_HOME` names another place for compiled code");
    };
    opened.map_err(told).ok()
}

/// An app to run, and where its paths start from.
#[derive(Clone)]
pub(crate) struct AppSource {
    pub(crate) app: App,
    /// The values of its secrets.
    pub(crate) secrets: BTreeMap<Name, SecretValue>,
    pub(crate) base: PathBuf,
    /// What the app was read from.
    pub(crate) spec: SpecText,
}

impl AppSource {
    /// Instances the app can have at once. Of that, the runtime makes as many possible as fit.
    ///
    /// A pool is address space and memory maps, which take milliseconds to lay out: an app with one
    /// pod need not wait for the pool of a thousand.
    pub(crate) fn instances(&self) -> u32 {
        let services = || self.app.services.values();
        // Beyond the first of a pod, which it may keep for ever.
        let more = |service: &Service| match service.isolation {
            Some(Isolation::Pod) => 0,
            _ => service.concurrency.unwrap_or(DEFAULT_CONCURRENCY) - 1,
        };
        let pods = services().fold(0, |sum: u32, it| sum.saturating_add(it.replicas));
        let more = services().fold(0, |sum: u32, it| {
            sum.saturating_add(it.replicas.saturating_mul(more(it)))
        });
        // New pods stand beside old ones: with a surge of 100 % there are as many of each.
        let spare = pods.saturating_add(more).saturating_add(more);
        let jobs = u32::try_from(self.app.jobs.len()).unwrap_or(u32::MAX);
        pods.saturating_add(spare.min(PoolSize::DEFAULT.instances))
            .saturating_add(jobs)
            .saturating_add(TRIAL_INSTANCES)
    }
}
