//! Secrets as a spec names them: where they come from, and which a guest sees.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Where the client finds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// In this file, relative to the spec file's directory.
    File(PathBuf),
    /// In this variable of its environment.
    Env(String),
}

/// A secret of the guest's own app, of which it sees the value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretUse {
    /// Its name in the app.
    pub name: Name,
    /// Which of its values: a digest that only the node's key can make. Empty until the node has
    /// the value.
    pub version: String,
}

impl SecretUse {
    /// The digits of its version that people tell values apart by.
    pub fn shown(&self) -> &str {
        const SHOWN: usize = 8;
        self.version.get(..SHOWN).unwrap_or(&self.version)
    }
}

/// As people name it.
impl fmt::Display for SecretUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret {} (version {})", self.name, self.shown())
    }
}
