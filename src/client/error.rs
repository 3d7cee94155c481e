//! Why the API has not done what was asked.

use sampan_core::view;

use crate::config::address::BadAddress;

/// Why the API has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing runs that could be asked.
    #[error(
        "no daemon is running: no socket in `{0}` answers; start `sampan serve` or `sampan up`, or \
         name a socket with `--api`"
    )]
    NoDaemon(std::path::PathBuf),
    /// Others could answer in place of what runs.
    #[error("others may write to `{0}`, where sockets are looked for; name one with `--api`")]
    Unsafe(std::path::PathBuf),
    /// More than one could be asked.
    #[error("more than one app runs here; name one with `--api`: {}", list(.0))]
    Several(Vec<std::path::PathBuf>),
    /// It is no address of this machine.
    #[error(
        "`{0}` is not an address of this machine, and the token would be sent in the open; use a \
         tunnel, and `http://127.0.0.1:PORT`"
    )]
    Elsewhere(String),
    /// It is no address, and no socket either.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// There is no token to be had.
    #[error("cannot read the token `{path}`")]
    NoToken {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No process answers there.
    #[error("cannot reach `{place}`")]
    Unreachable {
        /// The socket or address.
        place: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The answer broke off or is none.
    #[error("`{place}` gives no proper answer: {reason}")]
    Broken {
        /// The socket or address.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// It was refused.
    #[error("{}", refusal(.0))]
    Refused(Box<view::Error>),
}

fn list(paths: &[std::path::PathBuf]) -> String {
    let quoted = paths.iter().map(|path| format!("`{}`", path.display()));
    quoted.collect::<Vec<_>>().join(", ")
}

fn refusal(error: &view::Error) -> String {
    match &error.hint {
        Some(hint) => format!("{}; {hint}", error.message),
        None => error.message.clone(),
    }
}
