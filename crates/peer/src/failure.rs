//! Why a node cannot be asked.

use std::{io, net::SocketAddr, time::Duration};

use sampan_core::name::Name;

/// Why a node has not answered.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It cannot be reached, or is another node, or does not take this one for one of the cluster.
    #[error("cannot connect to node `{node}` at `{address}`: {reason}")]
    Connect {
        /// Which one.
        node: Name,
        /// Where it is said to listen.
        address: SocketAddr,
        /// What the system or TLS says.
        reason: String,
    },
    /// It has not begun with the request, and will not.
    #[error("node `{node}` has not taken the request: {reason}")]
    Refused {
        /// Which one.
        node: Name,
        /// What HTTP says, with its reasons.
        reason: String,
    },
    /// The connection to it has failed.
    #[error("node `{node}` has not answered: {reason}")]
    Failed {
        /// Which one.
        node: Name,
        /// What HTTP says, with its reasons.
        reason: String,
    },
    /// What was to be sent is no request.
    #[error("cannot ask node `{node}` for a path that is none")]
    Path {
        /// Which one.
        node: Name,
        /// What is wrong with it.
        #[source]
        source: http::Error,
    },
}

impl PeerError {
    /// Whether anything of the request may have begun at the other node. If not, it may go to another
    /// one, whatever its method.
    pub fn has_begun(&self) -> bool {
        match self {
            Self::Failed { .. } => true,
            Self::Connect { .. } | Self::Refused { .. } | Self::Path { .. } => false,
        }
    }
}

/// An error with what caused it, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = error.source();
    }
    text
}

/// What it means that something took too long.
pub(crate) fn timed_out(limit: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer in {} s", limit.as_secs_f64()),
    )
}
