//! How a verb ends, and the exit codes of this program.

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
        Self::Because(EXIT_FAILED, reason.into())
    }
}

/// What a verb comes to.
pub(super) type End = Result<(), Stop>;
