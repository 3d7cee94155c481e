//! What the command line says to `up`.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use anyhow::Context as _;
use clap::Args;
use sampan_core::{name::Name, object::App, record::MAX_REPLICAS};

use crate::{
    cli::{Stop, api::absent, node::NodeArguments, spec::SpecArguments},
    config,
};

/// Run all services and jobs of a spec in the foreground; Ctrl-C drains and stops them
///
/// A second Ctrl-C stops at once. A terminal that goes (SIGHUP) stops it as Ctrl-C does, unless it
/// was started with `nohup`. Guests' output goes to standard output, everything else to standard
/// error: what happens to services, jobs and pods as one line each.
///
/// A pod that fails is started again as `restart` in the spec says, at the first start too. The app
/// is up when each pod has come up or failed once. It does not run, and the exit code is 1, if a
/// job fails, if a pod cannot be made from what the spec says, or if one ends for good before it
/// is up. An app of jobs alone ends when all of them have, with exit code 1 if one failed.
#[derive(Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    pub(super) spec: SpecArguments,

    #[command(flatten)]
    pub(super) node: NodeArguments,

    /// Where to listen for HTTP; port 0 picks a free one, and a port alone is for this machine only
    ///
    /// Without it that is `127.0.0.1:8080`.
    #[arg(long, value_name = "ADDR", value_parser = config::address::listen)]
    pub(super) http: Option<SocketAddr>,

    /// Run it in the background: on the node of this user, which is started if none runs
    ///
    /// This ends when the app is up, with its URLs, or with exit code 1 and the reason. What is
    /// printed is in `sampan logs`. The same again applies changes; `sampan down` ends the app, and
    /// the node with its last one.
    #[arg(short, long, conflicts_with = "watch")]
    pub(super) detach: bool,

    /// Run this many pods of a service, whatever the spec says
    #[arg(long, value_name = "SERVICE=N")]
    pub(super) scale: Vec<Scale>,

    /// Run the `build` of each service and job first; one that fails ends this with exit code 1
    #[arg(long)]
    pub(super) build: bool,

    /// Follow what is edited: a source in `watch` runs its `build`, a changed component or spec is
    /// rolled out, and the rest goes on untouched
    ///
    /// A build that fails, and a spec that is not good, leave running what runs. A component changes
    /// too when a link or folder on the way to it leads elsewhere.
    #[arg(long)]
    pub(super) watch: bool,

    /// Where to put the control socket that `get`, `describe` and `events` ask; with `-d` the one of
    /// the node, where it runs or is started
    #[arg(long, value_name = "SOCKET", value_parser = config::address::socket)]
    pub(super) api: Option<PathBuf>,

    /// Write events to standard error as JSON, one object a line, and no other talk; with `-d` what
    /// changes, to standard output
    #[arg(long)]
    pub(super) json: bool,
}

/// `web=5`.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Scale {
    pub(in crate::cli) service: Name,
    pub(in crate::cli) replicas: u32,
}

impl FromStr for Scale {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (service, replicas) = text.split_once('=').context("write it as `SERVICE=N`")?;
        let replicas = replicas
            .parse()
            .ok()
            .filter(|&replicas| replicas <= MAX_REPLICAS)
            .with_context(|| format!("`{replicas}` is not a number from 0 to {MAX_REPLICAS}"))?;
        Ok(Self {
            service: Name::parse(service)?,
            replicas,
        })
    }
}

/// Gives services the replicas that the command line wants.
pub(super) fn scaled(app: &mut App, scale: &[Scale]) -> Result<(), Stop> {
    for Scale { service, replicas } in scale {
        match app.services.get_mut(service) {
            Some(found) => found.replicas = *replicas,
            None => {
                let absent = absent("service", service.as_str(), app.services.keys());
                let option = format!("`--scale {service}={replicas}`");
                return Err(Stop::usage(absent.context(option)));
            }
        }
    }
    Ok(())
}
