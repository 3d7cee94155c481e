//! Native code of components: compiled in a child process, kept in a verified cache.

pub mod cache;
pub mod compile;
pub(crate) mod sealed;
