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
struct Scale {
    /// To each power of two.
    steps: u64,
    /// How many buckets there are.
    count: usize,
}

impl Scale {
    /// `2^precision` buckets to each power of two, so that the middle of one is within
    /// `1 / 2^(precision + 1)` of what is in it. What is `2^end` or more is in the last one.
    const fn new(precision: u32, end: u32) -> Self {
        let steps = 1 << precision;
        Self {
            steps,
            count: (steps * (end - precision + 1) as u64) as usize,
        }
    }

    /// The bucket of a value.
    fn bucket(self, value: u64) -> usize {
        let octave = u64::from(value.max(self.steps).ilog2()) - u64::from(self.steps.ilog2());
        let index = octave * self.steps + (value >> octave);
        (index as usize).min(self.count - 1)
    }

    /// The middle of a bucket.
    fn middle(self, index: usize) -> u64 {
        let index = index as u64;
        let octave = (index / self.steps).saturating_sub(1);
        let low = (index - octave * self.steps) << octave;
        low + (1 << octave) / 2
    }
}

/// Counts durations in buckets whose width grows with the durations: `2^PRECISION` of them to each
/// power of two of microseconds, the last one from `2^END` µs on. As long as it has counted nothing
/// it takes no memory to speak of. Recording is wait-free.
///
/// By default the middle of a bucket is within 1/16 of the truth, up to 134 s.
#[derive(Debug, Default)]
pub struct LogLinear<const PRECISION: u32 = 3, const END: u32 = 27> {
    counts: OnceLock<Box<[AtomicU64]>>,
    sum_nanos: AtomicU64,
    max_micros: AtomicU64,
}

/// What one or several [`LogLinear`] have counted: all up to one moment, or those between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution<const PRECISION: u32 = 3, const END: u32 = 27> {
    /// One for each bucket, or none at all.
    counts: Vec<u64>,
    sum: Duration,
    /// The longest, or something longer.
    max: Duration,
}

impl<const PRECISION: u32, const END: u32> LogLinear<PRECISION, END> {
    const SCALE: Scale = Scale::new(PRECISION, END);

    fn counts(&self) -> &[AtomicU64] {
        let empty = || (0..Self::SCALE.count).map(|_| AtomicU64::new(0)).collect();
        self.counts.get_or_init(empty)
    }

    /// Counts one.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts()[Self::SCALE.bucket(micros)].fetch_add(1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Relaxed);
        if micros > self.max_micros.load(Relaxed) {
            self.max_micros.fetch_max(micros, Relaxed);
        }
    }

    /// Adds all that another has counted, which counts no more.
    pub fn absorb(&self, other: &Self) {
        let counts = other.counts.get().into_iter().flatten();
        let sums = [(&self.sum_nanos, &other.sum_nanos)];
        for (own, its) in self.counts().iter().zip(counts).chain(sums) {
            own.fetch_add(its.load(Relaxed), Relaxed);
        }
        let max = other.max_micros.load(Relaxed);
        self.max_micros.fetch_max(max, Relaxed);
    }

    /// What it has counted so far.
    pub fn distribution(&self) -> Distribution<PRECISION, END> {
        let counts = self.counts.get().into_iter().flatten();
        Distribution {
            counts: counts.map(|count| count.load(Relaxed)).collect(),
            sum: Duration::from_nanos(self.sum_nanos.load(Relaxed)),
            max: Duration::from_micros(self.max_micros.load(Relaxed)),
        }
    }
}

impl<const PRECISION: u32, const END: u32> Distribution<PRECISION, END> {
    const SCALE: Scale = Scale::new(PRECISION, END);

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The longest of all up to now.
    pub fn max(&self) -> Duration {
        self.max
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
        self.max = self.max.max(other.max);
    }

    /// Those that came after an earlier snapshot. If that had some which `self` does not, counting
    /// began anew in between: then all of `self` came after it.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let differences = self.counts.iter().zip(before);
        let differences: Option<_> = differences
            .map(|(now, then)| now.checked_sub(then))
            .collect();
        let anew = || (self.counts.clone(), self.sum);
        let (counts, sum) = differences
            .zip(self.sum.checked_sub(earlier.sum))
            .unwrap_or_else(anew);
        Self {
            counts,
            sum,
            max: self.max,
        }
    }

    /// The duration that this part of all did not exceed, within the precision; 0.99 is the 99th
    /// percentile. `None` while there are none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = (self.count() as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(|index| Duration::from_micros(Self::SCALE.middle(index)).min(self.max))
    }

    /// The same with these upper bounds, in seconds, which rise. What is in a bucket counts as its
    /// middle.
    pub fn buckets(&self, bounds: &[f64]) -> Buckets {
        let mut counts = self.counts.iter().enumerate().peekable();
        let mut total = 0;
        let below = |bound: f64| {
            let fits = |(index, _): &(usize, _)| Self::SCALE.middle(*index) as f64 <= bound * 1e6;
            while let Some((_, count)) = counts.next_if(fits) {
                total += count;
            }
            (bound, total)
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
        for (precision, end) in [(3, 27), (5, 36)] {
            let scale = Scale::new(precision, end);
            let near = 0.5 / f64::from(1 << precision);
            let mut last = 0;
            for exponent in 0..end {
                let power = 1_u64 << exponent;
                for value in [power, power + 1, power * 3 / 2, 2 * power - 1] {
                    let index = scale.bucket(value);
                    assert!(index >= last || value < 4, "{value}");
                    last = index;
                    let error = scale.middle(index).abs_diff(value) as f64 / value as f64;
                    assert!(error <= near + f64::EPSILON, "{value}: {error}");
                }
            }
            for value in 0..200_000 {
                let step = scale.bucket(value + 1) - scale.bucket(value);
                assert!(step <= 1, "{value}");
            }
            assert_eq!(scale.bucket((1 << end) - 1), scale.count - 1);
            assert_eq!(scale.bucket(u64::MAX), scale.count - 1);
        }
    }

    /// What the gateway has.
    type Fine = LogLinear<5, 36>;

    #[test]
    fn quantiles_of_a_known_distribution() {
        let counted = Fine::default();
        let none = counted.distribution();
        assert_eq!((none.count(), none.quantile(0.5)), (0, None));
        for millis in 1..=1000 {
            counted.record(Duration::from_millis(millis));
        }
        let all = counted.distribution();
        assert_eq!((all.count(), all.max()), (1000, Duration::from_secs(1)));
        for part in [0.5, 0.99, 1.0] {
            let found = all.quantile(part).expect("some").as_secs_f64();
            assert!((found / part - 1.0).abs() < 0.02, "{part}: {found}");
        }
        let bounds = [0.000_25, 0.001, 0.025, 0.1, 0.5, 1.0, 10.0];
        let cumulative = all.buckets(&bounds).cumulative;
        for (bound, count) in &cumulative[..bounds.len()] {
            let wanted = (bound * 1e3).floor().min(1000.0);
            assert!(
                (*count as f64 - wanted).abs() <= 1.0 + wanted / 32.0,
                "{bound}: {count}"
            );
        }
        assert_eq!(cumulative[bounds.len()], (f64::INFINITY, 1000));
    }

    #[test]
    fn an_interval_has_only_what_came_in_it() {
        let [old, new] = [(); 2].map(|()| Fine::default());
        let both = || {
            let mut both = old.distribution();
            both.add(&new.distribution());
            both
        };
        (0..1000).for_each(|_| old.record(Duration::from_millis(500)));
        let first = both();
        (0..9).for_each(|_| new.record(Duration::from_millis(20)));
        old.record(Duration::from_millis(100));
        let second = both();
        let interval = second.since(&first);
        assert_eq!((interval.count(), second.count()), (10, 1010));
        for (part, wanted) in [(0.5, 0.02), (0.99, 0.1)] {
            let found = interval.quantile(part).expect("some").as_secs_f64();
            assert!((found / wanted - 1.0).abs() < 0.02, "{part}: {found}");
        }
        assert_eq!(second.since(&second).count(), 0);
        // What is moved from one to the other came before.
        new.absorb(&old);
        assert_eq!(new.distribution(), second);
    }

    #[test]
    fn all_that_is_counted_anew_came_later() {
        let [old, new] = [(); 2].map(|()| Fine::default());
        old.record(Duration::from_millis(1));
        (0..3).for_each(|_| new.record(Duration::from_millis(2)));
        let new = new.distribution();
        assert_eq!(new.since(&old.distribution()), new);
    }

    #[test]
    fn quantiles_of_what_several_have_counted() {
        let (fast, slow) = <(LogLinear, LogLinear)>::default();
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
