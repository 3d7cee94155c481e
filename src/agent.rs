//! The agent: runs pods and jobs on this node.
//!
//! A worker for each pod does what the planner in `sampan_core::plan::pod` says.

pub(crate) mod board;
#[cfg(test)]
mod census;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod instance;
pub(crate) mod jobs;
pub(crate) mod node;
mod prober;
mod reports;
pub(crate) mod upstream;
pub(crate) mod worker;
pub(crate) mod workshop;
