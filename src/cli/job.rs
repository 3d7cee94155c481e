//! `sampan job`: runs of jobs by hand.

use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use sampan_core::view;

use super::{
    End,
    api::{Scope, all, one},
    completions::jobs,
    output::Output,
    process::runtime,
    wait::{self, Goal, Target, duration},
};
use crate::client::quoted;

/// Run jobs by hand
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(Run),
}

/// Run a job now, beside what its schedule says
///
/// While a run is under way, `overlap` of the job says what becomes of this one; with `skip`, and
/// without a schedule, it is refused.
#[derive(Args)]
struct Run {
    /// Which job
    #[arg(add = jobs())]
    name: String,

    /// Wait for the end of the run, and fail if it fails
    #[arg(long)]
    wait: bool,

    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    #[command(flatten)]
    scope: Scope,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let Verb::Run(arguments) = &arguments.verb;
    let client = arguments.scope.api.client()?;
    runtime()?.block_on(async {
        let jobs: Vec<view::Job> = all(&client, "jobs", &arguments.scope.app).await?;
        let found = one("job", jobs, &arguments.name, |it| (&it.app, &it.name))?;
        let (app, name) = (quoted(&found.app), quoted(&found.name));
        let target = format!("/v1/apps/{app}/jobs/{name}/run");
        let asked: view::Job = client.change(Method::POST, &target, None::<&()>).await?;
        // Runs are numbered without a gap, and this is the next one to begin.
        let number = asked.run_count + 1;
        output.data(&format!("job/{} runs: run {number}\n", asked.name));
        if !arguments.wait {
            return Ok(());
        }
        let goals = vec![Goal::new(asked.name, Target::Run(number))];
        let timeout = Some(arguments.timeout);
        wait::until(&client, &asked.app, goals, timeout, output).await
    })
}
