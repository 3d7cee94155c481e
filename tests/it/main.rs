//! The program as its users meet it: real processes, real guests, real sockets.

mod background;
mod begin;
mod bench;
mod browser;
mod client;
mod cluster;
mod commands;
mod cpu;
mod daemon;
mod deadlock;
mod dist;
mod edit;
mod health;
mod homeless;
mod hostile;
mod import;
#[path = "../../crates/store/tests/it/members.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "shared with the tests of the store"
)]
mod members;
mod metrics;
mod mutated;
mod rig;
mod run;
mod shop;
mod stop_order;
mod stopping;
mod streams;
mod threads;
mod up;
mod verdicts;
mod watch;
