//! What can go wrong in a store.

use crate::transaction::TransactionError;
use crate::value::{Revision, SessionId};

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The transaction can never be committed: it is a mistake of the caller.
    #[error("the store refuses the transaction")]
    Refused(#[from] TransactionError),
    /// There is no room for what is to be written. Reads go on, and so do writes once there is.
    #[error("no room to write to `{place}`: {reason}")]
    Full {
        /// The file or cluster.
        place: String,
        /// What it said.
        reason: String,
    },
    /// The storage below failed. The same may work later.
    #[error("the store `{place}` failed: {reason}")]
    Failed {
        /// The file or cluster.
        place: String,
        /// What it said.
        reason: String,
    },
    /// The session that an entry is to be put in has ended.
    #[error("the session `{0}` has ended")]
    SessionOver(SessionId),
    /// A compaction through a revision that does not exist yet.
    #[error("cannot compact through revision `{asked}`: the last one is `{revision}`")]
    Future {
        /// The revision that was asked for.
        asked: Revision,
        /// The revision of the last change.
        revision: Revision,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}
