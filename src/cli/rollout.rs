//! `sampan rollout`: how a service's change gets on, and what to do about it.

use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use sampan_core::{object::ServiceKind, view};
use serde::Serialize;

use super::{
    EXIT_FAILED, End, Stop,
    api::{Scope, service, target},
    completions::services,
    get::table::{REVISION, table},
    output::Output,
    process::runtime,
    wait::{self, Goal, Target, duration},
};
use crate::client::{Client, ClientError};

/// Follow, undo or hold the replacement of a service's pods
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Wait until the rollout is complete; exit code 1 if it has failed
    Status(Status),
    /// List the revisions that are kept
    History(Of),
    /// Go back to the revision before, or to another one
    Undo(Undo),
    /// Neither make nor stop pods of another revision until it is resumed
    Pause(Of),
    /// Go on with a paused rollout
    Resume(Of),
    /// Replace all pods by others just like them
    Restart(Of),
}

/// Of which service.
#[derive(Args)]
struct Of {
    /// Which service
    #[arg(value_name = "SERVICE", add = services())]
    service: String,

    #[command(flatten)]
    scope: Scope,
}

#[derive(Args)]
struct Status {
    #[command(flatten)]
    of: Of,

    /// How long to wait; without it as long as it takes
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,

    /// Say how far it is, and do not wait
    #[arg(long)]
    no_wait: bool,
}

#[derive(Args)]
struct Undo {
    #[command(flatten)]
    of: Of,

    /// The revision to go back to
    #[arg(long, value_name = "N")]
    to: Option<u64>,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let of = match &arguments.act {
        Act::Status(status) => &status.of,
        Act::Undo(undo) => &undo.of,
        Act::History(of) | Act::Pause(of) | Act::Resume(of) | Act::Restart(of) => of,
    };
    let client = of.scope.api.client()?;
    runtime()?.block_on(async {
        let found = service(&client, &of.scope.app, &of.service).await?;
        match &arguments.act {
            Act::Status(asked) => status(&client, &found, asked, output).await,
            Act::History(_) => history(&client, &found, output).await,
            Act::Undo(undo) => {
                let body = view::Undo { to: undo.to };
                let done = post(&client, &found, "rollout/undo", Some(&body)).await?;
                let (name, revision) = (&done.name, done.revision);
                let is_command = done.kind == ServiceKind::Command.to_string();
                let unused = match is_command && !done.routes.is_empty() {
                    true => "; that one runs a command, so its routes are not in use meanwhile",
                    false => "",
                };
                output.data(&format!(
                    "service/{name} goes back to revision {revision}{unused}\n"
                ));
                Ok(())
            }
            Act::Pause(_) => said(&client, &found, "rollout/pause", "paused", output).await,
            Act::Resume(_) => said(&client, &found, "rollout/resume", "resumed", output).await,
            Act::Restart(_) => said(&client, &found, "restart", "restarted", output).await,
        }
    })
}

async fn post(
    client: &Client,
    service: &view::Service,
    verb: &str,
    body: Option<&impl Serialize>,
) -> Result<view::Service, ClientError> {
    let target = target(service, verb);
    client.change(Method::POST, &target, body).await
}

async fn said(
    client: &Client,
    service: &view::Service,
    verb: &str,
    done: &str,
    output: &Output,
) -> End {
    let changed = post(client, service, verb, None::<&()>).await?;
    output.data(&format!("service/{} {done}\n", changed.name));
    Ok(())
}

async fn status(client: &Client, found: &view::Service, asked: &Status, output: &Output) -> End {
    if !asked.no_wait {
        let goal = Goal::new(found.name.clone(), Target::Service(None));
        return wait::until(client, &found.app, vec![goal], asked.timeout, output).await;
    }
    let (text, end) = match view::rollout_verdict(found, None) {
        view::Verdict::Going(text) | view::Verdict::Done(text) => (text, Ok(())),
        view::Verdict::Failed(text) => (text, Err(Stop::Quiet(EXIT_FAILED))),
    };
    output.data(&format!("service/{}: {text}\n", found.name));
    end
}

async fn history(client: &Client, found: &view::Service, output: &Output) -> End {
    let target = target(found, "revisions");
    let revisions: Vec<view::Revision> = client.get(&target).await?;
    output.data(&format!("{}\n", table(true, REVISION, &revisions)));
    Ok(())
}
