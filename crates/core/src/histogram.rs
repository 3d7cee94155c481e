//! How often something took how long, in the manner of Prometheus.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts durations in buckets with fixed upper bounds. It has no more state than that, and whoever
/// records waits for nobody.
#[derive(Debug)]
pub struct Histogram {
    /// In seconds, rising.
    bounds: &'static [f64],
    /// One for each bound, and one for what is longer than all of them.
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

/// What a [`Histogram`] has counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Upper bounds in seconds, the last one infinite, and how many took at most so long.
    pub cumulative: Vec<(f64, u64)>,
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// One with these upper bounds, in seconds, which rise.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_nanos: AtomicU64::new(0),
        }
    }

    /// Counts one.
    pub fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        // In nanoseconds a sum overflows after 584 years.
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    /// What it has counted so far.
    pub fn buckets(&self) -> Buckets {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut total = 0;
        let count = |(bound, count): (f64, &AtomicU64)| {
            total += count.load(Relaxed);
            (bound, total)
        };
        Buckets {
            cumulative: bounds.zip(&self.counts).map(count).collect(),
            sum: Duration::from_nanos(self.sum_nanos.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_the_highest_of_its_bucket() {
        let histogram = Histogram::new(&[0.001, 0.25]);
        for micros in [0, 1000, 1001, 250_000, 250_001, 9_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let buckets = histogram.buckets();
        assert_eq!(
            buckets.cumulative,
            [(0.001, 2), (0.25, 4), (f64::INFINITY, 6)]
        );
        assert_eq!(buckets.sum, Duration::from_micros(9_502_002));
    }
}
