//! An app that runs: started, changed while it runs, drained.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use sampan_core::{
    name::{Name, ServiceKey},
    object::{Job, Service},
};
use sampan_gateway::{Drained, Server, ServiceStats};
use sampan_runtime::{Loaded, Usage, admission::Digest};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use super::{
    AppSource, Node,
    start::{ComponentError, FirstStart, Pods, Starter},
};
use crate::agent::{
    instance::{one_line, sum},
    worker::Worker,
};
use crate::events::{Change, Journal, Subject};

/// Old versions that drain at once.
pub(super) const MAX_OLD_VERSIONS: u32 = 2;

/// A gateway that accepts connections.
pub(crate) struct Listening {
    /// Where.
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Drained>,
}

impl Listening {
    /// Binds the address; connections are accepted from now on. Requests for the services of this
    /// app wait until a pod is ready.
    pub(crate) async fn start(
        node: &Node,
        source: &AppSource,
        address: SocketAddr,
    ) -> std::io::Result<Self> {
        node.edge
            .declare(&source.app.name, source.app.services.values());
        let server = Server::bind(node.edge.gateway().clone(), address).await?;
        let address = server.local_addr();
        sampan_runtime::protect(address);
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // A sender that is gone means the same as a word from it.
            let _ = stopped.await;
        };
        Ok(Self {
            address,
            stop,
            server: tokio::spawn(server.run(stopped)),
        })
    }

    /// Stops accepting, lets what is in flight end for a while, cuts the rest.
    async fn drain(self) {
        // A server that has ended by itself has nothing left to drain.
        let _ = self.stop.send(());
        let _ = self.server.await;
    }
}

/// An app that runs.
pub(crate) struct RunningApp {
    node: Node,
    source: AppSource,
    starter: Starter,
    services: BTreeMap<Name, Running>,
    /// Pods of old versions, which end the requests they have; what each has used.
    draining: JoinSet<(Name, Usage)>,
}

struct Running {
    revision: u64,
    /// Of its component.
    digest: Option<Digest>,
    /// None when it could not start.
    workers: Vec<Worker>,
    /// What pods that are gone have used.
    past: Usage,
}

/// Why an app does not run. Each has been told as an event, where it is not in here.
#[derive(Debug)]
pub(crate) enum NotRunning {
    /// Components could not be loaded.
    Components(Vec<(Name, ComponentError)>),
    /// Pods could not start, or jobs failed.
    Failed,
}

/// What a service has done, for the summary.
pub(crate) struct ServiceSummary {
    pub(crate) name: Name,
    pub(crate) stats: ServiceStats,
    pub(crate) usage: Usage,
}

impl RunningApp {
    /// Loads every component, then starts everything in the order of its dependencies.
    ///
    /// Nothing is started before every component has been admitted. Jobs have ended when this
    /// returns.
    pub(crate) async fn start(
        node: &Node,
        source: AppSource,
        journal: &Arc<Journal>,
    ) -> Result<Self, NotRunning> {
        let starter = Starter::new(node, &source, journal, FirstStart::May);
        let loaded = load_all(&starter, &source)
            .await
            .map_err(NotRunning::Components)?;
        Self::start_loaded(starter, source, loaded).await
    }

    /// Starts an app of one service, whose component has been loaded already. If its pods do not
    /// start at the first try, it does not run.
    pub(crate) async fn start_single(
        node: &Node,
        source: AppSource,
        loaded: &Arc<Loaded>,
        journal: &Arc<Journal>,
    ) -> Result<Self, NotRunning> {
        let starter = Starter::new(node, &source, journal, FirstStart::Must);
        let names = source.app.services.keys();
        let loaded = names
            .map(|name| (name.clone(), Arc::clone(loaded)))
            .collect();
        Self::start_loaded(starter, source, loaded).await
    }

    async fn start_loaded(
        starter: Starter,
        source: AppSource,
        mut loaded: BTreeMap<Name, Arc<Loaded>>,
    ) -> Result<Self, NotRunning> {
        let digests: BTreeMap<_, _> = loaded
            .iter()
            .map(|(name, loaded)| (name.clone(), loaded.inspection.digest))
            .collect();
        super::daemon::hear_deadlocks(&starter.node, &starter.journal);
        let mut services = JoinSet::new();
        for service in source.app.services.values() {
            if let Some(loaded) = loaded.remove(&service.name) {
                services.spawn(start_service(starter.clone(), service.clone(), loaded));
            }
        }
        let mut jobs = JoinSet::new();
        for job in source.app.jobs.values() {
            if let Some(loaded) = loaded.remove(&job.name) {
                jobs.spawn(run_job(starter.clone(), job.clone(), loaded));
            }
        }
        let mut app = Self {
            node: starter.node.clone(),
            source,
            starter,
            services: BTreeMap::new(),
            draining: JoinSet::new(),
        };
        let mut good = true;
        for (name, pods) in services.join_all().await {
            good &= pods.is_some();
            let workers = pods.map(|pods| pods.workers).unwrap_or_default();
            let digest = digests.get(&name).copied();
            app.services.insert(
                name,
                Running {
                    revision: 1,
                    digest,
                    workers,
                    past: Usage::default(),
                },
            );
        }
        good &= jobs.join_all().await.into_iter().all(|done| done);
        if good {
            return Ok(app);
        }
        app.stop_pods().await;
        Err(NotRunning::Failed)
    }

    /// Says that everything has started, after whatever was said before.
    pub(crate) fn tell_up(&self, listening: &Listening) {
        let address = listening.address;
        let app = Subject::App(self.source.app.name.clone());
        self.starter.journal.record(app, Change::Up { address });
    }

    /// Puts a new version of a service's component in the place of the old one, without a gap. The
    /// old pods end their requests in the background.
    ///
    /// A component that is the same, or is refused, or whose pods do not start, changes nothing.
    /// When this is dropped half-way nothing has changed either.
    pub(crate) async fn reload(&mut self, name: &Name) {
        let Some(service) = self.source.app.services.get(name).cloned() else {
            return;
        };
        let Service {
            component,
            limits,
            coredump,
            ..
        } = &service;
        let load = self.starter.load(name, component, limits, *coredump);
        let loaded = match load.await {
            Ok(loaded) => loaded,
            Err(error) => {
                let reason = one_line(&error);
                return self.starter.tell(name, Change::Refused { reason });
            }
        };
        let digest = Some(loaded.inspection.digest);
        if self
            .services
            .get(name)
            .is_some_and(|it| it.digest == digest)
        {
            return;
        }
        self.gather(MAX_OLD_VERSIONS - 1).await;
        let Some(running) = self.services.get_mut(name) else {
            return;
        };
        let revision = running.revision + 1;
        let key = ServiceKey::new(&self.source.app.name, name);
        let _coming = self.node.edge.expect(&key);
        let Some(pods) = self.starter.ready_pods(&service, loaded, revision).await else {
            let reason = "its pods do not start".to_owned();
            return self.starter.tell(name, Change::Refused { reason });
        };
        self.node.edge.replace(&key, pods.endpoints);
        let old = std::mem::replace(&mut running.workers, pods.workers);
        running.revision = revision;
        running.digest = digest;
        self.starter.tell(name, Change::Replaced { revision });
        self.draining
            .spawn(async move { (service.name, stop(old).await) });
    }

    /// Waits until at most this many old versions are still draining.
    async fn gather(&mut self, left: u32) {
        while let Some(drained) = match self.draining.len() > left as usize {
            true => self.draining.join_next().await,
            false => self.draining.try_join_next(),
        } {
            if let Ok((name, used)) = drained
                && let Some(running) = self.services.get_mut(&name)
            {
                running.past = sum([running.past, used]);
            }
        }
    }

    /// The services, and the component files they run.
    pub(crate) fn components(&self) -> impl Iterator<Item = (&Name, std::path::PathBuf)> {
        let services = self.source.app.services.iter();
        services.map(|(name, service)| (name, self.source.base.join(&service.component.path)))
    }

    /// Stops accepting, lets requests end, stops the pods.
    pub(crate) async fn drain(&mut self, listening: Listening) {
        listening.drain().await;
        self.stop_pods().await;
    }

    async fn stop_pods(&mut self) {
        for (name, running) in &mut self.services {
            self.node.edge.replace(&self.starter.key(name), Vec::new());
            let workers = std::mem::take(&mut running.workers);
            let name = name.clone();
            self.draining
                .spawn(async move { (name, stop(workers).await) });
        }
        self.gather(0).await;
    }

    /// What each service has done so far.
    pub(crate) fn summary(&self) -> Vec<ServiceSummary> {
        let summary = |(name, running): (&Name, &Running)| ServiceSummary {
            name: name.clone(),
            stats: self
                .node
                .edge
                .gateway()
                .stats(&self.starter.key(name))
                .unwrap_or_default(),
            usage: sum(running
                .workers
                .iter()
                .map(Worker::usage)
                .chain([running.past])),
        };
        self.services.iter().map(summary).collect()
    }
}

async fn load_all(
    starter: &Starter,
    source: &AppSource,
) -> Result<BTreeMap<Name, Arc<Loaded>>, Vec<(Name, ComponentError)>> {
    let services = source
        .app
        .services
        .values()
        .map(|s| (&s.name, &s.component, &s.limits, s.coredump));
    let jobs = source
        .app
        .jobs
        .values()
        .map(|j| (&j.name, &j.component, &j.limits, false));
    let mut loads = JoinSet::new();
    for (name, component, limits, coredump) in services.chain(jobs) {
        let (starter, name, component) = (starter.clone(), name.clone(), component.clone());
        let limits = limits.clone();
        loads.spawn(async move {
            let loaded = starter.load(&name, &component, &limits, coredump).await;
            (name, loaded)
        });
    }
    let (mut good, mut bad) = (BTreeMap::new(), Vec::new());
    for (name, loaded) in loads.join_all().await {
        match loaded {
            Ok(loaded) => drop(good.insert(name, loaded)),
            Err(error) => bad.push((name, error)),
        }
    }
    bad.sort_by(|(a, _), (b, _)| a.cmp(b));
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

async fn start_service(
    starter: Starter,
    service: Service,
    loaded: Arc<Loaded>,
) -> (Name, Option<Pods>) {
    let pods = starter.service(&service, loaded).await;
    (service.name, pods)
}

async fn run_job(starter: Starter, job: Job, loaded: Arc<Loaded>) -> bool {
    starter.job(&job, &loaded).await
}

/// Drains pods that have left the gateway and stops them. Returns what they have used.
async fn stop(workers: Vec<Worker>) -> Usage {
    let mut stopping = JoinSet::new();
    for worker in workers {
        stopping.spawn(worker.stop());
    }
    sum(stopping.join_all().await)
}
