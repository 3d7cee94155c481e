//! An app that runs: started, changed while it runs, drained.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use sampan_core::{
    name::Name,
    object::{Job, Service},
};
use sampan_gateway::{Drained, EndpointState, Server, ServiceStats};
use sampan_runtime::{Loaded, Usage, admission::Digest};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use super::{
    AppSource, Node,
    event::{Change, Event},
    start::{ComponentError, Placed, Starter},
};

/// Events that wait to be printed.
const MAX_EVENTS: usize = 1024;
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
        node.edge.declare(source.app.services.values());
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
    placed: Vec<Placed>,
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

/// A channel for the events of an app.
pub(crate) fn events() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(MAX_EVENTS)
}

impl RunningApp {
    /// Loads every component, then starts everything in the order of its dependencies.
    ///
    /// Nothing is started before every component has been admitted. Jobs have ended when this
    /// returns.
    pub(crate) async fn start(
        node: &Node,
        source: AppSource,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, NotRunning> {
        let starter = Starter::new(node, &source, events);
        let loaded = load_all(&starter, &source)
            .await
            .map_err(NotRunning::Components)?;
        Self::start_loaded(starter, source, loaded).await
    }

    /// Starts an app of one service, whose component has been loaded already.
    pub(crate) async fn start_single(
        node: &Node,
        source: AppSource,
        loaded: &Arc<Loaded>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, NotRunning> {
        let starter = Starter::new(node, &source, events);
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
        for (name, placed) in services.join_all().await {
            good &= placed.is_some();
            let placed = placed.unwrap_or_default();
            let digest = digests.get(&name).copied();
            app.services.insert(
                name,
                Running {
                    revision: 1,
                    digest,
                    placed,
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
    pub(crate) async fn tell_up(&self, listening: &Listening) {
        let address = listening.address;
        self.starter
            .tell(&self.source.app.name, Change::Up { address })
            .await;
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
        let load = self.starter.load(name, &service.component, &service.limits);
        let loaded = match load.await {
            Ok(loaded) => loaded,
            Err(error) => {
                let reason = super::start::explain(&error);
                return self.starter.tell(name, Change::Refused { reason }).await;
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
        let Some(placed) = self.starter.pods(&service, loaded, revision).await else {
            let reason = "its pods do not start".to_owned();
            return self.starter.tell(name, Change::Refused { reason }).await;
        };
        self.node
            .edge
            .replace(name, placed.iter().map(|p| p.endpoint.clone()).collect());
        let old = std::mem::replace(&mut running.placed, placed);
        running.revision = revision;
        running.digest = digest;
        let starter = self.starter.clone();
        self.draining.spawn(async move {
            let name = &service.name;
            starter.tell(name, Change::Replaced { revision }).await;
            let used = stop(&starter, &service, old).await;
            (service.name, used)
        });
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
            let Some(service) = self.source.app.services.get(name) else {
                continue;
            };
            self.node.edge.replace(name, Vec::new());
            let past = stop(&self.starter, service, std::mem::take(&mut running.placed)).await;
            running.past = sum([running.past, past]);
        }
        self.gather(0).await;
    }

    /// What each service has done so far.
    pub(crate) fn summary(&self) -> Vec<ServiceSummary> {
        let summary = |(name, running): (&Name, &Running)| ServiceSummary {
            name: name.clone(),
            stats: self.node.edge.gateway().stats(name).unwrap_or_default(),
            usage: sum(running
                .placed
                .iter()
                .map(|p| p.pod.usage())
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
        .map(|s| (&s.name, &s.component, &s.limits));
    let jobs = source
        .app
        .jobs
        .values()
        .map(|j| (&j.name, &j.component, &j.limits));
    let mut loads = JoinSet::new();
    for (name, component, limits) in services.chain(jobs) {
        let (starter, name, component) = (starter.clone(), name.clone(), component.clone());
        let limits = limits.clone();
        loads.spawn(async move {
            let loaded = starter.load(&name, &component, &limits).await;
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
) -> (Name, Option<Vec<Placed>>) {
    let placed = starter.service(&service, loaded).await;
    (service.name, placed)
}

async fn run_job(starter: Starter, job: Job, loaded: Arc<Loaded>) -> bool {
    starter.job(&job, &loaded).await
}

/// Drains pods that have left the gateway and drops them. Returns what they have used.
async fn stop(starter: &Starter, service: &Service, placed: Vec<Placed>) -> Usage {
    let deadline = Instant::now() + service.rollout.drain;
    let mut used = Vec::new();
    for Placed { pod, endpoint } in placed {
        endpoint.set_state(EndpointState::Terminating);
        let (name, in_flight) = (pod.name().clone(), endpoint.in_flight());
        if in_flight > 0 {
            let pod = name.clone();
            starter
                .tell(&service.name, Change::Draining { pod, in_flight })
                .await;
        }
        // What is left when the time is up goes on until its own deadline, in a pod without a name.
        let _ = tokio::time::timeout_at(deadline.into(), endpoint.drained()).await;
        used.push(pod.usage());
        drop((endpoint, pod));
        starter
            .tell(&service.name, Change::Stopped { pod: name })
            .await;
    }
    sum(used)
}

/// Usages together; the peak is that of the pod with the highest.
fn sum(usages: impl IntoIterator<Item = Usage>) -> Usage {
    usages
        .into_iter()
        .fold(Usage::default(), |sum, usage| Usage {
            cpu: sum.cpu + usage.cpu,
            memory_bytes: sum.memory_bytes + usage.memory_bytes,
            memory_peak_bytes: sum.memory_peak_bytes.max(usage.memory_peak_bytes),
            instances: sum.instances + usage.instances,
            failures: sum.failures + usage.failures,
            killed: sum.killed + usage.killed,
            log_lines_dropped: sum.log_lines_dropped + usage.log_lines_dropped,
        })
}
