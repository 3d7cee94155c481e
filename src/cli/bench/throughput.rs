//! `sampan bench throughput`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use sampan_core::quantity::parse_duration;

use super::session::{self, ReportArguments, component};
use crate::{
    cli::{End, output::Output},
    serve::bench::throughput::{Wanted, measure},
};

/// The longest that it goes on.
const LIMIT: Duration = Duration::from_secs(240);
pub(super) const TITLE: &str = "Requests in a second, and their latency";

/// Measure requests in a second and their latency, beside a bare hyper server
///
/// The built-in components are WASI 0.2 and 0.3, each with an instance for each request and with one
/// that a pod keeps. Then a call between two services, in memory and over loopback. Interleaved
/// rounds; an answer other than 2xx and a connection that breaks are failures, and with one the exit
/// code is 1.
///
/// It takes about two and a half minutes, and ends after 4.
#[derive(Args)]
pub(super) struct Arguments {
    /// The component, which answers `GET /`; without one, small ones that are built in
    component: Option<PathBuf>,

    /// Connections, one number after the other
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 32, 256], value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: Vec<u32>,

    /// Rounds of each
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// How long a round is
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_duration)]
    round: Duration,

    /// Requests in a second where latencies are told
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    #[command(flatten)]
    common: ReportArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let wanted = Wanted {
        component: arguments.component.as_deref().map(component).transpose()?,
        connections: arguments.connections.clone(),
        rounds: arguments.rounds,
        round: arguments.round,
        rate: f64::from(arguments.rate),
    };
    session::one(
        ("throughput", TITLE),
        &arguments.common,
        LIMIT,
        output,
        async |part| measure(&wanted, part).await,
    )
}
