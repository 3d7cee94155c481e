//! `sampan schema`: the JSON Schema of a spec.

use clap::Args;
use sampan_core::spec;

use super::{End, output::Output};

/// Print the JSON Schema of sampan.toml
///
/// Editors use it to complete and check a spec while you type.
#[derive(Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments, output: &Output) -> End {
    output.json(&spec::json_schema())
}
