//! What the API of a node is made of, and how much it does at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use http::Method;
use sampan_core::{
    event::Reason,
    name::{Name, ServiceKey},
    plan::{advise, quota::Quota},
    record::{self, JobSpec, Template},
    spec::Found,
    view,
};
use sampan_store::{EtcdReach, KeyValues, LinesBack, LinesOf, LogSource, LoggedLine, Store};
use tokio::{
    runtime::Handle,
    sync::{Mutex, Semaphore, watch::Receiver},
    time::timeout,
};

use super::{
    ending::Ending,
    error::{ApiError, Code},
    turns::Turns,
    work::Work,
};
use crate::{
    artifacts::Artifacts,
    events::{Events, Subject},
    load::{Decisions, Loads},
    secrets::Secrets,
};

/// The largest body of a request, but for components.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;
/// Requests at once that change a service or delete an app. More are refused.
pub(super) const MAX_CHANGES: usize = 16;
/// Applies, and plans, at once. More are refused.
pub(super) const MAX_SPECS: usize = 64;
/// Of these, those of one app, which take turns.
pub(super) const MAX_SPECS_OF_AN_APP: usize = 16;
/// Specs of applies that are read and compared at once. More wait.
pub(super) const MAX_APPLIES_AT_WORK: usize = 2;
/// Specs of plans that are read and compared at once. More wait: applies need no plan's turn.
pub(super) const MAX_PLANS_AT_WORK: usize = 1;
/// Lists that are gathered and written at once. More wait.
pub(super) const MAX_LISTS_AT_WORK: usize = 2;
/// Lists that wait for that. More are refused.
pub(super) const MAX_LISTS_WAITING: usize = 64;
/// Large answers that are being sent at once. More are refused.
pub(super) const MAX_LARGE_ANSWERS: usize = 8;
/// How long a request for how things are waits at the start of a node.
pub(super) const MAX_LOOK: Duration = Duration::from_secs(10);
/// Components that are uploaded at once. More are refused.
pub(super) const MAX_UPLOADS: usize = 4;
/// Answers at once that go on until the client goes. More are refused.
pub(super) const MAX_FOLLOWERS: usize = 64;

/// Some of the lines that pods have printed.
pub(crate) struct LinePart {
    pub(crate) lines: Vec<LoggedLine>,
    /// Lines that were gone before they could be read.
    pub(crate) missed: u64,
    /// The number to read from next.
    pub(crate) next: u64,
}

/// Which lines pass.
pub(crate) type LineFilter = Arc<dyn Fn(&LoggedLine) -> bool + Send + Sync>;

/// A pod of which there are lines.
#[derive(Clone, Debug)]
pub(crate) struct KeptLines {
    pub(crate) source: Arc<LogSource>,
    /// What is on disk of it.
    pub(crate) bytes: u64,
    /// When it printed its last line on disk, in milliseconds since the beginning of 1970.
    pub(crate) last_ms: Option<u64>,
    /// The numbers at which its last incarnations begin.
    pub(crate) begins: BTreeSet<u64>,
}

/// The lines that pods have printed, each with a number that rises. All but [`Lines::next`] may wait
/// for the disk, and does a bounded part of the work.
#[async_trait]
pub(crate) trait Lines: Send + Sync + 'static {
    /// The numbers of the lines that there are now.
    fn span(&self) -> RangeInclusive<u64>;

    /// A number before which all lines are older than this time, in milliseconds since the beginning
    /// of 1970.
    fn since(&self, time_ms: u64) -> u64;

    /// Lines of these pods in this range that pass the filter, in their order: a part of them.
    fn part(&self, of: &LinesOf, range: RangeInclusive<u64>, filter: &LineFilter) -> LinePart;

    /// Looks for the last `wanted` lines of these pods in this range that pass the filter: in a part
    /// of it.
    fn back(
        &self,
        of: &LinesOf,
        range: RangeInclusive<u64>,
        wanted: usize,
        filter: &LineFilter,
    ) -> LinesBack;

    /// Waits for lines from this number on, and returns those that are asked for.
    async fn next(self: Arc<Self>, of: LinesOf, from: u64, filter: LineFilter) -> LinePart;

    /// The pods of which there are lines, those that are gone too.
    fn pods(&self, of: &LinesOf) -> Vec<KeptLines>;
}

/// What the API shows of what runs.
#[async_trait]
pub(crate) trait Views: Send + Sync + 'static {
    /// How a pod of the store is.
    fn pod(&self, pod: &record::Pod) -> view::Pod;

    /// The same with source lines in what is said about its instances. To find them may take a
    /// while.
    async fn explained(&self, pod: record::Pod) -> view::Pod;

    /// The events after the one with this number. To read them may take a while.
    fn events(&self, after: u64) -> Events;

    /// Like [`Self::events`], and waits until there is one.
    async fn next_events(&self, after: u64) -> Events;

    /// The node.
    fn node(&self) -> view::Node;

    /// What services are doing, as it is measured.
    fn loads(&self) -> Loads;

    /// What the autoscaler has decided last.
    fn decisions(&self) -> Decisions;

    /// What was seen of each service so far.
    fn seen(&self) -> BTreeMap<ServiceKey, advise::Seen>;

    /// Its metrics, in the text format of Prometheus.
    fn metrics(&self) -> String;
}

/// What decides whether components can run, and hears what is done.
#[async_trait]
pub(crate) trait Admission: Send + Sync + 'static {
    /// Whether pods can be made of the template: its component is read, checked against what it is
    /// granted, and compiled. Says what it was found to be. The error is shown to the client, so it
    /// is lower case and without a full stop.
    async fn admit(&self, service: &ServiceKey, template: &Template) -> Result<Found, String>;

    /// The same of a job.
    async fn admit_job(&self, job: &ServiceKey, spec: &JobSpec) -> Result<(), String>;

    /// Something was done or refused: in one word, and in a sentence whose subject is `subject`.
    fn tell(&self, subject: Subject, reason: Reason, message: String);
}

/// Why volumes are not removed, written or read.
pub(crate) enum KeptError {
    /// There is no such volume.
    Absent(String),
    /// What was sent is nothing that a volume can have.
    Refused(String),
    /// One of them is in use.
    Used(String),
    /// The disk or the system says so.
    Failed(String),
}

/// The volumes that the node keeps. All of it asks the disk.
pub(crate) trait Kept: Send + Sync + 'static {
    /// Those that are there, of this app if one is named: its app, its name and how many bytes are
    /// in it. The error is shown to the client.
    fn volumes(&self, app: Option<&Name>) -> Result<Vec<(Name, Name, u64)>, String>;

    /// Removes all volumes of an app, and tells their names.
    fn remove(&self, app: &Name) -> Result<Vec<Name>, KeptError>;

    /// Writes a volume as a tar archive.
    fn export(&self, app: &Name, name: &Name, out: &mut dyn Write) -> Result<(), KeptError>;

    /// Puts a tar archive in the place of what is in a volume, if it is no more than the quota:
    /// whole or not at all.
    fn import(
        &self,
        app: &Name,
        name: &Name,
        quota: Option<u64>,
        input: &mut dyn Read,
    ) -> Result<(), KeptError>;
}

/// What another node has answered, or why it has not.
pub(crate) struct Answered {
    pub(crate) node: Name,
    pub(crate) answer: Result<Bytes, String>,
}

/// The node that keeps a volume.
pub(crate) enum Keeper {
    /// The one that is asked.
    This,
    /// Another one.
    Other(Name),
    /// The volume is nowhere yet.
    None,
}

/// The cluster that the node is of.
#[async_trait]
pub(crate) trait Cluster: Send + Sync + 'static {
    /// All nodes, of which the one that is asked is this.
    async fn nodes(&self, own: view::Node) -> Vec<view::Node>;

    /// Asks all other nodes that run, a second each.
    async fn ask_all(&self, target: &str) -> Vec<Answered> {
        self.tell_all(Method::GET, target).await
    }

    /// The lines of what all other nodes that run answer, as they come, and which nodes do not.
    async fn follow(&self, target: &str) -> (BoxStream<'static, Bytes>, Vec<(Name, String)>);

    /// Whether a component, or static files by their manifest, are here now, fetched if they were
    /// not.
    async fn obtain(&self, digest: &str) -> bool;

    /// Has another node take these components and files, too, if one runs.
    async fn spread(&self, digests: &[String]) -> Result<(), String>;

    /// Another token for joining. The error is shown to the client.
    async fn invite(&self) -> Result<view::Invitation, String>;

    /// Takes a node out that does not run.
    async fn remove(&self, node: &Name) -> Result<(), String>;

    /// The node that keeps a volume of an app.
    fn keeper(&self, app: &Name, volume: &Name) -> Keeper;

    /// Says that this node keeps a volume of an app from now on.
    async fn keep(&self, app: &Name, volume: &Name) -> Result<(), String>;

    /// Asks another node what this one was asked.
    async fn pass(&self, node: &Name, request: Request) -> Result<Response, String>;

    /// Asks all other nodes that run to do something, a second each.
    async fn tell_all(&self, method: Method, target: &str) -> Vec<Answered>;

    /// Says that a node, if not another one then this, does not keep these volumes of an app any more.
    async fn give_up(
        &self,
        node: Option<&Name>,
        app: &Name,
        volumes: &[Name],
    ) -> Result<(), String>;

    /// Changes what is wanted of a node.
    async fn change(&self, node: &Name, change: &view::NodeChange) -> Result<(), String>;
}

/// What the API is made of.
pub(crate) struct Parts {
    /// Where objects are.
    pub(crate) store: Arc<dyn Store>,
    /// Whether the store answers, if it is not on this machine. While it does not, what is read is
    /// from before.
    pub(crate) reach: Option<Receiver<EtcdReach>>,
    /// Where components are.
    pub(crate) artifacts: Arc<Artifacts>,
    /// What guests keep.
    pub(crate) keyvalue: Arc<KeyValues>,
    /// The values of secrets.
    pub(crate) secrets: Arc<Secrets>,
    /// What runs.
    pub(crate) views: Arc<dyn Views>,
    /// What has been printed.
    pub(crate) lines: Arc<dyn Lines>,
    /// What can run.
    pub(crate) admission: Arc<dyn Admission>,
    /// The volumes of apps.
    pub(crate) kept: Arc<dyn Kept>,
    /// Directories below which guests may be lent directories.
    pub(crate) volumes: Vec<PathBuf>,
    /// How much apps may have.
    pub(crate) quota: Quota,
    /// Whether everything has been looked at once: only then is what the store says of how things
    /// are of this run of the node.
    pub(crate) looked: Receiver<bool>,
    /// The threads of the control side, on which requests are answered.
    pub(crate) threads: Handle,
    /// What ends the node with its last app, where that is so.
    pub(crate) ending: Option<Arc<Ending>>,
    /// Connections at once at each entrance: the socket, and the port.
    pub(crate) connections: usize,
    /// The cluster, where the node is of one and answers for all its nodes.
    pub(crate) cluster: Option<Arc<dyn Cluster>>,
}

/// The API of a node, whichever way it is reached.
#[derive(Clone)]
pub(crate) struct Api(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) parts: Parts,
    /// Requests that change something, but for applies.
    pub(super) changes: Semaphore,
    /// Applies: of each app one at a time admits components and writes.
    pub(super) applies: Turns,
    pub(super) plans: Turns,
    /// The part of applies, of plans and of lists that takes a processor.
    pub(super) applying: Work,
    pub(super) planning: Work,
    pub(super) lists: Work,
    pub(super) large: Arc<Semaphore>,
    /// The turn of those who ask for more than they have, from the check of the quota to the write.
    pub(super) quota_turn: Mutex<()>,
    pub(super) uploads: Semaphore,
    /// Archives of volumes that are written or read.
    pub(super) archives: Arc<Semaphore>,
    pub(super) followers: Arc<Semaphore>,
}

impl std::ops::Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

pub(super) type Shared = State<Api>;

impl Api {
    /// The API of what these are.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            changes: Semaphore::new(MAX_CHANGES),
            applies: Turns::new("applies", MAX_SPECS, MAX_SPECS_OF_AN_APP),
            plans: Turns::new("plans", MAX_SPECS, MAX_SPECS_OF_AN_APP),
            // Each that waits here has one of the places above.
            applying: Work::new("applies", MAX_APPLIES_AT_WORK, MAX_SPECS),
            planning: Work::new("plans", MAX_PLANS_AT_WORK, MAX_SPECS),
            lists: Work::new("lists", MAX_LISTS_AT_WORK, MAX_LISTS_WAITING),
            large: Arc::new(Semaphore::new(MAX_LARGE_ANSWERS)),
            quota_turn: Mutex::new(()),
            uploads: Semaphore::new(MAX_UPLOADS),
            archives: Arc::new(Semaphore::new(MAX_UPLOADS)),
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
        }))
    }

    /// Waits until what the store says of how services and jobs are is of this run of the node. All
    /// that needs no such word is answered from the start.
    pub(super) async fn looked(&self) -> Result<(), ApiError> {
        let mut looked = self.0.looked.clone();
        match timeout(MAX_LOOK, looked.wait_for(|looked| *looked)).await {
            // The node is going down: it looks at nothing more.
            Ok(Ok(_) | Err(_)) => Ok(()),
            Err(_) => {
                let message = "the node has just started, and not yet looked at all its services";
                Err(ApiError::new(Code::Busy, message)
                    .hint("try again in a moment; `apply` and `delete` work already"))
            }
        }
    }

    /// The threads on which requests are answered.
    pub(crate) fn threads(&self) -> &Handle {
        &self.0.threads
    }
}
