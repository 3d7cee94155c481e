//! How every pod of the node is doing, and how its last instances ended: for whoever asks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sampan_core::{
    name::{PodName, ServiceKey},
    plan::{
        pod::{PodState, Record},
        probe::Watch,
        restart::{CRASH_LOOP, End},
    },
};
use sampan_runtime::{Usage, pod::Termination};
use tokio::time::Instant;

use super::instance::sum;

/// Ends of instances that are kept of each pod.
pub(crate) const MAX_ENDS: usize = 10;

/// Says what a pod has used so far.
pub(crate) type UsageOf = Arc<dyn Fn() -> Usage + Send + Sync>;

/// The pods of the node.
#[derive(Default)]
pub(crate) struct Board(Mutex<Pods>);

#[derive(Default)]
struct Pods {
    pods: BTreeMap<PodName, Entry>,
    /// What pods that are gone have used, by service.
    past: BTreeMap<ServiceKey, Usage>,
}

struct Entry {
    state: PodState,
    /// What the state's times count from.
    epoch: Instant,
    usage: UsageOf,
    ends: VecDeque<Arc<Termination>>,
    /// Restarts in earlier runs of the node.
    earlier: u32,
}

/// One pod.
#[derive(Clone)]
pub(crate) struct PodStatus {
    pub(crate) pod: PodName,
    /// Where it is in its life, in one word.
    pub(crate) phase: &'static str,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// Why it is where it is, if there is more to say.
    pub(crate) reason: Option<String>,
    /// When it is started again, if it waits for that.
    pub(crate) next_try_in: Option<Duration>,
    /// Probes that were missed because the pod got no CPU.
    pub(crate) starved: u64,
    pub(crate) usage: Usage,
    /// How its last instances ended, the latest last.
    pub(crate) ends: Vec<Arc<Termination>>,
}

impl Board {
    /// A pod is about to start.
    pub(crate) fn open(&self, pod: &PodName, usage: &UsageOf, earlier: u32) {
        let entry = Entry {
            state: PodState::Pending,
            epoch: Instant::now(),
            usage: Arc::clone(usage),
            earlier,
            ends: VecDeque::new(),
        };
        self.lock().pods.insert(pod.clone(), entry);
    }

    /// A pod has changed. Its times count from `epoch`.
    pub(crate) fn update(&self, pod: &PodName, state: &PodState, epoch: Instant) {
        if let Some(entry) = self.lock().pods.get_mut(pod) {
            entry.state = state.clone();
            entry.epoch = epoch;
        }
    }

    /// An instance has ended.
    pub(crate) fn record(&self, end: &Arc<Termination>) {
        if let Some(entry) = self.lock().pods.get_mut(&end.pod) {
            if entry.ends.len() == MAX_ENDS {
                entry.ends.pop_front();
            }
            entry.ends.push_back(Arc::clone(end));
        }
    }

    /// A pod is gone.
    pub(crate) fn close(&self, pod: &PodName) {
        let mut board = self.lock();
        if let Some(entry) = board.pods.remove(pod) {
            let mut used = (entry.usage)();
            // It holds nothing any more.
            used.memory_bytes = 0;
            let past = board.past.entry(pod.service().clone()).or_default();
            *past = sum([*past, used]);
        }
    }

    /// What all pods of a service have used, those that are gone too.
    pub(crate) fn usage(&self, service: &ServiceKey) -> Usage {
        let board = self.lock();
        let own = board
            .pods
            .iter()
            .filter(|(pod, _)| pod.service() == service);
        let past = board.past.get(service).copied();
        sum(own.map(|(_, entry)| (entry.usage)()).chain(past))
    }

    /// All pods, in the order of their names.
    pub(crate) fn all(&self) -> Vec<PodStatus> {
        let board = self.lock();
        board
            .pods
            .iter()
            .map(|(pod, entry)| entry.status(pod))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn status(&self, pod: &PodName) -> PodStatus {
        let mut status = PodStatus {
            pod: pod.clone(),
            phase: "Pending",
            ready: false,
            restarts: 0,
            reason: None,
            next_try_in: None,
            starved: 0,
            usage: (self.usage)(),
            ends: self.ends.iter().cloned().collect(),
        };
        let why = |end: &End| match end {
            End::Well => "it ended by itself".to_owned(),
            End::Failed(reason) => reason.clone(),
        };
        let mut record = Record::default();
        match &self.state {
            PodState::Pending => {}
            PodState::Starting { record: it, .. } => {
                (status.phase, record) = ("Starting", *it);
            }
            PodState::Running {
                record: it,
                ready,
                readiness,
                liveness,
                ..
            } => {
                (status.phase, record) = ("Running", *it);
                status.ready = *ready;
                let probes = [readiness, liveness].into_iter().flatten();
                status.starved = probes.map(Watch::starved).sum();
            }
            PodState::BackOff {
                record: it,
                until,
                end,
            } => {
                record = *it;
                status.phase = match it.streak >= CRASH_LOOP {
                    true => "CrashLoopBackOff",
                    false => "BackOff",
                };
                status.reason = Some(why(end));
                let at = self.epoch + until.since_zero();
                status.next_try_in = Some(at.saturating_duration_since(Instant::now()));
            }
            PodState::Draining { record: it, .. } => {
                (status.phase, record) = ("Draining", *it);
            }
            PodState::Stopped { record: it, end } => {
                (status.phase, record) = ("Stopped", *it);
                status.reason = end.as_ref().map(why);
            }
        }
        status.restarts = self.earlier.saturating_add(record.restarts);
        status
    }
}
