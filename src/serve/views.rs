//! What the API shows, from what the agent knows.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use sampan_core::{
    event::Reason,
    name::{Name, ServiceKey},
    object::{Grants, Mount, MountSource, VolumeUse},
    plan::advise,
    record::{self, JobSpec, Template},
    spec::Found,
    time::Utc,
    view,
};
use sampan_runtime::{
    ArchiveError, Runtime, StartError, Symbols, VolumeError, off_thread, pod::Termination,
};

use sampan_store::{KeyValueError, KeyValues};
use tokio::time::Instant;

use super::{
    Node, event_history::EventHistory, line_history::LineHistory, member::Member, metrics,
    seen::Seen,
};
use crate::events::{Change, Events, Subject};
use crate::{
    agent::{handle::one_line, loader::RuntimeLoader, registry::KnownPod},
    api::{Admission, Kept, KeptError, Views},
    clock::LOCAL,
    controllers::rollouts::Rollouts,
    load::{Decided, Decisions, Loads, MergedLoads},
};

/// The pods and events of this node.
pub(super) struct NodeViews {
    pub(super) node: Node,
    pub(super) history: Arc<EventHistory>,
    pub(super) lines: Arc<LineHistory>,
    pub(super) loader: Arc<RuntimeLoader>,
    pub(super) symbols: Arc<Symbols>,
    pub(super) rollouts: Arc<Rollouts>,
    pub(super) loads: Loads,
    pub(super) merged: MergedLoads,
    pub(super) decisions: Decisions,
    pub(super) seen: Arc<Seen>,
    /// Whether `up -d` has started this process.
    pub(super) background: bool,
    pub(super) keyvalue: Arc<KeyValues>,
    pub(super) started: SystemTime,
    /// Where the gateway listens.
    pub(super) http: Option<SocketAddr>,
    /// The node as one of a cluster.
    pub(super) member: Option<Arc<Member>>,
}

#[async_trait]
impl Views for NodeViews {
    fn pod(&self, wanted: &record::Pod) -> view::Pod {
        let status = self.node.registry.get(&wanted.name());
        pod(wanted, status, &Termination::explain)
    }

    async fn explained(&self, wanted: record::Pod) -> view::Pod {
        let status = self.node.registry.get(&wanted.name());
        let symbols = Arc::clone(&self.symbols);
        off_thread(move || pod(&wanted, status, &|end| symbols.explain(end))).await
    }

    fn events(&self, after: u64) -> Events {
        self.history.after(after)
    }

    async fn next_events(&self, after: u64) -> Events {
        Arc::clone(&self.history).follow(after).await
    }

    fn node(&self) -> view::Node {
        view::Node {
            name: self
                .member
                .as_ref()
                .map_or(LOCAL, |it| it.local.name.as_str())
                .to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: Utc::from(self.started).to_string(),
            http: self.http.map(|it| it.to_string()),
            pods: self.node.registry.count() as u64,
            log_lines_lost: self.lines.lost(),
            pid: std::process::id(),
            background: self.background,
            status: "Ready".to_owned(),
            reason: None,
            address: self.member.as_ref().map(|it| it.address.to_string()),
            labels: BTreeMap::new(),
            leads: self
                .member
                .as_ref()
                .is_some_and(|it| it.standing().borrow().leads()),
            room: None,
        }
    }

    fn loads(&self) -> Loads {
        self.loads.clone()
    }

    fn decisions(&self) -> Decisions {
        self.decisions.clone()
    }

    fn seen(&self) -> BTreeMap<ServiceKey, advise::Seen> {
        self.seen.all(|service| {
            let cost = self.node.registry.request_cpu(service);
            Some(advise::RequestCpu {
                requests: cost.count(),
                p999: cost.quantile(0.999)?,
                max: cost.quantile(1.0)?,
            })
        })
    }

    fn metrics(&self) -> String {
        let decided = Decided::clone(&self.decisions.borrow());
        let lost = self.lines.lost();
        let known = metrics::Known {
            decided: &decided,
            silent: self.merged.borrow().silent.len(),
            started: self.started,
            lost,
        };
        metrics::text(&self.node, &self.rollouts, &known)
    }
}

#[async_trait]
impl Admission for NodeViews {
    async fn admit(&self, service: &ServiceKey, template: &Template) -> Result<Found, String> {
        self.may_keep(&service.app, &template.grants).await?;
        if self.member.is_some() {
            return self.loader.admit(service, &without_volumes(template)).await;
        }
        self.loader.admit(service, template).await
    }

    async fn admit_job(&self, job: &ServiceKey, spec: &JobSpec) -> Result<(), String> {
        self.may_keep(&job.app, &spec.grants).await?;
        let subject = Subject::Job(job.clone());
        let loading = self
            .loader
            .load(&subject, &spec.component, &spec.limits, false);
        let loaded = loading.await?;
        match loaded.inspection.command {
            Some(_) => Ok(()),
            None => Err(one_line(&StartError::NoCommand)),
        }
    }

    fn tell(&self, subject: Subject, reason: Reason, message: String) {
        let change = Change::Announced { reason, message };
        self.history.journal.record(subject, change);
    }
}

/// The same without volumes: in a cluster they are made where the pods run, and nowhere else.
fn without_volumes(template: &Template) -> Template {
    let mut template = template.clone();
    let is_volume = |mount: &Mount| matches!(mount.source, MountSource::Volume(_));
    template.grants.files.retain(|mount| !is_volume(mount));
    template
}

/// How long an app waits for what it keeps: the node that had it may be about to end.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

impl NodeViews {
    /// Takes the volumes and the key-value stores that guests are granted, which another node may
    /// have.
    async fn may_keep(&self, app: &Name, grants: &Grants) -> Result<(), String> {
        let volumes: Vec<_> = grants
            .files
            .iter()
            .filter_map(|mount| match &mount.source {
                MountSource::Volume(volume) => Some(volume.clone()),
                MountSource::Host(_) | MountSource::Secret(_) => None,
            })
            .collect();
        let stores = (!grants.keyvalue.is_empty()).then(|| app.clone());
        // In a cluster any node may be the one that runs what mounts them.
        if self.member.is_some() || volumes.is_empty() && stores.is_none() {
            return Ok(());
        }
        let asked = Arc::new((volumes, stores));
        let begun = Instant::now();
        loop {
            let (runtime, databases) = (Arc::clone(&self.node.runtime), self.keyvalue.clone());
            let wanted = Arc::clone(&asked);
            let taken = off_thread(move || take(&runtime, &databases, &wanted)).await;
            match taken {
                Err((_, true)) if begun.elapsed() < MAX_WAIT => tokio::time::sleep(PAUSE).await,
                taken => return taken.map_err(|(reason, _)| reason),
            }
        }
    }
}

/// Takes volumes, and the stores of an app. The error is why they cannot be had, and whether another
/// process has them.
fn take(
    runtime: &Runtime,
    databases: &KeyValues,
    (volumes, stores): &(Vec<VolumeUse>, Option<Name>),
) -> Result<(), (String, bool)> {
    // Without a place for them, who makes the pods says so.
    for (volume, place) in volumes.iter().zip(std::iter::repeat(runtime.volumes())) {
        let taken = place.map_or(Ok(()), |place| place.take(volume));
        taken.map_err(|error| (one_line(&error), matches!(error, VolumeError::Busy(..))))?;
    }
    let Some(app) = stores else {
        return Ok(());
    };
    match databases.open(app).map(drop) {
        // Those are open that were used last.
        Ok(()) | Err(KeyValueError::Busy) => Ok(()),
        Err(error) => {
            let is_held = matches!(error, KeyValueError::Held { .. });
            Err((one_line(&error), is_held))
        }
    }
}

impl Kept for NodeViews {
    fn volumes(&self, app: Option<&Name>) -> Result<Vec<(Name, Name, u64)>, String> {
        let Some(volumes) = self.node.runtime.volumes() else {
            return Ok(Vec::new());
        };
        let read = || -> std::io::Result<Vec<_>> {
            let mut found = Vec::new();
            for (of, name) in volumes.list()? {
                if app.is_none_or(|app| *app == of) {
                    let bytes = volumes.used_bytes(&of, &name)?;
                    found.push((of, name, bytes));
                }
            }
            Ok(found)
        };
        read().map_err(|error| format!("cannot read the volumes: {error}"))
    }

    fn remove(&self, app: &Name) -> Result<Vec<Name>, KeptError> {
        let Some(volumes) = self.node.runtime.volumes() else {
            return Ok(Vec::new());
        };
        volumes.remove(app).map_err(kept_error)
    }

    fn export(&self, app: &Name, name: &Name, out: &mut dyn Write) -> Result<(), KeptError> {
        let volumes = self.node.runtime.volumes();
        let volumes = volumes.ok_or_else(|| kept_error(VolumeError::NoPlace))?;
        volumes.export(app, name, out).map_err(kept_error)
    }

    fn import(
        &self,
        app: &Name,
        name: &Name,
        quota: Option<u64>,
        input: &mut dyn Read,
    ) -> Result<(), KeptError> {
        let volumes = self.node.runtime.volumes();
        let volumes = volumes.ok_or_else(|| kept_error(VolumeError::NoPlace))?;
        let imported = volumes.import(app, name, quota, input);
        imported.map_err(kept_error)
    }
}

fn kept_error(error: VolumeError) -> KeptError {
    let reason = one_line(&error);
    match error {
        VolumeError::Used(_) | VolumeError::Busy(..) => KeptError::Used(reason),
        VolumeError::Absent(_) => KeptError::Absent(reason),
        VolumeError::Archive(ArchiveError::Refused(_)) => KeptError::Refused(reason),
        VolumeError::Archive(ArchiveError::Io(_))
        | VolumeError::Directory { .. }
        | VolumeError::NoPlace => KeptError::Failed(reason),
    }
}

/// How a pod of the store is, by what the node knows of it, if it does.
fn pod(
    wanted: &record::Pod,
    status: Option<KnownPod>,
    explain: &dyn Fn(&Termination) -> String,
) -> view::Pod {
    let unseen = view::Pod::unseen(wanted);
    let Some(status) = status else {
        return unseen;
    };
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    view::Pod {
        phase: status.phase.to_owned(),
        ready: status.ready,
        restarts: status.restarts,
        reason: status.reason.or_else(|| wanted.stop.clone()),
        next_try_ms: status.next_try_in.map(millis),
        starved_probes: status.starved,
        usage: view::Usage {
            cpu_ms: status.usage.cpu.as_secs_f64() * 1e3,
            throttled_ms: status.usage.throttled.as_secs_f64() * 1e3,
            memory_bytes: status.usage.memory_bytes,
            memory_peak_bytes: status.usage.memory_peak_bytes,
            instances: status.usage.instances,
            failures: status.usage.failures,
        },
        terminations: status
            .ends
            .iter()
            .map(|end| termination(end, explain(end)))
            .collect(),
        ..unseen
    }
}

fn termination(end: &Termination, explanation: String) -> view::Termination {
    view::Termination {
        time: Utc::from(end.at).to_string(),
        verdict: end.verdict.to_string(),
        reason: end.reason.clone(),
        explanation,
    }
}
