//! Objects in the store: read, and written when nobody else has written them meanwhile.

use std::collections::BTreeMap;

use sampan_core::{
    name::{Name, ServiceKey},
    plan::apply::Present,
    record::{self, Key, Kind},
};
use sampan_store::{Entry, Outcome, Revision, Store, Transaction};
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
        for (key, revision, _) in list::<record::Revision>(store, &of(Kind::Revision)).await? {
            if let Key::Revision(service, number) = key {
                present.revisions.insert((service.name, number), revision);
            }
        }
        Ok(Self { present, modified })
    }
}

/// Writes that happen if what they replace is as it was seen.
pub(super) struct Writes {
    puts: Vec<(Key, Vec<u8>)>,
    seen: BTreeMap<Key, Revision>,
}

/// Objects written in one transaction. With what goes along it stays below what a store can take.
const OBJECTS_AT_ONCE: usize = 100;

impl Writes {
    pub(super) fn new(seen: BTreeMap<Key, Revision>) -> Self {
        Self {
            puts: Vec::new(),
            seen,
        }
    }

    /// Puts an object in the place of the one that was seen, or where none was.
    pub(super) fn put<T: Serialize>(mut self, key: Key, object: &T) -> Self {
        self.puts.push((key, encode(object)));
        self
    }

    /// Whether it was written; if not, somebody else was first.
    ///
    /// Up to [`OBJECTS_AT_ONCE`] objects are written together. Of more, some may be written and
    /// others not, if somebody else is first in the middle: whoever tries again writes the rest.
    /// The last object that was put is written last, and that it is as it was seen is compared
    /// each time.
    pub(super) async fn commit(self, store: &dyn Store) -> Result<bool, ApiError> {
        let before = |key: &Key| self.seen.get(key).copied().unwrap_or_default();
        let last = self.puts.last().map(|(key, _)| key);
        for lot in self.puts.chunks(OBJECTS_AT_ONCE) {
            let mut transaction = Transaction::new();
            if let Some(last) = last {
                transaction = transaction.compare(last.to_string(), before(last));
            }
            for (key, value) in lot {
                let text = key.to_string();
                if Some(key) != last {
                    transaction = transaction.compare(text.as_str(), before(key));
                }
                transaction = transaction.put(text, value.clone());
            }
            match store.commit(transaction).await? {
                Outcome::Committed(_) => {}
                Outcome::Conflict(_) => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Nobody got anywhere, because everybody changed the same.
pub(super) fn conflict(what: &str) -> ApiError {
    let message = format!("{what} was changed by others at the same time, again and again");
    ApiError::new(Code::Conflict, message).hint("nothing was changed; try again")
}
