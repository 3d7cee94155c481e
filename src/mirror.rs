//! The objects of the store in memory: one mirror for a process, kept up to date by one watch.
//!
//! The [`Reflector`] decodes each change once, and notes its key for every [`Follower`] that
//! follows objects of its kind. A follower gets the keys that have changed since it looked last, and
//! reads the mirror as it is by then: several changes of one object are one key, so that a follower
//! that is slow misses no object and makes nothing grow.
//!
//! What is read here may be old: a writer compares the revisions that are noted with each object.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::Condition,
    plan::stop::Contents,
    provoke,
    record::{self, App, Job, Key, Kind, Needs, Pod, Service},
};
use sampan_store::{Batch, Entry, Revision, Store, StoreError, Watch, WatchError};
use serde::de::DeserializeOwned;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::AbortHandle,
    time::timeout,
};

/// The longest wait for what is in the store now. Where others write to it as well, what they have
/// written is not in the mirror, and its revision may not come.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How long to wait before a store that failed is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// An object, and the transactions that created it and wrote it last.
#[derive(Debug)]
pub(crate) struct Stored<T> {
    pub(crate) value: Arc<T>,
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) apps: BTreeMap<Name, Stored<App>>,
    pub(crate) services: BTreeMap<ServiceKey, Stored<Service>>,
    /// Which revisions there are, and what a pod of each needs of its node.
    pub(crate) revisions: BTreeMap<(ServiceKey, u64), Arc<Needs>>,
    pub(crate) pods: BTreeMap<PodName, Stored<Pod>>,
    pub(crate) jobs: BTreeMap<ServiceKey, Stored<Job>>,
    /// Which secrets there are: the app, the name and the version of each.
    pub(crate) secrets: BTreeSet<(Name, Name, String)>,
    /// Which services and jobs depend on which: what is depended on, and what does.
    dependents: BTreeSet<(ServiceKey, Key)>,
    /// Which services and jobs are being deleted.
    going: BTreeSet<ServiceKey>,
}

/// On what something depends, and how far that must be.
type Names = BTreeMap<Name, Condition>;

fn dependencies<T: Depends>(of: &Option<Stored<T>>) -> Option<&Names> {
    of.as_ref().map(|it| it.value.depends_on())
}

/// What depends on others of its app.
trait Depends {
    fn depends_on(&self) -> &Names;
}

impl Depends for Service {
    fn depends_on(&self) -> &Names {
        &self.spec.depends_on
    }
}

impl Depends for Job {
    fn depends_on(&self) -> &Names {
        &self.spec.depends_on
    }
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
            .map(|((_, number), _)| *number)
    }

    /// What a pod of a revision needs of its node.
    pub(crate) fn needs(&self, service: &ServiceKey, revision: u64) -> Option<Needs> {
        let needs = self.revisions.get(&(service.clone(), revision));
        needs.map(|needs| Needs::clone(needs))
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

    /// All that an app has, for planners.
    pub(crate) fn contents<'a>(&'a self, app: &'a Name) -> Contents<'a> {
        Contents {
            services: self.services_in(app).map(|it| &*it.value).collect(),
            jobs: self.jobs_in(app).map(|it| &*it.value).collect(),
            pods: self.pods_in(app).map(|it| &*it.value).collect(),
        }
    }

    /// The revisions of the services of an app, those too that are of no service.
    pub(crate) fn revisions_in(&self, app: &Name) -> impl Iterator<Item = &(ServiceKey, u64)> {
        let all = self.revisions.range((ServiceKey::first_of(app), 0)..);
        all.map(|(revision, _)| revision)
            .take_while(move |(name, _)| name.app == *app)
    }

    /// The services and jobs that depend on this one.
    pub(crate) fn dependents_of(&self, on: &ServiceKey) -> impl Iterator<Item = &Key> {
        // Of all keys those of apps come first, and of those the one of the shortest name.
        let first = (on.clone(), Key::App(on.app.clone()));
        let all = self.dependents.range(first..);
        all.take_while(move |(of, _)| of == on).map(|(_, key)| key)
    }

    /// The services and jobs of an app that are being deleted.
    pub(crate) fn going_in(&self, app: &Name) -> impl Iterator<Item = &ServiceKey> {
        let all = self.going.range(ServiceKey::first_of(app)..);
        all.take_while(move |name| name.app == *app)
    }

    /// Notes whether a service or a job is being deleted now.
    fn go(&mut self, name: &ServiceKey, deleting: bool) {
        match deleting {
            true => self.going.insert(name.clone()),
            false => self.going.remove(name),
        };
    }

    /// Notes on what a service or a job depends now, and no more on what it did.
    fn depend(&mut self, key: Key, before: Option<&Names>, now: &Names) {
        let (Key::Service(own) | Key::Job(own)) = &key else {
            return;
        };
        let pair = |on: &Name| (ServiceKey::new(&own.app, on), key.clone());
        for on in before.into_iter().flat_map(BTreeMap::keys) {
            if !now.contains_key(on) {
                self.dependents.remove(&pair(on));
            }
        }
        let added = now.keys().map(pair);
        self.dependents.extend(added);
    }

    /// The secrets of an app.
    pub(crate) fn secrets_in(&self, app: &Name) -> impl Iterator<Item = Key> {
        let first = (app.clone(), ServiceKey::first_of(app).name, String::new());
        let own = self.secrets.range(first..);
        let own = own.take_while(move |(of, ..)| of == app);
        own.map(|(app, name, version)| Key::Secret(app.clone(), name.clone(), version.clone()))
    }

    /// Puts an object in the place of the one with this key; without one that one is gone.
    fn put(&mut self, key: Key, object: Option<Object>) {
        match (key, object) {
            (Key::App(name), Some(Object::App(app))) => drop(self.apps.insert(name, app)),
            (Key::App(name), _) => drop(self.apps.remove(&name)),
            (Key::Service(name), Some(Object::Service(service))) => {
                let now = Arc::clone(&service.value);
                self.go(&name, now.spec.deleting);
                let before = self.services.insert(name.clone(), service);
                self.depend(
                    Key::Service(name),
                    dependencies(&before),
                    &now.spec.depends_on,
                );
            }
            (Key::Service(name), _) => {
                let before = self.services.remove(&name);
                self.go(&name, false);
                self.depend(Key::Service(name), dependencies(&before), &Names::new());
            }
            (Key::Revision(name, number), Some(Object::Revision(needs))) => {
                self.revisions.insert((name, number), needs);
            }
            (Key::Revision(name, number), _) => drop(self.revisions.remove(&(name, number))),
            (Key::Pod(name), Some(Object::Pod(pod))) => drop(self.pods.insert(name, pod)),
            (Key::Pod(name), _) => drop(self.pods.remove(&name)),
            (Key::Job(name), Some(Object::Job(job))) => {
                let now = Arc::clone(&job.value);
                self.go(&name, now.deleting);
                let before = self.jobs.insert(name.clone(), job);
                self.depend(Key::Job(name), dependencies(&before), &now.spec.depends_on);
            }
            (Key::Job(name), _) => {
                let before = self.jobs.remove(&name);
                self.go(&name, false);
                self.depend(Key::Job(name), dependencies(&before), &Names::new());
            }
            (Key::Secret(app, name, version), Some(Object::Secret)) => {
                self.secrets.insert((app, name, version));
            }
            (Key::Secret(app, name, version), _) => {
                self.secrets.remove(&(app, name, version));
            }
        }
    }

    fn keys(&self) -> BTreeSet<Key> {
        let apps = self.apps.keys().cloned().map(Key::App);
        let services = self.services.keys().cloned().map(Key::Service);
        let revisions = self.revisions.keys().cloned();
        let revisions = revisions.map(|(name, number)| Key::Revision(name, number));
        let pods = self.pods.keys().cloned().map(Key::Pod);
        let jobs = self.jobs.keys().cloned().map(Key::Job);
        let secrets = self.secrets.iter().cloned();
        let secrets = secrets.map(|(app, name, version)| Key::Secret(app, name, version));
        apps.chain(services)
            .chain(revisions)
            .chain(pods)
            .chain(jobs)
            .chain(secrets)
            .collect()
    }
}

/// An object, decoded. Of a revision what its pods need is mirrored, of a secret only that it is there.
enum Object {
    App(Stored<App>),
    Service(Stored<Service>),
    Revision(Arc<Needs>),
    Pod(Stored<Pod>),
    Job(Stored<Job>),
    Secret,
}

impl Object {
    /// What cannot be read is as if it were not there: another version has written it, and it is
    /// left alone.
    fn decode(key: &Key, entry: &Entry) -> Option<Self> {
        let object = match key {
            Key::App(_) => stored(entry).map(Self::App),
            Key::Service(_) => stored(entry).map(Self::Service),
            Key::Revision(..) => needs(entry).map(Self::Revision),
            Key::Pod(_) => stored(entry).map(Self::Pod),
            Key::Job(_) => stored(entry).map(Self::Job),
            Key::Secret(..) => Ok(Self::Secret),
        };
        let unreadable = |error: &serde_json::Error| {
            tracing::error!(key = %entry.key, %error, "an object in the store cannot be read");
        };
        object.inspect_err(unreadable).ok()
    }
}

fn needs(entry: &Entry) -> serde_json::Result<Arc<Needs>> {
    let revision: record::Revision = serde_json::from_slice(&entry.value)?;
    Ok(Arc::new(revision.template.needs()))
}

fn stored<T: DeserializeOwned>(entry: &Entry) -> serde_json::Result<Stored<T>> {
    Ok(Stored {
        value: Arc::new(serde_json::from_slice(&entry.value)?),
        created: entry.created,
        modified: entry.modified,
    })
}

/// The changes of a transaction, decoded.
fn decode(batch: &Batch) -> BTreeMap<Key, Option<Object>> {
    let changes = batch.changes.iter().filter_map(|change| {
        let key = Key::parse(&change.key)?;
        let entry = change.entry.as_ref();
        let object = entry.and_then(|entry| Object::decode(&key, entry));
        Some((key, object))
    });
    changes.collect()
}

/// Keeps the mirror of a process up to date, until this is dropped or the store is closed.
pub(crate) struct Reflector {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    mirror: RwLock<Mirror>,
    /// The last transaction that the mirror has.
    seen: watch::Sender<Revision>,
    followers: Mutex<Followers>,
}

#[derive(Default)]
struct Followers {
    all: Vec<(&'static [Kind], Weak<Changes>)>,
    /// The store is closed: nothing changes any more.
    closed: bool,
}

/// What has changed since a follower looked last.
#[derive(Default)]
struct Changes {
    keys: Mutex<BTreeSet<Key>>,
    arrived: Notify,
}

/// Reads the mirror.
pub(crate) struct Reader(Arc<Shared>);

/// Reads the mirror, and hears of its changes.
pub(crate) struct Follower {
    shared: Arc<Shared>,
    kinds: &'static [Kind],
    changes: Arc<Changes>,
}

impl Reflector {
    /// Reads everything, and follows the store from then on, on these threads.
    pub(crate) async fn start(
        store: &Arc<dyn Store>,
        threads: &Handle,
    ) -> Result<Self, StoreError> {
        let (mirror, revision, watch) = read(store).await?;
        let shared = Arc::new(Shared {
            mirror: RwLock::new(mirror),
            seen: watch::Sender::new(revision),
            ..Shared::default()
        });
        let following = follow(Arc::clone(store), watch, Arc::clone(&shared));
        Ok(Self {
            store: Arc::clone(store),
            shared,
            task: threads.spawn(following).abort_handle(),
        })
    }

    /// Waits until the mirror has all that is in the store now, the store is closed, or a second has
    /// passed.
    pub(crate) async fn catch_up(&self) -> Result<(), StoreError> {
        self.shared.catch_up(&*self.store).await
    }

    /// Follows the objects of these kinds from now on.
    pub(crate) fn follow(&self, kinds: &'static [Kind]) -> Follower {
        let changes = Arc::default();
        let mut followers = self.shared.followers.lock();
        followers.all.retain(|(_, it)| it.strong_count() > 0);
        followers.all.push((kinds, Arc::downgrade(&changes)));
        drop(followers);
        Follower {
            shared: Arc::clone(&self.shared),
            kinds,
            changes,
        }
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reader {
    /// What is known now, as [`Follower::mirror`].
    pub(crate) fn mirror(&self) -> RwLockReadGuard<'_, Mirror> {
        self.0.mirror.read()
    }

    /// Waits as [`Reflector::catch_up`] does.
    pub(crate) async fn catch_up(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.0.catch_up(store).await
    }
}

impl Follower {
    /// Reads the same mirror.
    pub(crate) fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.shared))
    }

    /// What is known now. It changes only once this has been dropped, so it is not to be kept.
    pub(crate) fn mirror(&self) -> RwLockReadGuard<'_, Mirror> {
        self.shared.mirror.read()
    }

    /// The keys of all objects that it follows.
    pub(crate) fn keys(&self) -> BTreeSet<Key> {
        let mut keys = self.mirror().keys();
        keys.retain(|key| self.kinds.contains(&key.kind()));
        keys
    }

    /// Waits for changes, and says of which keys. `None` when the store has been closed.
    ///
    /// If it is dropped while it waits nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<BTreeSet<Key>> {
        loop {
            let closed = self.shared.followers.lock().closed;
            let keys = std::mem::take(&mut *self.changes.keys.lock());
            match keys.is_empty() {
                false => return Some(keys),
                true if closed => return None,
                true => self.changes.arrived.notified().await,
            }
        }
    }
}

impl Shared {
    async fn catch_up(&self, store: &dyn Store) -> Result<(), StoreError> {
        let now = store.revision().await?;
        let mut seen = self.seen.subscribe();
        // The sender is here as long as this is.
        let _ = timeout(CATCH_UP, seen.wait_for(|seen| *seen >= now)).await;
        Ok(())
    }

    /// Changes the mirror, and then tells of the keys that this returns. It has all up to this
    /// transaction then.
    ///
    /// Readers wait while it changes, so what is decoded or freed is so outside of this.
    fn change(&self, revision: Revision, change: impl FnOnce(&mut Mirror) -> BTreeSet<Key>) {
        let keys = change(&mut self.mirror.write());
        self.tell(&keys);
        self.seen.send_replace(revision);
    }

    fn tell(&self, keys: &BTreeSet<Key>) {
        for (kinds, changes) in &self.followers.lock().all {
            let own = keys.iter().filter(|key| kinds.contains(&key.kind()));
            let mut own = own.cloned().peekable();
            if let Some(changes) = changes.upgrade()
                && own.peek().is_some()
            {
                changes.keys.lock().extend(own);
                changes.arrived.notify_one();
            }
        }
    }

    fn close(&self) {
        self.seen.send_replace(Revision(u64::MAX));
        let mut followers = self.followers.lock();
        followers.closed = true;
        let there = followers.all.iter().filter_map(|(_, it)| it.upgrade());
        there.for_each(|changes| changes.arrived.notify_one());
    }
}

/// Takes what changes into the mirror, until the store is closed.
async fn follow(store: Arc<dyn Store>, mut watch: Watch, shared: Arc<Shared>) {
    loop {
        provoke::panic_in(provoke::Task::Mirror);
        match watch.next().await {
            Ok(batch) => {
                let changes = decode(&batch);
                shared.change(batch.revision, |mirror| {
                    let keys = changes.keys().cloned().collect();
                    for (key, object) in changes {
                        mirror.put(key, object);
                    }
                    keys
                });
            }
            Err(WatchError::Closed) => break,
            Err(WatchError::Compacted { .. }) => match read_again(&store).await {
                Some((mut other, revision, next)) => {
                    watch = next;
                    let anew = other.keys();
                    shared.change(revision, |mirror| {
                        std::mem::swap(mirror, &mut other);
                        anew
                    });
                    // What was there before is gone, or has changed.
                    shared.tell(&other.keys());
                }
                None => break,
            },
        }
    }
    shared.close();
}

async fn read_again(store: &Arc<dyn Store>) -> Option<(Mirror, Revision, Watch)> {
    loop {
        match read(store).await {
            Ok(read) => return Some(read),
            Err(StoreError::Closed) => return None,
            Err(error) => {
                tracing::warn!(%error, "the store cannot be read, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn read(store: &Arc<dyn Store>) -> Result<(Mirror, Revision, Watch), StoreError> {
    let listing = store.list("/").await?;
    let mut mirror = Mirror::default();
    for entry in &listing.entries {
        if let Some(key) = Key::parse(&entry.key) {
            let object = Object::decode(&key, entry);
            mirror.put(key, object);
        }
    }
    let watch = store.watch("/", listing.revision).await?;
    Ok((mirror, listing.revision, watch))
}

/// An object as it is stored.
pub(crate) fn text<T: serde::Serialize>(object: &T) -> Vec<u8> {
    serde_json::to_vec(object).expect("an object is plain data")
}

#[cfg(test)]
mod tests {
    use sampan_store::{Memory, Transaction};

    use super::*;

    fn pod(slot: u32) -> Pod {
        let service = ServiceKey::parse("shop/web").expect("a key");
        Pod::new(&service, 1, slot)
    }

    fn key(slot: u32) -> Key {
        Key::Pod(pod(slot).name())
    }

    async fn put(store: &Arc<dyn Store>, slots: &[u32]) {
        for slot in slots {
            let put = Transaction::new().put(key(*slot).to_string(), text(&pod(*slot)));
            let _ = store.commit(put).await.expect("memory does not fail");
        }
    }

    /// Hears of changes until a pod is as this says.
    async fn until(pods: &mut Follower, reached: impl Fn(&Mirror) -> bool) -> Vec<BTreeSet<Key>> {
        let mut heard = Vec::new();
        while !reached(&pods.mirror()) {
            heard.push(pods.next().await.expect("the store is open"));
        }
        heard
    }

    #[tokio::test]
    async fn each_follower_hears_of_its_kinds_and_of_a_key_once() {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        put(&store, &[0]).await;
        let threads = Handle::current();
        let reflector = Reflector::start(&store, &threads).await.expect("memory");
        let (mut pods, mut late) = (reflector.follow(&[Kind::Pod]), reflector.follow(&Kind::ALL));
        let mut jobs = reflector.follow(&[Kind::Job]);
        assert_eq!((pods.keys(), jobs.keys()), ([key(0)].into(), [].into()));
        put(&store, &[1, 1, 0, 1, 2]).await;
        let heard = until(&mut pods, |it| it.pods.contains_key(&pod(2).name())).await;
        let all: BTreeSet<_> = heard.into_iter().flatten().collect();
        assert_eq!(all, [key(0), key(1), key(2)].into());
        assert_eq!(late.next().await, Some(all), "all at once");
        assert_eq!(pods.mirror().pods[&pod(1).name()].modified, Revision(5));
        // It has heard of nothing, and would have by now.
        let silent = tokio::time::timeout(Duration::ZERO, jobs.next()).await;
        assert!(silent.is_err(), "{silent:?}");
    }

    #[tokio::test]
    async fn what_was_written_before_is_there_once_it_has_caught_up() {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let threads = Handle::current();
        let reflector = Reflector::start(&store, &threads).await.expect("memory");
        let pods = reflector.follow(&[Kind::Pod]);
        // On one thread the reflector has had no turn meanwhile.
        put(&store, &[0, 1]).await;
        assert_eq!(pods.keys(), [].into());
        reflector.catch_up().await.expect("memory does not fail");
        assert_eq!(pods.keys(), [key(0), key(1)].into());
    }

    #[tokio::test]
    async fn a_mirror_that_falls_behind_is_read_again() {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        put(&store, &[0, 1]).await;
        let threads = Handle::current();
        let reflector = Reflector::start(&store, &threads).await.expect("memory");
        let mut pods = reflector.follow(&[Kind::Pod]);
        put(&store, &[2]).await;
        let gone = Transaction::new().delete(key(0).to_string());
        let _ = store.commit(gone).await.expect("memory does not fail");
        let now = store.revision().await.expect("memory does not fail");
        store.compact(now).await.expect("memory does not fail");
        until(&mut pods, |it| it.pods.contains_key(&pod(2).name())).await;
        let left: Vec<_> = pods.mirror().pods.keys().cloned().collect();
        assert_eq!(left, [pod(1).name(), pod(2).name()]);
    }

    #[test]
    fn who_depends_on_what_follows_each_change() {
        let key = |name: &str| ServiceKey::parse(&format!("shop/{name}")).expect("a key");
        let name = |name: &str| Name::parse(name).expect("a name");
        let (api, web) = (key("api"), Key::Service(key("web")));
        let mut mirror = Mirror::default();
        let put = |mirror: &mut Mirror, on: &[&str]| {
            let now = on.iter().map(|on| (name(on), Condition::Ready)).collect();
            let before = mirror.dependents.iter().map(|(on, _)| on.name.clone());
            let before = before.map(|on| (on, Condition::Ready)).collect();
            mirror.depend(web.clone(), Some(&before), &now);
        };
        put(&mut mirror, &["api", "db"]);
        assert_eq!(mirror.dependents_of(&api).collect::<Vec<_>>(), [&web]);
        assert_eq!(mirror.dependents_of(&key("ap")).count(), 0);
        put(&mut mirror, &["db"]);
        assert_eq!(mirror.dependents_of(&api).count(), 0);
        assert_eq!(mirror.dependents_of(&key("db")).count(), 1);
        put(&mut mirror, &[]);
        assert!(mirror.dependents.is_empty());
    }
}
