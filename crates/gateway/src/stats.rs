//! What the gateway counts per service: requests, outcomes and latencies, in atomics only.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http::StatusCode;
use serde::Serialize;

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

#[derive(Debug, Default)]
pub(crate) struct Counters {
    started: AtomicU64,
    classes: [AtomicU64; 5],
    complete: AtomicU64,
    broken: AtomicU64,
    canceled: AtomicU64,
    dropped: AtomicU64,
    retries: AtomicU64,
    retries_denied: AtomicU64,
    ejections: AtomicU64,
    latency: Histogram,
}

impl Counters {
    pub(crate) fn started(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        if let Some(count) = class
            .checked_sub(1)
            .and_then(|index| self.classes.get(index))
        {
            count.fetch_add(1, Relaxed);
        }
    }

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
        self.started.load(Relaxed)
    }

    pub(crate) fn ended(&self, end: End, latency: Duration) {
        let count = match end {
            End::Complete => &self.complete,
            End::Broken => &self.broken,
            End::Canceled => &self.canceled,
            End::Dropped => &self.dropped,
        };
        count.fetch_add(1, Relaxed);
        if matches!(end, End::Complete | End::Broken) {
            self.latency.record(latency);
        }
    }

    pub(crate) fn snapshot(&self, queued: u32) -> ServiceStats {
        // Ends first: read the other way round, more could have ended than had started.
        let [complete, broken, canceled, dropped] =
            [&self.complete, &self.broken, &self.canceled, &self.dropped].map(|c| c.load(Relaxed));
        let classes = self.classes.each_ref().map(|count| count.load(Relaxed));
        let requests = self.started.load(Relaxed);
        let [p50, p99] = self.latency.quantiles([0.5, 0.99]);
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
            max: self.latency.max(),
        }
    }
}

/// Sub-buckets per power of two: 32 make a bucket 1/32 wide, so its middle is within 1/64.
const STEPS: u64 = 32;
/// Covers 2³⁶ µs, which is 19 hours; what is longer counts as that.
const BUCKETS: usize = (STEPS * (36 - 5 + 1)) as usize;

/// A log-linear histogram of durations in microseconds.
#[derive(Debug)]
struct Histogram {
    buckets: Box<[AtomicU64]>,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    fn record(&self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Relaxed);
        if micros > self.max.load(Relaxed) {
            self.max.fetch_max(micros, Relaxed);
        }
    }

    fn max(&self) -> Duration {
        Duration::from_micros(self.max.load(Relaxed))
    }

    /// The values below which these parts of all values lie; zero while there are none.
    fn quantiles<const N: usize>(&self, parts: [f64; N]) -> [Duration; N] {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|count| count.load(Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        parts.map(|part| {
            let rank = (total as f64 * part).ceil().max(1.0) as u64;
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            found.map_or(Duration::ZERO, |index| {
                Duration::from_micros(middle(index)).min(self.max())
            })
        })
    }
}

/// The bucket of a value: below `STEPS` one each, above that `STEPS` per power of two.
fn bucket(micros: u64) -> usize {
    let octave = u64::from(micros.max(STEPS).ilog2()) - u64::from(STEPS.ilog2());
    let index = octave * STEPS + (micros >> octave);
    (index as usize).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(index: usize) -> u64 {
    let index = index as u64;
    let octave = (index / STEPS).saturating_sub(1);
    let low = (index - octave * STEPS) << octave;
    low + (1 << octave) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        let mut last = 0;
        for exponent in 0..36 {
            for value in [
                1_u64 << exponent,
                (1 << exponent) + 1,
                (1 << exponent) * 3 / 2,
            ] {
                let index = bucket(value);
                assert!(index >= last || value < 4, "{value}");
                last = index;
                let error = middle(index).abs_diff(value) as f64 / value as f64;
                assert!(error <= 1.0 / 64.0 + f64::EPSILON, "{value}: {error}");
            }
        }
        for value in 0..100_000 {
            assert!(bucket(value + 1) - bucket(value) <= 1, "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket((1 << 36) - 1), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantiles([0.5, 0.99]), [Duration::ZERO; 2]);
        for millis in 1..=1000 {
            histogram.record(Duration::from_millis(millis));
        }
        let [p50, p99, all] = histogram
            .quantiles([0.5, 0.99, 1.0])
            .map(|d| d.as_secs_f64());
        assert!((p50 / 0.5 - 1.0).abs() < 0.02, "{p50}");
        assert!((p99 / 0.99 - 1.0).abs() < 0.02, "{p99}");
        assert!((all / 1.0 - 1.0).abs() < 0.02, "{all}");
        assert_eq!(histogram.max(), Duration::from_secs(1));
    }

    #[test]
    fn what_started_has_ended_or_is_in_flight() {
        let counters = Counters::default();
        for end in [End::Complete, End::Broken, End::Canceled, End::Dropped] {
            counters.started();
            counters.answered(StatusCode::OK);
            counters.ended(end, Duration::from_millis(3));
        }
        counters.started();
        counters.answered(StatusCode::BAD_GATEWAY);
        let stats = counters.snapshot(2);
        assert_eq!((stats.requests, stats.in_flight, stats.queued), (5, 1, 2));
        assert_eq!((stats.classes, stats.errors), ([0, 4, 0, 0, 1], 2));
        assert_eq!((stats.canceled, stats.dropped), (1, 1));
        assert_eq!(stats.max, Duration::from_millis(3));
    }
}
