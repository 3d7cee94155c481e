//! The program as its users meet it: real processes, real guests, real sockets.

mod background;
mod begin;
mod bench;
mod browser;
mod client;
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
mod metrics;
mod mutated;
mod rig;
mod run;
mod shop;
mod stopping;
mod streams;
mod threads;
mod up;
mod verdicts;
mod watch;
