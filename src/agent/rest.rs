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
    /// Those that there is something of and that were not.
    waiting: BTreeSet<ServiceKey>,
    /// Something has changed since it was looked last.
    changed: bool,
    /// When to look again, if nothing does.
    wake_at: Option<Instant>,
    /// Services and jobs that were looked at.
    #[cfg(test)]
    looked: usize,
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
    /// Everything that is known now is to stop. Of these services and jobs there is something.
    pub(super) fn new(mirror: &Mirror, clock: Clock, there: BTreeSet<ServiceKey>) -> Self {
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
            waiting: there,
            changed: true,
            wake_at: None,
            #[cfg(test)]
            looked: 0,
        }
    }

    /// There is something of another service now.
    pub(super) fn came(&mut self, key: &ServiceKey) {
        if !self.told.contains(key) {
            self.waiting.insert(key.clone());
        }
        self.changed = true;
    }

    /// A service or a job has gone: it may be the turn of others.
    pub(super) fn went(&mut self) {
        self.changed = true;
    }

    /// Whose turn it is of those that are there and were not told yet. They count as told. Nothing is
    /// looked at unless something has come or gone, or it is time: the end of a pod of many costs
    /// nothing here.
    pub(super) fn due(&mut self, is_there: &dyn Fn(&ServiceKey) -> bool) -> Due {
        let now = Instant::now();
        let mut due = Due {
            wake_at: self.wake_at,
            ..Due::default()
        };
        if !self.changed && self.wake_at.is_none_or(|at| now < at) {
            return due;
        }
        due.wake_at = None;
        let mut waiting = std::mem::take(&mut self.waiting);
        #[cfg(test)]
        {
            self.looked += waiting.len();
        }
        waiting.retain(|key| {
            if !is_there(key) {
                return false;
            }
            let drain = match self.turn(key, is_there) {
                // It came after everything else was told to stop.
                None => None,
                Some(Turn::Now { drain }) => Some(drain),
                Some(Turn::After { until, .. }) => {
                    let at = self.clock.instant(until);
                    due.wake_at = due.wake_at.into_iter().chain(at).min();
                    return true;
                }
            };
            due.stop.push((key.clone(), drain));
            false
        });
        (self.waiting, self.wake_at, self.changed) = (waiting, due.wake_at, false);
        self.told
            .extend(due.stop.iter().map(|(key, _)| key.clone()));
        due
    }

    /// Whether a pod of the service may still start: what depends on it may call it.
    pub(super) fn may_start(
        &self,
        key: &ServiceKey,
        is_there: &dyn Fn(&ServiceKey) -> bool,
    ) -> bool {
        let waits = || matches!(self.turn(key, is_there), Some(Turn::After { .. }));
        !self.told.contains(key) && waits()
    }

    fn turn(&self, key: &ServiceKey, is_there: &dyn Fn(&ServiceKey) -> bool) -> Option<Turn> {
        let stop = self.stops.get(&key.app)?;
        Some(stop.turn(key, is_there, self.clock.now()))
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

    /// Whether the job runs.
    pub(super) fn is_running(&self, job: &ServiceKey) -> bool {
        self.0.borrow().running.contains_key(job)
    }

    /// Whether any job runs.
    pub(super) fn any_running(&self) -> bool {
        !self.0.borrow().running.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey::parse(&format!("shop/{name}")).expect("a key")
    }

    /// The stop of an app in which `web` depends on `api`, and of others that no app knows.
    fn rest(others: usize) -> Rest {
        let (web, api) = (key("web"), key("api"));
        let member = |key, depends_on| Member {
            key,
            depends_on,
            calls: Vec::new(),
        };
        let clock = Clock::start();
        let stop = Stop {
            order: StopOrder::new([member(&web, vec![&api.name]), member(&api, vec![])]),
            begun: clock.now(),
            limit: Duration::from_secs(10),
        };
        let other = |number| ServiceKey::parse(&format!("other/s{number}")).expect("a key");
        let others = (0..others).map(other);
        let there = others.chain([web.clone(), api.clone()]).collect();
        let mut rest = Rest::new(&Mirror::default(), clock, there);
        rest.stops.insert(web.app, stop);
        rest
    }

    /// The services and jobs that are due.
    fn due(rest: &mut Rest, gone: &[&ServiceKey]) -> (Vec<ServiceKey>, Option<Instant>) {
        let due = rest.due(&|key| !gone.contains(&key));
        (due.stop.into_iter().map(|it| it.0).collect(), due.wake_at)
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_one_pod_of_many_looks_at_nothing() {
        let (web, api) = (key("web"), key("api"));
        let mut rest = rest(1000);
        let (told, wake_at) = due(&mut rest, &[]);
        assert_eq!((told.len(), told.contains(&api)), (1001, false));
        assert!(wake_at.is_some());
        let looked = rest.looked;
        assert_eq!(looked, 1002);
        for _ in 0..10_000 {
            assert_eq!(due(&mut rest, &[]), (vec![], wake_at));
        }
        assert_eq!(rest.looked, looked);
        rest.went();
        assert_eq!(due(&mut rest, &[]), (vec![], wake_at), "`web` is there");
        rest.went();
        assert_eq!(due(&mut rest, &[&web]), (vec![api], None));
        assert_eq!(rest.looked, looked + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_all_that_waits_is_due() {
        let (web, api) = (key("web"), key("api"));
        let mut rest = rest(0);
        let (told, wake_at) = due(&mut rest, &[]);
        assert_eq!(told, [web]);
        tokio::time::sleep_until(wake_at.expect("a deadline")).await;
        assert_eq!(due(&mut rest, &[]), (vec![api], None));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_while_others_stop_waits_as_they_do() {
        let (web, api) = (key("web"), key("api"));
        let mut rest = rest(0);
        let (told, _) = due(&mut rest, &[&api]);
        assert_eq!(told, std::slice::from_ref(&web));
        assert!(rest.may_start(&api, &|key| *key == web));
        assert!(!rest.may_start(&web, &|_| true), "it has been told");
        rest.came(&api);
        assert_eq!(due(&mut rest, &[]).0, []);
        rest.went();
        assert_eq!(due(&mut rest, &[&web]).0, [api]);
    }
}
