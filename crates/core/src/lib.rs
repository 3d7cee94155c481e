//! Everything in Sampan that decides: names, quantities, the spec and its checks.
//!
//! Pure functions only. Nothing here reads a clock, a file, a socket or entropy: what a function
//! needs of the world is an argument, and the crate's `Cargo.toml` has no library that could.

pub mod deadlock;
pub mod digest;
pub mod escape;
pub mod event;
pub mod fault;
pub mod histogram;
pub mod load;
pub mod locks;
pub mod name;
pub mod object;
pub mod plan;
pub mod provoke;
pub mod quantity;
pub mod record;
pub mod schedule;
pub mod secret;
pub mod site;
pub mod spec;
pub mod time;
pub mod uri;
pub mod view;
