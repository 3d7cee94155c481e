//! `sampan apply`: make what runs what a spec says.

use std::time::Duration;

use clap::Args;
use sampan_core::view;

use super::{
    End,
    api::ApiArguments,
    build::Build,
    bundle::Bundle,
    interrupts::Interrupts,
    output::{Output, one_line},
    process::runtime,
    spec::{Read, SpecArguments},
    up::printer::Printer,
    wait::{self, Goal, Target, duration},
};
use crate::client::Client;

/// Make what runs what a spec says
///
/// Components that the node lacks are uploaded. Nothing changes unless everything can run.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    spec: SpecArguments,

    /// Run the `build` of each service and job first; one that fails ends this with exit code 1
    #[arg(long)]
    build: bool,

    /// Wait until all that changes has come about, and fail if it does not
    ///
    /// So has what could not start before because of what changes. How the rest is, is only said;
    /// when nothing changes, all of it is waited for.
    #[arg(long)]
    wait: bool,

    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    /// Print what changes as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    api: ApiArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let read = arguments.spec.read(output)?;
    let threads = runtime()?;
    if arguments.build {
        threads.block_on(build(&read, arguments, output))?;
    }
    let bundle = Bundle::of(read, &arguments.spec, arguments.build)?;
    let client = arguments.api.client()?;
    threads.block_on(apply(&bundle, &client, arguments, output))
}

async fn build(read: &Read, arguments: &Arguments, output: &Output) -> End {
    let printer = Printer::new(output, &read.app, false);
    let (builds, base) = (Build::of(&read.app), arguments.spec.base());
    let mut interrupts = Interrupts::listen()?;
    Ok(Build::all(&builds, &base, &printer, &mut interrupts).await?)
}

async fn apply(bundle: &Bundle, client: &Client, arguments: &Arguments, output: &Output) -> End {
    let plan = bundle.apply(client, output).await?;
    output.answer(arguments.json, &plan, || lines(&plan))?;
    if !arguments.wait {
        return Ok(());
    }
    let app = bundle.app.name.as_str();
    wait::until(client, app, goals(&plan), Some(arguments.timeout), output).await
}

/// What is waited for after an apply.
pub(super) fn goals(plan: &view::Plan) -> Vec<Goal> {
    let changes = plan.changes.iter();
    let stays = changes.filter(|change| change.verb != view::Verb::Deleted);
    let goal = |change: &view::Change| {
        let target = match change.revision {
            Some(revision) => Target::Service(Some(revision)),
            None if change.kind == "job" => Target::Job,
            None => return None,
        };
        Some(Goal {
            name: change.name.clone(),
            target,
            is_awaited: change.awaited,
        })
    };
    stays.filter_map(goal).collect()
}

/// A line for each service and job, and for each field that is different.
pub(super) fn lines(plan: &view::Plan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        let verb = match change.verb {
            view::Verb::Added => "added",
            view::Verb::Changed => "changed",
            view::Verb::Deleted => "deleted",
            view::Verb::Unchanged => "unchanged",
        };
        let mut line = format!("{}/{} {verb}", change.kind, change.name);
        if change.verb != view::Verb::Unchanged && change.pods != "nothing" {
            line += &format!(": {}", change.pods);
        }
        text += &one_line(&line);
        text.push('\n');
    }
    if plan.changes.is_empty() {
        text += &format!("app/{} has no services and no jobs\n", plan.app);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: &str, name: &str, verb: view::Verb, pods: &str) -> view::Change {
        view::Change {
            kind: kind.to_owned(),
            name: name.to_owned(),
            verb,
            generation: 2,
            revision: (kind == "service" && verb != view::Verb::Deleted).then_some(2),
            fields: Vec::new(),
            pods: pods.to_owned(),
            awaited: verb != view::Verb::Unchanged,
        }
    }

    #[test]
    fn a_line_for_each_and_a_goal_for_what_stays() {
        let plan = view::Plan {
            app: "shop".to_owned(),
            changed: true,
            changes: vec![
                change("service", "web", view::Verb::Changed, "2 pods are added"),
                change("service", "api", view::Verb::Unchanged, "nothing"),
                change(
                    "service",
                    "old",
                    view::Verb::Deleted,
                    "1 pod is drained and stopped",
                ),
                change("job", "migrate", view::Verb::Added, "it runs once"),
            ],
        };
        insta::assert_snapshot!(lines(&plan), @r"
        service/web changed: 2 pods are added
        service/api unchanged
        service/old deleted: 1 pod is drained and stopped
        job/migrate added: it runs once
        ");
        let goals = goals(&plan);
        let goals = goals
            .iter()
            .map(|goal| (goal.name.as_str(), goal.is_awaited));
        let goals: Vec<_> = goals.collect();
        assert_eq!(goals, [("web", true), ("api", false), ("migrate", true)]);
    }
}
