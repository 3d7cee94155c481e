//! The configuration of a node, for every verb that runs guests.

use std::{
    env, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use sampan_core::spec::node::{self, Node as NodeLimits};

use super::{EXIT_USAGE, Stop, output::Output};
use crate::{
    config, file,
    serve::{AppSource, Node, app::Listening},
};

/// Which limits hold for everything.
#[derive(Args)]
pub(super) struct NodeArguments {
    /// Limits on clients, guests and compiling that hold for everything
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
}

impl NodeArguments {
    /// The file, if one is named.
    pub(super) fn file(&self) -> Option<&Path> {
        self.node.as_deref()
    }

    /// Reads and checks the file. All its problems are printed before this fails.
    pub(super) fn load(&self, output: &Output) -> Result<NodeLimits, Stop> {
        limits(self.node.as_deref(), output)
    }
}

/// Reads and checks a file with limits, if one is named. All its problems are printed before this
/// fails.
pub(super) fn limits(path: Option<&Path>, output: &Output) -> Result<NodeLimits, Stop> {
    let Some(path) = path else {
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

/// Opens a node for whatever may be applied to it, with its state below a directory.
pub(super) fn open_daemon(limits: NodeLimits, data: &Path) -> anyhow::Result<Node> {
    let coredumps = config::coredump_directory().ok();
    node(coredumps, Some(volumes(data)), DAEMON_INSTANCES, limits)
}

/// Instances that may be alive at once in each engine of a daemon, if so many fit.
const DAEMON_INSTANCES: u32 = 4000;

/// Opens a node for an app, with the compile cache of this user.
pub(super) fn open(source: &AppSource, limits: NodeLimits) -> anyhow::Result<Node> {
    let mut services = source.app.services.values();
    let coredumps = match services.any(|service| service.coredump) {
        true => Some(config::coredump_directory()?),
        false => None,
    };
    let data = config::data_directory().ok();
    let volumes = data.map(|data| volumes(&data));
    node(coredumps, volumes, source.instances(), limits)
}

/// The same for an app whose spec may change while it runs.
pub(super) fn open_for_edits(limits: NodeLimits) -> anyhow::Result<Node> {
    let data = config::data_directory().ok();
    let volumes = data.map(|data| volumes(&data));
    let coredumps = config::coredump_directory().ok();
    node(coredumps, volumes, DAEMON_INSTANCES, limits)
}

fn node(
    coredumps: Option<PathBuf>,
    volumes: Option<PathBuf>,
    instances: u32,
    limits: NodeLimits,
) -> anyhow::Result<Node> {
    let cache = config::cache_directory().ok();
    let opened = Node::open(cache, coredumps, volumes, instances, limits);
    Ok(opened?)
}

/// Where the volumes of a node are whose state is below a directory.
fn volumes(data: &Path) -> PathBuf {
    data.join("volumes")
}

/// Accepts requests at an address, which an option names.
pub(super) async fn listen(
    node: &Node,
    source: Option<&AppSource>,
    address: SocketAddr,
    option: &str,
) -> anyhow::Result<Listening> {
    let listening = Listening::start(node, source, address).await;
    listening.map_err(|error| {
        let free = Some(address).filter(|_| error.kind() == io::ErrorKind::AddrInUse);
        let remedy = match free.and_then(free_after) {
            Some(free) => format!("`{option} {free}` is free"),
            None => format!("`{option} 127.0.0.1:0` picks a free port"),
        };
        anyhow::Error::new(error).context(format!("cannot listen on `{address}`; {remedy}"))
    })
}

/// The same address with a later port on which nothing listens.
fn free_after(address: SocketAddr) -> Option<SocketAddr> {
    const TRIED: u16 = 100;
    let ports = (1..=TRIED).map_while(|more| address.port().checked_add(more));
    let mut addresses = ports.map(|port| SocketAddr::new(address.ip(), port));
    addresses.find(|address| TcpListener::bind(address).is_ok())
}
