//! The stores of one app, as callers have them.

use std::{path::Path, sync::Arc, thread::JoinHandle};

use sampan_core::{name::Name, spec::node::KeyValueLimits};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    error::{KeyValueError, failed},
    tables::{BATCH_KEYS, FORM, Found, KeyPage, StoreSummary, Tables},
    writer::{Reply, Request, Writer},
};
use crate::own_file;

/// Requests that wait for the thread of a database. Who comes later waits before the queue.
const QUEUE_REQUESTS: usize = 256;
/// Bytes of requests that wait for it.
const QUEUE_BYTES: usize = 16 << 20;
/// What a request in the queue costs beside its bytes.
const REQUEST_BYTES: usize = 1 << 10;

/// The stores of one app. Dropping the last handle closes the database, which waits for the disk.
#[derive(Debug)]
pub struct AppStores {
    limits: Arc<KeyValueLimits>,
    /// `None` while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    room: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
}

type Told<T> = Result<T, KeyValueError>;

impl AppStores {
    /// Opens the database in the file, or begins one.
    pub(super) fn open(path: &Path, limits: KeyValueLimits) -> Told<Self> {
        let connection = own_file::connect(path, &FORM).map_err(|fault| match fault {
            own_file::Fault::Unusable(reason) => {
                let what = format!("it is damaged or something else: {reason}");
                failed(path, &what)
            }
            own_file::Fault::Busy(holder) => KeyValueError::Held {
                place: path.display().to_string(),
                holder,
            },
            own_file::Fault::Failed(reason) => failed(path, &reason),
        })?;
        // That there is such a file lasts, too.
        let folder = path.parent().unwrap_or(Path::new("/"));
        let synced = std::fs::File::open(folder).and_then(|it| it.sync_all());
        synced.map_err(|error| failed(path, &error))?;
        let (requests, queue) = mpsc::channel(QUEUE_REQUESTS);
        let writer = Writer {
            connection,
            place: path.display().to_string(),
        };
        let thread = std::thread::Builder::new().name("sampan-keyvalue".to_owned());
        let writer = thread
            .spawn(move || writer.run(queue))
            .map_err(|error| failed(path, &error))?;
        Ok(Self {
            limits: Arc::new(limits),
            requests: Some(requests),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            writer: Some(writer),
        })
    }

    /// The values of these keys, in the same order.
    pub async fn get(&self, store: &Name, keys: Vec<String>) -> Told<Vec<Option<Found>>> {
        self.check_keys(&keys)?;
        let store = store.clone();
        self.read(move |tables| tables.get(&store, &keys)).await
    }

    /// Which change has written the value of a key; 0 if the key is not there.
    pub async fn version(&self, store: &Name, key: String) -> Told<u64> {
        self.check_key(&key)?;
        let store = store.clone();
        self.read(move |tables| tables.version(&store, &key)).await
    }

    /// Keys in the order in which they were first written, from the first one or from where an
    /// earlier page has ended. One that is there all the time is on one page, whatever is written
    /// meanwhile.
    pub async fn keys(&self, store: &Name, after: Option<u64>) -> Told<KeyPage<u64>> {
        let (store, after) = (store.clone(), after.unwrap_or(0));
        self.read(move |tables| tables.in_order(&store, after))
            .await
    }

    /// Keys in their own order, likewise.
    pub async fn sorted_keys(&self, store: &Name, after: Option<String>) -> Told<KeyPage<String>> {
        let store = store.clone();
        self.read(move |tables| tables.sorted(&store, after.as_deref()))
            .await
    }

    /// The stores that have been written to, by name.
    pub async fn stores(&self) -> Told<Vec<StoreSummary>> {
        self.read(|tables| tables.stores()).await
    }

    /// Sets keys to values, and deletes those without one: all, or none.
    pub async fn write(&self, store: &Name, writes: Vec<(String, Option<Vec<u8>>)>) -> Told<()> {
        let mut bytes = 0;
        self.check_count(writes.len())?;
        for (key, value) in &writes {
            self.check_key(key)?;
            bytes += key.len();
            if let Some(value) = value {
                self.check_value(value)?;
                bytes += value.len();
            }
        }
        let (store, limits) = (store.clone(), Arc::clone(&self.limits));
        self.change(bytes, move |tables| tables.write(&limits, &store, &writes))
            .await
    }

    /// Adds to the number at a key, a text of decimal digits; to 0 if there is none. Returns the
    /// sum.
    pub async fn add(&self, store: &Name, key: String, delta: i64) -> Told<i64> {
        self.check_key(&key)?;
        let (store, limits) = (store.clone(), Arc::clone(&self.limits));
        self.change(key.len(), move |tables| {
            tables.add(&limits, &store, &key, delta)
        })
        .await
    }

    /// Sets a key if its value is still that of this version, or if it is still not there where
    /// that is 0. Says whether it was so.
    pub async fn swap(
        &self,
        store: &Name,
        key: String,
        version: u64,
        value: Vec<u8>,
    ) -> Told<bool> {
        self.check_key(&key)?;
        self.check_value(&value)?;
        let (store, limits) = (store.clone(), Arc::clone(&self.limits));
        self.change(key.len() + value.len(), move |tables| {
            tables.swap(&limits, &store, &key, (version, &value))
        })
        .await
    }

    fn check_key(&self, key: &str) -> Told<()> {
        let (bytes, most) = (key.len(), self.limits.key_bytes);
        match bytes <= most {
            true => Ok(()),
            false => Err(KeyValueError::KeyTooLong { bytes, most }),
        }
    }

    fn check_value(&self, value: &[u8]) -> Told<()> {
        let (bytes, most) = (value.len(), self.limits.value_bytes);
        match bytes <= most {
            true => Ok(()),
            false => Err(KeyValueError::ValueTooLarge { bytes, most }),
        }
    }

    fn check_count(&self, keys: usize) -> Told<()> {
        match keys <= BATCH_KEYS {
            true => Ok(()),
            false => Err(KeyValueError::TooManyAtOnce {
                keys,
                most: BATCH_KEYS,
            }),
        }
    }

    fn check_keys(&self, keys: &[String]) -> Told<()> {
        self.check_count(keys.len())?;
        keys.iter().try_for_each(|key| self.check_key(key))
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables<'_>) -> Told<T> + Send + 'static,
    ) -> Told<T> {
        self.ask(false, 0, work).await
    }

    async fn change<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Tables<'_>) -> Told<T> + Send + 'static,
    ) -> Told<T> {
        self.ask(true, bytes, work).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        changes: bool,
        bytes: usize,
        work: impl FnOnce(&Tables<'_>) -> Told<T> + Send + 'static,
    ) -> Told<T> {
        // One that has no room in an empty queue would wait for ever.
        let bytes = (bytes + REQUEST_BYTES).min(QUEUE_BYTES);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let (answer, answered) = oneshot::channel();
        let work = move |tables: Told<&Tables<'_>>| {
            let done = tables.and_then(work);
            let well = done.as_ref().map(|_| ()).map_err(KeyValueError::clone);
            let reply: Reply = Box::new(move |group| {
                // The caller may have dropped its future.
                let _ = answer.send(done.and_then(|it| group.map(|()| it)));
            });
            (well, reply)
        };
        let request = Request {
            changes,
            work: Box::new(work),
            _room: room.map_err(|_| KeyValueError::Closed)?,
        };
        let requests = self.requests.as_ref().ok_or(KeyValueError::Closed)?;
        let sent = requests.send(request).await;
        sent.map_err(|_| KeyValueError::Closed)?;
        answered.await.map_err(|_| KeyValueError::Closed)?
    }
}

impl Drop for AppStores {
    /// Waits for the thread: afterwards the file can be opened again.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread of a key-value store has panicked");
        }
    }
}
