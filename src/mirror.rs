//! The objects of the store in memory, kept up to date by a watch.
//!
//! What is read here may be old: a write compares the revisions that are noted with each object.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sampan_core::{
    name::{Name, PodName, ServiceKey},
    record::{App, Job, Key, Kind, Pod, Service},
};
use sampan_store::{Batch, Entry, Store, StoreError, Watch, WatchError};
use serde::de::DeserializeOwned;

/// How long to wait before a store that failed is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// An object, and the transaction that wrote it last.
#[derive(Clone, Debug)]
pub(crate) struct Stored<T> {
    pub(crate) value: T,
    pub(crate) modified: sampan_store::Revision,
}

/// All objects but events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) apps: BTreeMap<Name, Stored<App>>,
    pub(crate) services: BTreeMap<ServiceKey, Stored<Service>>,
    /// Which revisions there are.
    pub(crate) revisions: BTreeSet<(ServiceKey, u64)>,
    pub(crate) pods: BTreeMap<PodName, Stored<Pod>>,
    pub(crate) jobs: BTreeMap<ServiceKey, Stored<Job>>,
}

impl Mirror {
    /// The pods of a service, in the order of their names.
    pub(crate) fn pods_of(&self, service: &ServiceKey) -> impl Iterator<Item = &Stored<Pod>> {
        let service = service.clone();
        let first = PodName::new(&service, 0, 0);
        self.pods
            .range(first..)
            .take_while(move |(name, _)| *name.service() == service)
            .map(|(_, pod)| pod)
    }

    /// The revisions of a service, the oldest first.
    pub(crate) fn revisions_of(&self, service: &ServiceKey) -> impl Iterator<Item = u64> {
        self.revisions
            .range((service.clone(), 0)..=(service.clone(), u64::MAX))
            .map(|(_, number)| *number)
    }

    /// The services of an app.
    pub(crate) fn services_in(&self, app: &Name) -> impl Iterator<Item = &Stored<Service>> {
        let services = self.services.range(ServiceKey::first_of(app)..);
        let own = services.take_while(move |(name, _)| name.app == *app);
        own.map(|(_, service)| service)
    }

    /// The jobs of an app.
    pub(crate) fn jobs_in(&self, app: &Name) -> impl Iterator<Item = &Stored<Job>> {
        let jobs = self.jobs.range(ServiceKey::first_of(app)..);
        let own = jobs.take_while(move |(name, _)| name.app == *app);
        own.map(|(_, job)| job)
    }

    /// The pods of an app, those too that belong to no service.
    pub(crate) fn pods_in(&self, app: &Name) -> impl Iterator<Item = &Stored<Pod>> {
        let first = PodName::new(&ServiceKey::first_of(app), 0, 0);
        let own = self.pods.range(first..);
        own.take_while(move |(name, _)| name.service().app == *app)
            .map(|(_, pod)| pod)
    }

    /// The revisions of the services of an app, those too that are of no service.
    pub(crate) fn revisions_in(&self, app: &Name) -> impl Iterator<Item = &(ServiceKey, u64)> {
        let all = self.revisions.range((ServiceKey::first_of(app), 0)..);
        all.take_while(move |(name, _)| name.app == *app)
    }

    fn take(&mut self, key: &Key, entry: Option<&Entry>) {
        match key {
            Key::App(name) => put(&mut self.apps, name.clone(), entry),
            Key::Service(name) => put(&mut self.services, name.clone(), entry),
            Key::Revision(name, number) => {
                let key = (name.clone(), *number);
                match entry {
                    Some(_) => self.revisions.insert(key),
                    None => self.revisions.remove(&key),
                };
            }
            Key::Pod(name) => put(&mut self.pods, name.clone(), entry),
            Key::Job(name) => put(&mut self.jobs, name.clone(), entry),
            Key::Event(_) => {}
        }
    }

    fn keys(&self) -> BTreeSet<Key> {
        let apps = self.apps.keys().cloned().map(Key::App);
        let services = self.services.keys().cloned().map(Key::Service);
        let revisions = self.revisions.iter().cloned();
        let revisions = revisions.map(|(name, number)| Key::Revision(name, number));
        let pods = self.pods.keys().cloned().map(Key::Pod);
        let jobs = self.jobs.keys().cloned().map(Key::Job);
        apps.chain(services)
            .chain(revisions)
            .chain(pods)
            .chain(jobs)
            .collect()
    }
}

/// Puts what is stored in its place. What cannot be read is as if it were not there: it was written
/// by another version, and is left alone.
fn put<K: Ord, T: DeserializeOwned>(
    map: &mut BTreeMap<K, Stored<T>>,
    name: K,
    entry: Option<&Entry>,
) {
    let Some(entry) = entry else {
        map.remove(&name);
        return;
    };
    match serde_json::from_slice(&entry.value) {
        Ok(value) => {
            let modified = entry.modified;
            map.insert(name, Stored { value, modified });
        }
        Err(error) => {
            tracing::error!(key = %entry.key, %error, "an object in the store cannot be read");
            map.remove(&name);
        }
    }
}

/// A mirror that follows its store.
pub(crate) struct Follower {
    store: Arc<dyn Store>,
    watch: Watch,
    mirror: Mirror,
}

impl Follower {
    /// Reads everything.
    pub(crate) async fn open(store: &Arc<dyn Store>) -> Result<Self, StoreError> {
        let (mirror, watch) = read(store).await?;
        Ok(Self {
            store: Arc::clone(store),
            watch,
            mirror,
        })
    }

    /// What is known now.
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// All keys that there are.
    pub(crate) fn keys(&self) -> BTreeSet<Key> {
        self.mirror.keys()
    }

    /// Waits for changes, and says of which keys. `None` when the store has been closed.
    ///
    /// If it is dropped while it waits nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<BTreeSet<Key>> {
        loop {
            match self.watch.next().await {
                Ok(batch) => {
                    let keys = self.take(&batch);
                    if !keys.is_empty() {
                        return Some(keys);
                    }
                }
                Err(WatchError::Closed) => return None,
                Err(WatchError::Compacted { .. }) => return self.read_again().await,
            }
        }
    }

    fn take(&mut self, batch: &Batch) -> BTreeSet<Key> {
        let events = Kind::Event.prefix();
        let changes = batch.changes.iter();
        let changes = changes.filter(|change| !change.key.starts_with(events));
        let mut keys = BTreeSet::new();
        for change in changes {
            if let Some(key) = Key::parse(&change.key) {
                self.mirror.take(&key, change.entry.as_ref());
                keys.insert(key);
            }
        }
        keys
    }

    async fn read_again(&mut self) -> Option<BTreeSet<Key>> {
        loop {
            match read(&self.store).await {
                Ok((mirror, watch)) => {
                    let mut keys = self.mirror.keys();
                    keys.extend(mirror.keys());
                    (self.mirror, self.watch) = (mirror, watch);
                    return Some(keys);
                }
                Err(StoreError::Closed) => return None,
                Err(error) => {
                    tracing::warn!(%error, "the store cannot be read, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

async fn read(store: &Arc<dyn Store>) -> Result<(Mirror, Watch), StoreError> {
    let listing = store.list("/").await?;
    let mut mirror = Mirror::default();
    for entry in &listing.entries {
        if let Some(key) = Key::parse(&entry.key) {
            mirror.take(&key, Some(entry));
        }
    }
    let watch = store.watch("/", listing.revision).await?;
    Ok((mirror, watch))
}

/// An object as it is stored.
pub(crate) fn text<T: serde::Serialize>(object: &T) -> Vec<u8> {
    serde_json::to_vec(object).expect("an object is plain data")
}
