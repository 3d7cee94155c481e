//! What there is of an app before a spec is applied.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    name::Name,
    record::{App, Job, Revision, Service, Template},
};

/// What there is of an app.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Present {
    /// The app itself.
    pub app: Option<App>,
    /// Its services, with those that are being deleted.
    pub services: BTreeMap<Name, Service>,
    /// The revisions of its services that are kept.
    pub revisions: BTreeMap<(Name, u64), Revision>,
    /// Its jobs, with those that are being deleted.
    pub jobs: BTreeMap<Name, Job>,
}

impl Present {
    /// The app that its parts belong to, when they were left behind without it.
    pub fn left(&self, name: &Name) -> App {
        App {
            name: name.clone(),
            generation: 0,
            base: PathBuf::from("/"),
            services: self.services.keys().cloned().collect(),
            jobs: self.jobs.keys().cloned().collect(),
            volumes: BTreeMap::new(),
            deleting: false,
            applied_ms: 0,
        }
    }

    /// The template that pods of `service` should run, if its revision is kept.
    pub(super) fn template(&self, service: &Service) -> Option<&Template> {
        let key = (service.key.name.clone(), service.spec.revision);
        self.revisions.get(&key).map(|revision| &revision.template)
    }
}
