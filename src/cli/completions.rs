//! `sampan completions`: what a shell needs to complete command lines, and the names of what runs.
//!
//! The script asks this program again for each completion, so that it can say what runs just then.

use std::{collections::BTreeSet, ffi::OsStr, time::Duration};

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCompleter, CompletionCandidate},
    env::Shells,
};
use serde_json::Value;

use super::{End, output::Output};
use crate::{client::Client, config};

/// Set by the script when it asks for completions.
const VARIABLE: &str = "COMPLETE";
/// How long the API may take to say what runs: the shell waits for it while a user types.
const PATIENCE: Duration = Duration::from_millis(300);

/// Print a completion script for a shell
///
/// For bash: `source <(sampan completions bash)`.
#[derive(Args)]
pub(super) struct Arguments {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let shells = Shells::builtins();
    let name = arguments.shell.to_string();
    let shell = shells
        .completer(&name)
        .with_context(|| format!("there are no completions for `{name}`"))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "sampan", "sampan", "sampan", &mut script)?;
    output.data(&String::from_utf8_lossy(&script));
    Ok(())
}

/// Answers a script that asks for completions, and ends the program then.
pub(super) fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// Completes names of services.
pub(super) fn services() -> ArgValueCompleter {
    completer(&["services"])
}

/// Completes names of services and jobs.
pub(super) fn services_and_jobs() -> ArgValueCompleter {
    completer(&["services", "jobs"])
}

/// Completes names of jobs.
pub(super) fn jobs() -> ArgValueCompleter {
    completer(&["jobs"])
}

/// Completes names of services and pods.
pub(super) fn services_and_pods() -> ArgValueCompleter {
    completer(&["services", "pods"])
}

fn completer(kinds: &'static [&'static str]) -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let typed = typed.to_string_lossy();
        let names = names(kinds).unwrap_or_default();
        let fitting = names.into_iter().filter(|name| name.starts_with(&*typed));
        fitting.map(CompletionCandidate::new).collect()
    })
}

/// The names of all objects of these kinds, if the API answers in time. A shell that completes a
/// word has no place for an error.
fn names(kinds: &[&str]) -> Option<BTreeSet<String>> {
    let client = Client::find(None, None, &config::socket_directory()).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let asked = async {
        let mut names = BTreeSet::new();
        for kind in kinds {
            let objects: Vec<Value> = client.get(&format!("/v1/{kind}")).await.ok()?;
            let known = objects.iter().filter_map(|object| object["name"].as_str());
            names.extend(known.map(str::to_owned));
        }
        Some(names)
    };
    // The runtime drives the timer, so the wait begins inside of it.
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.ok()? })
}
