//! The controllers: bring what is closer to what is wanted, by writing to the store.
//!
//! One loop for all keys, with two laws: there are never two reconciles of one key at a time, and
//! of two times at which a key is to be looked at the earlier one holds. A reconcile is given a key,
//! and looks at what is known: the mirror of the store, and what the autoscaler wants. So it does
//! not matter what woke it, nor whether it was woken too often.

pub(crate) mod autoscale;
mod balance;
mod due;
mod job;
mod object;
pub(crate) mod placing;
mod prune;
mod reconciled;
mod rollout;
pub(crate) mod rollouts;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use autoscale::{Autoscaler, Autoscaling, News};
use due::Agenda;
use object::Object;
use placing::{NodesOf, Placing};
use reconciled::{Plan, Told};
use rollout::Memory;
use rollouts::Rollouts;
use sampan_core::{
    name::{Name, PodName, ServiceKey},
    provoke,
    record::{JobPhase, Key, Service},
};
use sampan_store::{Outcome, Revision, Store, StoreError, Transaction};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    clock::LocalNode,
    events::Journal,
    mirror::{Follower, Mirror, Stored},
    panics::joined,
};

/// Every key is looked at again after this time, so that nothing depends on being told.
const RESYNC: Duration = Duration::from_secs(30);
/// The first wait after a reconcile failed; it doubles.
const RETRY: Duration = Duration::from_millis(10);
/// The longest such wait.
const MAX_RETRY: Duration = Duration::from_secs(5);

/// How the last reconcile of a key ended.
enum End {
    Done,
    /// Another component wrote meanwhile: the mirror was behind.
    Conflict,
    Failed(StoreError),
}

/// The controllers of a node.
pub(crate) struct Controllers {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) node: LocalNode,
    /// What says that this node leads, where there are several: each transaction compares it, so that
    /// a node that leads no more writes nothing, whether it knows or not.
    pub(crate) lead: Option<(String, Revision)>,
    pub(crate) autoscaling: Autoscaling,
    /// How rollouts have ended.
    pub(crate) rollouts: Arc<Rollouts>,
    /// Set when everything has been looked at once: what an earlier run of the node observed is
    /// in no status any more.
    pub(crate) looked: watch::Sender<bool>,
    /// The nodes on which pods may run, if there are several.
    pub(crate) nodes: Option<NodesOf>,
    /// Told when nodes have come, gone or changed: everything is looked at again.
    pub(crate) nodes_changed: Arc<Notify>,
    /// Told when they are to finish what they have begun, and to end.
    pub(crate) finish: Arc<Notify>,
}

impl Controllers {
    /// Works until the store is closed, it is to finish, or this is dropped.
    pub(crate) async fn run(self, follower: Follower) {
        let memory = Memory::new(self.nodes.clone().map(Placing::new));
        let mut state = Loop {
            autoscaler: Autoscaler::new(self.autoscaling.clone()),
            controllers: Arc::new(self),
            memory,
            due: Agenda::default(),
            running: JoinSet::new(),
            unseen: BTreeSet::new(),
            unwritten: Vec::new(),
        };
        let keys = follower.keys();
        state.look_at(&follower.mirror(), &keys);
        state.unseen = state.due.keys().cloned().collect();
        state.run(follower).await;
    }

    fn reconcile(
        &self,
        object: &Object,
        mirror: &Mirror,
        autoscaler: &Autoscaler,
        memory: &mut Memory,
    ) -> Plan {
        let follow = || prune::follow(object.app(), &object.key(), mirror);
        provoke::panic_in(provoke::Task::Controllers);
        match object {
            Object::Service(key) => {
                let Some(stored) = mirror.services.get(key) else {
                    memory.forget(key);
                    return Plan::default();
                };
                follow().unwrap_or_else(|| {
                    let scaling = autoscaler.decision(&stored.value);
                    rollout::reconcile(stored, mirror, &self.node, memory, scaling)
                })
            }
            Object::Job(key) => {
                let placing = memory.placing.as_mut();
                follow().unwrap_or_else(|| job::reconcile(key, mirror, &self.node, placing))
            }
            Object::History(key) => prune::history(key, mirror),
            Object::App(name) => prune::reconcile(name, mirror),
        }
    }

    async fn execute(&self, object: &Object, transaction: Transaction, told: Vec<Told>) -> End {
        provoke::panic_in(provoke::Task::Reconcile);
        if !transaction.writes.is_empty() {
            let transaction = match &self.lead {
                Some((key, revision)) => transaction.compare(key.as_str(), *revision),
                None => transaction,
            };
            let _turn = self.store.turns().shared(object.app().as_str()).await;
            match self.store.commit(transaction).await {
                Ok(Outcome::Committed(revision)) => {
                    tracing::debug!(key = %object.key(), ?revision, "written");
                }
                Ok(Outcome::Conflict(with)) => {
                    tracing::debug!(key = %object.key(), ?with, "changed meanwhile: planned again");
                    return End::Conflict;
                }
                Err(error) => return End::Failed(error),
            }
        }
        for Told { subject, change } in told {
            self.journal.record(subject, change);
        }
        End::Done
    }
}

struct Loop {
    controllers: Arc<Controllers>,
    autoscaler: Autoscaler,
    /// What is remembered of services.
    memory: Memory,
    due: Agenda,
    running: JoinSet<(Object, Vec<PodName>, End)>,
    /// Pods that a plan has given nodes and that were not written.
    unwritten: Vec<PodName>,
    /// What there was at the start and has not been looked at yet, or not with success. However
    /// much happens meanwhile, it becomes less.
    unseen: BTreeSet<Object>,
}

impl Loop {
    async fn run(mut self, mut follower: Follower) {
        let finish = Arc::clone(&self.controllers.finish);
        let nodes = Arc::clone(&self.controllers.nodes_changed);
        let mut resync = tokio::time::interval(RESYNC);
        loop {
            self.start_due(&follower);
            if self.unseen.is_empty() {
                let looked = &self.controllers.looked;
                looked.send_if_modified(|looked| !std::mem::replace(looked, true));
            }
            let next = self.next_due();
            tokio::select! {
                keys = follower.next() => match keys {
                    Some(keys) => {
                        let mirror = follower.mirror();
                        self.look_at(&mirror, &keys);
                        // A request may have come before the gateway knew that there are no pods.
                        self.scale(&mirror, &News::Called);
                    }
                    None => return,
                },
                news = self.autoscaler.news() => self.scale(&follower.mirror(), &news),
                Some(done) = self.running.join_next() => {
                    let (object, placed, end) = joined(done).await;
                    self.ended(object, placed, &end);
                }
                () = sleep_until(next) => {}
                _ = resync.tick() => {
                    let keys = follower.keys();
                    self.look_at(&follower.mirror(), &keys);
                }
                () = nodes.notified() => {
                    if let Some(placing) = &mut self.memory.placing {
                        placing.refresh();
                    }
                    let keys = follower.keys();
                    self.look_at(&follower.mirror(), &keys);
                }
                () = finish.notified() => break,
            }
        }
        // What is written is told, too.
        while self.running.join_next().await.is_some() {}
    }

    /// Has everything looked at that changes of these keys may concern.
    fn look_at(&mut self, mirror: &Mirror, keys: &BTreeSet<Key>) {
        let now = Instant::now();
        let mut objects = BTreeSet::new();
        for key in keys {
            match key {
                Key::App(name) => {
                    objects.insert(Object::App(name.clone()));
                    if mirror.apps.get(name).is_some_and(|it| it.value.deleting) {
                        let services = mirror.services_in(name).map(|it| &it.value.key);
                        objects.extend(services.cloned().map(Object::Service));
                        let jobs = mirror.jobs_in(name).map(|it| &it.value.key);
                        objects.extend(jobs.cloned().map(Object::Job));
                    }
                }
                Key::Service(service) => {
                    let is_there = mirror.services.contains_key(service);
                    self.controllers.rollouts.know(service, is_there);
                    objects.insert(Object::Service(service.clone()));
                    objects.insert(rest(mirror, service));
                    dependents(mirror, service, &mut objects);
                    going(mirror, &service.app, &mut objects);
                }
                Key::Job(job) => {
                    objects.insert(Object::Job(job.clone()));
                    self.count_job(job, mirror, &mut objects);
                    if mirror.jobs.get(job).is_none_or(|it| it.value.deleting) {
                        objects.insert(Object::App(job.app.clone()));
                    }
                    dependents(mirror, job, &mut objects);
                    going(mirror, &job.app, &mut objects);
                }
                // Nothing is decided by them.
                Key::Secret(..) => {}
                Key::Revision(service, _) => {
                    objects.insert(Object::Service(service.clone()));
                    objects.insert(rest(mirror, service));
                }
                Key::Pod(pod) => {
                    objects.insert(Object::Service(pod.service().clone()));
                    self.count(pod, mirror, &mut objects);
                    // When the last pod of a revision or service has gone, that may go too.
                    if !mirror.pods.contains_key(pod) {
                        objects.insert(rest(mirror, pod.service()));
                        going(mirror, &pod.service().app, &mut objects);
                    }
                }
            }
        }
        for object in objects {
            self.due.by(object, now);
        }
    }

    /// Counts a pod on its node. When one goes there is room for others.
    fn count(&mut self, pod: &PodName, mirror: &Mirror, objects: &mut BTreeSet<Object>) {
        let Some(placing) = &mut self.memory.placing else {
            return;
        };
        let stored = mirror.pods.get(pod);
        placing.count(pod, stored);
        if stored.is_none() {
            objects.extend(placing.waiting().cloned());
        }
    }

    /// Counts the attempt of a job on its node. When it has ended there is room for others.
    fn count_job(&mut self, key: &ServiceKey, mirror: &Mirror, objects: &mut BTreeSet<Object>) {
        let Some(placing) = &mut self.memory.placing else {
            return;
        };
        let job = mirror.jobs.get(key).map(|it| &*it.value);
        placing.count_job(key, job);
        if job.is_none_or(|job| job.status.phase != JobPhase::Running) {
            objects.extend(placing.waiting().cloned());
        }
    }

    /// Has the services looked at that are to have another number of pods.
    fn scale(&mut self, mirror: &Mirror, news: &News) {
        let now = self.controllers.node.clock.now();
        let services = match news {
            News::Measured => self.autoscaler.decide(mirror, now),
            News::Called => self.autoscaler.wake(mirror, now),
        };
        for service in services {
            self.due.by(Object::Service(service), Instant::now());
        }
    }

    /// Begins with all that is due.
    fn start_due(&mut self, follower: &Follower) {
        if let Some(placing) = &mut self.memory.placing {
            let mirror = follower.mirror();
            for pod in self.unwritten.drain(..) {
                placing.count_again(&pod, &mirror);
            }
        }
        for object in self.due.take(Instant::now()) {
            let Plan {
                transaction,
                told,
                wake_at,
                scaled,
                ended,
                placed,
            } = self.controllers.reconcile(
                &object,
                &follower.mirror(),
                &self.autoscaler,
                &mut self.memory,
            );
            if let Some(at) = wake_at {
                self.due.by(object.clone(), at);
            }
            if transaction.writes.is_empty() && told.is_empty() {
                tracing::trace!(key = %object.key(), "nothing to do");
                self.unseen.remove(&object);
                self.due.idle(&object);
                continue;
            }
            tracing::debug!(key = %object.key(), writes = ?keys(&transaction), ?told, "planned");
            self.due.begin(&object, scaled, ended);
            let controllers = Arc::clone(&self.controllers);
            self.running.spawn(async move {
                let end = controllers.execute(&object, transaction, told).await;
                (object, placed, end)
            });
        }
    }

    fn ended(&mut self, object: Object, placed: Vec<PodName>, end: &End) {
        if !matches!(end, End::Done) {
            self.unwritten.extend(placed);
        }
        let failed = matches!(end, End::Failed(_));
        let due = self.due.end(&object, failed);
        match end {
            // What was written comes back as a change, which has the key looked at again.
            End::Done => {
                self.unseen.remove(&object);
                let Object::Service(key) = &object else {
                    return;
                };
                if let Some(decision) = due.scaled {
                    let now = self.controllers.node.clock.now();
                    self.autoscaler.done(key, &decision, now);
                }
                if let Some(ended) = due.ended {
                    self.controllers.rollouts.count(key, ended);
                }
            }
            // What differs is on its way here.
            End::Conflict => self.due.by(object, Instant::now() + RETRY),
            End::Failed(error) => {
                let doubled = (due.failures - 1).min(16);
                let wait = RETRY * 2_u32.saturating_pow(doubled);
                self.due.by(object, Instant::now() + wait.min(MAX_RETRY));
                tracing::warn!(%error, "cannot write what is to be done, trying again");
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.due.next()
    }
}

/// What a transaction writes, for the log.
fn keys(transaction: &Transaction) -> Vec<&str> {
    let writes = transaction.writes.iter();
    writes.map(|write| write.key().as_ref()).collect()
}

/// What may be left over of a service, and is looked at with all of its app only if that goes.
fn rest(mirror: &Mirror, service: &ServiceKey) -> Object {
    let stays = |it: &Stored<Service>| !it.value.spec.deleting;
    match mirror.services.get(service).is_some_and(stays) {
        true => Object::History(service.clone()),
        false => Object::App(service.app.clone()),
    }
}

/// Everything of the app that waits for this service or job.
fn dependents(mirror: &Mirror, on: &ServiceKey, objects: &mut BTreeSet<Object>) {
    objects.extend(mirror.dependents_of(on).filter_map(|key| match key {
        Key::Service(service) => Some(Object::Service(service.clone())),
        Key::Job(job) => Some(Object::Job(job.clone())),
        Key::App(_) | Key::Revision(..) | Key::Pod(_) | Key::Secret(..) => None,
    }));
}

/// The services of the app that are being deleted: each may have waited for what has changed.
fn going(mirror: &Mirror, app: &Name, objects: &mut BTreeSet<Object>) {
    let services = mirror
        .going_in(app)
        .filter(|key| mirror.services.contains_key(*key));
    objects.extend(services.cloned().map(Object::Service));
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
