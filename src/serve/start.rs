//! Starting the services and jobs of an app in the order of their dependencies.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sampan_core::{
    name::{Name, PodName},
    object::{Condition, Job, Limits, Service, Source},
};
use sampan_gateway::{Endpoint, EndpointState};
use sampan_runtime::{
    Demands, LoadError, Loaded, Stdio,
    command::{self, CommandSpec, Exit},
    pod::{
        Pod,
        template::{Template, TemplateSpec},
    },
};
use tokio::sync::{mpsc, watch};

use super::{
    AppSource, Node,
    event::{Change, Event},
    neighbours::GatewayNeighbours,
};
use crate::{agent::upstream::PodUpstream, file};

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

/// A pod with its place in the gateway.
pub(super) struct Placed {
    pub(super) pod: Arc<Pod>,
    pub(super) endpoint: Arc<Endpoint>,
}

/// What starting needs to know of its surroundings.
#[derive(Clone)]
pub(super) struct Starter {
    pub(super) node: Node,
    pub(super) base: Arc<std::path::Path>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stages: Arc<Stages>,
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
    pub(super) fn new(node: &Node, source: &AppSource, events: mpsc::Sender<Event>) -> Self {
        let names = source.app.services.keys().chain(source.app.jobs.keys());
        let stages = names.map(|name| (name.clone(), watch::Sender::new(Stage::Pending)));
        Self {
            node: node.clone(),
            base: source.base.as_path().into(),
            events,
            stages: Arc::new(stages.collect()),
        }
    }

    pub(super) async fn tell(&self, subject: &Name, change: Change) {
        // Whoever listened has gone: then nobody wants to know.
        let _ = self
            .events
            .send(Event {
                subject: subject.clone(),
                change,
            })
            .await;
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
        };
        let compiling = || {
            // A full queue of events is no reason to keep the compiler waiting.
            let _ = self.events.try_send(Event {
                subject: name.clone(),
                change: Change::Compiling,
            });
        };
        let loaded = self
            .node
            .runtime
            .load(bytes.into(), demands, compiling)
            .await
            .map_err(|source| ComponentError::Load { path, source })?;
        self.tell(
            name,
            Change::Loaded {
                origin: loaded.origin,
            },
        )
        .await;
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
                self.tell(name, Change::Waiting { on: on.clone() }).await;
            }
            // The sender lives as long as `self`.
            let met = stage
                .wait_for(|stage| stage.meets(*condition) != Ok(false))
                .await;
            if met.is_ok_and(|stage| *stage == Stage::Failed) {
                self.tell(name, Change::Blocked { on: on.clone() }).await;
                return Err(());
            }
        }
        Ok(())
    }

    /// Starts the pods of a service once its dependencies allow it.
    pub(super) async fn service(
        &self,
        service: &Service,
        loaded: Arc<Loaded>,
    ) -> Option<Vec<Placed>> {
        let name = &service.name;
        let placed = match self.wait_for(name, &service.depends_on).await {
            Ok(()) => {
                self.reach(name, Stage::Started);
                self.pods(service, loaded, 1).await
            }
            Err(()) => None,
        };
        let Some(placed) = placed else {
            self.reach(name, Stage::Failed);
            return None;
        };
        self.node.edge.replace(
            name,
            placed.iter().map(|p| Arc::clone(&p.endpoint)).collect(),
        );
        self.reach(name, Stage::Ready);
        Some(placed)
    }

    /// Starts all pods of one revision. If one fails, none is kept.
    pub(super) async fn pods(
        &self,
        service: &Service,
        loaded: Arc<Loaded>,
        revision: u64,
    ) -> Option<Vec<Placed>> {
        let template = Template::new(
            loaded,
            &TemplateSpec {
                grants: &service.grants,
                limits: &service.limits,
                isolation: service.isolation,
                concurrency: service.concurrency,
                base: &self.base,
                neighbours: Some(Arc::new(GatewayNeighbours(
                    self.node.edge.gateway().clone(),
                ))),
            },
        )
        .map(Arc::new);
        let mut placed = Vec::new();
        for slot in 0..service.replicas {
            let pod = PodName::new(&service.name, revision, slot);
            let start = Instant::now();
            let started = match &template {
                Ok(template) => Pod::start(
                    &self.node.runtime,
                    pod.clone(),
                    template,
                    Arc::new(sampan_runtime::pod::Unwatched),
                )
                .await
                .map_err(|e| explain(&e)),
                Err(error) => Err(explain(error)),
            };
            let running = match started {
                Ok(running) => Arc::new(running),
                Err(reason) => {
                    self.tell(&service.name, Change::Failed { pod, reason })
                        .await;
                    return None;
                }
            };
            let upstream = Arc::new(PodUpstream(Arc::clone(&running)));
            let endpoint = Endpoint::new(pod.clone(), revision, running.concurrency(), upstream);
            endpoint.set_state(EndpointState::Ready);
            placed.push(Placed {
                pod: running,
                endpoint,
            });
            self.tell(
                &service.name,
                Change::Ready {
                    pod,
                    took: start.elapsed(),
                },
            )
            .await;
        }
        Some(placed)
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
            self.tell(&job.name, Change::Started { attempt }).await;
            let start = Instant::now();
            let Err(reason) = self.attempt(job, loaded, attempt).await else {
                self.tell(
                    &job.name,
                    Change::Completed {
                        took: start.elapsed(),
                    },
                )
                .await;
                return true;
            };
            let again = attempt <= job.retries;
            self.tell(&job.name, Change::JobFailed { reason, again })
                .await;
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
            name: PodName::new(&job.name, 1, attempt - 1),
            args: &args,
            grants: &job.grants,
            limits: &job.limits,
            base: &self.base,
            stdio: Stdio::Logs,
            neighbours: Some(Arc::new(GatewayNeighbours(
                self.node.edge.gateway().clone(),
            ))),
        };
        match command::run(&self.node.runtime, loaded, spec).await {
            Ok(ended) => match ended.exit {
                Exit::Code(0) => Ok(()),
                Exit::Code(code) => Err(format!("exit code {code}")),
                // The rest is the guest's backtrace.
                Exit::Failed(reason) => Err(reason.lines().next().unwrap_or_default().to_owned()),
            },
            Err(error) => Err(explain(&error)),
        }
    }
}

/// An error with its causes in one line.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
