//! The manifest of static files: their paths, and what is known of each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{digest::is_digest, quantity::ByteSize};

/// The most files of a service.
pub const MAX_FILES: usize = 10_000;
/// The largest file.
pub const MAX_FILE_BYTES: u64 = 64 << 20;
/// The most that all files of a service may come to.
pub const MAX_SITE_BYTES: u64 = 1 << 30;
/// The longest path of a file.
pub const MAX_PATH_BYTES: usize = 1024;
/// The longest content type.
const MAX_TYPE_BYTES: usize = 200;
/// The one name with a dot at its beginning that is served
/// ([RFC 8615](https://www.rfc-editor.org/rfc/rfc8615)).
const WELL_KNOWN: &str = ".well-known";

/// The static files of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// By their paths, relative and with slashes.
    pub files: BTreeMap<String, SiteFile>,
}

/// A static file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteFile {
    /// SHA-256 of its bytes, as 64 lower-case hex digits.
    pub digest: String,
    /// How many they are.
    pub bytes: u64,
    /// The value of `Content-Type`.
    #[serde(rename = "type")]
    pub content_type: String,
}

/// Why files cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not what this program writes.
    #[error("the list of static files cannot be understood: {0}")]
    Malformed(String),
    /// A name is not one that is served.
    #[error(
        "`{0}` is no path of a static file: it begins with a dot, goes up, or has a control character, a backslash or more than {MAX_PATH_BYTES} bytes"
    )]
    Path(String),
    /// What is said of a file cannot be.
    #[error("what is said of the static file `{0}` cannot be: its digest or its content type")]
    File(String),
    /// There are too many.
    #[error("there are more than {MAX_FILES} static files")]
    TooMany,
    /// One is too large.
    #[error("the static file `{path}` is larger than {}", ByteSize(MAX_FILE_BYTES))]
    FileTooLarge {
        /// Its path.
        path: String,
    },
    /// All are too large.
    #[error("the static files come to more than {}", ByteSize(MAX_SITE_BYTES))]
    TooLarge,
}

impl Manifest {
    /// Reads a manifest and checks all of it: it may come from any client.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| ManifestError::Malformed(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes that [`Self::parse`] reads: the same for the same files.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is plain data")
    }

    /// Checks the limits, and each name and value.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.files.len() > MAX_FILES {
            return Err(ManifestError::TooMany);
        }
        let mut all: u64 = 0;
        for (path, file) in &self.files {
            if path.len() > MAX_PATH_BYTES || !path.split('/').all(is_served) {
                return Err(ManifestError::Path(path.clone()));
            }
            let content_type = &file.content_type;
            let is_visible = |byte: u8| matches!(byte, b' '..=b'~');
            let is_type = !content_type.is_empty()
                && content_type.len() <= MAX_TYPE_BYTES
                && content_type.bytes().all(is_visible);
            if !is_digest(&file.digest) || !is_type {
                return Err(ManifestError::File(path.clone()));
            }
            if file.bytes > MAX_FILE_BYTES {
                return Err(ManifestError::FileTooLarge { path: path.clone() });
            }
            all = all.saturating_add(file.bytes);
        }
        match all > MAX_SITE_BYTES {
            true => Err(ManifestError::TooLarge),
            false => Ok(()),
        }
    }
}

/// Whether a file or directory of this name is served. What begins with a dot is not: it is what
/// tools keep for themselves, and often secret.
pub fn is_served(name: &str) -> bool {
    let is_bad = |c: char| c.is_control() || c == '\\' || c == '/';
    let is_hidden = name.starts_with('.') && name != WELL_KNOWN;
    !name.is_empty() && !is_hidden && !name.contains(is_bad)
}
