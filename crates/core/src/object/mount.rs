//! What a guest finds at places of its file system.

use std::{fmt, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretUse;
use crate::{name::Name, quantity::ByteSize};

/// A directory that a guest sees, or a file with a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is seen there. Its variant is a field of the record: `host`, as versions without volumes
    /// wrote it, `volume` or `secret`.
    #[serde(flatten)]
    pub source: MountSource,
    /// Absolute path in the guest.
    pub guest: String,
    /// What the guest may do there.
    pub access: Access,
}

/// What a guest sees at a place of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// Directory on the host, relative to the spec file's directory.
    Host(PathBuf),
    /// A volume of the app.
    Volume(VolumeUse),
    /// A secret of the app, as a file.
    Secret(SecretUse),
}

/// A volume that a guest sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUse {
    /// The app it is of, which is always the guest's own.
    pub app: Name,
    /// Its name in the app.
    pub name: Name,
    /// How much may be in it.
    pub quota: ByteSize,
}

impl Mount {
    /// The directory on the host, if it is one that the spec names.
    pub fn host_mut(&mut self) -> Option<&mut PathBuf> {
        match &mut self.source {
            MountSource::Host(path) => Some(path),
            MountSource::Volume(_) | MountSource::Secret(_) => None,
        }
    }
}

/// As people name it: the path on the host, the volume or the secret.
impl fmt::Display for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(path) => path.display().fmt(f),
            Self::Volume(volume) => write!(f, "volume {} ({})", volume.name, volume.quota),
            Self::Secret(secret) => secret.fmt(f),
        }
    }
}

/// What a guest may do in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read and list.
    ReadOnly,
    /// Read, list, write, create and remove.
    ReadWrite,
}
