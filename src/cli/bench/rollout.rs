//! `sampan bench rollout`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use sampan_core::quantity::parse_duration;

use super::measuring::{component, component_or_own, measured, millis};
use crate::{
    cli::{EXIT_FAILED, End, Stop, get::table::numbers, output::Output, run::IsolationArgument},
    serve::bench::rollout::{Report, Wanted, measure},
};

/// Measure rollouts under load, there and back: how long they take, and whether a request fails
///
/// Both versions are compiled before. Connections that are kept ask over loopback as fast as they
/// get answers. An answer other than 2xx and a connection that breaks are failures, and with one
/// the exit code is 1.
#[derive(Args)]
pub(super) struct Arguments {
    /// The component that runs first, which answers `GET /`; without one, a small one that is
    /// built in
    first: Option<PathBuf>,

    /// The component that takes its place; without one, the same under another digest
    second: Option<PathBuf>,

    /// Pods
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,

    /// Rollouts, by turns to the second component and back to the first
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rollouts: u32,

    /// Connections that put load on it
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=200))]
    connections: u32,

    /// How long load is on before the first rollout and after the last
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    steady: Duration,

    /// What requests share; by default what the component's world suggests
    #[arg(long, value_enum)]
    isolation: Option<IsolationArgument>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let first = component_or_own(arguments.first.as_deref())?;
    let second = arguments.second.as_deref().map(component).transpose()?;
    let all = arguments.rollouts;
    let bar = output.spinner(format!("rollout 0 of {all}"));
    let wanted = Wanted {
        first,
        second,
        isolation: arguments.isolation.map(Into::into),
        replicas: arguments.replicas,
        connections: arguments.connections,
        rollouts: all,
        steady: arguments.steady,
    };
    let progress = |done| bar.set_message(format!("rollout {done} of {all}"));
    let measured = measured(measure(wanted, progress));
    bar.finish_and_clear();
    let report = measured?;
    output.answer(arguments.json, &report, || text(&report))?;
    match report.requests.failed {
        0 => Ok(()),
        _ => Err(Stop::Quiet(EXIT_FAILED)),
    }
}

fn text(report: &Report) -> String {
    let Report {
        rollouts, requests, ..
    } = report;
    let mut text = format!(
        "{} rollouts of {} pods under load from {} connections\n\
         from apply to the last new pod: median {}, max {}\n\
         requests: {} sent, {} failed\n",
        rollouts.count,
        report.replicas,
        report.connections,
        millis(rollouts.median_s * 1e3),
        millis(rollouts.max_s * 1e3),
        requests.sent,
        requests.failed,
    );
    for reason in &requests.failures {
        text += &format!("failed: {reason}\n");
    }
    let rows = report.latency.iter().map(|part| {
        let times = [part.p50_ms, part.p99_ms, part.max_ms];
        let mut row = vec![part.phase.to_owned(), part.answers.to_string()];
        row.extend(times.map(millis));
        row
    });
    text + &numbers(&["", "answers", "p50", "p99", "max"], rows) + "\n"
}
