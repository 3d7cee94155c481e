//! How long answers took: a histogram that is added to, and snapshots of it that can be subtracted.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use sampan_core::histogram::Scale;

/// Upper bounds of the buckets of [`RevisionStats::latency`](crate::RevisionStats::latency), in seconds: those that Prometheus'
/// client libraries have by default, and finer ones below them, where answers in one process are.
pub const LATENCY_BOUNDS: [f64; 15] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// In microseconds: the middle of a bucket is within 1/64, and the last one ends at 2³⁶ µs, which
/// is 19 hours; what is longer counts as that.
const SCALE: Scale = Scale::new(5, 36);

/// A log-linear histogram of durations in microseconds.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    max: AtomicU64,
    /// Of all values, in microseconds.
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..SCALE.count).map(|_| AtomicU64::new(0)).collect(),
            max: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn record(&self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.buckets[SCALE.bucket(micros)].fetch_add(1, Relaxed);
        self.sum.fetch_add(micros, Relaxed);
        if micros > self.max.load(Relaxed) {
            self.max.fetch_max(micros, Relaxed);
        }
    }

    /// All values together.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_micros(self.sum.load(Relaxed))
    }

    /// Adds all that another has recorded, which records no more.
    pub(crate) fn absorb(&self, other: &Self) {
        let sums = [(&self.sum, &other.sum)];
        for (own, its) in self.buckets.iter().zip(&other.buckets).chain(sums) {
            own.fetch_add(its.load(Relaxed), Relaxed);
        }
        self.max.fetch_max(other.max.load(Relaxed), Relaxed);
    }

    /// How many values are at most each of the bounds, and how many there are.
    pub(crate) fn cumulative(&self) -> [u64; LATENCY_BOUNDS.len() + 1] {
        let bound = |n: usize| LATENCY_BOUNDS.get(n).map_or(f64::INFINITY, |it| it * 1e6);
        let mut counts = [0; LATENCY_BOUNDS.len() + 1];
        let mut place = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            while SCALE.middle(index) as f64 > bound(place) {
                place += 1;
                counts[place] = counts[place - 1];
            }
            counts[place] += count.load(Relaxed);
        }
        for later in place + 1..counts.len() {
            counts[later] = counts[place];
        }
        counts
    }
}

/// How long the answers of a service took: all up to one moment, or those between two. It takes
/// 8 KiB, however many they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// By bucket.
    counts: Box<[u64]>,
    /// The longest, or something longer.
    max: Duration,
}

impl Default for Latencies {
    /// Those of no answer.
    fn default() -> Self {
        Self::of([])
    }
}

impl Latencies {
    /// Those of several histograms together, up to now.
    pub(crate) fn of<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Self {
        let mut counts = vec![0; SCALE.count];
        let mut max = 0;
        for histogram in histograms {
            for (count, bucket) in counts.iter_mut().zip(&histogram.buckets) {
                *count += bucket.load(Relaxed);
            }
            max = max.max(histogram.max.load(Relaxed));
        }
        Self {
            counts: counts.into(),
            max: Duration::from_micros(max),
        }
    }

    /// Those of the answers that came after an earlier snapshot of the same service. If that had
    /// some which `self` does not, the service was published anew in between: then all of `self`
    /// came after it.
    pub fn since(&self, earlier: &Self) -> Self {
        let differences = self.counts.iter().zip(&earlier.counts);
        let counts: Option<_> = differences
            .map(|(now, then)| now.checked_sub(*then))
            .collect();
        Self {
            counts: counts.unwrap_or_else(|| self.counts.clone()),
            max: self.max,
        }
    }

    /// How many answers there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The latencies that these parts of all answers did not exceed: `0.5` is the median. Within
    /// 2 % of the truth, zero if there were no answers.
    pub fn quantiles<const N: usize>(&self, parts: [f64; N]) -> [Duration; N] {
        let total = self.count();
        parts.map(|part| {
            let rank = (total as f64 * part).ceil().max(1.0) as u64;
            let mut seen = 0;
            let found = self.counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            found.map_or(Duration::ZERO, |index| {
                Duration::from_micros(SCALE.middle(index)).min(self.max)
            })
        })
    }

    /// The longest of all up to now.
    pub(crate) fn max(&self) -> Duration {
        self.max
    }
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
                let index = SCALE.bucket(value);
                assert!(index >= last || value < 4, "{value}");
                last = index;
                let error = SCALE.middle(index).abs_diff(value) as f64 / value as f64;
                assert!(error <= 1.0 / 64.0 + f64::EPSILON, "{value}: {error}");
            }
        }
        for value in 0..100_000 {
            assert!(
                SCALE.bucket(value + 1) - SCALE.bucket(value) <= 1,
                "{value}"
            );
        }
        assert_eq!(SCALE.bucket(u64::MAX), SCALE.count - 1);
        assert_eq!(SCALE.bucket((1 << 36) - 1), SCALE.count - 1);
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let histogram = Histogram::default();
        let none = Latencies::of([&histogram]);
        assert_eq!(none.quantiles([0.5, 0.99]), [Duration::ZERO; 2]);
        assert_eq!((none.count(), &none), (0, &Latencies::default()));
        for millis in 1..=1000 {
            histogram.record(Duration::from_millis(millis));
        }
        let all = Latencies::of([&histogram]);
        assert_eq!((all.count(), all.max()), (1000, Duration::from_secs(1)));
        let [p50, p99, p100] = all.quantiles([0.5, 0.99, 1.0]).map(|d| d.as_secs_f64());
        assert!((p50 / 0.5 - 1.0).abs() < 0.02, "{p50}");
        assert!((p99 / 0.99 - 1.0).abs() < 0.02, "{p99}");
        assert!((p100 / 1.0 - 1.0).abs() < 0.02, "{p100}");
        let cumulative = histogram.cumulative();
        for (bound, count) in LATENCY_BOUNDS.iter().zip(cumulative) {
            let wanted = (bound * 1e3).floor().min(1000.0);
            assert!(
                (count as f64 - wanted).abs() <= 1.0 + wanted / 32.0,
                "{bound}: {count}"
            );
        }
        assert_eq!(cumulative[LATENCY_BOUNDS.len()], 1000);
    }

    #[test]
    fn an_interval_has_only_what_came_in_it() {
        let [old, new] = [(); 2].map(|()| Histogram::default());
        (0..1000).for_each(|_| old.record(Duration::from_millis(500)));
        let first = Latencies::of([&old, &new]);
        (0..9).for_each(|_| new.record(Duration::from_millis(20)));
        old.record(Duration::from_millis(100));
        let second = Latencies::of([&old, &new]);
        let interval = second.since(&first);
        assert_eq!((interval.count(), second.count()), (10, 1010));
        let [p50, p99] = interval.quantiles([0.5, 0.99]).map(|d| d.as_secs_f64());
        assert!((p50 / 0.02 - 1.0).abs() < 0.02, "{p50}");
        assert!((p99 / 0.1 - 1.0).abs() < 0.02, "{p99}");
        assert_eq!(second.since(&second).count(), 0);
        // What is moved from one to the other came before.
        new.absorb(&old);
        assert_eq!(Latencies::of([&new]), second);
    }

    #[test]
    fn all_of_a_service_published_anew_came_later() {
        let [old, new] = [(); 2].map(|()| Histogram::default());
        old.record(Duration::from_millis(1));
        (0..3).for_each(|_| new.record(Duration::from_millis(2)));
        let new = Latencies::of([&new]);
        assert_eq!(new.since(&Latencies::of([&old])), new);
    }
}
