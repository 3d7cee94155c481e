//! The stores as their users see them: the laws, on every implementation.

// Clippy takes for tests only the functions marked as such, not what they share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "it/contract.rs"]
mod contract;
#[path = "it/fixture.rs"]
mod fixture;
