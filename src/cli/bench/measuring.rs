//! What all measurements share: their arguments, their end, and how they are shown.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use sampan_core::object::Isolation;

use crate::{
    cli::{EXIT_FAILED, Stop, interrupts::Interrupts, output::time, process::runtime},
    file,
    serve::bench::{BenchError, Component},
};

/// What requests share.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum IsolationArgument {
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

/// The component in this file.
pub(super) fn component(path: &Path) -> anyhow::Result<Component> {
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
pub(super) fn measured<T>(
    measuring: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, Stop> {
    runtime()?.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            measured = measuring => Ok(measured?),
            _ = interrupts.next() => Err(Stop::Quiet(EXIT_FAILED)),
        }
    })
}

/// A table whose columns but the first are numbers.
pub(super) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
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
pub(super) fn millis(millis: f64) -> String {
    time(Duration::from_secs_f64(millis / 1e3))
}
