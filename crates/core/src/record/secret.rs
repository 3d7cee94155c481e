//! A value of a secret as the store holds it: sealed.

use serde::{Deserialize, Serialize};

/// A value of a secret, sealed with a key of the node. Revisions and jobs name it by its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Which key it is sealed with.
    pub key: String,
    /// The ciphertext with its nonce before it, in base64.
    pub sealed: String,
}
