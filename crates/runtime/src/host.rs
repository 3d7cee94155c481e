//! What the host lends a guest: streams for its output, files, key-value stores, other services,
//! servers outside.

pub(crate) mod addresses;
pub(crate) mod client;
mod credentials;
pub(crate) mod files;
pub(crate) mod keyvalue;
pub(crate) mod linker;
mod logging;
pub(crate) mod outbound;
pub(crate) mod own;
mod remedy;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod stdio;
pub(crate) mod waits;
