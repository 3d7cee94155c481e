//! What is reconciled, and of which app that is.

use sampan_core::{
    name::{Name, ServiceKey},
    record::Key,
};

/// What is reconciled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    /// The pods of a service.
    Service(ServiceKey),
    /// The attempts of a job.
    Job(ServiceKey),
    /// The revisions that a service no longer needs.
    History(ServiceKey),
    /// What an app no longer needs of which something is being deleted.
    App(Name),
}

impl Object {
    pub(super) fn app(&self) -> &Name {
        match self {
            Self::Service(key) | Self::Job(key) | Self::History(key) => &key.app,
            Self::App(name) => name,
        }
    }

    /// The key of its record.
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Service(key) | Self::History(key) => Key::Service(key.clone()),
            Self::Job(key) => Key::Job(key.clone()),
            Self::App(name) => Key::App(name.clone()),
        }
    }
}
