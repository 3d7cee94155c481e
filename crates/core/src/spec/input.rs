//! What a spec is loaded from.

use crate::{name::Name, object::SecretSource, secret::SecretValue};

/// A spec to load, and what of the world it may refer to.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Name of the file, for messages.
    pub path: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Looks up an environment variable, for `${NAME}`.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file, for `env_file`. The path is as the spec has it: relative to the spec's own
    /// directory. An error is part of a message, so it is lower case and without a full stop.
    pub read_file: &'a dyn Fn(&str) -> Result<String, String>,
    /// Profiles that are on.
    pub profiles: &'a [String],
}

/// Finds the value of a secret that the spec declares and something uses. An error is part of a
/// message, so it is lower case and without a full stop.
pub type ReadSecret<'a> = dyn Fn(&Name, &SecretSource) -> Result<SecretValue, String> + 'a;
