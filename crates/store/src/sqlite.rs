//! A store in a file: the state machine in memory, with SQLite as what makes it last.
//!
//! Reads and watches never touch the file. Transactions go to one thread ([`writer`]), which makes
//! all that wait at the moment durable together and only then shows and acknowledges them.

mod database;
mod open;
mod record;
mod witness;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use self::open::OpenError;
use self::writer::{Request, Waiting, Writer};
use crate::error::StoreError;
use crate::published::Published;
use crate::session::{self, BootInstant, Session, SessionSource};
use crate::state::State;
use crate::store::Store;
use crate::transaction::{MAX_TRANSACTION_BYTES, Outcome, Transaction};
use crate::turns::Turns;
use crate::value::{Entry, Listing, Revision, SessionId};
use crate::watch::Watch;

/// Requests that wait for the thread that writes. Who comes later waits before the queue.
const QUEUE_REQUESTS: usize = 256;

/// Bytes of transactions that wait for the thread that writes.
const QUEUE_BYTES: usize = 16 << 20;

// One that has no room in an empty queue would wait for ever.
const _: () = assert!(MAX_TRANSACTION_BYTES + REQUEST_BYTES <= QUEUE_BYTES);

/// What a transaction in the queue costs beside its bytes.
const REQUEST_BYTES: usize = 1 << 10;

/// A store that lives in a file, by one process at a time.
///
/// What has been acknowledged survives the end of the process and of the machine. Beside the file
/// `x` are `x-wal`, which is a part of it, and `x.lock`, which says who uses it and what has been
/// acknowledged.
///
/// A session lasts as long as the process, whatever its time: what it left is gone when the file is
/// opened again.
#[derive(Debug)]
pub struct Sqlite {
    published: Arc<Published>,
    /// `None` while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    room: Arc<Semaphore>,
    turns: Turns,
    writer: Option<JoinHandle<()>>,
}

impl Sqlite {
    /// Opens the store in the file `path`, or begins one if there is no such file.
    ///
    /// Everything is read and checked, which takes milliseconds and blocks. A file that is not
    /// found good is left as it is, to the byte.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let opened = open::open(path)?;
        let published = Arc::new(Published::new(opened.state));
        let (requests, queue) = mpsc::channel(QUEUE_REQUESTS);
        let writer = Writer::new(opened.database, opened.witness, published.clone());
        let thread = std::thread::Builder::new().name("sampan-store".to_owned());
        let writer = thread
            .spawn(move || writer.run(queue))
            .map_err(|source| OpenError::Access(path.to_owned(), source))?;
        Ok(Self {
            published,
            requests: Some(requests),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            turns: Turns::default(),
            writer: Some(writer),
        })
    }

    /// How many watches there are.
    pub fn watches(&self) -> usize {
        self.published.watches()
    }

    async fn send(&self, request: Request) -> Result<(), StoreError> {
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(request).await.map_err(|_| StoreError::Closed)
    }
}

impl Drop for Sqlite {
    /// Waits for the thread that writes: afterwards the file can be opened again.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes the store has panicked");
        }
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.published.read().get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        Ok(self.published.read().list(prefix))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        transaction.check()?;
        let bytes = u32::try_from(transaction.bytes() + REQUEST_BYTES).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(bytes).await;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            transaction,
            answer,
            _room: room.map_err(|_| StoreError::Closed)?,
        };
        self.send(Request::Commit(waiting)).await?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        Ok(self.published.watch(prefix, after))
    }

    async fn open_session(&self, _: Duration) -> Result<Session, StoreError> {
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        let id = self.published.change(State::open_session);
        let held = Held {
            published: Arc::downgrade(&self.published),
            requests: requests.downgrade(),
            id,
        };
        Ok(Session::new(id, held))
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Compact { through, answer }).await?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.published.read().revision())
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }
}

/// A session that is held. It keeps no store open.
struct Held {
    published: Weak<Published>,
    requests: mpsc::WeakSender<Request>,
    id: SessionId,
}

#[async_trait]
impl SessionSource for Held {
    fn valid_until(&self) -> BootInstant {
        BootInstant::NEVER
    }

    async fn lost(&self) {
        let revisions = self.published.upgrade().map(|it| it.revisions());
        session::closed(revisions).await;
    }

    async fn end(self: Box<Self>) -> Result<(), StoreError> {
        let session = self.id;
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.upgrade().ok_or(StoreError::Closed)?;
        let sent = requests.send(Request::End { session, answer }).await;
        drop(requests);
        sent.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}
