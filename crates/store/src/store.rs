//! What a store is: the trait, its laws, and the values that go in and out.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::transaction::{Outcome, Transaction, TransactionError};
use crate::turns::Turns;
use crate::watch::Watch;

/// The name of an entry, by convention a path like `/services/shop/web`. It is shared, not copied.
pub type Key = Arc<str>;

/// The number of a transaction that changed something. 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// What is stored.
    pub value: Bytes,
    /// The transaction that created it: another one once it has been deleted and put again.
    pub created: Revision,
    /// The transaction that put its present value.
    pub modified: Revision,
}

/// The entries below a prefix, all as they were at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by key, by bytes.
    pub entries: Vec<Entry>,
    /// That moment: a watch after this revision continues where the listing ends.
    pub revision: Revision,
}

/// What one transaction changed below the prefix of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The transaction.
    pub revision: Revision,
    /// Its changes, at least one, in the order in which it writes them.
    pub changes: Vec<Change>,
}

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// What it is now; `None` if it was deleted.
    pub entry: Option<Entry>,
}

/// An ordered map of keys to values that changes by transactions and can be followed.
///
/// The laws, which every implementation keeps (`tests/it/contract.rs` checks them):
///
/// - **Reads are current.** What is read shows every transaction acknowledged before the read
///   began, and nothing that a crash could take back.
/// - **A transaction is all or nothing**, for reads, for watches and over a crash, up to the
///   largest one. So nothing that must be whole is ever written in two.
/// - **Revisions count changes.** A transaction that changes something gets the next revision.
///   One that writes nothing, or only deletes keys that do not exist, has no revision of its own
///   and is in no watch.
/// - **A key that is deleted and put again is another entry**: its `created` is new.
/// - **A listing is one snapshot**, of the revision that it names.
/// - **A watch has no gaps.** It delivers each transaction after its revision that changes
///   something below its prefix: once, in order, whole, and without other keys.
/// - **A slow watch loses nothing in silence.** It costs no memory, and is told
///   [`Compacted`](crate::WatchError::Compacted) when what it had to see next is gone.
/// - **History is bounded** by [`HISTORY_TRANSACTIONS`](crate::HISTORY_TRANSACTIONS) and
///   [`HISTORY_BYTES`](crate::HISTORY_BYTES), without being asked for.
///
/// A prefix is a prefix of the bytes: `/services/shop` is also one of `/services/shopping`, and
/// the empty one of everything.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry with this key.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All entries whose keys begin with `prefix`.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Compares, and writes if nothing differs.
    ///
    /// An error other than [`StoreError::Refused`] does not say that nothing was written: a crash
    /// that follows it may bring the transaction to light. Dropping the future does not take the
    /// transaction back either. A caller that tries again compares, and so writes once.
    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError>;

    /// Follows what is below `prefix`, beginning with the first transaction after `after`, which
    /// may be one that has yet to come.
    ///
    /// That `after` is too long ago is said by the watch.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;

    /// Forgets the history up to and including `through`. Entries stay as they are.
    ///
    /// What has been forgotten before is no error; what has not happened yet is one.
    async fn compact(&self, through: Revision) -> Result<(), StoreError>;

    /// The revision of the last change.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// Whose turn it is to write, among the tasks of this process.
    fn turns(&self) -> &Turns;
}

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
