//! The values of secrets: sealed in the store, and opened for the guests that are granted them.
//!
//! What refers to a value names it by its version, a digest that only the key of the node can make.
//! The sealed value is written in the transaction that writes what refers to it first, and is removed
//! when nothing refers to it any more. The key is one for all apps, in a
//! file that several nodes on one store could share.

mod key;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use sampan_core::{
    name::Name,
    object::{App, Grants, SecretUse},
    record::{Key, Secret},
    secret::{SecretValue, SecretValues},
};
use sampan_store::{Store, StoreError};

pub(crate) use key::KeyError;
use key::NodeKey;

/// Why secrets cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was sent has no value for a secret.
    #[error("the value of the secret `{0}` was not sent")]
    Missing(Name),
    /// The store does not have it.
    #[error("the value of the secret `{0}` is gone from the store: apply the app again")]
    Gone(Name),
    /// It was sealed with another key.
    #[error(
        "the secret `{name}` was sealed with another key than `{place}`: put the file back with \
         which it was sealed, or apply the app again"
    )]
    OtherKey {
        /// The secret.
        name: Name,
        /// The file of the key.
        place: String,
    },
    /// It is not what was written.
    #[error("the secret `{0}` in the store is damaged: apply the app again")]
    Damaged(Name),
    /// The store fails.
    #[error("cannot read a secret from the store")]
    Store(#[from] StoreError),
}

/// Where the key of a node is.
enum Place {
    /// In this process alone.
    Memory,
    File(PathBuf),
}

/// The values of secrets, in a store.
pub(crate) struct Secrets {
    store: Arc<dyn Store>,
    place: Place,
    /// The key, once it was needed.
    key: Mutex<Option<Arc<NodeKey>>>,
}

/// Sealed values by their keys in the store.
pub(crate) type Sealed = BTreeMap<Key, Secret>;

impl Secrets {
    /// Those in a store that ends with this process, as its key does.
    pub(crate) fn in_memory(store: Arc<dyn Store>) -> Self {
        Self::new(store, Place::Memory)
    }

    /// Those in a store whose key is in a file, which is made when the first secret is sealed.
    pub(crate) fn at(store: Arc<dyn Store>, path: PathBuf) -> Self {
        Self::new(store, Place::File(path))
    }

    fn new(store: Arc<dyn Store>, place: Place) -> Self {
        Self {
            store,
            place,
            key: Mutex::default(),
        }
    }

    /// The key. Without one, one is made if it `may_be_made`.
    fn key(&self, may_be_made: bool) -> Result<Arc<NodeKey>, KeyError> {
        let mut key = self.key.lock();
        if let Some(key) = &*key {
            return Ok(Arc::clone(key));
        }
        let found = match &self.place {
            Place::Memory => NodeKey::draw()?,
            Place::File(path) => match NodeKey::read(path) {
                Err(KeyError::Absent(_)) if may_be_made => NodeKey::make(path)?,
                read => read?,
            },
        };
        key::keep_out_of_core_dumps();
        let found = Arc::new(found);
        *key = Some(Arc::clone(&found));
        Ok(found)
    }

    /// Seals the values of the secrets that an app uses, and notes in it which versions these are.
    /// It may ask the disk for the key.
    pub(crate) fn seal(
        &self,
        app: &mut App,
        values: &BTreeMap<Name, SecretValue>,
    ) -> Result<Sealed, SecretsError> {
        let mut sealed = Sealed::new();
        let of = app.name.clone();
        let services = app.services.values_mut().map(|it| &mut it.grants);
        let jobs = app.jobs.values_mut().map(|it| &mut it.grants);
        for secret in services.chain(jobs).flat_map(Grants::secrets_mut) {
            let name = &secret.name;
            let value = values.get(name);
            let value = value.ok_or_else(|| SecretsError::Missing(name.clone()))?;
            let key = self.key(true)?;
            secret.version = key.version(&of, name, value);
            let place = Key::Secret(of.clone(), name.clone(), secret.version.clone());
            if let Entry::Vacant(free) = sealed.entry(place) {
                free.insert(key.seal(&of, secret, value)?);
            }
        }
        Ok(sealed)
    }

    /// The values of the secrets that a guest of an app is granted.
    pub(crate) async fn open(
        &self,
        app: &Name,
        grants: &Grants,
    ) -> Result<SecretValues, SecretsError> {
        let mut values = SecretValues::new();
        for secret in grants.secrets() {
            if values.contains_key(secret) {
                continue;
            }
            let SecretUse { name, version } = secret;
            let place = Key::Secret(app.clone(), name.clone(), version.clone());
            let entry = self.store.get(&place.to_string()).await?;
            let entry = entry.ok_or_else(|| SecretsError::Gone(name.clone()))?;
            let damaged = || SecretsError::Damaged(name.clone());
            let record: Secret = serde_json::from_slice(&entry.value).map_err(|_| damaged())?;
            let key = self.key(false)?;
            if !key.has_sealed(&record) {
                let name = name.clone();
                let place = self.place();
                return Err(SecretsError::OtherKey { name, place });
            }
            let value = key.open(app, secret, &record).ok_or_else(damaged)?;
            values.insert(secret.clone(), value);
        }
        Ok(values)
    }

    fn place(&self) -> String {
        match &self.place {
            Place::Memory => "that of this process".to_owned(),
            Place::File(path) => path.display().to_string(),
        }
    }
}

/// The keys of the secrets that grants of an app refer to.
pub(crate) fn keys_of(app: &Name, grants: &Grants) -> impl Iterator<Item = Key> {
    let secrets = grants.secrets();
    secrets.map(|it| Key::Secret(app.clone(), it.name.clone(), it.version.clone()))
}

#[cfg(test)]
mod tests;
