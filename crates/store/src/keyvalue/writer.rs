//! The thread of a database: group commit.
//!
//! What has come together is one group. What only reads is done first, and answered at once: all of
//! a group was asked before any of it was acknowledged, so this order is one in which it may have
//! happened. Then all changes are one transaction, each in a savepoint of its own, so that one that
//! is refused takes back nothing of another.

use std::fmt;

use rusqlite::Connection;
use sampan_core::provoke;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    error::{KeyValueError, failure},
    tables::Tables,
};

/// Requests that are done together.
const GROUP_REQUESTS: usize = 256;

type Done = Result<(), KeyValueError>;
/// Sends the answer of a request, once it is known whether its group is durable.
pub(super) type Reply = Box<dyn FnOnce(Done) + Send>;
/// Does what is asked for, if it can be. Says whether that went well, too.
pub(super) type Work = Box<dyn FnOnce(Result<&Tables<'_>, KeyValueError>) -> (Done, Reply) + Send>;

/// What the thread is asked to do.
pub(super) struct Request {
    pub(super) changes: bool,
    pub(super) work: Work,
    /// Its bytes in the queue.
    pub(super) _room: OwnedSemaphorePermit,
}

/// All that the thread owns.
pub(super) struct Writer {
    pub(super) connection: Connection,
    /// The file, as it is named in errors.
    pub(super) place: String,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Works until all senders of requests are gone.
    pub(super) fn run(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.blocking_recv() {
            provoke::panic_in(provoke::Task::Store);
            let mut group = vec![request];
            while group.len() < GROUP_REQUESTS
                && let Ok(request) = requests.try_recv()
            {
                group.push(request);
            }
            self.work(group);
        }
    }

    fn work(&self, group: Vec<Request>) {
        let (changes, reads): (Vec<_>, Vec<_>) = group.into_iter().partition(|it| it.changes);
        let tables = Tables::new(&self.connection, &self.place);
        for read in reads {
            let (_, reply) = (read.work)(Ok(&tables));
            reply(Ok(()));
        }
        if changes.is_empty() {
            return;
        }
        let mut group = self.execute("BEGIN IMMEDIATE");
        let mut replies = Vec::with_capacity(changes.len());
        for change in changes {
            group = group.and_then(|()| self.execute("SAVEPOINT one"));
            let (done, reply) = (change.work)(group.clone().map(|()| &tables));
            replies.push(reply);
            group = group.and_then(|()| self.keep(done));
        }
        let group = group.and_then(|()| self.execute("COMMIT"));
        if group.is_err() && !self.connection.is_autocommit() {
            // Where even this fails, the next group cannot begin, and says so.
            let _ = self.execute("ROLLBACK");
        }
        for reply in replies {
            reply(group.clone());
        }
    }

    /// Ends the savepoint of a change, and takes it back if it was not done.
    fn keep(&self, done: Done) -> Done {
        match done {
            Ok(()) => self.execute("RELEASE one"),
            // After some errors SQLite has taken everything back: the group has failed by them.
            Err(error) if self.connection.is_autocommit() => Err(error),
            Err(_) => self
                .execute("ROLLBACK TO one")
                .and_then(|()| self.execute("RELEASE one")),
        }
    }

    fn execute(&self, text: &str) -> Done {
        let done = self.connection.prepare_cached(text);
        let done = done.and_then(|mut statement| statement.execute([]));
        done.map(drop).map_err(|error| failure(&self.place, &error))
    }
}
