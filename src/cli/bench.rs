//! `sampan bench`: measurements on this machine, without a daemon.

mod all;
mod cold_start;
mod compare;
mod density;
mod detect;
mod page;
mod plot;
mod rollout;
mod scale;
mod session;
mod show;
mod table;
mod throughput;

use clap::{Args, Subcommand};

use super::{End, output::Output};

/// Measure this machine, with a node of its own in this process and no daemon
///
/// Each measurement starts with an empty compile cache, which it removes. Nothing else should run
/// meanwhile: the report says so if it did. Ctrl-C ends a measurement with what it has.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    ColdStart(cold_start::Arguments),
    Rollout(rollout::Arguments),
    Throughput(throughput::Arguments),
    Detect(detect::Arguments),
    Scale(scale::Arguments),
    Density(density::Arguments),
    All(all::Arguments),
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    match &arguments.what {
        What::ColdStart(arguments) => cold_start::run(arguments, output),
        What::Rollout(arguments) => rollout::run(arguments, output),
        What::Throughput(arguments) => throughput::run(arguments, output),
        What::Detect(arguments) => detect::run(arguments, output),
        What::Scale(arguments) => scale::run(arguments, output),
        What::Density(arguments) => density::run(arguments, output),
        What::All(arguments) => all::run(arguments, output),
    }
}
