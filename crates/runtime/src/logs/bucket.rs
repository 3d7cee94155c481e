//! A bucket of tokens that fills with time.

use std::time::{Duration, Instant};

/// So much at once, and so much a second from then on.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    burst: u64,
    a_second: u64,
    /// When the bucket will be full again, if nothing more is taken.
    full_at: Option<Instant>,
}

impl TokenBucket {
    pub(crate) fn new(burst: u64, a_second: u64) -> Self {
        Self {
            burst,
            a_second,
            full_at: None,
        }
    }

    /// Takes so much out of the bucket, if it is there.
    pub(crate) fn take(&mut self, now: Instant, amount: u64) -> bool {
        let full_at = self.full_at_without(now, amount);
        if full_at.is_some() {
            self.full_at = full_at;
        }
        full_at.is_some()
    }

    /// Whether so much is in the bucket.
    pub(crate) fn holds(&self, now: Instant, amount: u64) -> bool {
        self.full_at_without(now, amount).is_some()
    }

    /// When the bucket would be full again if so much were taken. `None` if it is not there.
    fn full_at_without(&self, now: Instant, amount: u64) -> Option<Instant> {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.time_for(amount);
        (full_at.duration_since(now) <= self.time_for(self.burst)).then_some(full_at)
    }

    fn time_for(&self, amount: u64) -> Duration {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.a_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_as_much_as_time_brings() {
        let mut bucket = TokenBucket::new(10, 5);
        let start = Instant::now();
        assert!(bucket.take(start, 7));
        assert!(bucket.take(start, 3));
        assert!(!bucket.take(start, 1));
        let later = |millis| start + Duration::from_millis(millis);
        assert!(!bucket.take(later(199), 1));
        assert!(bucket.take(later(200), 1));
        assert!(!bucket.take(later(200), 1));
        // However long nothing is taken, there is never more than the burst.
        assert!(!bucket.take(later(60_000), 11));
        assert!(bucket.take(later(60_000), 10));
        assert!(!bucket.take(later(60_000), 1));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing() {
        let mut bucket = TokenBucket::new(1, 1);
        let start = Instant::now() + Duration::from_secs(10);
        assert!(bucket.take(start, 1));
        assert!(!bucket.take(start - Duration::from_secs(5), 1));
        assert!(!bucket.take(start, 1));
    }
}
