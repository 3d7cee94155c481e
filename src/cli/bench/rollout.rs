//! `sampan bench rollout`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use sampan_core::quantity::parse_duration;

use super::session::{self, ReportArguments, component, component_or_own};
use crate::{
    cli::{End, output::Output, run::IsolationArgument},
    serve::bench::rollout::{Wanted, measure},
};

/// The longest that it goes on.
const LIMIT: Duration = Duration::from_secs(180);
pub(super) const TITLE: &str = "Rollouts under load";

/// Measure rollouts under load, there and back: how long they take, and whether a request fails
///
/// Both versions are compiled before. A load at a constant rate asks over loopback, and each latency
/// counts from when its request is due. An answer other than 2xx and a connection that breaks are
/// failures, and with one the exit code is 1.
///
/// The built-in component takes about 50 seconds. It ends after 3 minutes.
#[derive(Args)]
pub(super) struct Arguments {
    /// The component that runs first, which answers `GET /`; without one, a small one that is
    /// built in
    first: Option<PathBuf>,

    /// The component that takes its place; without one, the same under another digest
    second: Option<PathBuf>,

    /// Pods
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 10, 100, 1000], value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: Vec<u32>,

    /// Rollouts, by turns to the second component and back to the first
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rollouts: u32,

    /// Connections that put load on it
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=200))]
    connections: u32,

    /// Requests in a second
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// How long load is on before the first rollout, and after all of them together, for each number of
    /// pods
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = parse_duration)]
    steady: Duration,

    /// What requests share; by default what the component's world suggests
    #[arg(long, value_enum)]
    isolation: Option<IsolationArgument>,

    #[command(flatten)]
    common: ReportArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let wanted = Wanted {
        first: component_or_own(arguments.first.as_deref())?,
        second: arguments.second.as_deref().map(component).transpose()?,
        isolation: arguments.isolation.map(Into::into),
        replicas: arguments.replicas.clone(),
        connections: arguments.connections,
        rate: f64::from(arguments.rate),
        rollouts: arguments.rollouts,
        steady: arguments.steady,
    };
    session::one(
        ("rollout", TITLE),
        &arguments.common,
        LIMIT,
        output,
        async |part| measure(&wanted, part).await,
    )
}
