//! Watches: one stream each, which is opened again at another member where it breaks.
//!
//! A task reads the stream and hands over whole transactions, one at a time: a watch that is not
//! read holds one transaction, what the window of its stream lets through, and no more. States:
//! *opening* a stream, *reading* it, *handing over*, *ended*. Only the task writes `after`, the last
//! revision that it has handed over, and it does so before it reads on; so wherever the stream
//! breaks, the next one begins with what has not been handed over.
//!
//! It begins *at* `after` and drops what it has seen. etcd before 3.4.36 and 3.5.18 loses the
//! deletion at `after + 1` without a word if the history through `after + 1` was compacted; asked for
//! one revision earlier it says so.
//!
//! Answers come in fragments, so that a thousand transactions need not fit into one message. What
//! belongs to the last revision of a fragment waits for the next one: only a revision that is over
//! is handed over.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    Space,
    client::{ANSWER, Client, WATCH, late},
    message::{Answer as _, Event, EventType, WatchCreateRequest, WatchRequest, WatchResponse},
};
use crate::value::{Batch, Change, Revision};
use crate::watch::{WatchError, WatchSource};

/// The pause before a stream is opened again that has broken at once.
const PAUSE: Duration = Duration::from_millis(100);

/// What the caller of a watch holds.
pub(super) struct Following {
    batches: mpsc::Receiver<Result<Batch, WatchError>>,
    ended: Option<WatchError>,
}

#[async_trait]
impl WatchSource for Following {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        if let Some(ended) = self.ended {
            return Err(ended);
        }
        let next = self.batches.recv().await;
        next.unwrap_or(Err(WatchError::Closed))
            .inspect_err(|ended| self.ended = Some(*ended))
    }
}

/// Why a stream is over.
enum Over {
    /// It can go on at another member.
    Broken,
    /// What comes next is forgotten, through this revision.
    Compacted(i64),
    /// The store is closed, or the watch was dropped.
    Closed,
}

/// What the task has.
struct Task {
    client: Arc<Client>,
    space: Arc<Space>,
    key: Vec<u8>,
    range_end: Vec<u8>,
    /// All up to here has been handed over, or need not be.
    after: i64,
    batches: mpsc::Sender<Result<Batch, WatchError>>,
    closed: watch::Receiver<bool>,
    eras: watch::Receiver<u64>,
}

/// Follows what is below `prefix`, as [`Store::watch`](crate::Store::watch) says.
pub(super) fn follow(
    client: &Arc<Client>,
    space: &Arc<Space>,
    prefix: &str,
    after: Revision,
) -> Following {
    let (batches, next) = mpsc::channel(1);
    let (key, range_end) = space.below(prefix);
    let task = Task {
        eras: client.seen.eras(),
        closed: client.closed(),
        client: Arc::clone(client),
        space: Arc::clone(space),
        key,
        range_end,
        after: i64::try_from(after.0).unwrap_or(i64::MAX),
        batches,
    };
    client.threads.spawn(task.run());
    Following {
        batches: next,
        ended: None,
    }
}

impl Task {
    async fn run(mut self) {
        if self.client.seen.is_over(self.after) {
            return self.end(self.client.seen.revision()).await;
        }
        loop {
            let begun = tokio::time::Instant::now();
            let (batches, mut closed) = (self.batches.clone(), self.closed.clone());
            let over = tokio::select! {
                over = self.stream() => over,
                () = batches.closed() => Over::Closed,
                _ = closed.wait_for(|closed| *closed) => Over::Closed,
            };
            match over {
                Over::Closed => return,
                Over::Compacted(oldest) => return self.end(oldest).await,
                Over::Broken if begun.elapsed() < PAUSE => sleep(PAUSE).await,
                Over::Broken => {}
            }
        }
    }

    async fn end(&self, oldest: i64) {
        let oldest = Revision(oldest.cast_unsigned());
        let ended = WatchError::Compacted { oldest };
        // The watch may have been dropped.
        let _ = self.batches.send(Err(ended)).await;
    }

    /// One stream from beginning to end.
    async fn stream(&mut self) -> Over {
        let Ok(connection) = self.client.connection().await else {
            return self.era().unwrap_or(Over::Broken);
        };
        let mut left = connection.over();
        // To be held: its end is the end of the stream.
        let (requests, sent) = mpsc::channel(1);
        let create = WatchCreateRequest {
            key: self.key.clone(),
            range_end: self.range_end.clone(),
            // 0 would be now.
            start_revision: self.after.max(1),
            fragment: true,
        };
        let create = Some(create);
        let _ = requests.try_send(WatchRequest { create });
        let opening = async {
            let mut answers = connection.stream(WATCH, ReceiverStream::new(sent)).await?;
            match timeout(ANSWER, answers.message()).await {
                Ok(first) => Ok((first?, answers)),
                Err(_) => Err(late(ANSWER)),
            }
        };
        let mut eras = self.eras.clone();
        let opened = tokio::select! {
            opened = opening => opened,
            _ = left.wait_for(|left| *left) => return Over::Broken,
            _ = eras.changed() => return self.era().unwrap_or(Over::Broken),
        };
        let (first, answers) = match opened {
            Ok(opened) => opened,
            Err(status) => {
                self.client.leave(&connection, &status);
                return Over::Broken;
            }
        };
        let reading = async {
            let status = match self.read(first, answers).await {
                Ok(over) => return over,
                Err(status) => status,
            };
            self.client.leave(&connection, &status);
            Over::Broken
        };
        let over = tokio::select! {
            over = reading => over,
            _ = left.wait_for(|left| *left) => Over::Broken,
            _ = eras.changed() => Over::Broken,
        };
        drop(requests);
        match self.era() {
            Some(ended) => ended,
            None => over,
        }
    }

    /// That the history is another one than when the watch began.
    fn era(&self) -> Option<Over> {
        let ended = self.eras.has_changed().unwrap_or(false);
        ended.then(|| Over::Compacted(self.client.seen.revision()))
    }

    /// Reads a stream that has been opened, until it breaks.
    async fn read(
        &mut self,
        first: Option<WatchResponse>,
        mut answers: Streaming<WatchResponse>,
    ) -> Result<Over, Status> {
        let mut pending: Option<Batch> = None;
        let mut next = first;
        while let Some(answer) = next {
            self.client.seen.any(answer.header());
            if answer.canceled {
                return self.canceled(&answer);
            }
            for event in answer.events {
                let Some((revision, change)) = self.change(event) else {
                    continue;
                };
                match &mut pending {
                    Some(batch) if batch.revision == revision => batch.changes.push(change),
                    _ => {
                        let changes = vec![change];
                        let last = pending.replace(Batch { revision, changes });
                        self.hand_over(last).await;
                    }
                }
            }
            if !answer.fragment {
                self.hand_over(pending.take()).await;
            }
            next = answers.message().await?;
        }
        Ok(Over::Broken)
    }

    fn canceled(&self, answer: &WatchResponse) -> Result<Over, Status> {
        if answer.compact_revision > 0 {
            return Ok(Over::Compacted(answer.compact_revision));
        }
        tracing::warn!(reason = answer.cancel_reason, "etcd ends a watch");
        Err(Status::aborted(answer.cancel_reason.clone()))
    }

    /// A change that has not been handed over yet.
    fn change(&self, event: Event) -> Option<(Revision, Change)> {
        let kv = event.kv?;
        if kv.mod_revision <= self.after {
            return None;
        }
        let revision = Revision(kv.mod_revision.cast_unsigned());
        let entry = match event.kind == EventType::Delete as i32 {
            true => (self.space.key(&kv.key)?, None),
            false => {
                let entry = self.space.entry(kv)?;
                (entry.key.clone(), Some(entry))
            }
        };
        let (key, entry) = entry;
        Some((revision, Change { key, entry }))
    }

    async fn hand_over(&mut self, batch: Option<Batch>) {
        let Some(batch) = batch else {
            return;
        };
        let revision = batch.revision.0.cast_signed();
        // That the watch was dropped ends the task, which is waited for beside this.
        if self.batches.send(Ok(batch)).await.is_ok() {
            self.after = revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watch_that_has_ended_says_the_same_again() {
        let (batches, next) = mpsc::channel(1);
        let mut following = Following {
            batches: next,
            ended: None,
        };
        let oldest = Revision(3);
        let ended = WatchError::Compacted { oldest };
        let _ = batches.try_send(Err(ended));
        drop(batches);
        for _ in 0..2 {
            assert_eq!(following.next().await, Err(ended));
        }
    }
}
