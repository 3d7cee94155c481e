//! `sampan up -d`: an app on the node in the background, which is started if none runs.

use std::{net::SocketAddr, path::Path, time::Duration};

use http::Method;
use sampan_core::{name::Name, view};

use super::arguments::{Arguments, Scale, scaled};
use crate::{
    cli::{
        End, Stop,
        apply::{goals, lines},
        background::{Found, Wanted, is_alive},
        build::Build,
        bundle::Bundle,
        interrupts::Interrupts,
        output::Output,
        spec::Read,
        up::printer::{Printer, url},
        wait,
    },
    client::ClientError,
    config,
};

/// How often an apply is tried on nodes that end just then.
const TRIES: u32 = 5;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Has the app run in the background, and waits until it is up.
pub(super) async fn up(mut read: Read, arguments: &Arguments, output: &Output) -> End {
    let name = read.app.name.clone();
    refuse_foreground(&name)?;
    scaled(&mut read.app, &arguments.scale)?;
    if arguments.build {
        let printer = Printer::new(output, &read.app, arguments.json);
        let (builds, base) = (Build::of(&read.app), arguments.spec.base());
        let mut interrupts = Interrupts::listen()?;
        Build::all(&builds, &base, &printer, &mut interrupts).await?;
    }
    let mut bundle = Bundle::of(read, &arguments.spec, arguments.build)?;
    let replicas = arguments.scale.iter();
    let replicas = replicas.map(|Scale { service, replicas }| (service.to_string(), *replicas));
    bundle.body.replicas = replicas.collect();
    bundle.body.cause = format!("up -d of {}", arguments.spec.file.display());
    let wanted = wanted(arguments)?;
    let (found, plan) = applied(&bundle, &wanted, arguments, output).await?;
    output.answer(arguments.json, &plan, || lines(&plan))?;
    let app = name.as_str();
    wait::until(&found.client, app, goals(&plan), None, output).await?;
    let address = found.node.http.as_deref().and_then(|it| it.parse().ok());
    if let (Some(address), false) = (address, arguments.json) {
        tell_routes(&bundle, address, output);
    }
    if !arguments.json {
        output.talk(&format!(
            "{name} is up in the background; `sampan logs` and `sampan ps` show it, \
             `sampan down {name}` ends it"
        ));
    }
    Ok(())
}

/// An app is run by one node at a time.
fn refuse_foreground(app: &Name) -> anyhow::Result<()> {
    let socket = config::app_socket(app);
    match is_alive(&socket) {
        false => Ok(()),
        true => anyhow::bail!(
            "app `{app}` runs in the foreground, at `{}`: end it there with Ctrl-C, then run it in \
             the background",
            socket.display()
        ),
    }
}

/// The node that is wanted.
fn wanted(arguments: &Arguments) -> Result<Wanted, Stop> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(Stop::usage);
    let socket = match &arguments.api {
        Some(socket) => absolute(socket)?,
        None => config::daemon_socket(),
    };
    let config = arguments.node.file().map(absolute).transpose()?;
    Ok(Wanted {
        socket,
        http: arguments.http.unwrap_or(config::DEFAULT_HTTP),
        config,
    })
}

/// Applies the app on the node that runs, or on one that is started.
async fn applied(
    bundle: &Bundle,
    wanted: &Wanted,
    arguments: &Arguments,
    output: &Output,
) -> Result<(Found, view::Plan), Stop> {
    for attempt in 1.. {
        let found = wanted.found(output).await?;
        if !found.is_new {
            refuse_others(arguments, &found.node)?;
        }
        let plan = bundle.apply(&found.client, output).await;
        match plan {
            Ok(plan) => return Ok((found, plan)),
            Err(Stop::Because(_, reason)) if attempt < TRIES && is_ending(&reason) => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(other) => {
                if found.is_new {
                    // It ends unless it has other apps, which then go on.
                    let _ = found.client.ask(Method::POST, "/v1/stop").await;
                }
                return Err(other);
            }
        }
    }
    unreachable!("the last try has returned")
}

/// Whether the node was about to end, so that another one takes its place.
fn is_ending(reason: &anyhow::Error) -> bool {
    match reason.downcast_ref::<ClientError>() {
        Some(ClientError::Refused(refused)) => refused.code == "Busy",
        Some(ClientError::Unreachable { .. } | ClientError::Broken { .. }) => true,
        _ => false,
    }
}

/// What was asked of a new node has to be so of one that runs.
fn refuse_others(arguments: &Arguments, node: &view::Node) -> Result<(), Stop> {
    let (pid, http) = (node.pid, node.http.as_deref().unwrap_or("no address"));
    let asked = arguments.http.filter(|asked| asked.port() != 0);
    if let Some(asked) = asked.filter(|asked| asked.to_string() != http) {
        return Err(Stop::usage(anyhow::anyhow!(
            "`--http {asked}`: a node runs already, in process {pid}, and answers at `{http}`; leave \
             the option out, or end that node first"
        )));
    }
    if let Some(file) = arguments.node.file() {
        return Err(Stop::usage(anyhow::anyhow!(
            "`--node {}`: a node runs already, in process {pid}, with its own limits; leave the \
             option out, or end that node first",
            file.display()
        )));
    }
    Ok(())
}

fn tell_routes(bundle: &Bundle, address: SocketAddr, output: &Output) {
    for service in bundle.app.services.values() {
        for route in &service.routes {
            let url = url(route, address);
            output.data(&format!("{} answers at {url}\n", service.name));
        }
    }
}
