//! How many second tries a service may make: a fifth of its requests, and ten a second.
//!
//! Without a budget a service whose pods all fail gets twice the load at the worst moment. The
//! numbers are those of [Linkerd](https://linkerd.io/2/tasks/configuring-retries/).

use std::time::Duration;

use tokio::time::Instant;

/// Second tries for each request.
const SHARE: f64 = 0.2;
/// Second tries a second, however few requests there are.
const FLOOR: f64 = 10.0;
/// The most that is saved up.
const MAX: f64 = 100.0;

#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    /// When something was last taken, how many requests there had been by then, and what was left.
    last: Option<(Instant, u64, f64)>,
}

impl RetryBudget {
    /// Takes one second try, if there is one. `requests` is the number of requests so far.
    pub(crate) fn take(&mut self, now: Instant, requests: u64) -> bool {
        let saved = match self.last {
            None => FLOOR + requests as f64 * SHARE,
            Some((then, before, left)) => {
                let time: Duration = now.saturating_duration_since(then);
                let new = requests.saturating_sub(before) as f64;
                left + time.as_secs_f64() * FLOOR + new * SHARE
            }
        };
        let saved = saved.min(MAX);
        let is_there = saved >= 1.0;
        let left = if is_there { saved - 1.0 } else { saved };
        self.last = Some((now, requests, left));
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many tries, one for each request, the budget allows.
    fn allowed(requests: u64, a_second: u64) -> u64 {
        let mut budget = RetryBudget::default();
        let start = Instant::now();
        let at = |n: u64| start + Duration::from_secs_f64(n as f64 / a_second as f64);
        (1..=requests).filter(|&n| budget.take(at(n), n)).count() as u64
    }

    #[test]
    fn a_fifth_of_the_requests_and_ten_a_second() {
        // Ten seconds: 2000 of the share, 100 of the floor, and ten to begin with.
        let many = allowed(10_000, 1000);
        assert!((2100..=2111).contains(&many), "{many}");
        // So few that the floor is enough for each.
        assert_eq!(allowed(100, 5), 100);
    }

    #[test]
    fn savings_are_limited_and_time_does_not_run_back() {
        let mut budget = RetryBudget::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(3600);
        let burst = (0..1000).filter(|_| budget.take(later, 1_000_000)).count();
        assert_eq!(burst, MAX as usize);
        assert!(!budget.take(start, 0));
    }
}
