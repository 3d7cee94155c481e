//! The composition root: joins the runtime, the gateway and the agent, and runs an app on them.

pub(crate) mod app;
pub(crate) mod event;
mod neighbours;
pub(crate) mod single;
mod start;

use std::{path::PathBuf, sync::Arc};

use sampan_core::object::{App, Isolation, Service};
use sampan_gateway::{Gateway, Limits};
use sampan_runtime::{
    PoolSize, Runtime, RuntimeConfig, artifact::compile::CompileLimits,
    pod::template::DEFAULT_CONCURRENCY,
};

use crate::{edge::Edge, telemetry};

pub(crate) use sampan_runtime::{artifact::cache::CacheError, logs};

/// One node: everything that pods of any app share.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) edge: Arc<Edge>,
}

impl Node {
    /// Opens the compile cache in `cache` and starts the engines' clock. `instances` is how many may
    /// be alive at once in each engine.
    pub(crate) fn open(cache: PathBuf, instances: u32) -> Result<Self, CacheError> {
        telemetry::start();
        let runtime = Runtime::new(RuntimeConfig {
            cache,
            compile_command: Arc::new(|| std::process::Command::new("/proc/self/exe")),
            compile_limits: CompileLimits::default(),
            pool: PoolSize { instances },
        })?;
        let edge = Arc::new(Edge::new(Gateway::new(Limits::default())));
        Ok(Self { runtime, edge })
    }
}

/// An app to run, and where its paths start from.
#[derive(Clone)]
pub(crate) struct AppSource {
    pub(crate) app: App,
    pub(crate) base: PathBuf,
}

impl AppSource {
    /// Instances the app can have at once, within what one process should hold.
    ///
    /// A pool is address space and memory maps, which take milliseconds to lay out: an app with one
    /// pod need not wait for the pool of a thousand.
    pub(crate) fn instances(&self) -> u32 {
        let of_service = |service: &Service| {
            let at_once = match service.isolation {
                Some(Isolation::Pod) => 1,
                _ => service.concurrency.unwrap_or(DEFAULT_CONCURRENCY),
            };
            service.replicas.saturating_mul(at_once)
        };
        let services = self.app.services.values().map(of_service);
        let jobs = u32::try_from(self.app.jobs.len()).unwrap_or(u32::MAX);
        // New pods stand beside old ones that drain; and a few are for trial instances.
        let wanted = services
            .fold(jobs, u32::saturating_add)
            .saturating_mul(1 + app::MAX_OLD_VERSIONS)
            .saturating_add(8);
        wanted.min(PoolSize::DEFAULT.instances)
    }
}
