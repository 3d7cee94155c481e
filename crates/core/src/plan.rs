//! Planners: what to do next, why, and when to look again.
//!
//! A planner is a total function of what is, what has happened and what time it is. It does
//! nothing; an executor does what it says and decides nothing.

pub mod advise;
pub mod apply;
pub mod autoscale;
pub mod gate;
pub mod job;
pub mod node;
pub mod place;
pub mod pod;
pub mod probe;
pub mod prune;
pub mod quota;
pub mod restart;
pub mod rollout;
pub mod stop;
