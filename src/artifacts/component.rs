//! What is kept: its digest, and why it is not to be had or was not taken.

use std::{fs::File, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use sampan_core::digest::Digest;

use crate::file::MAX_COMPONENT_BYTES;

/// SHA-256 of the bytes, as 64 lower-case hex digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_hex()
}

/// What can be read.
pub(crate) enum Content {
    /// It is in memory.
    Bytes(Bytes),
    /// It is in this file.
    File(File),
}

/// Why a component is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It was never there, or has been removed.
    #[error("there is no component `sha256:{0}` here; apply the spec again to upload it")]
    Missing(String),
    /// The file is not what was written.
    #[error(
        "the file `{0}` is damaged: its digest is not its name; it is set aside, apply the spec \
         again to upload the component"
    )]
    Damaged(PathBuf),
    /// It cannot be read.
    #[error(
        "cannot read `{path}`: make it readable, or remove it and apply the spec again to upload \
         the component"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a component was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// It is no SHA-256.
    #[error("`{0}` is not a SHA-256 as 64 lower-case hex digits")]
    NotADigest(String),
    /// The bytes have another digest.
    #[error("the component has the digest `{found}`, not `{named}`")]
    Wrong {
        /// What it was to be.
        named: String,
        /// What it is.
        found: String,
    },
    /// There are too many bytes.
    #[error("the component is larger than {} MiB", MAX_COMPONENT_BYTES >> 20)]
    TooLarge,
    /// There is no room.
    #[error("no room for the component in `{0}`")]
    Full(PathBuf),
    /// It cannot be written.
    #[error("cannot write to `{path}`")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A component that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// SHA-256 of its bytes.
    pub(crate) digest: String,
    /// How many bytes it has.
    pub(crate) bytes: u64,
    /// How long ago it was written.
    pub(crate) age: Duration,
}
