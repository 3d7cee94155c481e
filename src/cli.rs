//! The command line: one file a verb.

mod add;
mod api;
mod apply;
mod background;
mod bench;
mod build;
mod bundle;
mod cluster;
mod compile;
mod completions;
mod delete;
mod describe;
mod down;
mod etcd;
mod events;
mod exit;
mod get;
mod import;
mod init;
mod inspect;
mod interrupts;
mod job;
mod kv;
mod logs;
mod names;
mod node;
mod nodes;
mod output;
mod plan;
mod process;
mod restart;
mod rollout;
mod run;
mod scale;
mod schema;
mod serve;
mod spec;
mod templates;
mod top;
mod up;
mod validate;
mod version;
mod volume;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use exit::{EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, End, Stop};
use output::Output;

/// Runs WebAssembly components as pods: health, scaling and rolling updates in one binary.
#[derive(Parser)]
#[command(
    name = "sampan",
    version,
    about,
    max_term_width = 100,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Arguments),
    Up(up::Arguments),
    Down(down::Arguments),
    Serve(serve::Arguments),
    Cluster(cluster::Arguments),
    Cordon(nodes::Cordon),
    Uncordon(nodes::Uncordon),
    Drain(nodes::Drain),
    Label(nodes::Label),
    Apply(apply::Arguments),
    Plan(plan::Arguments),
    Delete(delete::Arguments),
    Get(get::Arguments),
    Ps(get::Ps),
    Describe(describe::Arguments),
    Events(events::Arguments),
    Top(top::Arguments),
    Logs(logs::Arguments),
    Kv(kv::Arguments),
    Volume(volume::Arguments),
    Scale(scale::Arguments),
    Restart(restart::Arguments),
    Job(job::Arguments),
    Rollout(rollout::Arguments),
    Validate(validate::Arguments),
    Inspect(inspect::Arguments),
    Init(init::Arguments),
    Add(add::Arguments),
    Bench(bench::Arguments),
    Schema(schema::Arguments),
    Completions(completions::Arguments),
    Version(version::Arguments),
}

/// The program.
pub(crate) fn main() -> ExitCode {
    if let Some(code) = compile::child() {
        return code;
    }
    completions::answer(Arguments::command);
    let output = Output::new();
    let end = match Arguments::parse().verb {
        Verb::Run(arguments) => run::run(arguments, &output),
        Verb::Up(arguments) => up::run(arguments, &output),
        Verb::Down(arguments) => down::run(&arguments, &output),
        Verb::Serve(arguments) => serve::run(&arguments, &output),
        Verb::Cluster(arguments) => cluster::run(&arguments, &output),
        Verb::Cordon(arguments) => nodes::cordon(&arguments, &output),
        Verb::Uncordon(arguments) => nodes::uncordon(&arguments, &output),
        Verb::Drain(arguments) => nodes::drain(&arguments, &output),
        Verb::Label(arguments) => nodes::label(&arguments, &output),
        Verb::Apply(arguments) => apply::run(&arguments, &output),
        Verb::Plan(arguments) => plan::run(&arguments, &output),
        Verb::Delete(arguments) => delete::run(&arguments, &output),
        Verb::Get(arguments) => get::run(&arguments, &output),
        Verb::Ps(arguments) => get::ps(arguments, &output),
        Verb::Describe(arguments) => describe::run(&arguments, &output),
        Verb::Events(arguments) => events::run(&arguments, &output),
        Verb::Top(arguments) => top::run(&arguments, &output),
        Verb::Logs(arguments) => logs::run(&arguments, &output),
        Verb::Volume(arguments) => volume::run(&arguments, &output),
        Verb::Kv(arguments) => kv::run(&arguments, &output),
        Verb::Scale(arguments) => scale::run(&arguments, &output),
        Verb::Restart(arguments) => restart::run(&arguments, &output),
        Verb::Job(arguments) => job::run(&arguments, &output),
        Verb::Rollout(arguments) => rollout::run(&arguments, &output),
        Verb::Validate(arguments) => validate::run(&arguments, &output),
        Verb::Inspect(arguments) => inspect::run(&arguments, &output),
        Verb::Bench(arguments) => bench::run(&arguments, &output),
        Verb::Init(arguments) => init::run(&arguments, &output),
        Verb::Add(arguments) => add::run(&arguments, &output),
        Verb::Schema(arguments) => schema::run(&arguments, &output),
        Verb::Completions(arguments) => completions::run(&arguments, &output),
        Verb::Version(arguments) => version::run(&arguments, &output),
    };
    for note in crate::client::unanswered() {
        output.talk(&format!("not all nodes have answered: {note}"));
    }
    let end = end.and_then(|()| output.whole());
    if let Some(since) = crate::client::stale_since() {
        let since = httpdate::fmt_http_date(since);
        output.talk(&format!(
            "the store of the node is away since {since}: what is shown was known then"
        ));
    }
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Quiet(code)) => ExitCode::from(code),
        Err(Stop::Because(code, reason)) => {
            output.error(&reason);
            ExitCode::from(code)
        }
    }
}
