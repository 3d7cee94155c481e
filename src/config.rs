//! Where things are on this machine: directories and addresses.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// Where the gateway listens unless it is told otherwise.
pub(crate) const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// No directory can be named.
#[derive(Debug, thiserror::Error)]
#[error("no cache directory: set `XDG_CACHE_HOME` or `HOME`")]
pub(crate) struct NoHome;

/// The compile cache, shared by everything this user runs: `$XDG_CACHE_HOME/sampan/code`.
pub(crate) fn cache_directory() -> Result<PathBuf, NoHome> {
    // The XDG base directory specification: a relative path is to be ignored.
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Ok(base.ok_or(NoHome)?.join("sampan/code"))
}
