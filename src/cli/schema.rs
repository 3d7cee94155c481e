//! `sampan schema`: the JSON Schema of a spec, of a node's limits, or of a report.

use clap::Args;
use sampan_core::spec;

use super::{End, output::Output};
use crate::serve::bench::report::Report;

/// Print the JSON Schema of sampan.toml
///
/// Editors use it to complete and check a spec while you type.
#[derive(Args)]
pub(super) struct Arguments {
    /// That of a file for `--node` instead
    #[arg(long)]
    node: bool,

    /// That of a report of `bench --json` instead
    #[arg(long, conflicts_with = "node")]
    bench: bool,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    output.json(&match arguments {
        Arguments { bench: true, .. } => Report::json_schema(),
        Arguments { node: true, .. } => spec::node::json_schema(),
        Arguments { .. } => spec::json_schema(),
    })
}
