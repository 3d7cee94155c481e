//! The end of a node: its pods and jobs stop in the order of `core::plan::stop`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sampan_core::{
    name::{Name, ServiceKey},
    plan::stop::{self, Member, Stop, StopOrder, Turn},
};
use tokio::{sync::watch, time::Instant};

use crate::{clock::Clock, mirror::Mirror};

/// The stop of everything that a node runs: each app within a deadline of its own.
pub(super) struct Rest {
    clock: Clock,
    stops: BTreeMap<Name, Stop>,
    /// The services and jobs that were told to stop.
    told: BTreeSet<ServiceKey>,
}

/// What is to be done now.
#[derive(Default)]
pub(super) struct Due {
    /// The services and jobs that stop now, with how long they may drain if it is not for as long as
    /// they say themselves.
    pub(super) stop: Vec<(ServiceKey, Option<Duration>)>,
    /// When to look again at the latest.
    pub(super) wake_at: Option<Instant>,
}

impl Rest {
    /// Everything that is known now is to stop.
    pub(super) fn new(mirror: &Mirror, clock: Clock) -> Self {
        let begun = clock.now();
        let stop = |app: &Name| {
            let services = || mirror.services_in(app).map(|it| &*it.value);
            let jobs = mirror.jobs_in(app).map(|it| &*it.value);
            let members = services().map(Member::service).chain(jobs.map(Member::job));
            Stop {
                order: StopOrder::new(members),
                begun,
                limit: stop::limit(services()),
            }
        };
        let stops = mirror.apps.keys().map(|app| (app.clone(), stop(app)));
        Self {
            clock,
            stops: stops.collect(),
            told: BTreeSet::new(),
        }
    }

    /// Whose turn it is of those that are `there` and were not told yet. They count as told.
    pub(super) fn due(&mut self, there: &BTreeSet<&ServiceKey>) -> Due {
        let mut due = Due::default();
        let waiting = there.iter().filter(|key| !self.told.contains(**key));
        for &key in waiting {
            match self.turn(key, there) {
                // It came after everything else was told to stop.
                None => due.stop.push((key.clone(), None)),
                Some(Turn::Now { drain }) => due.stop.push((key.clone(), Some(drain))),
                Some(Turn::After { until, .. }) => {
                    let at = self.clock.instant(until);
                    due.wake_at = due.wake_at.into_iter().chain(at).min();
                }
            }
        }
        self.told
            .extend(due.stop.iter().map(|(key, _)| key.clone()));
        due
    }

    /// Whether a pod of the service may still start: what depends on it may call it.
    pub(super) fn may_start(&self, key: &ServiceKey, there: &BTreeSet<&ServiceKey>) -> bool {
        let waits = || matches!(self.turn(key, there), Some(Turn::After { .. }));
        !self.told.contains(key) && waits()
    }

    fn turn(&self, key: &ServiceKey, there: &BTreeSet<&ServiceKey>) -> Option<Turn> {
        let stop = self.stops.get(&key.app)?;
        let turn = stop.turn(key, &|it| there.contains(it), self.clock.now());
        Some(turn)
    }
}

/// Which jobs run, and which of them are to end because the node stops. The runner of jobs and the
/// agent share it.
#[derive(Default)]
pub(crate) struct JobRuns(watch::Sender<State>);

#[derive(Default)]
struct State {
    /// Attempts of each job that there is something of.
    running: BTreeMap<ServiceKey, usize>,
    /// The node stops: no attempt begins any more.
    rests: bool,
    told: BTreeSet<ServiceKey>,
}

/// An attempt of a job. Nothing of it is left when this is dropped.
pub(super) struct Attempting {
    runs: Arc<JobRuns>,
    job: ServiceKey,
}

impl JobRuns {
    /// An attempt of the job begins. `None` if none may any more.
    pub(super) fn begin(self: &Arc<Self>, job: &ServiceKey) -> Option<Attempting> {
        let mut begins = false;
        self.0.send_if_modified(|state| {
            begins = !state.rests;
            if begins {
                *state.running.entry(job.clone()).or_default() += 1;
            }
            begins
        });
        begins.then(|| Attempting {
            runs: Arc::clone(self),
            job: job.clone(),
        })
    }

    /// No attempt begins from now on.
    pub(super) fn rest(&self) {
        self.0.send_modify(|state| state.rests = true);
    }

    /// The job is to end.
    pub(super) fn end(&self, job: &ServiceKey) {
        self.0.send_modify(|state| {
            state.told.insert(job.clone());
        });
    }

    /// The jobs that run.
    pub(super) fn running(&self) -> BTreeSet<ServiceKey> {
        self.0.borrow().running.keys().cloned().collect()
    }

    /// Whether the job is to end.
    pub(super) fn is_told(&self, job: &ServiceKey) -> bool {
        self.0.borrow().told.contains(job)
    }

    /// Hears of changes.
    pub(super) fn changes(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

/// Hears that other jobs run, or are to end.
pub(super) struct Changes(watch::Receiver<State>);

impl Changes {
    /// Waits for a change. If it is dropped while it waits nothing is lost.
    pub(super) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Without the other side nothing changes.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Attempting {
    fn drop(&mut self) {
        self.runs.0.send_modify(|state| {
            if let Some(attempts) = state.running.get_mut(&self.job) {
                *attempts -= 1;
                if *attempts == 0 {
                    state.running.remove(&self.job);
                }
            }
        });
    }
}

/// Waits until then, or for ever.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
