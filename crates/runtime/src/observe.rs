//! What the host knows about a guest that waits: in which call, for what, and who could end it.
//!
//! A guest is resumed only through a waker that was handed to a host function. So a store that has
//! returned `Pending` without having been woken since is *blocked*, exactly, and the sources of
//! its wait are known as far as the host labels them:
//!
//! - WASI 0.2 blocks in one host function at a time. `host::waits` wraps the ones that can, and
//!   names their sources by the handles they were given.
//! - WASI 0.3 may wait for many things at once. What it waits for registers itself: timers, calls,
//!   bodies that it reads, and bodies of its own that others read.
//!
//! Whatever has no label counts as alive. So the detector of deadlocks is silent where it does not
//! know, and never wrong.

/// Whether guests are observed and interrupted. Only a build that measures what that costs has it
/// off: see `benches/README.md`.
pub(crate) const ON: bool = !cfg!(feature = "unobserved");

pub(crate) mod body;
pub(crate) mod cell;
pub(crate) mod observed;
pub(crate) mod recorder;
pub(crate) mod source;
pub(crate) mod suspects;
pub(crate) mod turn;
pub(crate) mod waits;
