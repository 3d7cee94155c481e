//! `sampan bench cold-start`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::session::{self, ReportArguments, component_or_own};
use crate::{
    cli::{End, output::Output, run::IsolationArgument},
    serve::bench::cold_start::{Wanted, measure},
};

/// The longest that it goes on.
const LIMIT: Duration = Duration::from_secs(180);
pub(super) const TITLE: &str = "From a component's file to its first byte";

/// Measure each step from a component's file to the first byte of an answer
///
/// `fetch` reads the file, hashes it and finds out what it is; `compile` makes native code in a
/// child process; `load` checks and maps code from the cache, with all that is done each time:
/// hashing the component among it; `instantiate` makes a pod, and with it its first instance, or
/// with `--isolation request` one on trial; `first_byte` is the first request to the pod, through
/// the gateway in this process, with no socket. Then all of it for 1, 8 and 64 components at once,
/// cold (to be compiled) and warm.
///
/// The built-in component takes about 15 seconds. It ends after 3 minutes.
#[derive(Args)]
pub(super) struct Arguments {
    /// The component, which answers `GET /`; without one, a small one that is built in
    component: Option<PathBuf>,

    /// How often to measure each step
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,

    /// How often to compile
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    compile_runs: u32,

    /// How many start at once
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 8, 64], value_parser = clap::value_parser!(u32).range(1..=1000))]
    at_once: Vec<u32>,

    /// Rounds, over which all runs are spread
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// What requests share; by default what the component's world suggests
    #[arg(long, value_enum)]
    isolation: Option<IsolationArgument>,

    #[command(flatten)]
    common: ReportArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let wanted = Wanted {
        component: component_or_own(arguments.component.as_deref())?,
        isolation: arguments.isolation.map(Into::into),
        runs: arguments.runs,
        compile_runs: arguments.compile_runs,
        at_once: arguments.at_once.clone(),
        rounds: arguments.rounds,
    };
    session::one(
        ("cold-start", TITLE),
        &arguments.common,
        LIMIT,
        output,
        async |part| {
            measure(&wanted, part).await?;
            Ok(true)
        },
    )
}
