//! Starting the services and jobs of an app in the order of their dependencies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::{Check, Condition, Job, Limits, Service, Source},
    plan::pod::PodSpec,
};
use sampan_gateway::{Endpoint, EndpointState};
use sampan_runtime::{
    Demands, LoadError, Loaded, Origin, StartError, Stdio,
    command::{self, CommandSpec, Exit},
    pod::{
        Termination,
        template::{Template, TemplateSpec},
    },
};
use tokio::sync::{Semaphore, watch};

use super::{AppSource, Node, neighbours::GatewayNeighbours, places::InRotation};
use crate::events::{Change, Journal, Subject};
use crate::{
    agent::{
        census::{Census, Counter},
        instance::{RuntimeMaker, one_line},
        upstream::PodUpstream,
        worker::{Assignment, Rotation, Worker},
    },
    file,
};

/// The first delay before a failed job is tried again; it doubles from then on.
const JOB_RETRY_DELAY: Duration = Duration::from_millis(200);
/// The longest such delay.
const MAX_JOB_RETRY_DELAY: Duration = Duration::from_secs(10);

/// How far a service or job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Pending,
    Started,
    Ready,
    Completed,
    Failed,
}

impl Stage {
    /// Whether a condition is met; `Err` when it never will be.
    fn meets(self, condition: Condition) -> Result<bool, ()> {
        match (self, condition) {
            (Self::Failed, _) => Err(()),
            (stage, Condition::Started) => Ok(stage >= Self::Started),
            (stage, Condition::Ready) => Ok(stage >= Self::Ready),
            (stage, Condition::Completed) => Ok(stage == Self::Completed),
        }
    }
}

/// How far everything has come, for whoever depends on it.
pub(super) type Stages = BTreeMap<Name, watch::Sender<Stage>>;

/// The pods of one revision.
pub(super) struct Pods {
    /// One for each pod.
    pub(super) workers: Vec<Worker>,
    /// Their places in the gateway.
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    /// How they are doing.
    census: watch::Receiver<Census>,
}

impl Pods {
    /// Waits until each pod has come up or failed. Says whether it may go on so: with
    /// [`FirstStart::Must`] none may have failed, and otherwise none may be lost for good.
    async fn settle(&mut self, first: FirstStart) -> bool {
        let count = self.count();
        let bad = move |census: &Census| match first {
            FirstStart::Must => census.failed > 0,
            FirstStart::May => census.lost > 0,
        };
        let settled = move |census: &Census| census.settled >= count || bad(census);
        let census = self.census.wait_for(settled).await;
        census.is_ok_and(|census| !bad(&census))
    }

    /// Waits until all pods are ready at once. Says whether they are; none may have failed.
    pub(super) async fn all_ready(&mut self) -> bool {
        let count = self.count();
        let settled = move |census: &Census| census.ready >= count || census.failed > 0;
        let census = self.census.wait_for(settled).await;
        census.is_ok_and(|census| census.failed == 0)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }
}

/// Whether the first start of a pod must succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstStart {
    /// A single component: if it does not start there is nothing to run.
    Must,
    /// An app: its restart policy says what becomes of a pod that does not start.
    May,
}

/// Whether a probe calls the guest's own exports.
fn asks_exports(service: &Service) -> bool {
    let probes = [&service.startup, &service.readiness, &service.liveness];
    let mut probes = probes.into_iter().flatten();
    probes.any(|probe| probe.check == Check::Export)
}

/// What starting needs to know of its surroundings.
#[derive(Clone)]
pub(super) struct Starter {
    pub(super) node: Node,
    pub(super) app: Name,
    pub(super) base: Arc<Path>,
    /// Where core dumps of the app go.
    coredumps: Option<Arc<Path>>,
    pub(super) journal: Arc<Journal>,
    pub(super) stages: Arc<Stages>,
    jobs: Arc<BTreeSet<Name>>,
    first: FirstStart,
    /// How many pods are made at once: each needs a CPU to be made in time.
    turns: Arc<Semaphore>,
}

/// Why a component of the app could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComponentError {
    /// The file cannot be read.
    #[error("cannot read the component `{path}`")]
    Read {
        /// Its path.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The component was refused.
    #[error("the component `{path}` is refused")]
    Load {
        /// Its path.
        path: String,
        /// Why.
        source: LoadError,
    },
}

impl Starter {
    pub(super) fn new(
        node: &Node,
        source: &AppSource,
        journal: &Arc<Journal>,
        first: FirstStart,
    ) -> Self {
        let coredumps = node.coredumps.as_ref();
        let names = source.app.services.keys().chain(source.app.jobs.keys());
        let stages = names.map(|name| (name.clone(), watch::Sender::new(Stage::Pending)));
        Self {
            node: node.clone(),
            app: source.app.name.clone(),
            base: source.base.as_path().into(),
            coredumps: coredumps.map(|it| it.join(source.app.name.as_str()).into()),
            journal: Arc::clone(journal),
            stages: Arc::new(stages.collect()),
            jobs: Arc::new(source.app.jobs.keys().cloned().collect()),
            first,
            turns: Arc::new(Semaphore::new(
                available_parallelism().map_or(1, |it| it.get()),
            )),
        }
    }

    pub(super) fn key(&self, name: &Name) -> ServiceKey {
        ServiceKey::new(&self.app, name)
    }

    /// Records what happens to a service or job.
    pub(super) fn tell(&self, name: &Name, change: Change) {
        let subject = match self.jobs.contains(name) {
            true => Subject::Job(self.key(name)),
            false => Subject::Service(self.key(name)),
        };
        self.journal.record(subject, change);
    }

    fn neighbours(&self) -> GatewayNeighbours {
        GatewayNeighbours {
            edge: Arc::clone(&self.node.edge),
            app: self.app.clone(),
        }
    }

    fn reach(&self, name: &Name, stage: Stage) {
        if let Some(sender) = self.stages.get(name) {
            sender.send_replace(stage);
        }
    }

    /// Reads, checks and compiles a component.
    pub(super) async fn load(
        &self,
        name: &Name,
        source: &Source,
        limits: &Limits,
        coredump: bool,
    ) -> Result<Arc<Loaded>, ComponentError> {
        let component = self.base.join(&source.path);
        let path = source.path.display().to_string();
        // A blocking read: the file is local, and a task for it would cost more than it does.
        let bytes = file::plain_component(&component).map_err(|source| ComponentError::Read {
            path: path.clone(),
            source,
        })?;
        let demands = Demands {
            metered: limits.fuel.is_some(),
            digest: source.digest.clone(),
            memory_bytes: limits.memory.0,
            coredump,
            path: Some(component),
        };
        let compiling = || self.tell(name, Change::Compiling);
        let loaded = self
            .node
            .runtime
            .load(bytes.into(), demands, compiling)
            .await
            .map_err(|source| ComponentError::Load { path, source })?;
        let compiled = match loaded.origin {
            Origin::Cache => None,
            Origin::Compiled(took) => Some(took),
        };
        self.tell(name, Change::Loaded { compiled });
        Ok(loaded)
    }

    /// Waits until everything in `depends_on` is as far as it must be.
    async fn wait_for(
        &self,
        name: &Name,
        depends_on: &BTreeMap<Name, Condition>,
    ) -> Result<(), ()> {
        for (on, condition) in depends_on {
            let Some(stage) = self.stages.get(on) else {
                continue;
            };
            let mut stage = stage.subscribe();
            if stage.borrow().meets(*condition) == Ok(false) {
                self.tell(name, Change::Waiting { on: on.clone() });
            }
            // The sender lives as long as `self`.
            let met = stage
                .wait_for(|stage| stage.meets(*condition) != Ok(false))
                .await;
            if met.is_ok_and(|stage| *stage == Stage::Failed) {
                self.tell(name, Change::Blocked { on: on.clone() });
                return Err(());
            }
        }
        Ok(())
    }

    /// Starts the pods of a service once its dependencies allow it, and waits until it is clear how
    /// that goes.
    pub(super) async fn service(&self, service: &Service, loaded: Arc<Loaded>) -> Option<Pods> {
        let name = &service.name;
        let pods = match self.wait_for(name, &service.depends_on).await {
            Ok(()) => {
                self.reach(name, Stage::Started);
                self.pods(service, loaded, 1)
            }
            Err(()) => None,
        };
        let Some(mut pods) = pods else {
            self.reach(name, Stage::Failed);
            return None;
        };
        self.node
            .edge
            .replace(&self.key(name), pods.endpoints.clone());
        tokio::spawn(self.clone().tell_when_ready(name.clone(), &pods));
        if pods.settle(self.first).await {
            return Some(pods);
        }
        self.node.edge.replace(&self.key(name), Vec::new());
        self.reach(name, Stage::Failed);
        None
    }

    /// Waits for the first ready pod, for the sake of those that depend on it.
    fn tell_when_ready(self, name: Name, pods: &Pods) -> impl Future<Output = ()> + use<> {
        let (count, mut census) = (pods.count(), pods.census.clone());
        let clear =
            move |census: &Census| census.been_ready >= count.min(1) || census.lost >= count;
        async move {
            let census = census.wait_for(clear).await.map(|census| *census);
            // Without its workers there is nothing to wait for.
            let ready = census.is_ok_and(|census| census.been_ready >= count.min(1));
            match ready {
                true => self.reach(&name, Stage::Ready),
                false => self.reach(&name, Stage::Failed),
            }
        }
    }

    /// Sets workers on all pods of one revision. There are none when what the spec says cannot be.
    pub(super) fn pods(
        &self,
        service: &Service,
        loaded: Arc<Loaded>,
        revision: u64,
    ) -> Option<Pods> {
        let name = &service.name;
        if asks_exports(service) && !loaded.answers_probes() {
            let reason = "a probe has `export = true`, and the component does not export \
                          `sampan:pod/health`; ask by `http`, or export it"
                .to_owned();
            self.tell(name, Change::Unfit { reason });
            return None;
        }
        let template = match self.template(service, loaded) {
            Ok(template) => Arc::new(template),
            Err(error) => {
                let reason = one_line(&error);
                self.tell(name, Change::Unfit { reason });
                return None;
            }
        };
        let spec = Arc::new(PodSpec::new(service, template.isolation()));
        let (census, counted) = watch::channel(Census::default());
        let (mut workers, mut endpoints) = (Vec::new(), Vec::new());
        for slot in 0..service.replicas {
            let pod = PodName::new(&self.key(name), revision, slot);
            let upstream = Arc::new(PodUpstream::empty());
            let capacity = template.concurrency();
            let counter = Mutex::new(Counter::new(census.clone()));
            let endpoint = Endpoint::new(pod.clone(), revision, capacity, upstream.clone());
            workers.push(Worker::start(Assignment {
                pod: pod.clone(),
                spec: Arc::clone(&spec),
                maker: Arc::new(RuntimeMaker {
                    runtime: Arc::clone(&self.node.runtime),
                    name: pod,
                    template: Arc::clone(&template),
                    turns: Arc::clone(&self.turns),
                }),
                upstream,
                rotation: Arc::new(InRotation(Arc::clone(&endpoint))),
                journal: Arc::clone(&self.journal),
                board: Arc::clone(&self.node.board),
                restarts: 0,
                report: Arc::new(move |state| {
                    let mut counter = counter.lock().unwrap_or_else(PoisonError::into_inner);
                    counter.see(state);
                }),
            }));
            endpoints.push(endpoint);
        }
        Some(Pods {
            workers,
            endpoints,
            census: counted,
        })
    }

    /// Starts the pods of a revision that takes the place of another. There are none unless all are
    /// ready within the time a rollout may go without progress, and none has failed.
    pub(super) async fn ready_pods(
        &self,
        service: &Service,
        loaded: Arc<Loaded>,
        revision: u64,
    ) -> Option<Pods> {
        let mut pods = self.pods(service, loaded, revision)?;
        let deadline = service.rollout.progress_deadline;
        let ready = tokio::time::timeout(deadline, pods.all_ready()).await;
        ready.unwrap_or(false).then_some(pods)
    }

    fn template(&self, service: &Service, loaded: Arc<Loaded>) -> Result<Template, StartError> {
        let neighbours = self.neighbours();
        Template::new(
            loaded,
            &TemplateSpec {
                grants: &service.grants,
                limits: &service.limits,
                isolation: service.isolation,
                concurrency: service.concurrency,
                base: &self.base,
                neighbours: Some(Arc::new(neighbours)),
                coredumps: self.coredumps.as_deref().filter(|_| service.coredump),
            },
        )
    }

    /// Runs a job to its end once its dependencies allow it. Says whether it ended well.
    pub(super) async fn job(&self, job: &Job, loaded: &Loaded) -> bool {
        let done = match self.wait_for(&job.name, &job.depends_on).await {
            Ok(()) => {
                self.reach(&job.name, Stage::Started);
                self.attempts(job, loaded).await
            }
            Err(()) => false,
        };
        self.reach(
            &job.name,
            if done {
                Stage::Completed
            } else {
                Stage::Failed
            },
        );
        done
    }

    async fn attempts(&self, job: &Job, loaded: &Loaded) -> bool {
        let mut delay = JOB_RETRY_DELAY;
        for attempt in 1..=job.retries.saturating_add(1) {
            self.tell(&job.name, Change::Started { attempt });
            let start = Instant::now();
            let Err(reason) = self.attempt(job, loaded, attempt).await else {
                let took = start.elapsed();
                self.tell(&job.name, Change::Completed { took });
                return true;
            };
            let again = attempt <= job.retries;
            self.tell(&job.name, Change::JobFailed { reason, again });
            if again {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_JOB_RETRY_DELAY);
            }
        }
        false
    }

    async fn attempt(&self, job: &Job, loaded: &Loaded, attempt: u32) -> Result<(), String> {
        let program = job.component.path.display().to_string();
        let args: Vec<_> = [program]
            .into_iter()
            .chain(job.args.iter().cloned())
            .collect();
        let spec = CommandSpec {
            name: PodName::new(&self.key(&job.name), 1, attempt - 1),
            args: &args,
            grants: &job.grants,
            limits: &job.limits,
            base: &self.base,
            stdio: Stdio::Logs,
            neighbours: Some(Arc::new(self.neighbours())),
        };
        match command::run(&self.node.runtime, loaded, spec).await {
            Ok(ended) => match ended.exit {
                Exit::Code(0) => Ok(()),
                Exit::Code(code) => Err(format!("exit code {code}")),
                // The rest is the guest's backtrace.
                Exit::Failed(reason) => Err(reason.lines().next().unwrap_or_default().to_owned()),
            },
            Err(error) => Err(one_line(&error)),
        }
    }
}

#[cfg(test)]
mod tests;
