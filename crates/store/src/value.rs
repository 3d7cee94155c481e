//! The values that go in and out of a store.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

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

/// Which session of a store. The numbers mean nothing to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
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
    /// The session with which it goes, if its present value was put in one.
    pub session: Option<SessionId>,
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
