//! The agent: runs pods and jobs on this node.

pub(crate) mod upstream;
