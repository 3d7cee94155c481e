//! The key-value stores of an app, as its guests have them.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use sampan_core::name::Name;
use sampan_runtime::{KeyValue, Keys, Told, Versioned, off_thread};
use sampan_store::{AppStores, KeyPage, KeyValueError, KeyValues};

use crate::config;

/// Where the stores of apps that run in the foreground are, if there is a place for them.
pub(super) fn kept() -> Option<PathBuf> {
    let kept = config::data_directory().ok();
    kept.map(|directory| directory.join("keyvalue"))
}

/// The stores of one app, whose database is opened when it is used.
pub(super) struct OfApp {
    pub(super) databases: Arc<KeyValues>,
    pub(super) app: Name,
}

impl OfApp {
    async fn stores(&self) -> Told<Arc<AppStores>> {
        if let Some(stores) = self.databases.find(&self.app) {
            return Ok(stores);
        }
        let (databases, app) = (Arc::clone(&self.databases), self.app.clone());
        told(off_thread(move || databases.open(&app)).await)
    }
}

/// What a guest is told. What is no fault of the guest is said to the operator too.
fn told<T>(result: Result<T, KeyValueError>) -> Told<T> {
    result.map_err(|error| {
        // Where files are is no business of a guest.
        let briefly = match &error {
            KeyValueError::Full { .. } => "the disk of the node is full",
            KeyValueError::Held { .. } | KeyValueError::Failed { .. } => {
                "the store cannot be used; the log of the node says why"
            }
            _ => return error.to_string(),
        };
        tracing::warn!(%error, "a key-value store cannot be used");
        briefly.to_owned()
    })
}

fn page<N>(page: KeyPage<N>) -> Keys<N> {
    (page.keys, page.next)
}

#[async_trait]
impl KeyValue for OfApp {
    async fn get(&self, store: &Name, keys: Vec<String>) -> Told<Vec<Option<Versioned>>> {
        let found = told(self.stores().await?.get(store, keys).await)?;
        let versioned = found.into_iter().map(|found| {
            found.map(|found| Versioned {
                value: found.value,
                version: found.version,
            })
        });
        Ok(versioned.collect())
    }

    async fn version(&self, store: &Name, key: String) -> Told<u64> {
        told(self.stores().await?.version(store, key).await)
    }

    async fn keys(&self, store: &Name, after: Option<u64>) -> Told<Keys<u64>> {
        told(self.stores().await?.keys(store, after).await).map(page)
    }

    async fn sorted_keys(&self, store: &Name, after: Option<String>) -> Told<Keys<String>> {
        told(self.stores().await?.sorted_keys(store, after).await).map(page)
    }

    async fn write(&self, store: &Name, writes: Vec<(String, Option<Vec<u8>>)>) -> Told<()> {
        told(self.stores().await?.write(store, writes).await)
    }

    async fn add(&self, store: &Name, key: String, delta: i64) -> Told<i64> {
        told(self.stores().await?.add(store, key, delta).await)
    }

    async fn swap(&self, store: &Name, key: String, version: u64, value: Vec<u8>) -> Told<bool> {
        told(self.stores().await?.swap(store, key, version, value).await)
    }
}
