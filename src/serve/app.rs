//! An app that runs in the foreground: the daemon with its state in memory, and one app in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use sampan_core::{
    digest::Digest,
    name::{Name, PodName, ServiceKey},
    object::{App, Limits, Source},
    provoke,
    record::{JobPhase, Kind, Phase, PodPhase, RolloutState},
    secret::SecretValue,
    spec::SpecText,
    view,
};
use sampan_gateway::{Drained, Server, ServiceStats};
use sampan_runtime::{LoadError, Loaded, Usage, off_thread};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use super::{AppSource, Node, context::NodeContext, daemon::Daemon};
use crate::{
    agent::handle::one_line,
    api::{Api, Checked},
    events::{Change, Subject},
    file::{
        self,
        site::{Site, SiteError},
    },
    mirror::Mirror,
};

/// A gateway that accepts connections.
pub(crate) struct Listening {
    /// The address it listens on.
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Drained>,
}

impl Listening {
    /// Binds the address; connections are accepted from now on.
    /// Requests for the services of this app wait until a pod is ready.
    pub(crate) async fn start(
        node: &Node,
        source: Option<&AppSource>,
        address: SocketAddr,
    ) -> std::io::Result<Self> {
        if let Some(AppSource { app, .. }) = source {
            node.edge.declare(&app.name, app.services.values());
        }
        let threads = node.threads.handles();
        // On a thread that nothing but requests keeps busy: a verb may be kept by its terminal.
        let acceptor = &threads[0];
        let gateway = node.edge.gateway().clone();
        let bound = acceptor.spawn(async move { Server::bind(gateway, address).await });
        let server = bound.await.map_err(std::io::Error::other)??;
        let server = server.on(threads.iter().cloned());
        let address = server.local_addr();
        tracing::info!(%address, "the gateway listens");
        sampan_runtime::protect(address);
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // A sender that is gone means the same as a word from it.
            let _ = stopped.await;
        };
        Ok(Self {
            address,
            stop,
            server: acceptor.spawn(async {
                provoke::panic_in(provoke::Task::Listener);
                server.run(stopped).await
            }),
        })
    }

    /// Stops accepting, lets what is in flight end for a while, cuts the rest.
    pub(crate) async fn drain(self) {
        // A server that has ended by itself has nothing left to drain.
        let _ = self.stop.send(());
        let _ = self.server.await;
    }
}

/// Whether the first start of a pod must succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstStart {
    /// A single component: if it does not start there is nothing to run.
    Must,
    /// An app: its restart policy says what becomes of a pod that does not start.
    May,
}

/// An app that runs.
pub(crate) struct RunningApp {
    context: NodeContext,
    api: Api,
    source: AppSource,
    /// Of the component of each service and job.
    digests: BTreeMap<Name, String>,
    daemon: Daemon,
    /// Each waits for the end of a rollout that a change has begun.
    rollouts: JoinSet<()>,
}

/// Why an app does not run. Each has been told as an event, where it is not in here.
#[derive(Debug)]
pub(crate) enum NotRunning {
    /// Components could not be loaded.
    Components(Vec<(Name, ComponentError)>),
    /// It cannot be what the spec says; why.
    Refused(String),
    /// Pods could not start, or jobs failed.
    Failed,
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
    /// The files of a directory cannot be served.
    #[error("cannot serve the files of `{path}`")]
    Files {
        /// The directory.
        path: String,
        /// Why not.
        source: SiteError,
    },
    /// The component was refused.
    #[error("the component `{path}` is refused")]
    Load {
        /// Its path.
        path: String,
        /// Why it cannot be loaded.
        source: LoadError,
    },
}

/// What a service has done, for the summary.
pub(crate) struct ServiceSummary {
    pub(crate) name: Name,
    pub(crate) stats: ServiceStats,
    pub(crate) usage: Usage,
}

impl RunningApp {
    /// Loads every component, then begins to start everything in the order of its dependencies.
    ///
    /// Nothing is started before every component has been admitted.
    pub(crate) async fn begin(
        context: &NodeContext,
        api: &Api,
        source: AppSource,
    ) -> Result<Self, NotRunning> {
        let loaded = load_all(context, &source).await;
        let digests = loaded.map_err(NotRunning::Components)?;
        Self::begin_loaded(context, api, source, digests).await
    }

    /// Begins to start an app whose components are there already, with these digests.
    pub(crate) async fn begin_loaded(
        context: &NodeContext,
        api: &Api,
        source: AppSource,
        digests: BTreeMap<Name, String>,
    ) -> Result<Self, NotRunning> {
        let checked = checked(api, &source, &digests).map_err(NotRunning::Refused)?;
        let applied = api.apply(&checked).await;
        applied.map_err(NotRunning::Refused)?;
        // So that everything which starts now knows of the app.
        let caught_up = context.objects.catch_up().await;
        caught_up.map_err(|error| NotRunning::Refused(error.to_string()))?;
        Ok(Self {
            api: api.clone(),
            context: context.clone(),
            daemon: Daemon::start(context),
            source,
            digests,
            rollouts: JoinSet::new(),
        })
    }

    /// Whether there is anything in it that does not end by itself: a service, or a job with a
    /// schedule.
    pub(crate) fn stays(&self) -> bool {
        let app = &self.source.app;
        let mut jobs = app.jobs.values();
        !app.services.is_empty() || jobs.any(|job| job.schedule.is_some())
    }

    /// Waits until it is clear how the start of everything goes: jobs have ended, and each pod has
    /// come up or failed once. Says whether it goes well.
    pub(crate) async fn settled(&self, first: FirstStart) -> bool {
        let mut follower = self.context.objects.follow(&[Kind::Job, Kind::Pod]);
        let mut settled = BTreeSet::new();
        loop {
            let looked = self.look(first, &follower.mirror(), &mut settled);
            match looked {
                Some(good) => return good,
                None => drop(follower.next().await),
            }
        }
    }

    /// Whether everything goes well, once that is clear.
    fn look(
        &self,
        first: FirstStart,
        mirror: &Mirror,
        settled: &mut BTreeSet<PodName>,
    ) -> Option<bool> {
        let (mut clear, mut good) = (true, true);
        for job in mirror.jobs.values() {
            match job.value.status.phase {
                // One with a schedule has no end that decides anything.
                _ if job.value.spec.schedule.is_some() => {}
                JobPhase::Completed | JobPhase::Scheduled => {}
                // Without services the other jobs are all there is: they come to their ends.
                JobPhase::Failed { .. } if !self.stays() => good = false,
                JobPhase::Failed { .. } => return Some(false),
                JobPhase::Pending | JobPhase::Running | JobPhase::BackOff { .. } => clear = false,
            }
        }
        for (name, pod) in &mirror.pods {
            match pod.value.status.phase {
                PodPhase::Ended => return Some(false),
                PodPhase::BackOff | PodPhase::CrashLoopBackOff if first == FirstStart::Must => {
                    return Some(false);
                }
                PodPhase::Ready { .. }
                | PodPhase::Unready
                | PodPhase::BackOff
                | PodPhase::CrashLoopBackOff => {
                    settled.insert(name.clone());
                }
                PodPhase::Pending | PodPhase::Starting | PodPhase::Draining => {}
            }
        }
        for service in self.source.app.services.values() {
            let key = self.key(&service.name);
            let own = settled.iter().filter(|pod| *pod.service() == key).count();
            clear &= own >= service.replicas as usize;
        }
        clear.then_some(good)
    }

    fn key(&self, name: &Name) -> ServiceKey {
        ServiceKey::new(&self.source.app.name, name)
    }

    /// Says that everything has started, after whatever was said before.
    pub(crate) fn tell_up(&self, listening: &Listening) {
        let address = listening.address;
        let app = Subject::App(self.source.app.name.clone());
        self.context.journal.record(app, Change::Up { address });
    }

    /// What it is made from.
    pub(crate) fn source(&self) -> &AppSource {
        &self.source
    }

    /// Puts new versions of the components of services and jobs in the place of the old ones, as
    /// rollouts and runs.
    ///
    /// A component that is the same, or is refused, changes nothing; one whose pods do not become
    /// available is taken back. This does not wait for that: it is told as an event.
    pub(crate) async fn reload(&mut self, names: &[Name]) {
        let mut digests = self.digests.clone();
        let mut changed = Vec::new();
        for name in names {
            let Some(Part { subject, wants }) = part(&self.source.app, name) else {
                continue;
            };
            match load(&self.context, &subject, &self.source.base, wants).await {
                Ok(digest) => {
                    let before = digests.insert(name.clone(), digest.clone());
                    if before.as_ref() != Some(&digest) {
                        changed.push(subject);
                    }
                }
                Err(error) => {
                    let reason = one_line(&error);
                    let refused = Change::Refused { reason };
                    self.context.journal.record(subject, refused);
                }
            }
        }
        if changed.is_empty() {
            return;
        }
        if let Err(reason) = self.apply(self.source.clone(), digests).await {
            for subject in changed {
                let reason = reason.clone();
                let refused = Change::Refused { reason };
                self.context.journal.record(subject, refused);
            }
        }
    }

    /// Makes it what a changed spec says. What the change does not concern goes on untouched; if
    /// anything of it cannot be, nothing is changed.
    pub(crate) async fn change(
        &mut self,
        app: App,
        secrets: BTreeMap<Name, SecretValue>,
        spec: SpecText,
    ) -> Result<view::Plan, NotRunning> {
        let source = AppSource {
            app,
            secrets,
            spec,
            base: self.source.base.clone(),
        };
        let (mut digests, mut refused) = (BTreeMap::new(), Vec::new());
        for name in source.app.services.keys().chain(source.app.jobs.keys()) {
            let Some(Part { subject, wants }) = part(&source.app, name) else {
                continue;
            };
            let before = part(&self.source.app, name);
            let is_same = before.is_some_and(|before| before.wants == wants);
            let digest = match self.digests.get(name).filter(|_| is_same) {
                Some(digest) => Ok(digest.clone()),
                None => load(&self.context, &subject, &source.base, wants).await,
            };
            match digest {
                Ok(digest) => drop(digests.insert(name.clone(), digest)),
                Err(error) => refused.push((name.clone(), error)),
            }
        }
        if !refused.is_empty() {
            return Err(NotRunning::Components(refused));
        }
        let applied = self.apply(source, digests).await;
        applied.map_err(NotRunning::Refused)
    }

    /// Applies, and has the end of each rollout told that begins with it.
    async fn apply(
        &mut self,
        source: AppSource,
        digests: BTreeMap<Name, String>,
    ) -> Result<view::Plan, String> {
        let before = self.revisions().await;
        let checked = checked(&self.api, &source, &digests)?;
        let plan = self.api.apply(&checked).await?;
        (self.source, self.digests) = (source, digests);
        for change in &plan.changes {
            let Some(revision) = change.revision else {
                continue;
            };
            let is_other = before
                .iter()
                .any(|(name, before)| name.as_str() == change.name && *before != revision);
            if let (true, Ok(name)) = (is_other, Name::parse(&change.name)) {
                let (key, context) = (self.key(&name), self.context.clone());
                self.rollouts.spawn(tell_end(context, key, revision));
            }
        }
        // Those that have ended are no longer held.
        while self.rollouts.try_join_next().is_some() {}
        Ok(plan)
    }

    /// The revision that each service is to have.
    async fn revisions(&self) -> Vec<(Name, u64)> {
        // Where it cannot catch up it ends, and says so itself.
        let _ = self.context.objects.catch_up().await;
        let follower = self.context.objects.follow(&[Kind::Service]);
        let mirror = follower.mirror();
        let services = mirror.services.iter();
        let services = services.map(|(key, it)| (key.name.clone(), it.value.spec.revision));
        services.collect()
    }

    /// Resolves when something has ended that must not, with what it was and why.
    pub(crate) async fn failed(&mut self) -> String {
        self.daemon.failed().await
    }

    /// Stops accepting, lets requests end, stops the pods.
    pub(crate) async fn drain(self, listening: Listening) {
        listening.drain().await;
        self.rest().await;
    }

    /// Stops the pods.
    pub(crate) async fn rest(self) {
        self.daemon.rest().await;
    }
}

/// Waits for the end of a rollout that has begun, and tells it, unless another one takes its place.
async fn tell_end(context: NodeContext, key: ServiceKey, revision: u64) {
    if let Some(change) = rolled_out(&context, &key, revision).await {
        context.journal.record(Subject::Service(key), change);
    }
}

async fn rolled_out(context: &NodeContext, key: &ServiceKey, revision: u64) -> Option<Change> {
    context.objects.catch_up().await.ok()?;
    let mut follower = context.objects.follow(&[Kind::Service]);
    loop {
        let service = Arc::clone(&follower.mirror().services.get(key)?.value);
        // One that fails makes the service want what it had before: that is its end, and no other rollout.
        let is_back = match service.status.phase {
            Phase::RollingBack { from, .. } | Phase::RolledBack { from, .. } => from == revision,
            _ => false,
        };
        if service.spec.revision != revision && !is_back {
            return None;
        }
        match service.rollout() {
            RolloutState::Complete => return Some(Change::Replaced { revision }),
            RolloutState::RolledBack { reason } | RolloutState::Failed { reason } => {
                let reason = reason.to_owned();
                return Some(Change::Refused { reason });
            }
            RolloutState::Held { .. } => return None,
            RolloutState::UnderWay | RolloutState::Waiting => drop(follower.next().await?),
        }
    }
}

/// What each service has done so far.
pub(crate) fn summary(context: &NodeContext, source: &AppSource) -> Vec<ServiceSummary> {
    let names = source.app.services.keys();
    let summary = |name: &Name| {
        let key = ServiceKey::new(&source.app.name, name);
        ServiceSummary {
            name: name.clone(),
            stats: context.node.edge.gateway().stats(&key).unwrap_or_default(),
            usage: context.node.registry.usage(&key),
        }
    };
    names.map(summary).collect()
}

/// A component, and what is asked of its code; or files.
#[derive(PartialEq)]
enum Wants<'a> {
    Code(&'a Source, &'a Limits, bool),
    Files(&'a Path),
}

/// A service or job, and what it runs.
struct Part<'a> {
    subject: Subject,
    wants: Wants<'a>,
}

fn part<'a>(app: &'a App, name: &Name) -> Option<Part<'a>> {
    let key = || ServiceKey::new(&app.name, name);
    let service = app.services.get(name).map(|it| Part {
        subject: Subject::Service(key()),
        wants: match it.site {
            Some(_) => Wants::Files(&it.component.path),
            None => Wants::Code(&it.component, &it.limits, it.coredump),
        },
    });
    service.or_else(|| {
        let it = app.jobs.get(name)?;
        Some(Part {
            subject: Subject::Job(key()),
            wants: Wants::Code(&it.component, &it.limits, false),
        })
    })
}

async fn load_all(
    context: &NodeContext,
    source: &AppSource,
) -> Result<BTreeMap<Name, String>, Vec<(Name, ComponentError)>> {
    let names = source.app.services.keys().chain(source.app.jobs.keys());
    let mut loads = JoinSet::new();
    for name in names.cloned() {
        let (context, source) = (context.clone(), source.clone());
        loads.spawn(async move {
            let part = part(&source.app, &name)?;
            let loaded = load(&context, &part.subject, &source.base, part.wants).await;
            Some((name, loaded))
        });
    }
    let (mut good, mut bad) = (BTreeMap::new(), Vec::new());
    for (name, loaded) in loads.join_all().await.into_iter().flatten() {
        match loaded {
            Ok(digest) => drop(good.insert(name, digest)),
            Err(error) => bad.push((name, error)),
        }
    }
    bad.sort_by(|(a, _), (b, _)| a.cmp(b));
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

/// Reads, checks and compiles a component, and keeps it. Tells its digest.
async fn load(
    context: &NodeContext,
    subject: &Subject,
    base: &Path,
    wants: Wants<'_>,
) -> Result<String, ComponentError> {
    let (component, limits, coredump) = match wants {
        Wants::Code(component, limits, coredump) => (component, limits, coredump),
        Wants::Files(path) => return take_files(context, base, path).await,
    };
    let file = base.join(&component.path);
    let path = component.path.display().to_string();
    // A blocking read: the file is local, and a task for it would cost more than it does.
    let bytes = file::spec_component(&file).map_err(|source| ComponentError::Read {
        path: path.clone(),
        source,
    })?;
    let pinned = component.digest.clone();
    let demands = (limits, coredump);
    let loading = context
        .loader
        .take(subject, bytes.into(), file, pinned, demands);
    let loaded: Arc<Loaded> = loading
        .await
        .map_err(|source| ComponentError::Load { path, source })?;
    Ok(loaded.inspection.digest.to_hex())
}

/// Reads the files of a directory, and keeps them. Tells the digest of their manifest.
async fn take_files(
    context: &NodeContext,
    base: &Path,
    path: &Path,
) -> Result<String, ComponentError> {
    let (artifacts, directory) = (Arc::clone(&context.artifacts), base.join(path));
    let take = move || {
        let site = Site::read(&directory)?;
        for (path, file) in &site.manifest.files {
            if artifacts.renew(&file.digest) {
                continue;
            }
            let bytes = site.bytes(path)?;
            // One that was changed meanwhile has another digest, and is not there under this one.
            let digest = Digest::of(&bytes).to_hex();
            artifacts.keep(digest, bytes.into(), directory.join(path));
        }
        let manifest = site.manifest.to_bytes();
        let digest = Digest::of(&manifest).to_hex();
        artifacts.keep(digest.clone(), manifest.into(), directory.clone());
        Ok(digest)
    };
    off_thread(take)
        .await
        .map_err(|source| ComponentError::Files {
            path: path.display().to_string(),
            source,
        })
}

/// The app as it is applied. The error is why its secrets cannot be sealed.
fn checked(
    api: &Api,
    source: &AppSource,
    digests: &BTreeMap<Name, String>,
) -> Result<Checked, String> {
    let base = std::path::absolute(&source.base);
    let mut app = source.app.clone();
    let sealed = api.seal(&mut app, &source.secrets)?;
    Ok(Checked {
        app,
        sealed,
        base: base.unwrap_or_else(|_| source.base.clone()),
        digests: digests.clone(),
        cause: "up".to_owned(),
        spec: source.spec.clone(),
    })
}
