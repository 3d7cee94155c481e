//! What a store is: the trait and its laws.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::session::Session;
use crate::transaction::{Outcome, Transaction};
use crate::turns::Turns;
use crate::value::{Entry, Listing, Revision};
use crate::watch::Watch;

/// An ordered map of keys to values that changes by transactions and can be followed.
///
/// The laws, which every implementation keeps (`tests/it/contract.rs` checks them):
///
/// - **Reads are current.** What is read shows every transaction acknowledged before the read
///   began, and nothing that a crash could take back.
/// - **A transaction is all or nothing**, for reads, for watches and over a crash, up to the
///   largest one. So nothing that must be whole is ever written in two.
/// - **A later change has a higher revision.** A store may use revisions for changes that are not
///   below its prefix, so there may be gaps. A transaction that writes nothing, or only deletes
///   keys that do not exist, has no revision of its own and is in no watch.
/// - **A key that is deleted and put again is another entry**: its `created` is new.
/// - **A listing is one snapshot**, of the revision that it names.
/// - **A watch has no gaps.** It delivers each transaction after its revision that changes
///   something below its prefix: once, in order, whole, and without other keys.
/// - **A slow watch loses nothing in silence.** It costs no memory. Once a compaction has passed
///   what it had to see next, it delivers that all the same or is told
///   [`Compacted`](crate::WatchError::Compacted).
/// - **A store that is closed ends its watches.**
/// - **A session ends as a whole.** All entries whose present value was put in it go in one
///   revision, and nothing is put in it any more. The store does not end it before its time has
///   passed since the last renewal was sent.
/// - **History is bounded**: by the component that the store's documentation names. The stores of
///   this crate forget what is beyond [`HISTORY_TRANSACTIONS`](crate::HISTORY_TRANSACTIONS) and
///   [`HISTORY_BYTES`](crate::HISTORY_BYTES) by themselves.
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

    /// Opens a session, which the store ends when it has not been renewed for `ttl`: at least two
    /// seconds.
    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError>;

    /// The revision of the last change.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// Whose turn it is to write, among the tasks of this process.
    fn turns(&self) -> &Turns;
}
