//! How the rollouts of each service have ended, and how long they took: counted here once that is
//! written, and shown by the metrics.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use sampan_core::{
    histogram::{Buckets, Histogram},
    name::ServiceKey,
    plan::rollout::{Ended, Outcome},
};

/// Upper bounds, in seconds, of the time that a rollout takes.
const BOUNDS: [f64; 11] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
];

/// The rollouts of all services that there are.
#[derive(Default)]
pub(crate) struct Rollouts(Mutex<BTreeMap<ServiceKey, Counts>>);

struct Counts {
    outcomes: [u64; Outcome::ALL.len()],
    durations: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            outcomes: [0; Outcome::ALL.len()],
            durations: Histogram::new(&BOUNDS),
        }
    }
}

/// What is known of a service's rollouts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RolloutTotals {
    /// How many ended in each outcome.
    pub(crate) outcomes: [u64; Outcome::ALL.len()],
    /// How long they took, however they ended.
    pub(crate) durations: Buckets,
}

impl Rollouts {
    /// Begins to count for a service that is there, and forgets one that is gone.
    pub(super) fn know(&self, service: &ServiceKey, is_there: bool) {
        let mut counts = self.0.lock();
        if is_there {
            counts.entry(service.clone()).or_default();
        } else {
            counts.remove(service);
        }
    }

    /// A rollout has ended.
    pub(super) fn count(&self, service: &ServiceKey, ended: Ended) {
        if let Some(counts) = self.0.lock().get_mut(service) {
            counts.outcomes[ended.outcome as usize] += 1;
            if let Some(took) = ended.took {
                counts.durations.record(took);
            }
        }
    }

    /// What is known of each service.
    pub(crate) fn totals(&self) -> BTreeMap<ServiceKey, RolloutTotals> {
        let totals = |counts: &Counts| RolloutTotals {
            outcomes: counts.outcomes,
            durations: counts.durations.buckets(),
        };
        let all = self.0.lock();
        let all = all.iter();
        all.map(|(key, counts)| (key.clone(), totals(counts)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_gone_is_forgotten() {
        let (rollouts, web) = (Rollouts::default(), ServiceKey::parse("shop/web"));
        let (web, took) = (web.expect("a key"), Some(Duration::from_secs(2)));
        rollouts.know(&web, true);
        for (outcome, took) in [(Outcome::RolledBack, took), (Outcome::Complete, None)] {
            rollouts.count(&web, Ended { outcome, took });
        }
        rollouts.know(&web, true);
        let totals = &rollouts.totals()[&web];
        assert_eq!(totals.outcomes, [1, 1, 0, 0]);
        assert_eq!(
            totals.durations.cumulative.last(),
            Some(&(f64::INFINITY, 1))
        );
        assert_eq!(totals.durations.sum, Duration::from_secs(2));
        rollouts.know(&web, false);
        assert!(rollouts.totals().is_empty());
    }
}
