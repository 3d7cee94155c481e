//! What an apply changes, for people and programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an apply changes, or has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The app.
    pub app: String,
    /// Whether anything changes.
    pub changed: bool,
    /// Each service and job of the app, the services first.
    pub changes: Vec<Change>,
}

/// What becomes of one service or job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// `service` or `job`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub verb: Verb,
    /// Its generation afterwards.
    pub generation: u64,
    /// The revision that a service's pods should run afterwards.
    pub revision: Option<u64>,
    /// What is different.
    pub fields: Vec<Field>,
    /// What happens to pods.
    pub pods: String,
    /// Whether the change comes about here: it is new or another, or was held by what is. Of a plan
    /// that changes nothing all is awaited.
    #[serde(default = "awaited")]
    pub awaited: bool,
}

/// What an older node does not say.
fn awaited() -> bool {
    true
}

/// What becomes of a service or job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It is new.
    Added,
    /// It is another than before.
    Changed,
    /// It goes.
    Deleted,
    /// It stays as it is.
    Unchanged,
}

/// A value that is different. Of a secret only which version it is is shown, and of a long text what
/// it begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Field {
    /// Its name, as in the spec.
    pub name: String,
    /// What it was, if it was there.
    pub old: Option<String>,
    /// What it is, if it is there.
    pub new: Option<String>,
}
