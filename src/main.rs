//! Sampan: runs WebAssembly components as pods.

mod agent;
mod api;
mod artifacts;
mod cli;
mod client;
mod clock;
mod cluster;
mod config;
mod controllers;
mod edge;
mod events;
mod file;
mod load;
mod mirror;
mod panics;
mod secrets;
mod serve;
mod telemetry;

use std::process::ExitCode;

/// Requests allocate on one thread and free on another all the time: what glibc is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    panics::end_the_process();
    without_huge_pages();
    cli::main()
}

/// Has the kernel back memory with pages of 4 KiB only.
///
/// The allocator asks for huge pages for all of its memory, and some distributions give them to
/// every mapping. The kernel then fills 2 MiB where a few KiB are in use, some of it minutes later:
/// a node held twice the memory that it used, and more by the hour, and each instance began with
/// 2 MiB. No request got slower without them (`benches/README.md`).
fn without_huge_pages() {
    // A kernel without them, or one that forbids this, changes nothing but the memory used.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
