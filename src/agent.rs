//! The agent: runs pods and jobs on this node.
//!
//! A worker for each pod does what the planner in `sampan_core::plan::pod` says.

#[cfg(test)]
mod census;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod handle;
pub(crate) mod jobs;
pub(crate) mod loader;
pub(crate) mod node;
mod prober;
pub(crate) mod registry;
mod reports;
pub(crate) mod rest;
pub(crate) mod rotation;
pub(crate) mod runtime_pod;
mod site;
pub(crate) mod upstream;
pub(crate) mod worker;
