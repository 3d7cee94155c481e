//! Objects in the store: read, and written unless they were written meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use sampan_core::{
    name::{Name, ServiceKey},
    object::Grants,
    plan::apply::Present,
    record::{self, Key, Kind},
};
use sampan_store::{Entry, Outcome, Revision, Store, Transaction, TransactionError};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    error::{ApiError, Code, listed},
    work::compute,
};

pub(super) use crate::{clock::wall_ms, mirror::text as encode};

/// How often a change is tried again because others change the same.
pub(super) const MAX_TRIES: usize = 32;

/// The object in an entry.
pub(super) fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, ApiError> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        let message = format!("the store's `{}` cannot be understood: {error}", entry.key);
        ApiError::new(Code::Internal, message)
    })
}

/// One object, and the transaction that wrote it last.
pub(super) async fn get<T: DeserializeOwned>(
    store: &dyn Store,
    key: &Key,
) -> Result<Option<(T, Revision)>, ApiError> {
    match store.get(&key.to_string()).await? {
        Some(entry) => Ok(Some((decode(&entry)?, entry.modified))),
        None => Ok(None),
    }
}

/// All objects below a prefix, in the order of their keys.
pub(super) async fn list<T: DeserializeOwned>(
    store: &dyn Store,
    prefix: &str,
) -> Result<Vec<(Key, T, Revision)>, ApiError> {
    let listing = store.list(prefix).await?;
    let decoded = || {
        let objects = listing.entries.iter().filter_map(|entry| {
            let key = Key::parse(&entry.key)?;
            Some(decode(entry).map(|object| (key, object, entry.modified)))
        });
        objects.collect()
    };
    match listing.entries.len() {
        ..FEW => decoded(),
        FEW.. => compute(decoded),
    }
}

/// So many objects are decoded where they keep others waiting: it takes less than a change of
/// threads and back.
const FEW: usize = 16;

/// Where the objects of an app begin.
pub(super) fn prefix(kind: Kind, app: Option<&Name>) -> String {
    match app {
        Some(app) => format!("{}{app}/", kind.prefix()),
        None => kind.prefix().to_owned(),
    }
}

/// The revisions of a service, the oldest first.
pub(super) async fn revisions(
    store: &dyn Store,
    service: &ServiceKey,
) -> Result<Vec<record::Revision>, ApiError> {
    let prefix = format!("{}{service}/", Kind::Revision.prefix());
    let found = list(store, &prefix).await?;
    Ok(found.into_iter().map(|(_, revision, _)| revision).collect())
}

/// A service, or an error that lists those that there are in its app.
pub(super) async fn service(
    store: &dyn Store,
    key: &ServiceKey,
) -> Result<(record::Service, Revision), ApiError> {
    if let Some(found) = get(store, &Key::Service(key.clone())).await? {
        return Ok(found);
    }
    let known = list::<record::Service>(store, &prefix(Kind::Service, Some(&key.app))).await?;
    let known = known.iter().map(|(_, service, _)| &service.key.name);
    Err(absent("service", key, known))
}

/// A job, or an error that lists those that there are in its app.
pub(super) async fn job(
    store: &dyn Store,
    key: &ServiceKey,
) -> Result<(record::Job, Revision), ApiError> {
    if let Some(found) = get(store, &Key::Job(key.clone())).await? {
        return Ok(found);
    }
    let known = list::<record::Job>(store, &prefix(Kind::Job, Some(&key.app))).await?;
    let known = known.iter().map(|(_, job, _)| &job.key.name);
    Err(absent("job", key, known))
}

fn absent<'a>(kind: &str, key: &ServiceKey, known: impl Iterator<Item = &'a Name>) -> ApiError {
    let here = format!("{kind} `{}` in app `{}`", key.name, key.app);
    let known: Vec<_> = known.map(ToString::to_string).collect();
    let message = match &known[..] {
        [] => format!("there is no {here}"),
        names => format!("there is no {here}; there are {}", listed(names)),
    };
    ApiError::new(Code::NotFound, message)
}

/// The objects of one app, and by their keys the transactions that wrote them last.
pub(super) struct AppObjects {
    pub(super) present: Present,
    pub(super) modified: BTreeMap<Key, Revision>,
}

impl AppObjects {
    /// What each service and job of the app may see and do, as it is wanted now.
    pub(super) fn grants(&self) -> impl Iterator<Item = (&Name, &Grants)> {
        let present = &self.present;
        let services = present.services.values().filter_map(|service| {
            let revision = (service.key.name.clone(), service.spec.revision);
            let grants = &present.revisions.get(&revision)?.template.grants;
            Some((&service.key.name, grants))
        });
        let jobs = present.jobs.values();
        services.chain(jobs.map(|job| (&job.key.name, &job.spec.grants)))
    }

    /// Reads them. The app comes first: who writes compares it, and so learns of whatever was
    /// applied while the rest was read.
    pub(super) async fn read(store: &dyn Store, name: &Name) -> Result<Self, ApiError> {
        let mut modified = BTreeMap::new();
        let key = Key::App(name.clone());
        let app = get::<record::App>(store, &key).await?;
        let app = app.map(|(app, at)| {
            modified.insert(key, at);
            app
        });
        let mut present = Present {
            app,
            ..Present::default()
        };
        let of = |kind| prefix(kind, Some(name));
        for (key, service, at) in list::<record::Service>(store, &of(Kind::Service)).await? {
            modified.insert(key, at);
            present.services.insert(service.key.name.clone(), service);
        }
        for (key, job, at) in list::<record::Job>(store, &of(Kind::Job)).await? {
            modified.insert(key, at);
            present.jobs.insert(job.key.name.clone(), job);
        }
        for (key, revision, at) in list::<record::Revision>(store, &of(Kind::Revision)).await? {
            if let Key::Revision(service, number) = &key {
                let key = (service.name.clone(), *number);
                present.revisions.insert(key, revision);
            }
            modified.insert(key, at);
        }
        for entry in store.list(&of(Kind::Secret)).await?.entries {
            modified.extend(Key::parse(&entry.key).map(|key| (key, entry.modified)));
        }
        Ok(Self { present, modified })
    }

    /// The app as it is to be deleted; `None` if there is nothing of it. What has no app, because
    /// it was left behind, is deleted as if it had one.
    pub(super) async fn doomed(
        &self,
        store: &dyn Store,
        name: &Name,
    ) -> Result<Option<record::App>, ApiError> {
        if let Some(app) = &self.present.app {
            return Ok(Some(app.clone()));
        }
        let pods = store.list(&prefix(Kind::Pod, Some(name))).await?;
        let nothing = self.modified.is_empty() && pods.entries.is_empty();
        Ok((!nothing).then(|| self.present.left(name)))
    }
}

/// The apps of which there is something and no app, in the order of their names.
pub(super) async fn left_behind(store: &dyn Store) -> Result<BTreeSet<Name>, ApiError> {
    let mut left = BTreeSet::new();
    for kind in [Kind::Service, Kind::Job, Kind::Revision, Kind::Pod] {
        let entries = store.list(kind.prefix()).await?.entries;
        let keys = entries.iter().filter_map(|entry| Key::parse(&entry.key));
        left.extend(keys.map(|key| key.app().clone()));
    }
    for entry in store.list(Kind::App.prefix()).await?.entries {
        if let Some(Key::App(name)) = Key::parse(&entry.key) {
            left.remove(&name);
        }
    }
    Ok(left)
}

/// Writes that happen if what they replace, and what they rest on, is as it was seen.
pub(super) struct Writes {
    transaction: Transaction,
    seen: BTreeMap<Key, Revision>,
}

impl Writes {
    pub(super) fn new(seen: BTreeMap<Key, Revision>) -> Self {
        Self {
            transaction: Transaction::new(),
            seen,
        }
    }

    /// Puts an object in the place of the one that was seen, or where none was.
    pub(super) fn put<T: Serialize>(mut self, key: Key, object: &T) -> Self {
        self = self.holds(&key);
        self.transaction = self.transaction.put(key.to_string(), encode(object));
        self
    }

    /// Demands that an object is the one that was seen, or that there still is none.
    pub(super) fn holds(mut self, key: &Key) -> Self {
        let before = self.seen.get(key).copied().unwrap_or_default();
        self.transaction = self.transaction.compare(key.to_string(), before);
        self
    }

    /// Whether it is not too much for one transaction.
    pub(super) fn check(&self) -> Result<(), TransactionError> {
        self.transaction.check()
    }

    /// Writes all of it in one transaction: a change is whole or has not happened. Says whether it
    /// was written; if not, another write was first.
    pub(super) async fn commit(self, store: &dyn Store) -> Result<bool, ApiError> {
        match store.commit(self.transaction).await? {
            Outcome::Committed(_) => Ok(true),
            Outcome::Conflict(_) => Ok(false),
        }
    }
}

/// All tries were in vain, because other writers changed the same objects.
pub(super) fn conflict(what: &str) -> ApiError {
    let message = format!("{what} was changed by others at the same time, again and again");
    ApiError::new(Code::Conflict, message).hint("nothing was changed; try again")
}
