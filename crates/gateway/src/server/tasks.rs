//! The tasks of a server, counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// The tasks of a server that still run: its connections, and the HTTP/2 streams on them.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    all: AtomicUsize,
    connections: AtomicUsize,
    ended: Notify,
}

impl Tasks {
    /// Counts a task until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Task {
        self.all.fetch_add(1, Ordering::AcqRel);
        Task {
            tasks: self.clone(),
            is_connection: false,
        }
    }

    /// Counts a connection.
    pub(super) fn begin_connection(self: &Arc<Self>) -> Task {
        self.connections.fetch_add(1, Ordering::AcqRel);
        let mut task = self.begin();
        task.is_connection = true;
        task
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Resolves when none runs.
    pub(super) async fn ended(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.all.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

#[derive(Debug)]
pub(super) struct Task {
    tasks: Arc<Tasks>,
    is_connection: bool,
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.is_connection {
            self.tasks.connections.fetch_sub(1, Ordering::AcqRel);
        }
        if self.tasks.all.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tasks.ended.notify_waiters();
        }
    }
}
