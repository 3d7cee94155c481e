//! What can be wrong with a request to a key-value store.

use std::path::Path;

use sampan_core::name::Name;

use crate::own_file::is_full;

/// Databases that are open at once: each is a thread, and some memory.
pub(super) const MAX_OPEN: usize = 64;

/// Why something was not done. Nothing has been changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// A key is longer than it may be.
    #[error("the key has {bytes} bytes, and may have {most}")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// A value is larger than it may be.
    #[error("the value has {bytes} bytes, and may have {most}")]
    ValueTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// Too many keys in one request.
    #[error("{keys} keys were asked for at once, and may be {most}")]
    TooManyAtOnce {
        /// How many.
        keys: usize,
        /// The limit.
        most: usize,
    },
    /// Values that are too large together to be read at once.
    #[error("the values have more than {most} bytes together: ask for fewer at once")]
    TooLargeAtOnce {
        /// The limit.
        most: usize,
    },
    /// A store has as many keys as it may have.
    #[error("the store `{store}` has {most} keys, and may have no more")]
    TooManyKeys {
        /// The store.
        store: Name,
        /// The limit.
        most: u64,
    },
    /// A store would be larger than it may be.
    #[error("the store `{store}` would have {bytes} bytes, and may have {most}")]
    TooManyBytes {
        /// The store.
        store: Name,
        /// What its keys and values would come to.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// What is to be incremented is no number.
    #[error("the value of `{0}` is no number: one is a text of decimal digits, as in `-12`")]
    NotANumber(String),
    /// The sum is no number of 64 bits.
    #[error("the sum at `{0}` would not fit into 64 bits")]
    Overflow(String),
    /// There is no directory for databases.
    #[error("there is no place for key-value stores: set `XDG_STATE_HOME` or `HOME`")]
    NoPlace,
    /// Too many databases are used in this moment.
    #[error("the stores of {MAX_OPEN} other apps are in use at this moment")]
    Busy,
    /// What is to be removed is used in this moment.
    #[error("the stores of app `{0}` are in use at this moment")]
    InUse(Name),
    /// Another process has the database.
    #[error(
        "cannot use `{place}`: it is locked: {holder} uses it, and one node at a time does; end that one first"
    )]
    Held {
        /// The file.
        place: String,
        /// The process.
        holder: String,
    },
    /// There is no room on the disk.
    #[error("there is no room for `{place}`: {reason}")]
    Full {
        /// The file.
        place: String,
        /// What SQLite says.
        reason: String,
    },
    /// The database cannot be used.
    #[error("cannot use `{place}`: {reason}")]
    Failed {
        /// The file.
        place: String,
        /// What SQLite or the system says.
        reason: String,
    },
    /// The database was closed before it was done.
    #[error("the database was closed")]
    Closed,
}

/// A file that cannot be used, and why.
pub(super) fn failed(path: &Path, reason: &dyn std::fmt::Display) -> KeyValueError {
    KeyValueError::Failed {
        place: path.display().to_string(),
        reason: reason.to_string(),
    }
}

/// What SQLite says against a request.
pub(super) fn failure(place: &str, error: &rusqlite::Error) -> KeyValueError {
    let (place, reason) = (place.to_owned(), error.to_string());
    match is_full(error) {
        true => KeyValueError::Full { place, reason },
        false => KeyValueError::Failed { place, reason },
    }
}
