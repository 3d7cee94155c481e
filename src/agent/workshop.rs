//! Where pods are prepared: from a revision to what each of its instances is made of.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
};

use bytes::Bytes;
use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::{Check, Limits},
    plan::pod::PodSpec,
    record::{Component, Template as Wanted},
};
use sampan_runtime::{
    Demands, Loaded, Neighbours, Origin, Runtime,
    pod::template::{Template, TemplateSpec},
};
use tokio::sync::Semaphore;

use super::instance::{Maker, RuntimeMaker, one_line};
use crate::events::{Change, Journal, Subject};

/// Components whose code stays mapped after the last pod that ran them: a rollout that is taken
/// back, or a component that was only admitted so far, finds it there.
const KEPT_COMPONENTS: usize = 16;

/// What all pods of a revision have in common.
pub(crate) struct Prepared<M> {
    pub(crate) spec: Arc<PodSpec>,
    /// Requests at once in one pod.
    pub(crate) capacity: u32,
    /// What makes the instances of one pod.
    pub(crate) maker: Box<dyn Fn(&PodName) -> Arc<M> + Send + Sync>,
}

/// Prepares pods.
pub(crate) trait Workshop: Send + Sync + 'static {
    type Maker: Maker;

    /// The error is why no pod can be made of this, for people.
    fn prepare(
        &self,
        service: &ServiceKey,
        wanted: &Wanted,
    ) -> impl Future<Output = Result<Prepared<Self::Maker>, String>> + Send;
}

/// Where the bytes of components are.
pub(crate) trait Components: Send + Sync + 'static {
    /// The component with this digest, and the file that it is in, if it is in one. It may block.
    /// The error is why it cannot be had, for people.
    fn read(&self, digest: &str) -> Result<(Bytes, Option<PathBuf>), String>;
}

/// The other services of an app, for its guests.
pub(crate) type NeighboursOf = Arc<dyn Fn(&Name) -> Arc<dyn Neighbours> + Send + Sync>;

/// Prepares pods for the runtime of this node.
pub(crate) struct RuntimeWorkshop {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) components: Arc<dyn Components>,
    pub(crate) neighbours: NeighboursOf,
    /// Where core dumps go, a directory for each app.
    pub(crate) coredumps: Option<PathBuf>,
    pub(crate) journal: Arc<Journal>,
    recent: Mutex<VecDeque<Arc<Loaded>>>,
    /// How many pods are made at once: each needs a CPU to be made in time.
    turns: Arc<Semaphore>,
}

impl RuntimeWorkshop {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        components: Arc<dyn Components>,
        neighbours: NeighboursOf,
        coredumps: Option<PathBuf>,
        journal: Arc<Journal>,
    ) -> Self {
        Self {
            runtime,
            components,
            neighbours,
            coredumps,
            journal,
            recent: Mutex::default(),
            turns: Arc::new(Semaphore::new(
                available_parallelism().map_or(1, |it| it.get()),
            )),
        }
    }

    /// Reads, checks and compiles a component, or finds its code.
    pub(crate) async fn load(
        &self,
        subject: &Subject,
        component: &Component,
        limits: &Limits,
        coredump: bool,
    ) -> Result<Arc<Loaded>, String> {
        let (components, digest) = (Arc::clone(&self.components), component.digest.clone());
        let read = tokio::task::spawn_blocking(move || components.read(&digest));
        let (bytes, path) = match read.await {
            Ok(read) => read?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Err("the node is going down".to_owned()),
            },
        };
        let demands = Demands {
            metered: limits.fuel.is_some(),
            digest: Some(component.digest.clone()),
            memory_bytes: limits.memory.0,
            coredump,
            path,
        };
        let tell = |change| self.journal.record(subject.clone(), change);
        let loading = self
            .runtime
            .load(bytes, demands, || tell(Change::Compiling));
        let loaded = loading.await.map_err(|error| {
            format!(
                "the component `{}` is refused: {}",
                component.path,
                one_line(&error)
            )
        })?;
        self.keep(&loaded);
        Ok(loaded)
    }

    /// Keeps the code for a while.
    fn keep(&self, loaded: &Arc<Loaded>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.iter().any(|it| Arc::ptr_eq(it, loaded)) {
            return;
        }
        if recent.len() == KEPT_COMPONENTS {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(loaded));
    }

    /// What every instance of a revision is made from. This is all that can be known of it without
    /// starting one.
    pub(crate) async fn template(
        &self,
        service: &ServiceKey,
        wanted: &Wanted,
    ) -> Result<Template, String> {
        let subject = Subject::Service(service.clone());
        let Wanted {
            component,
            limits,
            coredump,
            ..
        } = wanted;
        let loaded = self.load(&subject, component, limits, *coredump).await?;
        if let Origin::Compiled(took) = loaded.origin {
            tracing::debug!(%service, ?took, "compiled");
        }
        if asks_exports(wanted) && !loaded.answers_probes() {
            return Err(
                "a probe has `export = true`, and the component does not export \
                 `sampan:pod/health`; ask by `http`, or export it"
                    .to_owned(),
            );
        }
        let coredumps = self.coredumps.as_ref().filter(|_| *coredump);
        let coredumps = coredumps.map(|it| it.join(service.app.as_str()));
        let template = Template::new(
            loaded,
            &TemplateSpec {
                grants: &wanted.grants,
                limits,
                isolation: wanted.isolation,
                concurrency: wanted.concurrency,
                // Directories of a stored revision are absolute.
                base: std::path::Path::new("/"),
                neighbours: Some((self.neighbours)(&service.app)),
                coredumps: coredumps.as_deref(),
            },
        );
        template.map_err(|error| one_line(&error))
    }
}

/// Whether a probe calls the guest's own exports.
fn asks_exports(wanted: &Wanted) -> bool {
    let probes = [&wanted.startup, &wanted.readiness, &wanted.liveness];
    let mut probes = probes.into_iter().flatten();
    probes.any(|probe| probe.check == Check::Export)
}

impl Workshop for RuntimeWorkshop {
    type Maker = RuntimeMaker;

    async fn prepare(
        &self,
        service: &ServiceKey,
        wanted: &Wanted,
    ) -> Result<Prepared<RuntimeMaker>, String> {
        let template = Arc::new(self.template(service, wanted).await?);
        let (runtime, turns) = (Arc::clone(&self.runtime), Arc::clone(&self.turns));
        Ok(Prepared {
            spec: Arc::new(PodSpec::of(wanted, template.isolation())),
            capacity: template.concurrency(),
            maker: Box::new(move |pod| {
                Arc::new(RuntimeMaker {
                    runtime: Arc::clone(&runtime),
                    name: pod.clone(),
                    template: Arc::clone(&template),
                    turns: Arc::clone(&turns),
                })
            }),
        })
    }
}
