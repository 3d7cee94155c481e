//! `sampan run`: one component, without a spec.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use sampan_core::{
    name::Name,
    object::{Access, Grants, Isolation, Mount, MountSource, Outbound},
    spec,
};
use sampan_runtime::{Demands, Loaded, command::program_name};

use super::{
    EXIT_FAILED, End, Stop,
    interrupts::Interrupts,
    node::{self, NodeArguments},
    output::{self, Output},
    process::runtime,
    up::printer::Printer,
};
use crate::{
    config, file,
    serve::{
        AppSource, Node,
        app::{FirstStart, Listening, NotRunning, RunningApp},
        context::NodeContext,
        control, single,
    },
};

/// Run one component: serve it when it answers HTTP, run it to its end when it is a command
///
/// Nothing is granted that is not named here. A command gets this program's standard streams, and
/// its exit code becomes this program's.
#[derive(Args)]
pub(super) struct Arguments {
    /// The component
    component: PathBuf,

    /// Where to listen for HTTP; port 0 picks a free one, and a port alone is for this machine only
    #[arg(long, visible_alias = "http", value_name = "ADDR", default_value_t = config::DEFAULT_HTTP, value_parser = config::address::listen)]
    addr: SocketAddr,

    /// Set a variable of the guest's environment; without a value, take this environment's
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<Setting>,

    /// Set a value the guest reads through wasi:config
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<Setting>,

    /// Lend a directory to the guest, at the same path or at another
    #[arg(long, value_name = "HOST[::GUEST]")]
    dir: Vec<Directory>,

    /// Allow requests or connections to this server, as in `allow.outbound` of a spec
    #[arg(long, value_name = "SCHEME://HOST[:PORT]", value_parser = spec::server)]
    outbound: Vec<Outbound>,

    /// Let the guest open this key-value store, which is kept for the next run
    #[arg(long, value_name = "STORE", value_parser = Name::parse)]
    keyvalue: Vec<Name>,

    /// Pods to serve with
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,

    /// What requests share: one instance per request, or one per pod
    #[arg(long, value_enum)]
    isolation: Option<IsolationArgument>,

    #[command(flatten)]
    node: NodeArguments,

    /// Arguments of a command
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// What requests share.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum IsolationArgument {
    Pod,
    Request,
}

impl From<IsolationArgument> for Isolation {
    fn from(argument: IsolationArgument) -> Self {
        match argument {
            IsolationArgument::Pod => Self::Pod,
            IsolationArgument::Request => Self::Request,
        }
    }
}

/// `NAME=VALUE`, or `NAME` alone.
#[derive(Clone, Debug)]
struct Setting {
    name: String,
    value: Option<String>,
}

impl FromStr for Setting {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        anyhow::ensure!(!name.is_empty(), "a name must stand before the `=`");
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

/// `HOST` or `HOST::GUEST`.
#[derive(Clone, Debug)]
struct Directory {
    host: PathBuf,
    guest: String,
}

impl FromStr for Directory {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, guest) = text.split_once("::").unwrap_or((text, text));
        Ok(Self {
            host: host.into(),
            guest: guest.to_owned(),
        })
    }
}

pub(super) fn run(arguments: Arguments, output: &Output) -> End {
    let path = arguments.component.display();
    let bytes = file::component(&arguments.component)
        .with_context(|| format!("cannot read the component `{path}`"))?;
    let bytes = Bytes::from(bytes);
    let grants = grants(&arguments)?;
    let limits = arguments.node.load(output)?;
    let name = name_of(&arguments.component);
    let source = single::service(
        name.clone(),
        &arguments.component,
        grants.clone(),
        &|service| {
            service.replicas = arguments.replicas;
            service.isolation = arguments.isolation.map(Into::into);
        },
    );
    runtime()?.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        let node = node::open(&source, limits)?;
        let mut bar = None;
        let demands = Demands {
            path: Some(arguments.component.clone()),
            ..Demands::default()
        };
        let compiling = || bar = Some(output.spinner(format!("compiling {path}")));
        let loaded = tokio::select! {
            loaded = node.runtime.load(bytes.clone(), demands, compiling) => Ok(loaded),
            signal = interrupts.next() => Err(Stop::Quiet(signal.exit_code())),
        };
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let loaded = loaded?;
        let loaded = loaded.with_context(|| format!("cannot run `{path}`"))?;
        if loaded.inspection.http.is_some() {
            let component = (loaded, bytes);
            return serve(
                node,
                source,
                component,
                arguments.addr,
                &mut interrupts,
                output,
            )
            .await;
        }
        let args: Vec<_> = [program_name(&arguments.component)]
            .into_iter()
            .chain(arguments.args.iter().cloned())
            .collect();
        let ended = tokio::select! {
            ended = single::command(&node, &loaded, name, &args, &grants) => ended?,
            signal = interrupts.next() => return Err(Stop::Quiet(signal.exit_code())),
        };
        command_end(ended, output)
    })
}

/// The exit code of a command that trapped, as `wasmtime run` has it: 128 + `SIGABRT`.
const EXIT_TRAPPED: u8 = 134;

fn command_end(exit: single::Exit, output: &Output) -> End {
    match exit {
        single::Exit::Code(0) => Ok(()),
        // A process has only eight bits for it.
        single::Exit::Code(code) => Err(Stop::Quiet(u8::try_from(code).unwrap_or(EXIT_FAILED))),
        single::Exit::Failed(reason) => {
            output.talk(&format!("the command failed: {reason}"));
            Err(Stop::Quiet(EXIT_TRAPPED))
        }
    }
}

async fn serve(
    node: Node,
    source: AppSource,
    (loaded, bytes): (Arc<Loaded>, Bytes),
    address: SocketAddr,
    interrupts: &mut Interrupts,
    output: &Output,
) -> End {
    let listening = node::listen(&node, Some(&source), address, "--addr").await?;
    let context = NodeContext::foreground(node).await?;
    let (node, journal) = (&context.node, &context.journal);
    let api = control::api(&context, Some(listening.address));
    let digests = adopted(&context, &source, &loaded, &bytes);
    let printer = Printer::plain(output, journal);
    let logging = tokio::spawn(printer.clone().logs(Arc::clone(node.runtime.logs())));
    let begun = RunningApp::begin_loaded(&context, &api, source, digests).await;
    let running = match begun {
        Ok(running) => tokio::select! {
            good = running.settled(FirstStart::Must) => match good {
                true => Ok(running),
                false => {
                    running.rest().await;
                    Err(None)
                }
            },
            signal = interrupts.next() => {
                stopped(running, listening, interrupts).await?;
                return Err(Stop::Quiet(signal.exit_code()));
            }
        },
        Err(NotRunning::Refused(reason)) => Err(Some(reason)),
        Err(NotRunning::Components(_) | NotRunning::Failed) => Err(None),
    };
    let running = match running {
        Ok(running) => running,
        Err(refused) => {
            printer.end_of_logs(logging, node.runtime.logs()).await;
            for event in journal.after(0).events {
                output.talk(&output::one_line(&event.to_string()));
            }
            if let Some(reason) = refused {
                output.talk(&reason);
            }
            return Err(Stop::Quiet(EXIT_FAILED));
        }
    };
    output.data(&format!("listening on http://{}\n", listening.address));
    // That it has started, and later that it drains, is no news.
    let printing = tokio::spawn(Printer::plain(output, journal).events(Arc::clone(journal)));
    interrupts.next().await;
    printing.abort();
    stopped(running, listening, interrupts).await?;
    printer.end_of_logs(logging, node.runtime.logs()).await;
    Ok(())
}

/// Keeps the component for what the app says of it. Yields its digest for each of that.
fn adopted(
    context: &NodeContext,
    source: &AppSource,
    loaded: &Arc<Loaded>,
    bytes: &Bytes,
) -> BTreeMap<Name, String> {
    let digest = loaded.inspection.digest.to_hex();
    let mut digests = BTreeMap::new();
    for (name, service) in &source.app.services {
        let path = service.component.path.clone();
        context
            .loader
            .adopt(loaded, bytes.clone(), path, &service.limits);
        digests.insert(name.clone(), digest.clone());
    }
    digests
}

/// Lets what is in flight end, unless it is said again that it should stop.
async fn stopped(
    running: RunningApp,
    listening: Listening,
    interrupts: &mut Interrupts,
) -> Result<(), Stop> {
    tokio::select! {
        () = running.drain(listening) => Ok(()),
        signal = interrupts.again() => Err(Stop::Quiet(signal.exit_code())),
    }
}

fn grants(arguments: &Arguments) -> Result<Grants, Stop> {
    let mut env = BTreeMap::new();
    for Setting { name, value } in &arguments.env {
        let value = value.clone().or_else(|| env::var(name).ok());
        let value =
            value.with_context(|| format!("`--env {name}`: this environment has no `{name}`"));
        env.insert(name.clone(), value.map_err(Stop::usage)?);
    }
    let mut config = BTreeMap::new();
    for Setting { name, value } in &arguments.config {
        let value = value.clone();
        let value = value.with_context(|| format!("`--config {name}`: write it as `{name}=VALUE`"));
        config.insert(name.clone(), value.map_err(Stop::usage)?);
    }
    let mount = |directory: &Directory| Mount {
        source: MountSource::Host(directory.host.clone()),
        guest: directory.guest.clone(),
        access: Access::ReadWrite,
    };
    Ok(Grants {
        env,
        secret_env: BTreeMap::new(),
        config,
        services: Vec::new(),
        outbound: arguments.outbound.clone(),
        files: arguments.dir.iter().map(mount).collect(),
        keyvalue: arguments.keyvalue.clone(),
    })
}

/// A name for the pods of this component: its file's, as far as that is one.
fn name_of(component: &Path) -> Name {
    let label: String = label(component).chars().take(40).collect();
    Name::parse(label.trim_matches('-'))
        .or_else(|_| Name::parse("component"))
        .expect("the second is a name")
}

/// The name of a file without its extension, with what a name may not have replaced by hyphens.
pub(super) fn label(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let letters = stem.chars().map(|c| c.to_ascii_lowercase());
    letters
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}
