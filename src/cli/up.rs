//! `sampan up`: a whole app in the foreground.

mod summary;
mod watch;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use sampan_core::{name::Name, record::MAX_REPLICAS, spec::node::Node as NodeLimits};
use tokio::sync::mpsc;

use super::{
    EXIT_FAILED, End, Stop,
    api::absent,
    interrupts::Interrupts,
    node::{self, NodeArguments},
    output::Output,
    process::runtime,
    spec::SpecArguments,
};
use crate::{
    config,
    serve::{
        AppSource,
        app::{self, FirstStart, Listening, NotRunning, RunningApp},
        context::NodeContext,
        control::{self, Api, Control},
    },
};
use printer::Printer;
use watch::Watch;

pub(super) mod printer;

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
pub(super) struct Arguments {
    #[command(flatten)]
    spec: SpecArguments,

    #[command(flatten)]
    node: NodeArguments,

    /// Where to listen for HTTP; port 0 picks a free one, and a port alone is for this machine only
    #[arg(long, value_name = "ADDR", default_value_t = config::DEFAULT_HTTP, value_parser = config::address::listen)]
    http: SocketAddr,

    /// Run this many pods of a service, whatever the spec says
    #[arg(long, value_name = "SERVICE=N")]
    scale: Vec<Scale>,

    /// Replace a service's pods when its component file changes, or what a link or folder on the way
    /// to it leads to
    #[arg(long)]
    watch: bool,

    /// Where to put the control socket that `get`, `describe` and `events` ask
    #[arg(long, value_name = "SOCKET", value_parser = config::address::socket)]
    api: Option<PathBuf>,

    /// Write events to standard error as JSON, one object a line, and no other talk
    #[arg(long)]
    json: bool,
}

/// `web=5`.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    pub(super) service: Name,
    pub(super) replicas: u32,
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

pub(super) fn run(arguments: Arguments, output: &Output) -> End {
    let mut app = arguments.spec.load(output)?;
    for Scale { service, replicas } in &arguments.scale {
        match app.services.get_mut(service) {
            Some(found) => found.replicas = *replicas,
            None => {
                let absent = absent("service", service.as_str(), app.services.keys());
                let option = format!("`--scale {service}={replicas}`");
                return Err(Stop::usage(absent.context(option)));
            }
        }
    }
    let source = AppSource {
        app,
        base: arguments.spec.base(),
    };
    let limits = arguments.node.load(output)?;
    let printer = Printer::new(output, &source.app, arguments.json);
    runtime()?.block_on(up(source, limits, &arguments, &printer, output))
}

async fn up(
    source: AppSource,
    limits: NodeLimits,
    arguments: &Arguments,
    printer: &Printer,
    output: &Output,
) -> End {
    let mut interrupts = Interrupts::listen()?;
    let node = node::open(&source, limits)?;
    let listening = node::listen(&node, Some(&source), arguments.http, "--http").await?;
    let context = NodeContext::foreground(node).await?;
    let (node, journal) = (&context.node, &context.journal);
    let api = control::api(&context, Some(listening.address));
    let _control = open_control(&api, &source.app.name, arguments.api.as_deref(), printer)?;
    let printing = tokio::spawn(printer.clone().events(Arc::clone(journal)));
    let logging = tokio::spawn(printer.clone().logs(Arc::clone(node.runtime.logs())));
    let watch = arguments.watch.then(|| Watch::new(&source));
    let end = async {
        let begun = tokio::select! {
            begun = RunningApp::begin(&context, &api, source.clone()) => begun,
            _ = interrupts.next() => {
                printer.talk("interrupted while starting");
                return Err(Failure::Told);
            }
        };
        let running = begun.map_err(Failure::NotRunning)?;
        live(running, listening, watch, printer, &mut interrupts).await
    };
    let end = end.await;
    let summary = app::summary(&context, &source);
    printer.end_of_events(printing, journal).await;
    printer.end_of_logs(logging, node.runtime.logs()).await;
    match end {
        Ok(()) => {
            printer.talk(&summary::table(&summary));
            Ok(())
        }
        Err(Failure::NotRunning(reason)) => Err(not_running(reason, output)),
        Err(Failure::Broken(reason)) => Err(reason.into()),
        Err(Failure::Told) => {
            printer.talk(&summary::table(&summary));
            Err(Stop::Quiet(EXIT_FAILED))
        }
    }
}

/// Why an app does not come to a good end.
enum Failure {
    /// It does not run.
    NotRunning(NotRunning),
    /// Something has ended that must not.
    Broken(anyhow::Error),
    /// It was told why.
    Told,
}

/// Sees an app through its life: until it is interrupted, or has nothing more to do. Whatever ends
/// it, what is in flight is answered first.
async fn live(
    mut running: RunningApp,
    listening: Listening,
    watch: Option<Watch>,
    printer: &Printer,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    let end = tokio::select! {
        good = running.settled(FirstStart::May) => match (good, running.stays()) {
            (false, _) => Err(Failure::NotRunning(NotRunning::Failed)),
            // All its jobs have ended.
            (true, false) => Ok(()),
            (true, true) => {
                running.tell_up(&listening);
                let changes = watch.map(Watch::start);
                until_interrupted(&mut running, changes, interrupts)
                    .await
                    .map_err(Failure::Broken)
            }
        },
        _ = interrupts.next() => {
            printer.talk("interrupted while starting");
            Err(Failure::Told)
        }
    };
    if running.stays() {
        printer.talk("draining; Ctrl-C again stops at once");
    }
    tokio::select! {
        () = running.drain(listening) => end,
        _ = interrupts.again() => end.and(Err(Failure::Told)),
    }
}

/// Opens the control socket. Without one the app runs all the same, unless one was asked for.
fn open_control(
    api: &Api,
    app: &Name,
    asked: Option<&Path>,
    printer: &Printer,
) -> Result<Option<Control>, Stop> {
    let usual = config::app_socket(app);
    match (Control::at_socket(api, asked.unwrap_or(&usual)), asked) {
        (Ok(control), _) => Ok(Some(control)),
        (Err(error), Some(_)) => Err(error.into()),
        (Err(error), None) => {
            let error = anyhow::Error::new(error);
            printer.talk(&format!(
                "no control socket: {error:#}; `--api` names another place for it"
            ));
            Ok(None)
        }
    }
}

/// Applies changes of component files until Ctrl-C.
async fn until_interrupted(
    running: &mut RunningApp,
    mut changes: Option<mpsc::Receiver<Name>>,
    interrupts: &mut Interrupts,
) -> anyhow::Result<()> {
    loop {
        let change = async {
            match &mut changes {
                Some(changes) => changes.recv().await,
                None => None,
            }
        };
        let service = tokio::select! {
            _ = interrupts.next() => return Ok(()),
            Some(service) = change => service,
            reason = running.failed() => anyhow::bail!(reason),
        };
        tokio::select! {
            _ = interrupts.next() => return Ok(()),
            () = running.reload(&service) => {}
        }
    }
}

fn not_running(reason: NotRunning, output: &Output) -> Stop {
    match reason {
        NotRunning::Components(refused) => {
            for (name, error) in refused {
                output.error(&anyhow::Error::new(error).context(name.to_string()));
            }
        }
        NotRunning::Refused(reason) => output.error(&anyhow::anyhow!(reason)),
        NotRunning::Failed => {
            output.error(&anyhow::anyhow!("the app does not run: see above"));
        }
    }
    Stop::Quiet(EXIT_FAILED)
}
