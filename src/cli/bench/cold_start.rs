//! `sampan bench cold-start`.

use std::path::PathBuf;

use clap::Args;

use super::measuring::{component_or_own, measured, millis};
use crate::{
    cli::{
        End,
        get::table::numbers,
        output::{self, Output},
        run::IsolationArgument,
    },
    serve::bench::cold_start::{Report, Wanted, measure},
};

/// Measure each step from a component's file to the first byte of an answer
///
/// `fetch` reads the file, hashes it and finds out what it is; `compile` makes native code in a
/// child process; `load` checks and maps code from the cache, with all that is done each time:
/// hashing the component among it; `instantiate` makes a pod, and with it its first instance, or
/// with `--isolation request` one on trial; `first_byte` is the first request to the pod, through
/// the gateway in this process, with no socket.
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

    /// What requests share; by default what the component's world suggests
    #[arg(long, value_enum)]
    isolation: Option<IsolationArgument>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let component = component_or_own(arguments.component.as_deref())?;
    let bar = output.spinner(format!("measuring {}", component.name));
    let measured = measured(measure(Wanted {
        component,
        isolation: arguments.isolation.map(Into::into),
        runs: arguments.runs,
        compile_runs: arguments.compile_runs,
    }));
    bar.finish_and_clear();
    let report = measured?;
    output.answer(arguments.json, &report, || text(&report))
}

fn text(report: &Report) -> String {
    let isolation = match report.isolation {
        sampan_core::object::Isolation::Pod => "pod",
        sampan_core::object::Isolation::Request => "request",
    };
    let head = format!(
        "{}, {}, isolation = \"{isolation}\"\n",
        output::one_line(&report.component),
        output::size(report.component_bytes as u64)
    );
    let rows = report.steps.iter().map(|step| {
        let times = [step.p50_ms, step.p90_ms, step.p99_ms, step.max_ms];
        let mut row = vec![step.step.to_owned(), step.runs.to_string()];
        row.extend(times.map(millis));
        row
    });
    head + &numbers(&["step", "runs", "p50", "p90", "p99", "max"], rows) + "\n"
}
