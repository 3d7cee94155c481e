//! Bodies of requests to the API.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A spec to apply, with everything of the client's world that it refers to.
///
/// The node checks it just as the client does, and opens no file that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The text of the spec.
    pub spec: String,
    /// Name of its file, for messages.
    #[serde(default = "default_path")]
    pub path: String,
    /// The absolute directory that relative paths in it start from.
    pub base: String,
    /// Variables that it refers to.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The texts of its env files, by the paths that it has for them.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Profiles that are on.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Replicas of services, in the place of those that the spec says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replicas: BTreeMap<String, u32>,
    /// SHA-256 of the component of each service and job, as 64 lower-case hex digits.
    pub components: BTreeMap<String, String>,
    /// What brings the change about, in a few words: shown with the revisions that it makes.
    #[serde(default)]
    pub cause: String,
}

fn default_path() -> String {
    "sampan.toml".to_owned()
}

/// How many pods a service should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// So many.
    pub replicas: u32,
}

/// Which revision a service should go back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// This one; without it the one before.
    #[serde(default)]
    pub to: Option<u64>,
}
