//! An app that runs in the foreground: the daemon with its state in memory, and one app in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::{Limits, Source},
    provoke,
    record::{JobPhase, Kind, PodPhase, RolloutState},
};
use sampan_gateway::{Drained, Server, ServiceStats};
use sampan_runtime::{LoadError, Loaded, Usage};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use super::{AppSource, Node, context::NodeContext, daemon::Daemon};
use crate::{
    agent::handle::one_line,
    api::{Api, Checked},
    events::{Change, Subject},
    file,
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
        let server = Server::bind(node.edge.gateway().clone(), address).await?;
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
            server: tokio::spawn(async {
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
        let applied = api.apply(&checked(&source, &digests)).await;
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

    /// Puts a new version of a service's component in the place of the old one, as a rollout.
    ///
    /// A component that is the same, or is refused, changes nothing; one whose pods do not become
    /// available is taken back.
    pub(crate) async fn reload(&mut self, name: &Name) {
        let Some(service) = self.source.app.services.get(name).cloned() else {
            return;
        };
        let key = self.key(name);
        let tell = |change| {
            self.context
                .journal
                .record(Subject::Service(key.clone()), change)
        };
        let wants = (&service.component, &service.limits, service.coredump);
        let subject = Subject::Service(key.clone());
        let loaded = load(&self.context, &subject, &self.source.base, wants);
        let digest = match loaded.await {
            Ok(digest) => digest,
            Err(error) => {
                let reason = one_line(&error);
                return tell(Change::Refused { reason });
            }
        };
        let before = self.digests.insert(name.clone(), digest.clone());
        if before.as_ref() == Some(&digest) {
            return;
        }
        let applied = self.api.apply(&checked(&self.source, &self.digests)).await;
        let change = match applied {
            Ok(()) => self.rolled_out(&key).await,
            Err(reason) => Some(Change::Refused { reason }),
        };
        if let Some(change) = change {
            tell(change);
        }
    }

    /// Waits for the end of the rollout that has begun.
    async fn rolled_out(&self, key: &ServiceKey) -> Option<Change> {
        self.context.objects.catch_up().await.ok()?;
        let mut follower = self.context.objects.follow(&[Kind::Service]);
        loop {
            let service = Arc::clone(&follower.mirror().services.get(key)?.value);
            match service.rollout() {
                RolloutState::Complete => {
                    let revision = service.status.target;
                    return Some(Change::Replaced { revision });
                }
                RolloutState::RolledBack { reason } | RolloutState::Failed { reason } => {
                    let reason = reason.to_owned();
                    return Some(Change::Refused { reason });
                }
                RolloutState::Held { .. } => return None,
                RolloutState::UnderWay | RolloutState::Waiting => drop(follower.next().await?),
            }
        }
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

/// A component, and what is asked of its code.
type Wants<'a> = (&'a Source, &'a Limits, bool);

async fn load_all(
    context: &NodeContext,
    source: &AppSource,
) -> Result<BTreeMap<Name, String>, Vec<(Name, ComponentError)>> {
    let key = |name: &Name| ServiceKey::new(&source.app.name, name);
    let services = source.app.services.values().map(|it| {
        let wants = (it.component.clone(), it.limits.clone(), it.coredump);
        (Subject::Service(key(&it.name)), wants)
    });
    let jobs = source.app.jobs.values().map(|it| {
        let wants = (it.component.clone(), it.limits.clone(), false);
        (Subject::Job(key(&it.name)), wants)
    });
    let mut loads = JoinSet::new();
    for (subject, (component, limits, coredump)) in services.chain(jobs) {
        let (context, base) = (context.clone(), source.base.clone());
        loads.spawn(async move {
            let wants = (&component, &limits, coredump);
            let loaded = load(&context, &subject, &base, wants).await;
            (subject.name().clone(), loaded)
        });
    }
    let (mut good, mut bad) = (BTreeMap::new(), Vec::new());
    for (name, loaded) in loads.join_all().await {
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
    (component, limits, coredump): Wants<'_>,
) -> Result<String, ComponentError> {
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

fn checked(source: &AppSource, digests: &BTreeMap<Name, String>) -> Checked {
    let base = std::path::absolute(&source.base);
    Checked {
        app: source.app.clone(),
        base: base.unwrap_or_else(|_| source.base.clone()),
        digests: digests.clone(),
        cause: "up".to_owned(),
    }
}
