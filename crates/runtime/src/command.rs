//! Components that run to their end: `wasi:cli/run` of WASI 0.2 and 0.3.

use std::{path::Path, sync::Arc};

use sampan_core::{
    name::PodName,
    object::{Grants, Limits},
    secret::SecretValues,
};
use wasmtime::{Store, component::InstancePre};
use wasmtime_wasi::{I32Exit, p2::bindings::CommandPre, p3::bindings::Command};

use crate::{
    admission::inspect::Wasi,
    host::state::State,
    keyvalue::KeyValue,
    lane::{Pace, ServiceKey, Work},
    loaded::Loaded,
    meter::Usage,
    neighbours::Neighbours,
    observe::observed::Observed,
    runtime::{Runtime, StartError},
    sandbox::{PodContext, Sandbox, SandboxSpec, Stdio, unhurried},
};

/// What a command is given.
pub struct CommandSpec<'a> {
    /// Its name in the log.
    pub name: PodName,
    /// Its arguments, the program's name first.
    pub args: &'a [String],
    /// What the guest sees and may do.
    pub grants: &'a Grants,
    /// What it may use. There is no request, so `request_cpu` and `request_timeout` do not count.
    pub limits: &'a Limits,
    /// The directory that relative mounts start from.
    pub base: &'a Path,
    /// Where its standard streams lead.
    pub stdio: Stdio,
    /// The services of the node.
    pub neighbours: Option<Arc<dyn Neighbours>>,
    /// The key-value stores of the app.
    pub keyvalue: Option<Arc<dyn KeyValue>>,
    /// The values of the secrets in the grants.
    pub secrets: &'a SecretValues,
}

/// What a program is told that it is called: the name of its file. Where that lies is the host's
/// business.
pub fn program_name(component: &Path) -> String {
    let name = component.file_name().unwrap_or(component.as_os_str());
    name.to_string_lossy().into_owned()
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned or exited, with this code.
    Code(i32),
    /// It trapped or hit a limit; the text has the backtrace.
    Failed(String),
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// What it used.
    pub usage: Usage,
}

/// Runs a command to its end. Dropping the future ends the command.
pub async fn run(
    runtime: &Runtime,
    loaded: &Loaded,
    spec: CommandSpec<'_>,
) -> Result<Ended, StartError> {
    let wasi = loaded.inspection.command.ok_or(StartError::NoCommand)?;
    let limits = unhurried(spec.limits);
    let sandbox = Sandbox::open(SandboxSpec {
        grants: spec.grants,
        limits: &limits,
        args: spec.args,
        stdio: spec.stdio,
        base: spec.base,
        neighbours: spec.neighbours,
        keyvalue: spec.keyvalue,
        secrets: Some(spec.secrets),
        node: &loaded.limits,
        volumes: loaded.volumes.as_ref(),
    })?;
    let context = PodContext::new(spec.name, &runtime.node, loaded.concurrent, &sandbox);
    let meter = Arc::clone(&context.meter);
    let place = loaded.place().await;
    let place = place.map_err(|error| StartError::Instance(error.to_string()))?;
    let pace = Arc::new(Pace::default());
    let store = sandbox
        .store(loaded.pre.engine(), &context, &pace)
        .map_err(|error| StartError::Instance(format!("{error:#}")))?;
    meter.count_instance();
    let cell = Arc::clone(&store.data().cell);
    let service = ServiceKey::of(loaded);
    let work: Work<_> = match wasi {
        Wasi::P2 => Box::pin(Observed::new(p2(loaded.pre.clone(), store), cell)),
        Wasi::P3 => Box::pin(Observed::new(p3(loaded.pre.clone(), store), cell)),
    };
    let result = runtime.slow_lane.drive(service, &pace, work).await;
    drop(place);
    Ok(Ended {
        exit: exit(result),
        usage: meter.usage(),
    })
}

async fn p2(pre: InstancePre<State>, mut store: Store<State>) -> wasmtime::Result<Result<(), ()>> {
    let pre = CommandPre::new(pre)?;
    let command = pre.instantiate_async(&mut store).await?;
    command.wasi_cli_run().call_run(&mut store).await
}

async fn p3(pre: InstancePre<State>, mut store: Store<State>) -> wasmtime::Result<Result<(), ()>> {
    let instance = pre.instantiate_async(&mut store).await?;
    let command = Command::new(&mut store, &instance)?;
    store
        .run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await)
        .await?
}

/// The cause, then where in the guest it was, without anything of the host's own stack.
fn explain(error: &wasmtime::Error) -> String {
    let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    causes.reverse();
    causes.join("\n")
}

fn exit(result: wasmtime::Result<Result<(), ()>>) -> Exit {
    match result {
        Ok(Ok(())) => Exit::Code(0),
        Ok(Err(())) => Exit::Code(1),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => Exit::Code(*code),
            None => Exit::Failed(explain(&error)),
        },
    }
}
