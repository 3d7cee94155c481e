//! The task that writes what guests print to the log.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use sampan_core::provoke;
use sampan_runtime::off_thread;
use sampan_store::{LineLog, LineLogError, LogBegin, LoggedLine};
use tokio::sync::Notify;

use super::{LineHistory, Sources, millis, note};

/// Lines that are written at once, of those that the ring has.
const BATCH_LINES: usize = 20_000;
/// The pause between two writes, in which lines come together. A process that is killed loses
/// those of a pause and a write.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait before a log that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How far the keeper is.
pub(super) struct Progress {
    /// The position in the ring of the next line to be kept.
    pub(super) position: u64,
    /// Lines that are lost, up to that.
    pub(super) lost: u64,
    /// Why the last write failed.
    pub(super) failing: Option<String>,
}

impl LineHistory {
    /// Keeps lines as they come, until it is told to finish and there are no more. From then on
    /// nothing is tried again.
    ///
    /// While the log cannot be written to, the ring goes on: what leaves it is lost, and counted, and
    /// the next line that is kept says so.
    pub(crate) async fn keep(self: Arc<Self>, finish: Arc<Notify>) {
        provoke::panic_in(provoke::Task::LineKeeper);
        let Some(log) = self.log.clone() else {
            return finish.notified().await;
        };
        let mut is_last = false;
        let mut progress = Progress {
            position: 0,
            lost: 0,
            failing: None,
        };
        while !is_last {
            tokio::select! {
                biased;
                () = finish.notified() => is_last = true,
                _ = self.ring.follow(progress.position, 1) => {}
            }
            let pause = match self.write(&log, &mut progress).await {
                Ok(()) => PAUSE,
                Err(error) if is_last => {
                    tracing::warn!(%error, "the last lines are not kept");
                    return;
                }
                Err(error) => {
                    if progress.failing.is_none() {
                        tracing::warn!(%error, "cannot keep lines, trying again");
                    }
                    progress.failing = Some(error.reason);
                    RETRY
                }
            };
            if !is_last {
                tokio::select! {
                    () = finish.notified() => is_last = true,
                    () = tokio::time::sleep(pause) => {}
                }
                // What has come meanwhile is the last.
                if is_last && let Err(error) = self.write(&log, &mut progress).await {
                    tracing::warn!(%error, "the last lines are not kept");
                }
            }
        }
    }

    /// Writes what there is, and forgets what is too old or too much.
    pub(super) async fn write(
        &self,
        log: &Arc<LineLog>,
        progress: &mut Progress,
    ) -> Result<(), LineLogError> {
        loop {
            let batch = self.ring.read(progress.position, BATCH_LINES);
            let (missed, next) = (batch.missed, batch.next);
            let lost = progress.lost + missed;
            self.lost.store(lost, Ordering::Relaxed);
            let mut lines = Vec::new();
            if missed > 0 {
                let text = gap(missed, progress.failing.as_deref());
                lines.push(note(self.number(progress.position), text));
            }
            let count = batch.lines.len();
            lines.extend(self.of_ring(batch));
            append(log, lines, self.begins(progress.position)).await?;
            if progress.failing.take().is_some() {
                tracing::info!(lost = missed, "lines are kept again");
            }
            (progress.position, progress.lost) = (next, lost);
            self.kept.send_replace(self.begin + next);
            if count < BATCH_LINES {
                return Ok(());
            }
        }
    }

    /// Where pods begin, from a position of the ring on.
    fn begins(&self, position: u64) -> Vec<LogBegin> {
        let mut sources = Sources::default();
        let begins = self.ring.begins(position).into_iter();
        begins
            .map(|(at, pod)| (self.number(at), sources.of(&pod)))
            .collect()
    }
}

/// What is said in the place of lines that are lost.
fn gap(missed: u64, failing: Option<&str>) -> String {
    match failing {
        Some(reason) => {
            format!(
                "{missed} lines of all pods were lost here, because they could not be kept: {reason}"
            )
        }
        None => format!("{missed} lines of all pods were lost here: the disk is too slow for them"),
    }
}

async fn append(
    log: &Arc<LineLog>,
    lines: Vec<LoggedLine>,
    begins: Vec<LogBegin>,
) -> Result<(), LineLogError> {
    let log = Arc::clone(log);
    off_thread(move || {
        log.append(&lines, &begins)?;
        // What is too much is forgotten next time, if it cannot be now.
        if let Err(error) = log.trim(millis(SystemTime::now())) {
            tracing::warn!(%error, "old lines cannot be removed");
        }
        Ok(())
    })
    .await
}
