//! `sampan schema`: the JSON Schema of a spec, or of a node's limits.

use clap::Args;
use sampan_core::spec;

use super::{End, output::Output};

/// Print the JSON Schema of sampan.toml
///
/// Editors use it to complete and check a spec while you type.
#[derive(Args)]
pub(super) struct Arguments {
    /// That of a file for `--node` instead
    #[arg(long)]
    node: bool,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    output.json(&match arguments.node {
        true => spec::node::json_schema(),
        false => spec::json_schema(),
    })
}
