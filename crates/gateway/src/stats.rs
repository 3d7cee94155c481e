//! What the gateway counts per service: requests, outcomes and latencies, in atomics only.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use parking_lot::Mutex;
use sampan_core::histogram::Buckets;
use serde::Serialize;

use crate::{
    busy::Busy,
    histogram::{Histogram, LATENCY_BOUNDS, Latencies},
};

/// What a service has done since it was first published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServiceStats {
    /// Requests that reached the service, from outside and from other services.
    pub requests: u64,
    /// Answers of status 5xx, and answers that failed after their head.
    pub errors: u64,
    /// Answers by the class of their status: `[0]` is 1xx, `[4]` is 5xx.
    pub classes: [u64; 5],
    /// Requests whose client went away before the answer was complete.
    pub canceled: u64,
    /// Requests the server cut off when it stopped.
    pub dropped: u64,
    /// Second tries on another pod.
    pub retries: u64,
    /// Second tries that were not made because there were too many.
    pub retries_denied: u64,
    /// Times a pod that kept failing got no requests for a while.
    pub ejections: u64,
    /// Requests being worked on or waiting.
    pub in_flight: u64,
    /// Requests waiting for a pod.
    pub queued: u32,
    /// Median latency: from the arrival at the gateway to the last byte of the answer, of all
    /// requests that were not canceled or dropped. Within 2 % of the truth.
    pub p50: Duration,
    /// 99th percentile of the latency.
    pub p99: Duration,
    /// The longest latency.
    pub max: Duration,
}

/// What the pods of one revision have answered, and how long that took.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RevisionStats {
    /// The revision; `None` for requests that no pod got.
    pub revision: Option<u64>,
    /// Answers by the class of their status: `[0]` is 1xx, `[4]` is 5xx.
    pub classes: [u64; 5],
    /// Answers that failed after their head.
    pub broken: u64,
    /// Requests whose client went away before the answer was complete.
    pub canceled: u64,
    /// Requests the server cut off when it stopped.
    pub dropped: u64,
    /// Answers that took at most as long as each of [`LATENCY_BOUNDS`], and last all of them.
    pub latency: Buckets,
}

/// How an answered request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With the last byte of its answer.
    Complete,
    /// The answer failed after its head.
    Broken,
    /// The client went away.
    Canceled,
    /// The server cut it off.
    Dropped,
}

/// What is counted of a service as a whole.
///
/// What each request writes comes first: see [`Service`](crate::snapshot::Service).
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Counters {
    /// From the arrival to the end of the answer.
    pub(crate) busy: Busy,
    retries: AtomicU64,
    retries_denied: AtomicU64,
    ejections: AtomicU64,
    /// Requests that no pod got.
    pub(crate) unplaced: Arc<Answers>,
    /// By revision.
    revisions: Mutex<BTreeMap<u64, Arc<Answers>>>,
}

/// What is counted of each answer.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    classes: [AtomicU64; 5],
    /// By [`End`], in its order.
    ends: [AtomicU64; 4],
    latency: Histogram,
}

/// Revisions that are told apart. The counts of the oldest go to those of requests that no pod
/// got, so that no sum goes back.
const MAX_REVISIONS: usize = 16;

impl Answers {
    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        if let Some(count) = class
            .checked_sub(1)
            .and_then(|index| self.classes.get(index))
        {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn ended(&self, end: End, latency: Duration) {
        self.ends[end as usize].fetch_add(1, Relaxed);
        if matches!(end, End::Complete | End::Broken) {
            self.latency.record(latency);
        }
    }

    fn ends(&self) -> [u64; 4] {
        self.ends.each_ref().map(|count| count.load(Relaxed))
    }

    fn classes(&self) -> [u64; 5] {
        self.classes.each_ref().map(|count| count.load(Relaxed))
    }

    fn stats(&self, revision: Option<u64>) -> RevisionStats {
        let [_, broken, canceled, dropped] = self.ends();
        RevisionStats {
            revision,
            classes: self.classes(),
            broken,
            canceled,
            dropped,
            latency: self.latency.distribution().buckets(&LATENCY_BOUNDS),
        }
    }

    /// Adds all that another has counted, which counts no more.
    fn absorb(&self, other: &Self) {
        let classes = self.classes.iter().zip(&other.classes);
        for (own, its) in classes.chain(self.ends.iter().zip(&other.ends)) {
            own.fetch_add(its.load(Relaxed), Relaxed);
        }
        self.latency.absorb(&other.latency);
    }
}

impl Counters {
    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn retry_denied(&self) {
        self.retries_denied.fetch_add(1, Relaxed);
    }

    pub(crate) fn ejected(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.busy.begun()
    }

    /// Requests whose answers have ended.
    pub(crate) fn ended(&self) -> u64 {
        let revisions = self.revisions.lock();
        let all = [&self.unplaced].into_iter().chain(revisions.values());
        all.flat_map(|it| it.ends()).sum()
    }

    /// Where answers of this revision are counted.
    pub(crate) fn of_revision(&self, revision: u64) -> Arc<Answers> {
        let mut revisions = self.revisions.lock();
        if let Some(answers) = revisions.get(&revision) {
            return Arc::clone(answers);
        }
        while revisions.len() >= MAX_REVISIONS {
            // Only counts that no endpoint adds to any more can be moved.
            let mut idle = revisions
                .iter()
                .filter(|(_, it)| Arc::strong_count(it) == 1);
            let Some(oldest) = idle.next().map(|(revision, _)| *revision) else {
                break;
            };
            if let Some(answers) = revisions.remove(&oldest) {
                self.unplaced.absorb(&answers);
            }
        }
        Arc::clone(revisions.entry(revision).or_default())
    }

    /// By revision, and first what no pod got.
    pub(crate) fn by_revision(&self) -> Vec<RevisionStats> {
        let unplaced = self.unplaced.stats(None);
        let revisions = self.revisions.lock();
        let own = revisions
            .iter()
            .map(|(revision, it)| it.stats(Some(*revision)));
        [unplaced].into_iter().chain(own).collect()
    }

    /// How long all answers took.
    pub(crate) fn latencies(&self) -> Latencies {
        let revisions = self.revisions.lock();
        let all = [&self.unplaced].into_iter().chain(revisions.values());
        together(all)
    }

    pub(crate) fn snapshot(&self, queued: u32) -> ServiceStats {
        let revisions = self.revisions.lock();
        let all: Vec<_> = [&self.unplaced]
            .into_iter()
            .chain(revisions.values())
            .collect();
        // Ends first: read the other way round, more could have ended than had started.
        let ends = all.iter().map(|it| it.ends());
        let [complete, broken, canceled, dropped] = sum(ends);
        let classes = sum(all.iter().map(|it| it.classes()));
        let requests = self.busy.begun();
        let latencies = together(all.iter().copied());
        let [p50, p99] = [0.5, 0.99].map(|part| latencies.quantile(part).unwrap_or_default());
        ServiceStats {
            requests,
            errors: classes[4] + broken,
            classes,
            canceled,
            dropped,
            retries: self.retries.load(Relaxed),
            retries_denied: self.retries_denied.load(Relaxed),
            ejections: self.ejections.load(Relaxed),
            in_flight: requests.saturating_sub(complete + broken + canceled + dropped),
            queued,
            p50,
            p99,
            max: latencies.max(),
        }
    }
}

fn together<'a>(all: impl Iterator<Item = &'a Arc<Answers>>) -> Latencies {
    all.fold(Latencies::default(), |mut sum, one| {
        sum.add(&one.latency.distribution());
        sum
    })
}

fn sum<const N: usize>(all: impl Iterator<Item = [u64; N]>) -> [u64; N] {
    all.fold([0; N], |sum, one| std::array::from_fn(|n| sum[n] + one[n]))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn what_started_has_ended_or_is_in_flight() {
        let (counters, now) = (Counters::default(), Instant::now());
        let ends = [End::Complete, End::Broken, End::Canceled, End::Dropped];
        for (revision, end) in (1..).zip(ends) {
            counters.busy.begin(now);
            let answers = counters.of_revision(revision % 2);
            answers.answered(StatusCode::OK);
            answers.ended(end, Duration::from_millis(3));
        }
        counters.busy.begin(now);
        counters.unplaced.answered(StatusCode::BAD_GATEWAY);
        let stats = counters.snapshot(2);
        assert_eq!((stats.requests, stats.in_flight, stats.queued), (5, 1, 2));
        assert_eq!((stats.classes, stats.errors), ([0, 4, 0, 0, 1], 2));
        assert_eq!((stats.canceled, stats.dropped), (1, 1));
        assert_eq!(stats.max, Duration::from_millis(3));
        let by = counters.by_revision();
        let of = |n: usize| {
            (
                by[n].revision,
                by[n].classes[1],
                by[n].broken,
                by[n].dropped,
            )
        };
        assert_eq!(
            (of(0), of(1), of(2)),
            ((None, 0, 0, 0), (Some(0), 2, 1, 1), (Some(1), 2, 0, 0))
        );
    }

    #[test]
    fn only_so_many_revisions_are_told_apart_and_no_count_is_lost() {
        let counters = Counters::default();
        for revision in 1..=100 {
            let answers = counters.of_revision(revision);
            answers.answered(StatusCode::OK);
            answers.ended(End::Complete, Duration::from_millis(revision));
        }
        let by = counters.by_revision();
        assert_eq!(by.len(), MAX_REVISIONS + 1);
        let answered: u64 = by.iter().map(|it| it.classes[1]).sum();
        assert_eq!(
            (answered, by[0].classes[1]),
            (100, 100 - MAX_REVISIONS as u64)
        );
        assert_eq!(counters.snapshot(0).max, Duration::from_millis(100));
    }
}
