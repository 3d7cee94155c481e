//! `sampan bench`: measurements on this machine, without a daemon.

mod cold_start;
mod rollout;

use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use sampan_core::object::Isolation;

use super::{EXIT_FAILED, End, Stop, interrupts::Interrupts, output::Output};
use crate::{file, serve::bench::Component};

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

/// What requests share.
#[derive(Clone, Copy, ValueEnum)]
enum IsolationArgument {
    Pod,
    Request,
}

impl From<IsolationArgument> for Isolation {
    fn from(argument: IsolationArgument) -> Self {
        match argument {
            IsolationArgument::Pod => Self::Pod,
            IsolationArgument::Request => Self::Request,
        }
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    match &arguments.what {
        What::ColdStart(arguments) => cold_start::run(arguments, output),
        What::Rollout(arguments) => rollout::run(arguments, output),
    }
}

/// The component in this file.
fn component(path: &Path) -> anyhow::Result<Component> {
    let name = path.display().to_string();
    let bytes = file::component(path);
    let bytes = bytes.with_context(|| format!("cannot read the component `{name}`"))?;
    Ok(Component {
        name,
        bytes: Bytes::from(bytes),
    })
}

/// Measures until it is done, or a signal interrupts it. What was made for it is removed
/// either way.
fn measured<T>(
    measuring: impl Future<Output = Result<T, crate::serve::bench::BenchError>>,
) -> Result<T, Stop> {
    super::run::runtime()?.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            measured = measuring => Ok(measured?),
            _ = interrupts.next() => Err(Stop::Quiet(EXIT_FAILED)),
        }
    })
}

/// A table whose columns but the first are numbers.
fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt() + "\n"
}

/// Milliseconds with three digits.
fn millis(millis: f64) -> String {
    super::output::time(std::time::Duration::from_secs_f64(millis / 1e3))
}
