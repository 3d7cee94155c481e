//! `sampan serve`: the daemon.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use sampan_core::{record::Kind, spec::node::Node as NodeLimits};
use tokio::task::JoinHandle;

use super::{
    EXIT_FAILED, End, Stop,
    background::{Background, Note},
    etcd::EtcdArguments,
    interrupts::Interrupts,
    node,
    output::Output,
    process::runtime,
    up::printer::Printer,
};
use crate::{
    config::{
        self,
        address::{self, ApiPlace},
    },
    serve::{
        across,
        context::NodeContext,
        control::{self, Api, Control},
        daemon::Daemon,
        data,
        etcd::EtcdOptions,
        kept,
        member::{self, Present},
    },
};

/// Run the daemon: it keeps the apps that `apply` hands it running, over its own restarts too
///
/// What is wanted and revisions are kept in a database below `--data`, or in an etcd; events in
/// another, components beside them. Ctrl-C or SIGTERM stops accepting, lets requests end and stops all pods; they are there again
/// after the next start. A second Ctrl-C stops at once. A terminal that goes (SIGHUP) stops it in the
/// same way, unless it was started with `nohup`.
#[derive(Args)]
pub(super) struct Arguments {
    /// Limits that hold for everything, and the directories that guests may be lent
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where to keep state [default: $XDG_STATE_HOME/sampan]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Where to listen for HTTP; port 0 picks a free one, and a port alone is for this machine only
    #[arg(long, value_name = "ADDR", default_value_t = config::DEFAULT_HTTP, value_parser = config::address::listen)]
    http: SocketAddr,

    /// Where to answer `get`, `apply` and the like: a socket, or a port of this machine as in
    /// `127.0.0.1:8081`, for which a token is made below `--data`
    #[arg(long, value_name = "SOCKET|ADDR")]
    api: Option<String>,

    /// Write events to standard error as JSON, one object a line, and no other talk
    #[arg(long)]
    json: bool,

    /// Run as `up -d` wants it: in a session of its own, ended with its last app
    #[arg(long, hide = true, conflicts_with = "members")]
    background: bool,

    #[command(flatten)]
    etcd: EtcdArguments,

    /// What all keys in etcd begin with: one node for each
    #[arg(
        long = "etcd-prefix",
        value_name = "PREFIX",
        requires = "members",
        default_value = "/sampan-node",
        help_heading = "State in etcd"
    )]
    prefix: String,
}

impl Arguments {
    /// What says where it runs in the background, if it does.
    fn background(&self, data: &Path) -> Option<Background> {
        let note = || Note {
            http: self.http,
            config: self.config.clone(),
        };
        self.background.then(|| Background::begin(data, note()))
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let limits = node::limits(arguments.config.as_deref(), output)?;
    let etcd = arguments.etcd.options(&arguments.prefix)?;
    runtime()?.block_on(serve(limits, etcd, arguments, output))
}

async fn serve(
    limits: NodeLimits,
    etcd: Option<EtcdOptions>,
    arguments: &Arguments,
    output: &Output,
) -> End {
    let mut interrupts = Interrupts::listen()?;
    let data = directory(arguments.data.as_deref())?;
    let background = arguments.background(&data);
    let opening = open(limits, etcd, &data, background.is_some());
    let context = tokio::select! {
        context = opening => context?,
        _ = interrupts.next() => return Err(Stop::Quiet(EXIT_FAILED)),
    };
    let mut daemon = Daemon::start(&context);
    tokio::select! {
        () = context.node.edge.followed() => {}
        reason = daemon.failed() => return Err(Stop::Because(EXIT_FAILED, anyhow::anyhow!(reason))),
        _ = interrupts.next() => return Err(Stop::Quiet(EXIT_FAILED)),
    }
    let listening = node::listen(&context.node, None, arguments.http, "--http").await?;
    let printer = Printer::all(output, &context.journal, arguments.json);
    // In the background there is no reader: events and lines are kept, and shown on request.
    let printing = background.is_none().then(|| print(&printer, &context));
    // Open while it drains too, so that one can look.
    let mut control = None;
    let mut present = None;
    let working = async {
        // Before all pods are planned, so that an app that is too large can be deleted.
        let http = Some(listening.address);
        let ending = background.as_ref().map(Background::ending);
        let api = control::ending_api(&context, http, ending);
        let (opened, place) = open_control(&api, arguments.api.as_deref(), &data)?;
        control = Some(opened);
        present = among_others(&context, http).await?;
        api.delete_left_behind().await;
        if let Some(background) = &background {
            background.note()?;
        }
        output.data(&format!("listening on http://{}\n", listening.address));
        printer.talk(&format!("the API is at {place}"));
        let reason = failed(&mut daemon, present.as_mut(), &context).await;
        Err(anyhow::anyhow!(reason))
    };
    let end = tokio::select! {
        _ = interrupts.next() => Ok(()),
        () = Background::ended(background.as_ref()) => Ok(()),
        failed = working => failed,
    };
    printer.talk("draining; Ctrl-C again stops at once");
    let drained = async {
        evacuate(present.as_ref(), &mut daemon, &context).await;
        listening.drain().await;
        daemon.rest().await;
        if let Some(present) = present {
            present.end().await;
        }
    };
    let drained = tokio::select! {
        () = drained => true,
        _ = interrupts.again() => false,
    };
    drop(control);
    leave(&context, &printer, printing).await;
    match end {
        Err(reason) => Err(Stop::Because(EXIT_FAILED, reason)),
        Ok(()) if drained => Ok(()),
        Ok(()) => Err(Stop::Quiet(EXIT_FAILED)),
    }
}

/// Has the pods of this node made elsewhere, while it still answers.
async fn evacuate(present: Option<&Present>, daemon: &mut Daemon, context: &NodeContext) {
    let Some(present) = present else {
        return;
    };
    let pods = context.objects.follow(&[Kind::Pod]);
    tokio::select! {
        () = present.member.evacuate(pods) => {}
        // What is left ends with this node.
        _ = daemon.failed() => {}
    }
}

/// Gives back what other nodes may wait for, and prints what is left to print.
async fn leave(context: &NodeContext, printer: &Printer, printing: Option<Printing>) {
    if let Some(away) = &context.away {
        away.release().await;
    }
    if let Some((printing, logging)) = printing {
        let (journal, lines) = (&context.journal, context.node.runtime.logs());
        printer.end_of_events(printing, journal).await;
        printer.end_of_logs(logging, lines).await;
    }
}

/// Opens a node with its state where it is to be.
async fn open(
    limits: NodeLimits,
    etcd: Option<EtcdOptions>,
    data: &Path,
    in_background: bool,
) -> anyhow::Result<NodeContext> {
    match etcd {
        Some(etcd) => opened_with_etcd(limits, data, etcd).await,
        None => opened(limits, data, in_background).await,
    }
}

/// Where a node keeps its state.
fn directory(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    match asked {
        Some(data) => Ok(data.to_owned()),
        None => config::data_directory().context("`--data` has to name a place for the state"),
    }
}

/// Has the node be one of its cluster from now on, if it is of one.
async fn among_others(
    context: &NodeContext,
    http: Option<SocketAddr>,
) -> anyhow::Result<Option<Present>> {
    let Some(member) = &context.member else {
        return Ok(None);
    };
    kept::keep(member, context).await?;
    let (views, visits) = (
        control::for_peers(context, http),
        across::visits(context, member),
    );
    let artifacts = Arc::clone(&context.artifacts);
    let server = member.listen(artifacts, views, visits).await?;
    let threads = context.node.threads.handles();
    Ok(Some(Present::begin(Arc::clone(member), server, threads)))
}

/// Resolves when the node cannot go on, with why.
async fn failed(
    daemon: &mut Daemon,
    present: Option<&mut Present>,
    context: &NodeContext,
) -> String {
    let out = async {
        match present {
            Some(present) => present.failed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        reason = daemon.failed() => reason,
        reason = out => reason,
        reason = taken(context) => reason,
    }
}

/// Opens a node with its state in this directory.
async fn opened(
    limits: NodeLimits,
    data: &Path,
    in_background: bool,
) -> anyhow::Result<NodeContext> {
    let mut volumes = limits.volumes.clone();
    if in_background && volumes.is_empty() {
        // As in the foreground: it is for this user alone, at a socket.
        volumes.push(PathBuf::from("/"));
    }
    // The database first: it is what two daemons must not share.
    let opened = match in_background {
        true => data::open_when_free(data, &limits.logs).await?,
        false => data::open(data, limits.logs.clone()).await?,
    };
    let opened = data::join_in(data, opened, member::capacity(&limits)).await?;
    let node = node::open_daemon(limits, data)?;
    Ok(NodeContext::open(node, opened, volumes).await?)
}

/// The same of a node whose objects are in an etcd.
async fn opened_with_etcd(
    limits: NodeLimits,
    data: &Path,
    etcd: EtcdOptions,
) -> anyhow::Result<NodeContext> {
    if data.join("cluster.toml").exists() {
        anyhow::bail!(
            "`{}` is of a node of a cluster, which knows its etcd: `--etcd` is for one that is alone",
            data.display()
        );
    }
    let (volumes, logs) = (limits.volumes.clone(), limits.logs.clone());
    let locked = data::lock(data)?;
    let node = node::open_daemon(limits, data)?;
    // What talks to etcd is on the threads of the control side.
    let opening = data::open_with_etcd(locked, logs, etcd);
    let opened = node.control.handle().spawn(opening).await??;
    Ok(NodeContext::open(node, opened, volumes).await?)
}

/// Resolves when another node has taken what this one works with.
async fn taken(context: &NodeContext) -> String {
    match &context.away {
        Some(away) => away.taken().await,
        None => std::future::pending().await,
    }
}

/// The tasks that print events and lines.
type Printing = (JoinHandle<()>, JoinHandle<()>);

/// Prints events and what guests print from now on.
fn print(printer: &Printer, context: &NodeContext) -> Printing {
    let (journal, lines) = (&context.journal, context.node.runtime.logs());
    let printing = tokio::spawn(printer.clone().events(Arc::clone(journal)));
    let logging = tokio::spawn(printer.clone().logs(Arc::clone(lines)));
    (printing, logging)
}

/// Opens the API where it was asked for, and says where that is.
fn open_control(api: &Api, asked: Option<&str>, data: &Path) -> anyhow::Result<(Control, String)> {
    let path = match asked.map(address::api).transpose()? {
        None => config::daemon_socket(),
        Some(ApiPlace::Socket(path)) => path.to_owned(),
        Some(ApiPlace::Port(text)) => {
            let token = data.join("token");
            let (control, address) = Control::at_port(api, address::listen(&text)?, &token)?;
            let place = format!("http://{address}, with the token in `{}`", token.display());
            return Ok((control, place));
        }
    };
    let control = Control::at_socket(api, &path)?;
    Ok((control, format!("`{}`", path.display())))
}
