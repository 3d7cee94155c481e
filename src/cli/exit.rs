//! How a verb ends, and the exit codes of this program.

use crate::client::ClientError;

/// The thing that was asked for failed.
pub(super) const EXIT_FAILED: u8 = 1;
/// The command line or the spec is wrong.
pub(super) const EXIT_USAGE: u8 = 2;

/// Nothing that runs could be reached.
pub(super) const EXIT_UNREACHABLE: u8 = 3;

/// Why a verb ends with an exit code other than 0.
pub(super) enum Stop {
    /// The reason has been printed, or is the guest's own exit code.
    Quiet(u8),
    /// Print the reason, then exit with the code.
    Because(u8, anyhow::Error),
}

impl Stop {
    /// The command line or the spec is wrong.
    pub(super) fn usage(reason: impl Into<anyhow::Error>) -> Self {
        Self::Because(EXIT_USAGE, reason.into())
    }
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(reason: E) -> Self {
        let reason = reason.into();
        let code = reason.downcast_ref().map_or(EXIT_FAILED, code_of);
        Self::Because(code, reason)
    }
}

/// The exit code of a request that failed.
fn code_of(error: &ClientError) -> u8 {
    match error {
        ClientError::Refused(refused) if refused.code == "InvalidSpec" => EXIT_USAGE,
        ClientError::Refused(_) => EXIT_FAILED,
        ClientError::Elsewhere(_) | ClientError::Address(_) | ClientError::NoToken { .. } => {
            EXIT_USAGE
        }
        ClientError::NoDaemon(_)
        | ClientError::Unsafe(_)
        | ClientError::Several(_)
        | ClientError::Unreachable { .. }
        | ClientError::Broken { .. } => EXIT_UNREACHABLE,
    }
}

/// What a verb comes to.
pub(super) type End = Result<(), Stop>;
