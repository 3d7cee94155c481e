//! Sampan: runs WebAssembly components as pods.

mod agent;
mod api;
mod artifacts;
mod cli;
mod client;
mod clock;
mod config;
mod controllers;
mod edge;
mod events;
mod file;
mod load;
mod mirror;
mod panics;
mod serve;
mod telemetry;

use std::process::ExitCode;

/// Requests allocate on one thread and free on another all the time: what glibc is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    panics::end_the_process();
    cli::main()
}
