//! `sampan bench`: measurements on this machine, without a daemon.

mod cold_start;
mod measuring;
mod rollout;

use clap::{Args, Subcommand};

use super::{End, output::Output};

/// Measure this machine, with a node of its own in this process and no daemon
///
/// Each measurement starts with an empty compile cache, which it removes. Nothing else should run
/// meanwhile.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    ColdStart(cold_start::Arguments),
    Rollout(rollout::Arguments),
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    match &arguments.what {
        What::ColdStart(arguments) => cold_start::run(arguments, output),
        What::Rollout(arguments) => rollout::run(arguments, output),
    }
}
