//! `sampan version`.

use clap::Args;

use super::{End, output::Output};

/// Print the version
#[derive(Args)]
pub(super) struct Arguments {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// wasmtime's line of long-term support that this version is built on.
pub(super) const WASMTIME: &str = "48";

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let version = env!("CARGO_PKG_VERSION");
    let target = target();
    let json = serde_json::json!({ "sampan": version, "wasmtime": WASMTIME, "target": target });
    let text = || format!("sampan {version} (wasmtime {WASMTIME} LTS, {target})\n");
    output.answer(arguments.json, &json, text)
}

/// The architecture and the system that this program was built for.
pub(super) fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}
