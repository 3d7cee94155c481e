//! How often something took how long: in the manner of Prometheus, and in buckets that grow.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Counts durations in buckets with fixed upper bounds. It has no other state, and recording is
/// wait-free.
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

/// Buckets whose width grows with what is in them: one for each of the lowest values, above them
/// equally many to each power of two.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// To each power of two.
    steps: u64,
    /// How many buckets there are.
    pub count: usize,
}

impl Scale {
    /// `2^precision` buckets to each power of two, so that the middle of one is within
    /// `1 / 2^(precision + 1)` of what is in it. What is `2^end` or more is in the last one.
    pub const fn new(precision: u32, end: u32) -> Self {
        let steps = 1 << precision;
        Self {
            steps,
            count: (steps * (end - precision + 1) as u64) as usize,
        }
    }

    /// The bucket of a value.
    pub fn bucket(self, value: u64) -> usize {
        let octave = u64::from(value.max(self.steps).ilog2()) - u64::from(self.steps.ilog2());
        let index = octave * self.steps + (value >> octave);
        (index as usize).min(self.count - 1)
    }

    /// The middle of a bucket.
    pub fn middle(self, index: usize) -> u64 {
        let index = index as u64;
        let octave = (index / self.steps).saturating_sub(1);
        let low = (index - octave * self.steps) << octave;
        low + (1 << octave) / 2
    }
}

/// Of a [`LogLinear`], in microseconds: within 1/16 of the truth, up to 134 s.
const SCALE: Scale = Scale::new(3, 27);

/// Counts durations from 1 µs to 134 s, in buckets whose width grows with the durations. As long as
/// it has counted nothing it takes no memory to speak of. Recording is wait-free.
#[derive(Debug, Default)]
pub struct LogLinear {
    counts: OnceLock<Box<[AtomicU64]>>,
    sum_nanos: AtomicU64,
}

/// What one or several [`LogLinear`] have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// One for each bucket, or none at all.
    counts: Vec<u64>,
    sum: Duration,
}

impl LogLinear {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let counts = self
            .counts
            .get_or_init(|| (0..SCALE.count).map(|_| AtomicU64::new(0)).collect());
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counts[SCALE.bucket(micros)].fetch_add(1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    /// What it has counted so far.
    pub fn distribution(&self) -> Distribution {
        let counts = self.counts.get().into_iter().flatten();
        Distribution {
            counts: counts.map(|count| count.load(Relaxed)).collect(),
            sum: Duration::from_nanos(self.sum_nanos.load(Relaxed)),
        }
    }
}

impl Distribution {
    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
        } else {
            for (own, its) in self.counts.iter_mut().zip(&other.counts) {
                *own += its;
            }
        }
        self.sum += other.sum;
    }

    /// The duration below which this part of all lies, within 1/16; 0.99 is the 99th percentile.
    /// `None` while there are none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = (self.count() as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(|index| Duration::from_micros(SCALE.middle(index)))
    }

    /// The same with these upper bounds, in seconds, which rise. What is in a bucket counts as its
    /// middle.
    pub fn buckets(&self, bounds: &[f64]) -> Buckets {
        let below = |bound: f64| {
            let counts = self.counts.iter().enumerate();
            let below = counts.filter(|(index, _)| SCALE.middle(*index) as f64 <= bound * 1e6);
            (bound, below.map(|(_, count)| count).sum())
        };
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        Buckets {
            cumulative: bounds.map(below).collect(),
            sum: self.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_buckets_are_contiguous_and_narrow() {
        for value in 1..200_000_u64 {
            assert!(
                SCALE.bucket(value + 1) - SCALE.bucket(value) <= 1,
                "{value}"
            );
        }
        for exponent in 0..27 {
            for value in [
                1_u64 << exponent,
                (1 << exponent) * 3 / 2,
                (2 << exponent) - 1,
            ] {
                let error = SCALE.middle(SCALE.bucket(value)).abs_diff(value) as f64 / value as f64;
                assert!(error <= 1.0 / 16.0, "{value}: {error}");
            }
        }
        assert_eq!(SCALE.bucket((1 << 27) - 1), SCALE.count - 1);
        assert_eq!(SCALE.bucket(u64::MAX), SCALE.count - 1);
    }

    #[test]
    fn quantiles_of_what_several_have_counted() {
        let (fast, slow) = (LogLinear::default(), LogLinear::default());
        let mut all = fast.distribution();
        assert_eq!((all.count(), all.quantile(0.5)), (0, None));
        (0..99).for_each(|_| fast.record(Duration::from_millis(1)));
        slow.record(Duration::from_secs(100));
        all.add(&fast.distribution());
        all.add(&slow.distribution());
        all.add(&Distribution::default());
        assert_eq!(all.count(), 100);
        assert_eq!(all.sum(), Duration::from_micros(100_099_000));
        let near = |part, wanted: f64| {
            let found = all.quantile(part).expect("some").as_secs_f64();
            assert!(
                (found / wanted - 1.0).abs() <= 1.0 / 16.0,
                "{part}: {found}"
            );
        };
        near(0.0, 0.001);
        near(0.99, 0.001);
        near(0.995, 100.0);
        near(1.0, 100.0);
        let buckets = all.buckets(&[0.000_5, 0.002, 10.0]);
        let wanted = [(0.000_5, 0), (0.002, 99), (10.0, 99), (f64::INFINITY, 100)];
        assert_eq!(buckets.cumulative, wanted);
        assert_eq!(buckets.sum, all.sum());
    }

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
