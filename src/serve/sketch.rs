//! Quantiles of many durations in little memory.

use std::{collections::BTreeMap, time::Duration};

/// Buckets per power of two: the middle of one is within 1/128 of what is in it.
const STEPS: u64 = 64;

/// Counts durations, by their size in nanoseconds. It has at most `STEPS` buckets for each of 64
/// powers of two.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    buckets: BTreeMap<u64, u64>,
    count: u64,
    max: Duration,
}

impl Sketch {
    pub(super) fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let octave = nanos.max(STEPS).ilog2() - STEPS.ilog2();
        // The lowest value of its bucket.
        *self.buckets.entry(nanos >> octave << octave).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(took);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn max(&self) -> Duration {
        self.max
    }

    /// The duration below or at which this part of all lies; zero while there are none.
    pub(super) fn quantile(&self, part: f64) -> Duration {
        let rank = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let mut lows = self.buckets.iter();
        let found = lows.find_map(|(low, count)| {
            seen += count;
            (seen >= rank).then_some(*low)
        });
        let low = found.unwrap_or_default();
        let width = 1 << (low.max(STEPS).ilog2() - STEPS.ilog2());
        Duration::from_nanos(low + width / 2).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close() {
        let mut one = Sketch::default();
        assert_eq!(one.quantile(0.5), Duration::ZERO);
        for micros in 1..=1000 {
            one.record(Duration::from_micros(micros));
        }
        for (part, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = one.quantile(part).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.01, "{part}: {found}");
        }
        assert_eq!((one.count(), one.max()), (1000, Duration::from_millis(1)));
    }
}
