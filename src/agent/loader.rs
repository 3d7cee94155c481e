//! Where pods are prepared: from a revision to what each of its instances is made of.

use std::{
    collections::VecDeque, path::PathBuf, sync::Arc, thread::available_parallelism, time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::{Check, Grants, Isolation, Limits, ServiceKind},
    plan::pod::PodSpec,
    record::{Component, Template as Wanted},
    secret::SecretValues,
    site::Pages,
    spec::Found,
};
use sampan_runtime::{
    Demands, KeyValue, LoadError, Loaded, Neighbours, Origin, Runtime,
    command::program_name,
    off_thread,
    pod::template::{Template, TemplateSpec},
};
use tokio::sync::Semaphore;

use super::{
    handle::{Maker, one_line},
    runtime_pod::{RuntimeMaker, ServiceMaker},
    site::{self, Site},
};
use crate::{
    artifacts::Artifacts,
    events::{Change, Journal, Subject},
    secrets::Secrets,
};

/// Components whose code stays mapped after the last pod that ran them: a rollout that is taken
/// back, or a component that was only admitted so far, finds it there.
const KEPT_COMPONENTS: usize = 16;

/// What all pods of a revision have in common.
pub(crate) struct Prepared<M> {
    pub(crate) spec: Arc<PodSpec>,
    /// Requests at once in one pod.
    pub(crate) capacity: u32,
    /// What makes the instances of one pod.
    pub(crate) maker: MakerOf<M>,
}

/// What makes the instances of one pod.
pub(crate) type MakerOf<M> = Box<dyn Fn(&PodName) -> Arc<M> + Send + Sync>;

/// Prepares pods.
pub(crate) trait TemplateLoader: Send + Sync + 'static {
    type Maker: Maker;

    /// The error is why no pod can be made of this, for people.
    fn prepare(
        &self,
        service: &ServiceKey,
        wanted: &Wanted,
    ) -> impl Future<Output = Result<Prepared<Self::Maker>, String>> + Send;
}

/// Nodes that may have what this one lacks.
#[async_trait]
pub(crate) trait Elsewhere: Send + Sync + 'static {
    /// Whether a component or file with this digest is here now, fetched if it was not.
    async fn obtain(&self, digest: &str) -> bool;

    /// The same of static files: their manifest, and each of them.
    async fn obtain_files(&self, manifest: &str) -> bool;
}

/// The other services of an app, for its guests.
pub(crate) type NeighboursOf = Arc<dyn Fn(&Name) -> Arc<dyn Neighbours> + Send + Sync>;

/// The key-value stores of an app, for its guests.
pub(crate) type KeyValueOf = Arc<dyn Fn(&Name) -> Arc<dyn KeyValue> + Send + Sync>;

/// What code must be like: which component's, and compiled how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wants {
    digest: String,
    metered: bool,
    coredump: bool,
}

impl Wants {
    fn new(digest: &str, limits: &Limits, coredump: bool) -> Self {
        Self {
            digest: digest.to_owned(),
            metered: limits.fuel.is_some(),
            coredump,
        }
    }
}

/// Prepares pods for the runtime of this node.
pub(crate) struct RuntimeLoader {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) artifacts: Arc<Artifacts>,
    pub(crate) neighbours: NeighboursOf,
    pub(crate) keyvalue: KeyValueOf,
    pub(crate) secrets: Arc<Secrets>,
    /// Where core dumps go, a directory for each app.
    pub(crate) coredumps: Option<PathBuf>,
    pub(crate) journal: Arc<Journal>,
    /// Other nodes, if there are some.
    elsewhere: Option<Arc<dyn Elsewhere>>,
    recent: Mutex<VecDeque<(Wants, Arc<Loaded>)>>,
    /// How many pods are made at once: each needs a CPU to be made in time.
    turns: Arc<Semaphore>,
    /// Limits how many static files are open.
    open_files: Arc<Semaphore>,
}

impl RuntimeLoader {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        artifacts: Arc<Artifacts>,
        neighbours: NeighboursOf,
        keyvalue: KeyValueOf,
        secrets: Arc<Secrets>,
        coredumps: Option<PathBuf>,
        journal: Arc<Journal>,
    ) -> Self {
        Self {
            runtime,
            artifacts,
            neighbours,
            keyvalue,
            secrets,
            coredumps,
            journal,
            elsewhere: None,
            recent: Mutex::default(),
            turns: Arc::new(Semaphore::new(
                available_parallelism().map_or(1, |it| it.get()),
            )),
            open_files: Arc::new(Semaphore::new(site::MAX_OPEN_FILES)),
        }
    }

    /// Has what is missing here fetched from other nodes.
    pub(crate) fn with(self, elsewhere: Option<Arc<dyn Elsewhere>>) -> Self {
        Self { elsewhere, ..self }
    }

    /// Reads, checks and compiles a component, or finds its code.
    pub(crate) async fn load(
        &self,
        subject: &Subject,
        component: &Component,
        limits: &Limits,
        coredump: bool,
    ) -> Result<Arc<Loaded>, String> {
        let wanted = Wants::new(&component.digest, limits, coredump);
        if let Some(loaded) = self.recent(&wanted, limits) {
            return Ok(loaded);
        }
        if let Some(elsewhere) = &self.elsewhere {
            // What is to be had nowhere is missed where it is read.
            elsewhere.obtain(&component.digest).await;
        }
        let (artifacts, digest) = (Arc::clone(&self.artifacts), component.digest.clone());
        let read = off_thread(move || artifacts.read(&digest)).await;
        let (bytes, path) = read.map_err(|error| one_line(&error))?;
        let demands = Demands {
            metered: wanted.metered,
            digest: Some(wanted.digest.clone()),
            memory_bytes: limits.memory.0,
            coredump,
            path: Some(path),
            app: Some(subject.app().clone()),
        };
        let tell = |change| self.journal.record(subject.clone(), change);
        let loading = self
            .runtime
            .load(bytes, demands, || tell(Change::Compiling));
        let refused = |error: LoadError| {
            let what = match error.is_of_the_host() {
                true => "cannot be loaded",
                false => "is refused",
            };
            format!(
                "the component `{}` {what}: {}",
                component.path,
                one_line(&error)
            )
        };
        let loaded = loading.await.map_err(refused)?;
        tell(Change::Loaded {
            compiled: compiled(&loaded),
        });
        self.keep(wanted, &loaded);
        Ok(loaded)
    }

    /// Keeps a component in memory that has been loaded already.
    pub(crate) fn adopt(&self, loaded: &Arc<Loaded>, bytes: Bytes, path: PathBuf, limits: &Limits) {
        let digest = loaded.inspection.digest.to_hex();
        self.artifacts.keep(digest.clone(), bytes, path);
        self.keep(Wants::new(&digest, limits, false), loaded);
    }

    /// Loads a component that was read from a file of the user's, and keeps it in memory.
    pub(crate) async fn take(
        &self,
        subject: &Subject,
        bytes: Bytes,
        path: PathBuf,
        digest: Option<String>,
        (limits, coredump): (&Limits, bool),
    ) -> Result<Arc<Loaded>, LoadError> {
        let demands = Demands {
            metered: limits.fuel.is_some(),
            digest,
            memory_bytes: limits.memory.0,
            coredump,
            path: Some(path.clone()),
            app: Some(subject.app().clone()),
        };
        let tell = |change| self.journal.record(subject.clone(), change);
        let loading = self
            .runtime
            .load(bytes.clone(), demands, || tell(Change::Compiling));
        let loaded = loading.await?;
        tell(Change::Loaded {
            compiled: compiled(&loaded),
        });
        let digest = loaded.inspection.digest.to_hex();
        self.artifacts.keep(digest.clone(), bytes, path);
        self.keep(Wants::new(&digest, limits, coredump), &loaded);
        Ok(loaded)
    }

    /// Code that is mapped anyway, if it was compiled like this.
    fn recent(&self, wanted: &Wants, limits: &Limits) -> Option<Arc<Loaded>> {
        let recent = self.recent.lock();
        let (_, loaded) = recent.iter().find(|(it, _)| it == wanted)?;
        // Whether it may need so much memory is checked, and said, where it is loaded.
        let fits = loaded.inspection.initial_memory_bytes <= limits.memory.0;
        fits.then(|| Arc::clone(loaded))
    }

    /// Keeps the code for a while.
    fn keep(&self, wanted: Wants, loaded: &Arc<Loaded>) {
        let mut recent = self.recent.lock();
        recent.retain(|(it, _)| *it != wanted);
        if recent.len() == KEPT_COMPONENTS {
            recent.pop_front();
        }
        recent.push_back((wanted, Arc::clone(loaded)));
    }

    /// Whether pods can be made of a template, and what it was found to be.
    pub(crate) async fn admit(
        &self,
        service: &ServiceKey,
        wanted: &Wanted,
    ) -> Result<Found, String> {
        match &wanted.site {
            Some(pages) => {
                self.site(wanted, pages).await?;
                Ok(Found {
                    kind: ServiceKind::Static,
                    is_callable: true,
                })
            }
            None => Ok(self.template(service, wanted, None).await?.found()),
        }
    }

    /// The files of a revision that runs no component.
    async fn site(&self, wanted: &Wanted, pages: &Pages) -> Result<Site, String> {
        let (artifacts, open) = (Arc::clone(&self.artifacts), Arc::clone(&self.open_files));
        let (digest, pages) = (wanted.component.digest.clone(), pages.clone());
        if let Some(elsewhere) = &self.elsewhere {
            elsewhere.obtain_files(&digest).await;
        }
        let load = move || Site::load(&digest, &pages, &artifacts, &open);
        let loaded = off_thread(load).await;
        loaded.map_err(|error| {
            let directory = &wanted.component.path;
            format!(
                "the files of `{directory}` cannot be served: {}",
                one_line(&error)
            )
        })
    }

    /// What every instance of a revision is made from. This is all that can be known of it without
    /// starting one. Without the values of its secrets none can be started.
    pub(crate) async fn template(
        &self,
        service: &ServiceKey,
        wanted: &Wanted,
        secrets: Option<&SecretValues>,
    ) -> Result<Template, String> {
        let subject = Subject::Service(service.clone());
        let Wanted {
            component,
            limits,
            coredump,
            ..
        } = wanted;
        let loaded = self.load(&subject, component, limits, *coredump).await?;
        let found = loaded.found();
        // What cannot be called at all is refused with the place in the spec.
        if asks_exports(wanted) && found.is_callable && !loaded.answers_probes() {
            let remedy = match found.kind {
                ServiceKind::Http | ServiceKind::Static => "ask by `http`, or export it",
                ServiceKind::Command => "export it, or remove the probe",
            };
            return Err(format!(
                "a probe has `export = true`, and the component does not export \
                 `sampan:pod/health`; {remedy}"
            ));
        }
        let args = match (found.kind, &wanted.args[..]) {
            (ServiceKind::Http | ServiceKind::Static, []) => Vec::new(),
            (ServiceKind::Http | ServiceKind::Static | ServiceKind::Command, args) => {
                let program = program_name(component.path.as_ref());
                [program].into_iter().chain(args.iter().cloned()).collect()
            }
        };
        let coredumps = self.coredumps.as_ref().filter(|_| *coredump);
        let coredumps = coredumps.map(|it| it.join(service.app.as_str()));
        let template = Template::new(
            loaded,
            &TemplateSpec {
                grants: &wanted.grants,
                limits,
                args: &args,
                isolation: wanted.isolation,
                concurrency: wanted.concurrency,
                renewal: wanted.renewal,
                // Directories of a stored revision are absolute.
                base: std::path::Path::new("/"),
                neighbours: Some((self.neighbours)(&service.app)),
                keyvalue: Some((self.keyvalue)(&service.app)),
                secrets,
                coredumps: coredumps.as_deref(),
            },
        );
        template.map_err(|error| one_line(&error))
    }
}

impl RuntimeLoader {
    /// The values of the secrets that a guest of an app is granted.
    pub(crate) async fn secrets(
        &self,
        app: &Name,
        grants: &Grants,
    ) -> Result<SecretValues, String> {
        let opened = self.secrets.open(app, grants).await;
        opened.map_err(|error| one_line(&error))
    }
}

fn compiled(loaded: &Loaded) -> Option<Duration> {
    match loaded.origin {
        Origin::Cache => None,
        Origin::Compiled(took) => Some(took),
    }
}

/// Whether a probe calls the guest's own exports.
fn asks_exports(wanted: &Wanted) -> bool {
    let probes = [&wanted.startup, &wanted.readiness, &wanted.liveness];
    let mut probes = probes.into_iter().flatten();
    probes.any(|probe| probe.check == Check::Export)
}

impl TemplateLoader for RuntimeLoader {
    type Maker = ServiceMaker;

    async fn prepare(
        &self,
        service: &ServiceKey,
        wanted: &Wanted,
    ) -> Result<Prepared<ServiceMaker>, String> {
        if let Some(pages) = &wanted.site {
            let site = Arc::new(self.site(wanted, pages).await?);
            return Ok(Prepared {
                spec: Arc::new(PodSpec::of(wanted, Isolation::Pod)),
                capacity: site::CAPACITY,
                maker: Box::new(move |pod| {
                    Arc::new(ServiceMaker::Site(pod.clone(), Arc::clone(&site)))
                }),
            });
        }
        let secrets = self.secrets(&service.app, &wanted.grants).await?;
        let template = self.template(service, wanted, Some(&secrets)).await?;
        let template = Arc::new(template);
        let (runtime, turns) = (Arc::clone(&self.runtime), Arc::clone(&self.turns));
        Ok(Prepared {
            spec: Arc::new(PodSpec::of(wanted, template.isolation())),
            capacity: template.concurrency(),
            maker: Box::new(move |pod| {
                Arc::new(ServiceMaker::Guest(RuntimeMaker {
                    runtime: Arc::clone(&runtime),
                    name: pod.clone(),
                    template: Arc::clone(&template),
                    turns: Arc::clone(&turns),
                }))
            }),
        })
    }
}
