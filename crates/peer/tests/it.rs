//! Nodes that talk to one another over real sockets, and others that try to.

// Clippy takes for tests only the functions marked as such, not what they share.
#![allow(clippy::unwrap_used)]

#[path = "it/fixture.rs"]
mod fixture;
#[path = "it/join.rs"]
mod join;
#[path = "it/limits.rs"]
mod limits;
#[path = "it/logs.rs"]
mod logs;
#[path = "it/refusal.rs"]
mod refusal;
#[path = "it/trust.rs"]
mod trust;
