//! When a pod that keeps failing gets no more requests for a while.
//!
//! What counts is a pod that gives no answer: it trapped, spun, was too slow, broke off. A status
//! of 500 that the guest itself sends is an answer. The numbers are close to
//! [Envoy's](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier).

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

/// Failures without a success between them after which a pod is ejected.
const FAILURES: u32 = 5;
/// How long it gets nothing the first time. Each further time doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// The longest it gets nothing.
const LONGEST: Duration = Duration::from_secs(30);
/// Time without an ejection after which the next one counts as the first.
const FORGET: Duration = Duration::from_secs(60);

/// Whether one more of so many ready pods may be ejected: at least half stay, and at least one.
pub(crate) fn may_eject(ready: usize, ejected: usize) -> bool {
    (ejected + 1) * 2 <= ready
}

/// Whether ejections must be ignored: pods have gone since, and too few are left.
pub(crate) fn is_panic(ready: usize, ejected: usize) -> bool {
    ejected * 2 > ready
}

/// The ejections of one pod.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// How many there were in a row, and when the last one ends.
    last: Option<(u32, Instant)>,
}

impl History {
    /// Notes one more, and says how long it takes.
    pub(crate) fn eject(&mut self, now: Instant) -> Duration {
        let before = match self.last {
            Some((count, end)) if now.saturating_duration_since(end) < FORGET => count,
            _ => 0,
        };
        let time = FIRST.saturating_mul(1 << before.min(16)).min(LONGEST);
        self.last = Some((before + 1, now + time));
        time
    }
}

/// How often an endpoint has failed in a row, and until when it gets no requests because of that: in µs
/// on a clock of the endpoint's own.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Strikes {
    /// Failures since the last success.
    failures: AtomicU32,
    /// 0 if it gets requests.
    ejected_until: AtomicU64,
}

impl Strikes {
    /// Notes an answer.
    pub(crate) fn succeeded(&self) {
        // Nearly always it is zero, and reading that is free.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// Notes that there was no answer. Whether the endpoint should be ejected now.
    pub(crate) fn failed(&self) -> bool {
        self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES
    }

    /// Gives the endpoint no requests until then.
    pub(crate) fn eject(&self, until: u64) {
        self.failures.store(0, Relaxed);
        self.ejected_until.store(until, Relaxed);
    }

    /// Ends an ejection.
    pub(crate) fn readmit(&self) {
        self.ejected_until.store(0, Relaxed);
    }

    /// Forgets all failures.
    pub(crate) fn renew(&self) {
        self.failures.store(0, Relaxed);
        self.readmit();
    }

    /// Whether the endpoint is ejected at this time, which is asked for only if it was ejected.
    pub(crate) fn is_ejected(&self, now: impl FnOnce() -> u64) -> bool {
        let until = self.ejected_until.load(Relaxed);
        let is_ejected = until != 0 && now() < until;
        if until != 0 && !is_ejected {
            // It is over: no request reads the clock for it any more.
            let word = &self.ejected_until;
            let _ = word.compare_exchange(until, 0, Relaxed, Relaxed);
        }
        is_ejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_half_and_at_least_one_stay() {
        for ready in 0..50 {
            let mut ejected = 0;
            while may_eject(ready, ejected) {
                ejected += 1;
                assert!(!is_panic(ready, ejected));
            }
            assert_eq!(ejected, ready / 2);
            assert!(ready == 0 || ejected < ready);
        }
        // Three of four were left, and two of these have gone.
        assert!(is_panic(1, 1));
        assert!(!is_panic(2, 1));
    }

    #[test]
    fn each_ejection_in_a_row_takes_twice_as_long_up_to_a_limit() {
        let mut history = History::default();
        let mut now = Instant::now();
        let mut seconds = Vec::new();
        for _ in 0..7 {
            let time = history.eject(now);
            seconds.push(time.as_secs());
            now += time + Duration::from_secs(1);
        }
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        now += FORGET;
        assert_eq!(history.eject(now), FIRST);
    }
}
