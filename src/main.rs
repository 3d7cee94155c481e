//! Sampan: runs WebAssembly components as pods.

mod agent;
mod cli;
mod config;
mod edge;
mod file;
mod serve;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
