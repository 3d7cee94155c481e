//! The configuration of a node, for every verb that runs guests.

use std::{env, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use sampan_core::spec::node::{self, Node as NodeLimits};

use super::{EXIT_USAGE, Stop, output::Output};
use crate::{
    config, file,
    serve::{AppSource, CacheError, Node},
};

/// Which limits hold for everything.
#[derive(Args)]
pub(super) struct NodeArguments {
    /// Limits on clients, guests and compiling that hold for everything
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
}

impl NodeArguments {
    /// Reads and checks the file. All its problems are printed before this fails.
    pub(super) fn load(&self, output: &Output) -> Result<NodeLimits, Stop> {
        let Some(path) = &self.node else {
            return Ok(NodeLimits::default());
        };
        let text = file::text(path)
            .with_context(|| format!("cannot read the node's limits `{}`", path.display()))
            .map_err(Stop::usage)?;
        let variable = |name: &str| env::var(name).ok();
        node::load(&path.to_string_lossy(), &text, &variable).map_err(|problems| {
            output.problems(&problems);
            Stop::Quiet(EXIT_USAGE)
        })
    }
}

/// Opens a node for an app, with the compile cache of this user.
pub(super) fn open(source: &AppSource, limits: NodeLimits) -> anyhow::Result<Node> {
    let mut services = source.app.services.values();
    let coredumps = match services.any(|service| service.coredump) {
        true => Some(config::coredump_directory()?),
        false => None,
    };
    let cache = config::cache_directory()?;
    let opened = Node::open(cache, coredumps, source.instances(), limits);
    opened.map_err(|error| {
        let remedy = match &error {
            CacheError::Io { .. } | CacheError::Foreign(_) => {
                "; `XDG_CACHE_HOME` names another place for it"
            }
            CacheError::Key(_) => "",
        };
        anyhow::anyhow!("{:#}{remedy}", anyhow::Error::new(error))
    })
}
