//! Where things are on this machine: directories and addresses.

pub(crate) mod address;

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use sampan_core::name::Name;

/// Where the gateway listens unless it is told otherwise.
pub(crate) const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// No directory can be named.
#[derive(Debug, thiserror::Error)]
#[error("no {what} directory: set `{variable}` or `HOME`")]
pub(crate) struct NoHome {
    what: &'static str,
    variable: &'static str,
}

/// Where control sockets are: `$XDG_RUNTIME_DIR/sampan`, else a directory of this user among the
/// temporary ones.
pub(crate) fn socket_directory() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|path| path.is_absolute()) {
        Some(runtime) => runtime.join("sampan"),
        None => {
            let user = rustix::process::getuid().as_raw();
            env::temp_dir().join(format!("sampan-{user}"))
        }
    }
}

/// The control socket of an app that runs in the foreground.
pub(crate) fn app_socket(app: &Name) -> PathBuf {
    socket_directory().join(format!("{app}.sock"))
}

/// The control socket of the daemon.
pub(crate) fn daemon_socket() -> PathBuf {
    socket_directory().join("sampan.sock")
}

/// Where nodes keep state: `$XDG_STATE_HOME/sampan`. What apps keep is there whichever node of this
/// user runs them.
pub(crate) fn data_directory() -> Result<PathBuf, NoHome> {
    let below = directory("state", "XDG_STATE_HOME", ".local/state", "data")?;
    Ok(below.parent().map_or_else(|| below.clone(), PathBuf::from))
}

/// The compile cache, shared by everything this user runs: `$XDG_CACHE_HOME/sampan/code`.
pub(crate) fn cache_directory() -> Result<PathBuf, NoHome> {
    directory("cache", "XDG_CACHE_HOME", ".cache", "code")
}

/// Core dumps, a directory for each app: `$XDG_STATE_HOME/sampan/coredumps`.
pub(crate) fn coredump_directory() -> Result<PathBuf, NoHome> {
    directory("state", "XDG_STATE_HOME", ".local/state", "coredumps")
}

fn directory(
    what: &'static str,
    variable: &'static str,
    below_home: &str,
    own: &str,
) -> Result<PathBuf, NoHome> {
    // The XDG base directory specification: a relative path is to be ignored.
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)));
    let base = base.ok_or(NoHome { what, variable })?;
    Ok(base.join("sampan").join(own))
}
