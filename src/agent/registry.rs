//! How every pod of the node is doing, and how its last instances ended.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sampan_core::{
    histogram::Distribution,
    name::{PodName, ServiceKey},
    plan::pod::{PodSpec, PodState},
    record::{Boot, PodPhase},
};
use sampan_runtime::{Usage, pod::Termination};
use tokio::time::Instant;

use super::handle::sum;

/// Ends of instances that are kept of each pod.
pub(crate) const MAX_ENDS: usize = 10;

/// Where a pod can be in its life.
pub(crate) const PHASES: [&str; PodPhase::WORDS.len()] = PodPhase::WORDS;

/// Says what a pod has used so far.
pub(crate) trait Account: Send + Sync {
    /// All of it.
    fn usage(&self) -> Usage;

    /// What each of its requests has cost.
    fn request_cpu(&self) -> Distribution;
}

/// The pods of the node.
#[derive(Default)]
pub(crate) struct PodRegistry(Mutex<Pods>);

#[derive(Default)]
struct Pods {
    pods: BTreeMap<PodName, Entry>,
    /// Pods that are wanted and have no worker yet.
    waiting: BTreeMap<PodName, Waiting>,
    /// What is known of each service beyond its pods.
    services: BTreeMap<ServiceKey, Past>,
}

/// What was counted of a service and is not to go back when its pods go.
#[derive(Default)]
struct Past {
    /// What pods that are gone have used.
    usage: Usage,
    /// What each of their requests has cost.
    request_cpu: Distribution,
    /// How often they were started again.
    restarts: u64,
    /// How often an instance of any pod ended like this.
    kills: BTreeMap<&'static str, u64>,
}

/// What the pods of a service are and have been, those that are gone too.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceTotals {
    /// Pods that there are, by where they are in their lives: as many numbers as [`PHASES`].
    pub(crate) phases: [u64; PHASES.len()],
    pub(crate) ready: u64,
    /// Restarts in this run of the node.
    pub(crate) restarts: u64,
    /// Instances that ended badly, by verdict.
    pub(crate) kills: BTreeMap<&'static str, u64>,
    pub(crate) usage: Usage,
}

struct Entry {
    state: PodState,
    /// What the state's times count from.
    epoch: Instant,
    account: Arc<dyn Account>,
    ends: VecDeque<Arc<Termination>>,
    /// Restarts in earlier runs of the node.
    earlier: u32,
    spec: Arc<PodSpec>,
    /// Since when it is ready, if it is, and what it had used until then.
    ready: Option<(Instant, Duration)>,
}

/// A pod that is wanted and cannot begin its life yet.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// For what, or because of what.
    pub(crate) reason: String,
    /// When it is tried again, if something has failed.
    pub(crate) next_try: Option<Instant>,
    /// Restarts in earlier runs of the node.
    pub(crate) earlier: u32,
}

/// What a pod has used, to be read again and again.
#[derive(Clone)]
pub(crate) struct PodMeasure {
    pub(crate) pod: PodName,
    /// Where it is in its life, in one word.
    pub(crate) phase: &'static str,
    /// Whether it only ends what it has, or has ended.
    pub(crate) drains: bool,
    /// Since when it is ready, if it is, and the CPU it had used until then.
    pub(crate) ready: Option<(Instant, Duration)>,
    pub(crate) usage: Usage,
    pub(crate) spec: Arc<PodSpec>,
}

/// What the node knows of one pod.
#[derive(Clone, Default)]
pub(crate) struct KnownPod {
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

impl PodRegistry {
    /// A pod waits for what it needs to begin its life.
    pub(crate) fn wait(&self, pod: &PodName, waiting: Waiting) {
        self.0.lock().waiting.insert(pod.clone(), waiting);
    }

    /// A pod is about to start.
    pub(crate) fn open(
        &self,
        pod: &PodName,
        spec: &Arc<PodSpec>,
        account: &Arc<dyn Account>,
        earlier: u32,
    ) {
        let entry = Entry {
            state: PodState::Pending,
            epoch: Instant::now(),
            account: Arc::clone(account),
            earlier,
            ends: VecDeque::new(),
            spec: Arc::clone(spec),
            ready: None,
        };
        let mut registry = self.0.lock();
        registry.waiting.remove(pod);
        registry.pods.insert(pod.clone(), entry);
    }

    /// A pod has changed. Its times count from `epoch`.
    pub(crate) fn update(&self, pod: &PodName, state: &PodState, epoch: Instant) {
        if let Some(entry) = self.0.lock().pods.get_mut(pod) {
            entry.state = state.clone();
            entry.epoch = epoch;
            entry.ready = match state.is_ready() {
                true => entry
                    .ready
                    .or_else(|| Some((Instant::now(), entry.account.usage().cpu))),
                false => None,
            };
        }
    }

    /// An instance has ended.
    pub(crate) fn record(&self, end: &Arc<Termination>) {
        let mut registry = self.0.lock();
        if let Some(entry) = registry.pods.get_mut(&end.pod) {
            if entry.ends.len() == MAX_ENDS {
                entry.ends.pop_front();
            }
            entry.ends.push_back(Arc::clone(end));
        } else {
            return;
        }
        let past = registry
            .services
            .entry(end.pod.service().clone())
            .or_default();
        *past.kills.entry(end.verdict.word()).or_default() += 1;
    }

    /// A pod is gone.
    pub(crate) fn close(&self, pod: &PodName) {
        let mut registry = self.0.lock();
        registry.waiting.remove(pod);
        if let Some(entry) = registry.pods.remove(pod) {
            let mut used = entry.account.usage();
            // It holds nothing any more.
            used.memory_bytes = 0;
            let restarts = u64::from(entry.state.record().restarts);
            let past = registry.services.entry(pod.service().clone()).or_default();
            past.usage = sum([past.usage, used]);
            past.request_cpu.add(&entry.account.request_cpu());
            past.restarts += restarts;
        }
    }

    /// Forgets what was counted of a service that is gone, unless it still has pods.
    pub(crate) fn forget(&self, service: &ServiceKey) {
        let mut registry = self.0.lock();
        let mut pods = registry.pods.range(PodName::new(service, 0, 0)..);
        if pods.next().is_none_or(|(pod, _)| pod.service() != service) {
            registry.services.remove(service);
        }
    }

    /// What all pods of a service have used, those that are gone too.
    pub(crate) fn usage(&self, service: &ServiceKey) -> Usage {
        let registry = self.0.lock();
        let own = registry.pods.range(PodName::new(service, 0, 0)..);
        let own = own.take_while(|(pod, _)| pod.service() == service);
        let past = registry.services.get(service).map(|it| it.usage);
        sum(own.map(|(_, entry)| entry.account.usage()).chain(past))
    }

    /// The CPU time of guests for one request, of those that pods of a service have answered, those
    /// that are gone too. [`sampan_runtime::pod::Pod::request_cpu`] says which requests count.
    pub(crate) fn request_cpu(&self, service: &ServiceKey) -> Distribution {
        let registry = self.0.lock();
        let past = registry.services.get(service).map(|it| &it.request_cpu);
        let mut all = past.cloned().unwrap_or_default();
        let own = registry.pods.range(PodName::new(service, 0, 0)..);
        for (_, entry) in own.take_while(|(pod, _)| pod.service() == service) {
            all.add(&entry.account.request_cpu());
        }
        all
    }

    /// What the pods of each service are and have been. Services without pods are among them as
    /// long as something was counted of them.
    pub(crate) fn totals(&self) -> BTreeMap<ServiceKey, ServiceTotals> {
        let registry = self.0.lock();
        let past = registry.services.iter().map(|(key, past)| {
            let totals = ServiceTotals {
                restarts: past.restarts,
                kills: past.kills.clone(),
                usage: past.usage,
                ..ServiceTotals::default()
            };
            (key.clone(), totals)
        });
        let mut services: BTreeMap<_, _> = past.collect();
        for (pod, entry) in &registry.pods {
            let totals = services.entry(pod.service().clone()).or_default();
            totals.count(entry.phase());
            totals.ready += u64::from(entry.state.is_ready());
            totals.restarts += u64::from(entry.state.record().restarts);
            totals.usage = sum([totals.usage, entry.account.usage()]);
        }
        for (pod, waiting) in &registry.waiting {
            let totals = services.entry(pod.service().clone()).or_default();
            totals.count(waiting.phase());
        }
        services
    }

    /// How many pods there are.
    pub(crate) fn count(&self) -> usize {
        let registry = self.0.lock();
        registry.pods.len() + registry.waiting.len()
    }

    /// A pod, if it is known.
    pub(crate) fn get(&self, pod: &PodName) -> Option<KnownPod> {
        let registry = self.0.lock();
        let known = registry.pods.get(pod).map(Entry::status);
        known.or_else(|| registry.waiting.get(pod).map(Waiting::status))
    }

    /// What all pods have used, in the order of their names.
    pub(crate) fn measure(&self) -> Vec<PodMeasure> {
        let registry = self.0.lock();
        let measure = |(pod, entry): (&PodName, &Entry)| PodMeasure {
            pod: pod.clone(),
            phase: entry.phase(),
            drains: matches!(
                entry.state,
                PodState::Draining { .. } | PodState::Stopped { .. }
            ),
            ready: entry.ready,
            usage: entry.account.usage(),
            spec: Arc::clone(&entry.spec),
        };
        registry.pods.iter().map(measure).collect()
    }
}

impl ServiceTotals {
    fn count(&mut self, phase: &'static str) {
        for (count, word) in self.phases.iter_mut().zip(PHASES) {
            *count += u64::from(word == phase);
        }
    }
}

impl Waiting {
    fn phase(&self) -> &'static str {
        match self.next_try {
            Some(_) => PodPhase::BackOff.word(),
            None => PodPhase::Pending.word(),
        }
    }

    fn status(&self) -> KnownPod {
        let now = Instant::now();
        KnownPod {
            phase: self.phase(),
            restarts: self.earlier,
            reason: Some(self.reason.clone()),
            next_try_in: self.next_try.map(|at| at.saturating_duration_since(now)),
            ..KnownPod::default()
        }
    }
}

impl Entry {
    /// Where the pod is in its life, in one word.
    fn phase(&self) -> &'static str {
        self.state.phase(0).word()
    }

    fn status(&self) -> KnownPod {
        let stored = (self.state).status(Boot::default(), 0, self.earlier);
        let mut status = KnownPod {
            phase: stored.phase.word(),
            restarts: stored.restarts,
            reason: stored.reason,
            usage: self.account.usage(),
            ends: self.ends.iter().cloned().collect(),
            ..KnownPod::default()
        };
        match &self.state {
            PodState::Pending
            | PodState::Starting { .. }
            | PodState::Draining { .. }
            | PodState::Stopped { .. } => {}
            PodState::Running(running) => {
                status.ready = running.ready;
                status.starved = running.starved();
            }
            PodState::BackOff { until, .. } => {
                let at = self.epoch + until.since_zero();
                status.next_try_in = Some(at.saturating_duration_since(Instant::now()));
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use sampan_core::histogram::LogLinear;

    use super::*;
    use crate::agent::fake;

    /// A pod that has used the same all along.
    struct Used(Usage, LogLinear);

    impl Account for Used {
        fn usage(&self) -> Usage {
            self.0
        }

        fn request_cpu(&self) -> Distribution {
            self.1.distribution()
        }
    }

    #[test]
    fn what_pods_have_used_stays_counted_when_they_are_gone() {
        let second = Duration::from_secs(1);
        let usage = Usage {
            throttled: second,
            memory_bytes: 5,
            ..Usage::default()
        };
        let requests = LogLinear::default();
        requests.record(second);
        let account: Arc<dyn Account> = Arc::new(Used(usage, requests));
        let (registry, spec) = (PodRegistry::default(), Arc::new(fake::spec()));
        let [web, api] = ["shop/web", "shop/api"].map(|it| ServiceKey::parse(it).expect("a key"));
        let pods = [(&web, 0), (&web, 1), (&api, 0)].map(|(key, n)| PodName::new(key, 1, n));
        pods.iter()
            .for_each(|pod| registry.open(pod, &spec, &account, 0));
        registry.close(&pods[0]);
        let usage = registry.usage(&web);
        assert_eq!((usage.throttled, usage.memory_bytes), (2 * second, 5));
        assert_eq!(registry.totals()[&web].usage, usage);
        assert_eq!(registry.request_cpu(&web).count(), 2);
        registry.close(&pods[1]);
        assert_eq!(registry.usage(&web).throttled, 2 * second);
        assert_eq!(registry.request_cpu(&web).sum(), 2 * second);
        assert_eq!(registry.request_cpu(&api).count(), 1);
        registry.forget(&web);
        registry.forget(&api);
        assert_eq!(registry.request_cpu(&web).count(), 0);
    }
}
