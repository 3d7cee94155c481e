//! How the rollouts of each service have ended, and how long they took.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sampan_core::{
    histogram::{Buckets, Histogram},
    name::ServiceKey,
    record::{Phase, Service},
};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    agent::board::Board,
    mirror::{Follower, Mirror},
};

/// How a rollout can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Complete,
    RolledBack,
    Paused,
    Failed,
}

/// The same in words, in the same order.
pub(super) const OUTCOMES: [&str; 4] = ["complete", "rolled_back", "paused", "failed"];
/// Upper bounds, in seconds, of the time that a rollout takes.
const BOUNDS: [f64; 11] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
];

/// The rollouts of all services that there are.
#[derive(Default)]
pub(crate) struct Rollouts(Mutex<BTreeMap<ServiceKey, Entry>>);

struct Entry {
    at: At,
    /// The revision that was wanted last.
    revision: u64,
    outcomes: [u64; OUTCOMES.len()],
    durations: Histogram,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// Under way. Since when is not known of one that an earlier run of the node began.
    Rolling { since: Option<Instant> },
    /// It has ended well, or the old revision runs again: only another revision begins a new one.
    Settled,
    /// It has failed and is tried further, or waits for somebody who resumes it.
    Stuck,
}

/// What is known of a service's rollouts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RolloutTotals {
    /// How many ended in each of the [`OUTCOMES`].
    pub(crate) outcomes: [u64; OUTCOMES.len()],
    /// How long they took, however they ended.
    pub(crate) durations: Buckets,
}

impl Rollouts {
    /// Follows services until the store is closed. What the board has counted of services
    /// that are gone is forgotten with what is known here. `ready` is told when it has seen the
    /// services as they are now: whoever begins with rollouts then is watched from the beginning.
    pub(crate) async fn watch(
        &self,
        mut follower: Follower,
        board: &Board,
        ready: oneshot::Sender<()>,
    ) {
        self.see(&follower.mirror(), board);
        // Whoever does not wait for it needs no word.
        let _ = ready.send(());
        while follower.next().await.is_some() {
            self.see(&follower.mirror(), board);
        }
    }

    /// What is known of each service.
    pub(super) fn totals(&self) -> BTreeMap<ServiceKey, RolloutTotals> {
        let totals = |entry: &Entry| RolloutTotals {
            outcomes: entry.outcomes,
            durations: entry.durations.buckets(),
        };
        let entries = self.entries();
        let all = entries.iter();
        all.map(|(key, entry)| (key.clone(), totals(entry)))
            .collect()
    }

    fn see(&self, mirror: &Mirror, board: &Board) {
        let mut entries = self.entries();
        let now = Instant::now();
        entries.retain(|key, _| mirror.services.contains_key(key));
        for (key, stored) in &mirror.services {
            let service = &stored.value;
            let entry = entries.entry(key.clone()).or_insert_with(|| Entry {
                at: first(service, now),
                revision: service.spec.revision,
                outcomes: [0; OUTCOMES.len()],
                durations: Histogram::new(&BOUNDS),
            });
            entry.see(service, now);
        }
        drop(entries);
        board.retain(|key| mirror.services.contains_key(key));
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<ServiceKey, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the rollout of a service is that was not known before.
fn first(service: &Service, now: Instant) -> At {
    let status = &service.status;
    if status.observed_generation == 0 {
        return At::Rolling { since: Some(now) };
    }
    let seen = status.observed_generation == service.generation;
    match outcome(&status.phase) {
        Some(outcome) if seen => outcome.leaves(),
        _ => At::Rolling { since: None },
    }
}

/// How a rollout in this phase has ended, if it has.
fn outcome(phase: &Phase) -> Option<Outcome> {
    match phase {
        Phase::Complete => Some(Outcome::Complete),
        Phase::RolledBack { .. } => Some(Outcome::RolledBack),
        Phase::Paused { failure: Some(_) } => Some(Outcome::Paused),
        Phase::Failed { .. } => Some(Outcome::Failed),
        Phase::Progressing
        | Phase::Waiting { .. }
        | Phase::Paused { failure: None }
        | Phase::RollingBack { .. } => None,
    }
}

impl Entry {
    fn see(&mut self, service: &Service, now: Instant) {
        let (status, wanted) = (&service.status, service.spec.revision);
        if service.spec.deleting {
            return;
        }
        let back = matches!(
            status.phase,
            Phase::RollingBack { .. } | Phase::RolledBack { .. }
        );
        let seen = status.observed_generation == service.generation;
        // The planner that takes a rollout back wants another revision too.
        if std::mem::replace(&mut self.revision, wanted) != wanted && !(back && seen) {
            self.at = At::Rolling { since: Some(now) };
        }
        if !seen {
            return;
        }
        match (self.at, outcome(&status.phase)) {
            (At::Rolling { since }, Some(outcome)) => self.end(outcome, since, now),
            (At::Stuck, Some(outcome)) if outcome.leaves() == At::Settled => {
                self.end(outcome, None, now);
            }
            (At::Stuck, None) => self.at = At::Rolling { since: Some(now) },
            (_, _) => {}
        }
    }

    fn end(&mut self, outcome: Outcome, since: Option<Instant>, now: Instant) {
        self.outcomes[outcome as usize] += 1;
        if let Some(since) = since {
            self.durations.record(now.duration_since(since));
        }
        self.at = outcome.leaves();
    }
}

impl Outcome {
    fn leaves(self) -> At {
        match self {
            Self::Complete | Self::RolledBack => At::Settled,
            Self::Paused | Self::Failed => At::Stuck,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use sampan_core::{
        object::{OnFailure, Rollout, Strategy},
        quantity::Amount,
        record::{ServiceSpec, ServiceStatus},
    };

    use super::*;
    use crate::mirror::Stored;

    fn service() -> Service {
        let spec = ServiceSpec {
            revision: 1,
            previous: None,
            latest: 1,
            replicas: 1,
            paused: false,
            deleting: false,
            rollout: Rollout {
                strategy: Strategy::Rolling,
                max_surge: Amount::Count(1),
                max_unavailable: Amount::Count(0),
                min_ready: Duration::ZERO,
                progress_deadline: Duration::from_secs(60),
                on_failure: OnFailure::Rollback,
                history: 2,
                drain: Duration::ZERO,
            },
            routes: Vec::new(),
            depends_on: BTreeMap::new(),
            queue: 1,
            queue_timeout: Duration::ZERO,
            body_bytes: 1,
            debug_headers: false,
            autoscale: None,
        };
        Service {
            key: ServiceKey::parse("shop/web").expect("a key"),
            generation: 1,
            spec,
            status: ServiceStatus::default(),
        }
    }

    struct Watched {
        rollouts: Rollouts,
        service: Service,
    }

    impl Watched {
        fn new(service: Service) -> Self {
            let watched = Self {
                rollouts: Rollouts::default(),
                service,
            };
            watched.see();
            watched
        }

        fn see(&self) {
            let stored = Stored {
                value: self.service.clone().into(),
                modified: sampan_store::Revision(1),
            };
            let mirror = Mirror {
                services: BTreeMap::from([(self.service.key.clone(), stored)]),
                revisions: BTreeSet::new(),
                ..Mirror::default()
            };
            self.rollouts.see(&mirror, &Board::default());
        }

        /// The planner has written this, a second later.
        async fn phase(&mut self, phase: Phase) -> [u64; OUTCOMES.len()] {
            tokio::time::advance(Duration::from_secs(1)).await;
            self.service.status.phase = phase;
            self.service.status.observed_generation = self.service.generation;
            self.see();
            self.totals().outcomes
        }

        fn want(&mut self, revision: u64) {
            self.service.generation += 1;
            self.service.spec.revision = revision;
        }

        fn totals(&self) -> RolloutTotals {
            let mut totals = self.rollouts.totals().into_values();
            totals.next().expect("a service")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_end_is_counted_once() {
        let mut web = Watched::new(service());
        assert_eq!(web.phase(Phase::Progressing).await, [0; 4]);
        for _ in 0..2 {
            assert_eq!(web.phase(Phase::Complete).await, [1, 0, 0, 0]);
        }
        // Scaling is no rollout.
        web.service.generation += 1;
        web.see();
        assert_eq!(web.phase(Phase::Progressing).await, [1, 0, 0, 0]);
        assert_eq!(web.phase(Phase::Complete).await, [1, 0, 0, 0]);
        web.want(2);
        web.see();
        assert_eq!(web.phase(Phase::Progressing).await, [1, 0, 0, 0]);
        web.want(1);
        let (from, reason) = (2, String::new());
        let back = Phase::RollingBack {
            from,
            reason: reason.clone(),
        };
        assert_eq!(web.phase(back).await, [1, 0, 0, 0]);
        let back = Phase::RolledBack { from, reason };
        for _ in 0..2 {
            assert_eq!(web.phase(back.clone()).await, [1, 1, 0, 0]);
        }
        let durations = web.totals().durations;
        assert_eq!(durations.cumulative.last(), Some(&(f64::INFINITY, 2)));
        assert_eq!(durations.sum, Duration::from_secs(2 + 3));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_held_or_failed_can_end_again() {
        let mut web = Watched::new(service());
        let failure = Some("no pod is ready".to_owned());
        let held = Phase::Paused { failure };
        assert_eq!(web.phase(held).await, [0, 0, 1, 0]);
        let paused = Phase::Paused { failure: None };
        assert_eq!(web.phase(paused).await, [0, 0, 1, 0]);
        assert_eq!(web.phase(Phase::Progressing).await, [0, 0, 1, 0]);
        let reason = String::new();
        assert_eq!(web.phase(Phase::Failed { reason }).await, [0, 0, 1, 1]);
        assert_eq!(web.phase(Phase::Complete).await, [1, 0, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_under_way_before_has_no_duration_and_what_was_over_is_not_counted() {
        let mut before = service();
        before.status.observed_generation = 1;
        let mut web = Watched::new(before.clone());
        assert_eq!(web.phase(Phase::Complete).await, [1, 0, 0, 0]);
        assert_eq!(web.totals().durations.sum, Duration::ZERO);
        before.status.phase = Phase::Complete;
        let mut web = Watched::new(before);
        assert_eq!(web.phase(Phase::Complete).await, [0; 4]);
        web.rollouts.see(&Mirror::default(), &Board::default());
        assert!(web.rollouts.totals().is_empty());
    }
}
