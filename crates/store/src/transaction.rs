//! Transactions: what they compare, what they write, and how large they may be.

use std::collections::HashSet;

use bytes::Bytes;

use crate::value::{Key, Revision, SessionId};

/// Compares in a transaction, and writes in a transaction. It is what the largest change of an app
/// can take. etcd takes as many with `--max-txn-ops=10000`; its default is 128.
pub const MAX_OPERATIONS: usize = 10_000;

/// Bytes of a key.
pub const MAX_KEY_BYTES: usize = 1024;

/// Bytes of a value.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Bytes of all keys and values of a transaction. With what etcd puts around them this stays below
/// 10 MiB, the most that it recommends for `--max-request-bytes`; its default is 1.5 MiB.
pub const MAX_TRANSACTION_BYTES: usize = 8 << 20;

/// A condition: the key is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Key,
    /// The transaction that modified it last; [`Revision(0)`](Revision): it does not exist.
    pub modified: Revision,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Creates the key or replaces its value.
    Put {
        /// The key.
        key: Key,
        /// Its value from now on.
        value: Bytes,
        /// The session with which it goes.
        session: Option<SessionId>,
    },
    /// Deletes the key. That it does not exist is no error.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Write {
    /// The key that it changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// The session that it puts an entry in.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Put { session, .. } => *session,
            Self::Delete { .. } => None,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        }
    }
}

/// Writes that happen together, if all conditions hold, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The conditions.
    pub compares: Vec<Compare>,
    /// The writes, each of another key.
    pub writes: Vec<Write>,
}

impl Transaction {
    /// One that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands that `key` was last modified by the transaction `modified`.
    #[must_use]
    pub fn compare(mut self, key: impl Into<Key>, modified: Revision) -> Self {
        self.compares.push(Compare {
            key: key.into(),
            modified,
        });
        self
    }

    /// Demands that `key` does not exist.
    #[must_use]
    pub fn absent(self, key: impl Into<Key>) -> Self {
        self.compare(key, Revision(0))
    }

    /// Puts `value` at `key`.
    #[must_use]
    pub fn put(self, key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        self.put_at(None, key.into(), value.into())
    }

    /// Puts `value` at `key` until the session ends.
    #[must_use]
    pub fn put_in(self, session: SessionId, key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        self.put_at(Some(session), key.into(), value.into())
    }

    fn put_at(mut self, session: Option<SessionId>, key: Key, value: Bytes) -> Self {
        self.writes.push(Write::Put {
            key,
            value,
            session,
        });
        self
    }

    /// Deletes `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        let compares = self.compares.iter().map(|compare| compare.key.len());
        let writes = self
            .writes
            .iter()
            .map(|write| write.key().len() + write.value_bytes());
        compares.chain(writes).sum()
    }

    /// Whether a store can take it: the limits, and no key written twice. Stores check this first.
    pub fn check(&self) -> Result<(), TransactionError> {
        for count in [self.compares.len(), self.writes.len()] {
            if count > MAX_OPERATIONS {
                return Err(TransactionError::Operations { count });
            }
        }
        for key in self.compares.iter().map(|compare| &compare.key) {
            check_key(key)?;
        }
        let mut written = HashSet::with_capacity(self.writes.len());
        for write in &self.writes {
            let key = write.key();
            check_key(key)?;
            if write.value_bytes() > MAX_VALUE_BYTES {
                return Err(TransactionError::Value {
                    key: key.clone(),
                    bytes: write.value_bytes(),
                });
            }
            if !written.insert(key) {
                return Err(TransactionError::Twice { key: key.clone() });
            }
        }
        let bytes = self.bytes();
        if bytes > MAX_TRANSACTION_BYTES {
            return Err(TransactionError::Bytes { bytes });
        }
        Ok(())
    }
}

fn check_key(key: &Key) -> Result<(), TransactionError> {
    if key.is_empty() {
        return Err(TransactionError::EmptyKey);
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(TransactionError::Key {
            start: key.chars().take(32).collect(),
            bytes: key.len(),
        });
    }
    Ok(())
}

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// All writes have happened. The revision is the transaction's, or the store's present one if
    /// it changed nothing.
    Committed(Revision),
    /// Nothing has happened: this is the first of the compared keys that differed.
    Conflict(Key),
}

/// Why a transaction can never be committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Too many compares or writes.
    #[error(
        "`{count}` compares or writes in a transaction, at most `{MAX_OPERATIONS}` are possible"
    )]
    Operations {
        /// How many there are.
        count: usize,
    },
    /// A key without a byte.
    #[error("a key is empty")]
    EmptyKey,
    /// A key that is too long.
    #[error("the key `{start}…` has `{bytes}` bytes, at most `{MAX_KEY_BYTES}` are possible")]
    Key {
        /// How it begins.
        start: String,
        /// How long it is.
        bytes: usize,
    },
    /// A value that is too long.
    #[error("the value of `{key}` has `{bytes}` bytes, at most `{MAX_VALUE_BYTES}` are possible")]
    Value {
        /// Its key.
        key: Key,
        /// How long it is.
        bytes: usize,
    },
    /// All keys and values together are too long.
    #[error("a transaction of `{bytes}` bytes, at most `{MAX_TRANSACTION_BYTES}` are possible")]
    Bytes {
        /// How long they are.
        bytes: usize,
    },
    /// More than the store is set to take.
    #[error(
        "more than `{place}` is set to take: {reason}; etcd takes all with \
         `--max-txn-ops=10000 --max-request-bytes=10485760`"
    )]
    Settings {
        /// The cluster.
        place: String,
        /// What it said.
        reason: String,
    },
    /// Two writes of one key.
    #[error("`{key}` is written twice in one transaction")]
    Twice {
        /// The key.
        key: Key,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_the_limits_is_taken() {
        let mut transaction = Transaction::new();
        for number in 0..MAX_OPERATIONS {
            transaction = transaction.absent("k").put(format!("/k/{number}"), "v");
        }
        assert_eq!(transaction.check(), Ok(()));
        let longest = "k".repeat(MAX_KEY_BYTES);
        let transaction = Transaction::new()
            .absent(longest.as_str())
            .put(longest.as_str(), vec![0; MAX_VALUE_BYTES]);
        assert_eq!(transaction.check(), Ok(()));
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused_with_the_limit() {
        let mut many = Transaction::new();
        for number in 0..=MAX_OPERATIONS {
            many = many.delete(format!("/k/{number}"));
        }
        let mut large = Transaction::new();
        for number in 0..9 {
            large = large.put(format!("/k/{number}"), vec![0; 1000 << 10]);
        }
        let cases = [
            (
                many,
                "`10001` compares or writes in a transaction, at most `10000` are possible",
            ),
            (Transaction::new().put("", "v"), "a key is empty"),
            (Transaction::new().absent(""), "a key is empty"),
            (
                Transaction::new().delete("é".repeat(600)),
                "the key `éééééééééééééééééééééééééééééééé…` has `1200` bytes, at most `1024` are possible",
            ),
            (
                Transaction::new().put("/k", vec![0; MAX_VALUE_BYTES + 1]),
                "the value of `/k` has `1048577` bytes, at most `1048576` are possible",
            ),
            (
                large,
                "a transaction of `9216036` bytes, at most `8388608` are possible",
            ),
            (
                Transaction::new().delete("/k").put("/k", "v"),
                "`/k` is written twice in one transaction",
            ),
        ];
        for (transaction, message) in cases {
            let error = transaction.check().expect_err(message);
            assert_eq!(error.to_string(), message);
        }
    }
}
