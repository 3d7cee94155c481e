//! Runs the pods that the store says should be there, and stops those that should go.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use sampan_core::{
    name::{PodName, ServiceKey},
    plan::pod::{PodState, Preparation},
    provoke,
    record::{Key, Pod, PodPhase, Revision},
};
use sampan_gateway::Upstream;
use sampan_runtime::threads::DataThreads;
use sampan_store::Store;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    handle::Maker,
    loader::{Prepared, TemplateLoader},
    registry::{PodRegistry, Waiting},
    reports::{Reports, StatusReporter},
    rest::{JobRuns, Rest, sleep_until},
    rotation::Rotation,
    upstream::PodUpstream,
    worker::{Assignment, Worker},
};
use crate::{
    clock::LocalNode,
    events::{Change, Journal, Subject},
    mirror::{Follower, Stored},
    panics::joined,
};

/// Where pods stand to get requests.
pub(crate) trait EndpointRegistry: Send + Sync + 'static {
    /// Resolves when requests to the service are taken. Before that no pod of it may say that it is
    /// ready: who hears so would ask, and be told that there is no such service.
    fn opened<'a>(&'a self, service: &'a ServiceKey) -> BoxFuture<'a, ()>;

    /// A place for a pod, which is not ready yet. It runs on the data thread of the number `home`.
    fn enter(
        &self,
        pod: &PodName,
        home: usize,
        capacity: u32,
        upstream: Arc<dyn Upstream>,
    ) -> Arc<dyn Rotation>;

    /// The pod has gone.
    fn exit(&self, pod: &PodName);
}

/// The agent of a node.
pub(crate) struct Agent<W: TemplateLoader> {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) node: LocalNode,
    pub(crate) loader: Arc<W>,
    pub(crate) endpoints: Arc<dyn EndpointRegistry>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) registry: Arc<PodRegistry>,
    /// The threads that guests run on. What is known of pods is kept where [`Self::run`] runs.
    pub(crate) threads: Arc<DataThreads>,
    /// The jobs that stop together with the pods.
    pub(crate) jobs: Arc<JobRuns>,
}

/// How long a pod may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Run,
    /// It is to go, and its object with it.
    Stop(Drain),
    /// The node goes down: it stops, and is there again when the node is.
    Rest(Drain),
}

/// How long a pod may drain, if that is less than its revision says.
type Drain = Option<Duration>;

type Slot<M> = Arc<tokio::sync::Mutex<Weak<Prepared<M>>>>;
/// What pods of each revision share.
struct Slots<M> {
    by_revision: BTreeMap<(ServiceKey, u64), Slot<M>>,
    /// How many were in use when it was looked last.
    in_use: usize,
}

struct Shared<W: TemplateLoader> {
    agent: Agent<W>,
    reports: Reports,
    /// What pods of one revision share.
    prepared: Mutex<Slots<W::Maker>>,
}

impl<W: TemplateLoader> Agent<W> {
    /// Runs pods until told to rest, then lets them end their requests and stops them, and jobs with
    /// them: each after what depends on it.
    pub(crate) async fn run(self, mut follower: Follower, rest: Arc<Notify>) {
        provoke::panic_in(provoke::Task::Agent);
        let shared = Arc::new(Shared {
            agent: self,
            reports: Reports::default(),
            prepared: Mutex::new(Slots {
                by_revision: BTreeMap::new(),
                in_use: 0,
            }),
        });
        let mut pods = Pods {
            shared: Arc::clone(&shared),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            rest: None,
        };
        pods.see(&follower, follower.keys());
        let reader = follower.reader();
        let writing = shared.reports.write(&*shared.agent.store, &reader);
        let mut jobs = shared.agent.jobs.changes();
        let running = async {
            let mut is_open = true;
            while !pods.are_at_rest() {
                let wake_at = pods.stop_due();
                tokio::select! {
                    () = rest.notified() => pods.begin_rest(&follower),
                    keys = follower.next(), if is_open => match keys {
                        Some(keys) => pods.see(&follower, keys),
                        None => {
                            is_open = false;
                            pods.begin_rest(&follower);
                        }
                    },
                    Some(done) = pods.tasks.join_next() => {
                        pods.ended(&follower, &joined(done).await);
                    }
                    () = jobs.next() => pods.jobs_changed(),
                    () = sleep_until(wake_at) => {}
                }
            }
        };
        tokio::select! {
            () = writing => {}
            () = running => {}
        }
    }
}

/// A pod that there is something of.
struct Running {
    /// The revision of the store that created it.
    created: sampan_store::Revision,
    wanted: watch::Sender<Wanted>,
}

struct Pods<W: TemplateLoader> {
    shared: Arc<Shared<W>>,
    running: BTreeMap<PodName, Running>,
    tasks: JoinSet<PodName>,
    /// Once the node goes down.
    rest: Option<Rest>,
}

impl<W: TemplateLoader> Pods<W> {
    /// Does what is wanted of the pods among these keys.
    fn see(&mut self, follower: &Follower, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            match key {
                Key::Pod(pod) => self.reconcile(follower, &pod),
                Key::Service(service) => self.forget(follower, &service),
                Key::App(_) | Key::Revision(..) | Key::Job(_) | Key::Secret(..) => {}
            }
        }
    }

    /// Forgets what was counted of a service, if that is gone.
    fn forget(&self, follower: &Follower, service: &ServiceKey) {
        if !follower.mirror().services.contains_key(service) {
            self.shared.agent.registry.forget(service);
        }
    }

    fn reconcile(&mut self, follower: &Follower, pod: &PodName) {
        let mirror = follower.mirror();
        let is_own =
            |it: &&Stored<Pod>| it.value.node.as_ref() == Some(&self.shared.agent.node.name);
        let stored = mirror.pods.get(pod).filter(is_own);
        match (self.running.get(pod), stored) {
            (Some(running), stored) => {
                let runs_on =
                    |it: &Stored<Pod>| it.value.stop.is_none() && it.created == running.created;
                if !stored.is_some_and(runs_on) {
                    let drain = stored.and_then(|it| it.value.drain_ms);
                    let drain = drain.map(Duration::from_millis);
                    running.wanted.send_replace(Wanted::Stop(drain));
                }
            }
            (None, None) => {}
            (None, Some(stored)) if stored.value.stop.is_some() => {
                // It was stopped before the node went down.
                self.shared.reports.gone(pod, stored.created);
            }
            (None, Some(stored)) => self.start(pod, stored),
        }
    }

    fn start(&mut self, pod: &PodName, stored: &Stored<Pod>) {
        // An end is for good.
        if stored.value.status.phase == PodPhase::Ended || !self.may_start(pod.service()) {
            return;
        }
        let created = stored.created;
        let (sender, receiver) = watch::channel(Wanted::Run);
        let running = Running {
            created,
            wanted: sender,
        };
        if let Some(rest) = &mut self.rest
            && !is_there(&self.running, pod.service())
        {
            rest.came(pod.service());
        }
        self.running.insert(pod.clone(), running);
        let life = Life {
            shared: Arc::clone(&self.shared),
            pod: pod.clone(),
            created,
            earlier: stored.value.status.restarts,
            wanted: receiver,
        };
        self.tasks.spawn(life.run());
    }

    fn ended(&mut self, follower: &Follower, pod: &PodName) {
        let ended = self.running.remove(pod);
        if let Some(rest) = &mut self.rest
            && !is_there(&self.running, pod.service())
        {
            rest.went();
        }
        self.forget(follower, pod.service());
        // There may be another of its name by now. Of this one all has been said if it is to stop.
        let is_new = |it: &Stored<Pod>| {
            it.value.stop.is_none() || ended.is_none_or(|ended| ended.created != it.created)
        };
        let is_new = follower.mirror().pods.get(pod).is_some_and(is_new);
        if is_new {
            self.reconcile(follower, pod);
        }
    }

    /// Begins to stop all pods, and leaves what the store says of them.
    fn begin_rest(&mut self, follower: &Follower) {
        let agent = &self.shared.agent;
        agent.jobs.rest();
        let clock = agent.node.clock;
        let (running, jobs) = (&self.running, &agent.jobs);
        self.rest.get_or_insert_with(|| {
            let services = running.keys().map(PodName::service).cloned();
            let there = services.chain(jobs.running()).collect();
            Rest::new(&follower.mirror(), clock, there)
        });
    }

    /// Whether everything has stopped.
    fn are_at_rest(&self) -> bool {
        self.rest.is_some() && self.running.is_empty() && !self.shared.agent.jobs.any_running()
    }

    /// Other jobs run, or are to end.
    fn jobs_changed(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.went();
        }
    }

    /// Stops what is due once the node goes down. Returns when to look again.
    fn stop_due(&mut self) -> Option<Instant> {
        let (running, jobs) = (&self.running, &self.shared.agent.jobs);
        let due = (self.rest.as_mut()?).due(&|key| is_there(running, key) || jobs.is_running(key));
        for (key, drain) in &due.stop {
            jobs.end(key);
            for running in pods_of(running, key) {
                running.wanted.send_if_modified(|wanted| {
                    let runs = *wanted == Wanted::Run;
                    if runs {
                        *wanted = Wanted::Rest(*drain);
                    }
                    runs
                });
            }
        }
        due.wake_at
    }

    /// Whether a pod of the service may start: when the node goes down, only if what depends on it is
    /// still there and may call it.
    fn may_start(&self, service: &ServiceKey) -> bool {
        let Some(rest) = &self.rest else { return true };
        let (running, jobs) = (&self.running, &self.shared.agent.jobs);
        rest.may_start(service, &|key| {
            is_there(running, key) || jobs.is_running(key)
        })
    }
}

/// The pods of a service that there is something of.
fn pods_of<'a>(
    running: &'a BTreeMap<PodName, Running>,
    service: &'a ServiceKey,
) -> impl Iterator<Item = &'a Running> {
    let from = running.range(PodName::new(service, 0, 0)..);
    from.take_while(move |(pod, _)| pod.service() == service)
        .map(|(_, running)| running)
}

/// Whether there is something of a service: a pod that runs, or drains.
fn is_there(running: &BTreeMap<PodName, Running>, service: &ServiceKey) -> bool {
    pods_of(running, service).next().is_some()
}

/// One pod, from its preparation to its end.
struct Life<W: TemplateLoader> {
    shared: Arc<Shared<W>>,
    pod: PodName,
    /// The revision of the store that created it.
    created: sampan_store::Revision,
    /// Restarts in earlier runs of the node.
    earlier: u32,
    wanted: watch::Receiver<Wanted>,
}

impl<W: TemplateLoader> Life<W> {
    async fn run(mut self) -> PodName {
        let reporter = StatusReporter::new(self.shared.agent.node.clock.boot(), self.earlier);
        let reporter = Arc::new(Mutex::new(reporter));
        if let Some(prepared) = self.prepared(&reporter).await
            && self.opened().await
        {
            let worker = self.start(&prepared, reporter);
            let drain = self.over().await;
            worker.stop(drain).await;
            self.shared.agent.endpoints.exit(&self.pod);
        }
        self.shared.agent.registry.close(&self.pod);
        if matches!(*self.wanted.borrow(), Wanted::Stop(_)) {
            self.shared.reports.gone(&self.pod, self.created);
        }
        self.pod
    }

    /// Waits until requests to its service are taken. Says whether the pod is still to run.
    async fn opened(&mut self) -> bool {
        let (shared, pod) = (Arc::clone(&self.shared), self.pod.clone());
        self.wait("requests to its service are not taken yet", None);
        tokio::select! {
            biased;
            _ = self.over() => false,
            () = shared.agent.endpoints.opened(pod.service()) => true,
        }
    }

    /// Waits until the pod is not to run any more. Says how long it may drain.
    async fn over(&mut self) -> Drain {
        let over = self.wanted.wait_for(|wanted| *wanted != Wanted::Run);
        match over.await.as_deref() {
            Ok(Wanted::Stop(drain) | Wanted::Rest(drain)) => *drain,
            // A sender that is gone is a pod that is not wanted.
            Ok(Wanted::Run) | Err(_) => None,
        }
    }

    fn start(
        &self,
        prepared: &Arc<Prepared<W::Maker>>,
        reporter: Arc<Mutex<StatusReporter>>,
    ) -> Worker {
        let agent = &self.shared.agent;
        let upstream = Arc::new(PodUpstream::empty());
        let (home, thread) = agent
            .threads
            .deal(self.pod.service(), self.pod.slot().into());
        let capacity = prepared.capacity;
        let rotation = agent
            .endpoints
            .enter(&self.pod, home, capacity, upstream.clone());
        let (shared, pod) = (Arc::clone(&self.shared), self.pod.clone());
        let created = self.created;
        let report = move |state: &PodState| {
            let mut reporter = reporter.lock();
            if let Some(status) = reporter.tell(state) {
                shared.reports.is(&pod, created, status);
            }
        };
        let _thread = thread.enter();
        Worker::start(Assignment {
            pod: self.pod.clone(),
            spec: Arc::clone(&prepared.spec),
            maker: (prepared.maker)(&self.pod),
            upstream,
            rotation,
            journal: Arc::clone(&agent.journal),
            registry: Arc::clone(&agent.registry),
            restarts: self.earlier,
            report: Arc::new(report),
        })
    }

    /// What the pod is made from, when it is there. `None` if the pod is to go before that.
    async fn prepared(
        &mut self,
        reporter: &Mutex<StatusReporter>,
    ) -> Option<Arc<Prepared<W::Maker>>> {
        let mut preparation = Preparation::default();
        self.wait("its component is being prepared", None);
        loop {
            let (shared, pod) = (Arc::clone(&self.shared), self.pod.clone());
            let reason = tokio::select! {
                biased;
                _ = self.over() => return None,
                prepared = shared.prepare(&pod) => match prepared {
                    Ok(prepared) => return Some(prepared),
                    Err(reason) => reason,
                },
            };
            let retry = preparation.failed(&reason);
            let next_try = Instant::now() + retry.delay;
            self.wait(&reason, Some(next_try));
            for notice in retry.notices {
                let (pod, subject) = (&self.pod, Subject::Service(self.pod.service().clone()));
                let pod = pod.clone();
                let change = Change::Pod { pod, notice };
                self.shared.agent.journal.record(subject, change);
            }
            let stuck = {
                let mut reporter = reporter.lock();
                reporter.stuck(reason)
            };
            if let Some(status) = stuck {
                self.shared.reports.is(&self.pod, self.created, status);
            }
            tokio::select! {
                _ = self.over() => return None,
                () = tokio::time::sleep_until(next_try) => {}
            }
        }
    }

    /// Shows what the pod waits for, and when what has failed is tried again.
    fn wait(&self, reason: &str, next_try: Option<Instant>) {
        let waiting = Waiting {
            reason: reason.to_owned(),
            next_try,
            earlier: self.earlier,
        };
        self.shared.agent.registry.wait(&self.pod, waiting);
    }
}

impl<W: TemplateLoader> Shared<W> {
    /// What the pods of this one's revision are made from: prepared once, as long as one is there.
    async fn prepare(&self, pod: &PodName) -> Result<Arc<Prepared<W::Maker>>, String> {
        let slot = self.slot(pod);
        provoke::panic_in(provoke::Task::Preparation);
        let mut slot = slot.lock().await;
        if let Some(prepared) = slot.upgrade() {
            return Ok(prepared);
        }
        let key = Key::Revision(pod.service().clone(), pod.revision()).to_string();
        let entry = self.agent.store.get(&key).await;
        let entry = entry.map_err(|error| error.to_string())?;
        let entry = entry.ok_or_else(|| format!("revision {} is gone", pod.revision()))?;
        let revision: Revision =
            serde_json::from_slice(&entry.value).map_err(|error| error.to_string())?;
        let preparing = self.agent.loader.prepare(pod.service(), &revision.template);
        let prepared = Arc::new(preparing.await?);
        *slot = Arc::downgrade(&prepared);
        Ok(prepared)
    }

    fn slot(&self, pod: &PodName) -> Slot<W::Maker> {
        let mut slots = self.prepared.lock();
        let key = (pod.service().clone(), pod.revision());
        if let Some(slot) = slots.by_revision.get(&key) {
            return Arc::clone(slot);
        }
        slots.sweep();
        Arc::clone(slots.by_revision.entry(key).or_default())
    }
}

impl<M: Maker> Slots<M> {
    /// Forgets those that no pod uses, once there are twice as many as were in use the last time: so
    /// each of them is looked at a few times, and not for every other one.
    fn sweep(&mut self) {
        if self.by_revision.len() < 2 * self.in_use {
            return;
        }
        self.by_revision.retain(|_, slot| {
            let in_use = |slot: &Slot<M>| slot.try_lock().is_ok_and(|slot| slot.strong_count() > 0);
            Arc::strong_count(slot) > 1 || in_use(slot)
        });
        self.in_use = self.by_revision.len();
    }
}
