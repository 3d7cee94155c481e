//! `request_cpu`: what a guest may compute without a wait, and how much more than it waits.
//!
//! Spinning is CPU without a wait. So a guest is over its budget
//!
//! - when it has used more than the budget since it last waited, or
//! - when it has used [`LEAD`] times the budget more than it has waited: one that computes for
//!   less than half of the time never comes there, however long it goes on.
//!
//! A wait is when the store as a whole had nothing to do and had to be woken. Asking whether
//! something is ready, a timer of no time and a turn given to others are none. Where a store is
//! never idle because one guest does many things, a part of it that had to wait is a wait too.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

/// So many times its budget a guest may use more than it has waited.
const LEAD: u64 = 10;

/// How a guest stands with its CPU budget.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// Set when it has used too much.
    pub(crate) excess: Option<Excess>,
    /// Since the guest was last resumed.
    pub(crate) running: Duration,
    /// Since the budget was given.
    pub(crate) spent: Duration,
    /// Since it last waited.
    pub(crate) unwaited: Duration,
    /// What it may use without a wait.
    pub(crate) budget: Duration,
}

/// What a guest has too much of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) over: Over,
    pub(crate) by_nanos: u64,
}

/// Which of the two bounds a guest has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// It has used more than its budget without a wait.
    Burst,
    /// It has used so much, and waited for so much less.
    Rate { used: Duration, waited: Duration },
}

/// How a guest has waited since its budget was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waited {
    /// How often.
    pub(crate) times: u64,
    /// For how long in all.
    pub(crate) time: Duration,
    /// What it has used since the last time.
    pub(crate) cpu_since: Duration,
}

/// What a guest may use, and what it has used and waited. All in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// 0 is any time.
    budget: AtomicU64,
    /// What the instance had used when the budget was given.
    given_at: AtomicU64,
    /// What it had used when it last waited.
    waited_at: AtomicU64,
    /// How much more it has used than waited.
    lead: AtomicU64,
    times: AtomicU64,
    waited: AtomicU64,
    /// A part of it has waited since it was last looked at.
    has_waited: AtomicBool,
    /// The places for requests in the instance, and how many there are.
    slots: OnceLock<(Arc<Semaphore>, usize)>,
}

impl Allowance {
    /// Gives a budget to an instance that has used so much by now; zero means any time.
    pub(super) fn give(&self, used: u64, budget: u64) {
        self.budget.store(budget, Relaxed);
        self.given_at.store(used, Relaxed);
        self.waited_at.store(used, Relaxed);
        for count in [&self.lead, &self.times, &self.waited] {
            count.store(0, Relaxed);
        }
        self.has_waited.store(false, Relaxed);
    }

    /// Names the places for requests, of which there are `all`. While more than one is taken it is
    /// not known who uses what, and each waits while another one computes: only the bound between
    /// two waits holds then.
    pub(super) fn share(&self, slots: &Arc<Semaphore>, all: usize) {
        // An instance is of one pod.
        let _ = self.slots.set((Arc::clone(slots), all));
    }

    fn is_shared(&self) -> bool {
        let slots = self.slots.get();
        slots.is_some_and(|(slots, all)| slots.available_permits() + 1 < *all)
    }

    /// The guest has run for so long.
    pub(super) fn charge(&self, nanos: u64) {
        let lead = self.lead.load(Relaxed).saturating_add(nanos);
        self.lead.store(lead, Relaxed);
    }

    /// The whole instance, which has used so much by now, has waited for so long.
    pub(super) fn wait(&self, used: u64, nanos: u64) {
        self.waited_at.store(used, Relaxed);
        self.times.fetch_add(1, Relaxed);
        self.waited.fetch_add(nanos, Relaxed);
        let lead = self.lead.load(Relaxed).saturating_sub(nanos);
        self.lead.store(lead, Relaxed);
    }

    /// A part of the instance has waited.
    pub(super) fn end_wait(&self) {
        self.has_waited.store(true, Relaxed);
    }

    /// How a guest stands that has used so much by now, the last of it in the poll under way.
    pub(super) fn stand(&self, used: u64, running: u64) -> Standing {
        if self.has_waited.swap(false, Relaxed) {
            self.waited_at.store(used, Relaxed);
            self.times.fetch_add(1, Relaxed);
        }
        let budget = match self.budget.load(Relaxed) {
            0 => u64::MAX,
            some => some,
        };
        let spent = used.saturating_sub(self.given_at.load(Relaxed));
        let unwaited = used.saturating_sub(self.waited_at.load(Relaxed));
        let lead = self.lead.load(Relaxed).saturating_add(running);
        let bound = budget.saturating_mul(LEAD);
        let excess = if unwaited > budget {
            Some(Excess {
                over: Over::Burst,
                by_nanos: unwaited - budget,
            })
        } else if lead > bound && !self.is_shared() {
            Some(Excess {
                over: Over::Rate {
                    used: Duration::from_nanos(spent),
                    waited: Duration::from_nanos(self.waited.load(Relaxed)),
                },
                by_nanos: lead - bound,
            })
        } else {
            None
        };
        Standing {
            excess,
            running: Duration::from_nanos(running),
            spent: Duration::from_nanos(spent),
            unwaited: Duration::from_nanos(unwaited),
            budget: Duration::from_nanos(budget),
        }
    }

    /// What has been used since the budget was given.
    pub(super) fn spent(&self, used: u64) -> Duration {
        Duration::from_nanos(used.saturating_sub(self.given_at.load(Relaxed)))
    }

    pub(super) fn waited(&self, used: u64) -> Waited {
        let since = used.saturating_sub(self.waited_at.load(Relaxed));
        Waited {
            times: self.times.load(Relaxed),
            time: Duration::from_nanos(self.waited.load(Relaxed)),
            cpu_since: Duration::from_nanos(since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: u64 = 100;

    /// Runs and waits for so long, again and again; after how many rounds it is over its budget.
    fn rounds(allowance: &Allowance, run: u64, wait: u64, most: u64) -> Option<(u64, Over)> {
        let mut used = 0;
        allowance.give(used, BUDGET);
        for round in 0..most {
            if let Some(excess) = allowance.stand(used + run, run).excess {
                return Some((round, excess.over));
            }
            used += run;
            allowance.charge(run);
            if wait > 0 {
                allowance.wait(used, wait);
            }
        }
        None
    }

    #[test]
    fn what_computes_for_less_than_half_of_the_time_goes_on() {
        let allowance = Allowance::default();
        for (run, wait) in [(1, 1), (1, 100), (99, 99), (50, 1000)] {
            assert_eq!(rounds(&allowance, run, wait, 100_000), None, "{run} {wait}");
        }
    }

    #[test]
    fn without_a_wait_the_budget_is_all_there_is() {
        let allowance = Allowance::default();
        assert_eq!(rounds(&allowance, 10, 0, 100), Some((10, Over::Burst)));
        assert_eq!(rounds(&allowance, 101, 1000, 100), Some((0, Over::Burst)));
    }

    /// A wait now and then is an alibi for some time only.
    #[test]
    fn a_short_wait_is_no_alibi() {
        let allowance = Allowance::default();
        let (round, over) = rounds(&allowance, 90, 1, 1000).expect("an end");
        assert_eq!(round, 11, "11 × 89 + 90 is more than 1000");
        assert!(matches!(over, Over::Rate { .. }), "{over:?}");
    }

    #[test]
    fn while_others_are_at_work_only_the_wait_counts() {
        let allowance = Allowance::default();
        let slots = Arc::new(Semaphore::new(2));
        allowance.share(&slots, 2);
        let one = slots.try_acquire().expect("a place");
        assert!(rounds(&allowance, 90, 1, 1000).is_some());
        let other = slots.try_acquire().expect("a place");
        assert_eq!(rounds(&allowance, 90, 1, 1000), None);
        assert!(rounds(&allowance, 110, 1, 1000).is_some());
        drop((one, other));
    }

    #[test]
    fn a_part_that_has_waited_is_a_wait() {
        let allowance = Allowance::default();
        allowance.give(0, BUDGET);
        allowance.charge(90);
        allowance.end_wait();
        assert_eq!(allowance.stand(90, 0).excess, None);
        assert_eq!(allowance.stand(180, 90).excess, None);
        assert!(allowance.stand(191, 101).excess.is_some());
    }

    #[test]
    fn no_budget_is_any_time() {
        let allowance = Allowance::default();
        allowance.give(0, 0);
        assert_eq!(allowance.stand(u64::MAX / 2, 0).excess, None);
    }
}
