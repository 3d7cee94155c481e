//! The tasks of a server, counted.

use tokio::sync::watch::{Receiver, Sender};

/// The tasks of a server that still run: its connections, and the HTTP/2 streams on them. Each has
/// a receiver, and no value is ever sent: a channel knows how many receivers it has.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    all: Sender<()>,
    connections: Sender<()>,
}

/// A task that runs, until this is dropped.
pub(super) type Task = Receiver<()>;

impl Tasks {
    /// Counts a task.
    pub(super) fn begin(&self) -> Task {
        self.all.subscribe()
    }

    /// Counts a connection, first as one and then as a task.
    pub(super) fn begin_connection(&self) -> [Task; 2] {
        [self.connections.subscribe(), self.all.subscribe()]
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.receiver_count()
    }

    /// Resolves when none runs.
    pub(super) async fn ended(&self) {
        self.all.closed().await;
    }
}
