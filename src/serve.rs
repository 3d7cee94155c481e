//! The composition root: joins the runtime, the gateway and the agent, and runs an app on them.

pub(crate) mod app;
pub(crate) mod event;
mod neighbours;
pub(crate) mod single;
mod start;

use std::{path::PathBuf, sync::Arc};

use sampan_core::object::App;
use sampan_gateway::{Gateway, Limits};
use sampan_runtime::{
    PoolSize, Runtime, RuntimeConfig,
    artifact::{cache::CacheError, compile::CompileLimits},
};

use crate::{edge::Edge, telemetry};

/// One node: everything that pods of any app share.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) edge: Arc<Edge>,
}

impl Node {
    /// Opens the compile cache in `cache` and starts the engines' clock.
    pub(crate) fn open(cache: PathBuf) -> Result<Self, CacheError> {
        telemetry::start();
        let runtime = Runtime::new(RuntimeConfig {
            cache,
            compile_command: Arc::new(|| std::process::Command::new("/proc/self/exe")),
            compile_limits: CompileLimits::default(),
            pool: PoolSize::DEFAULT,
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
