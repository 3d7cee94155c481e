//! What everything on a node works with: its store, its components, and what is known of both.

use std::{path::PathBuf, sync::Arc};

use sampan_core::load::Merged;
use sampan_runtime::pod::Termination;
use sampan_store::{EtcdReach, KeyValues, Store, StoreError};
use tokio::sync::watch;

use super::{
    Node,
    data::Data,
    etcd::Away,
    event_history::EventHistory,
    keyvalue::{self, OfApp},
    line_history::LineHistory,
    member::Member,
    neighbours::GatewayNeighbours,
    seen::Seen,
};
use crate::{
    agent::loader::{KeyValueOf, NeighboursOf, RuntimeLoader},
    artifacts::Artifacts,
    controllers::rollouts::Rollouts,
    events::{Change, Journal, Subject},
    load::{Decided, Measured},
    mirror::Reflector,
    secrets::Secrets,
};

/// Everything that a daemon works with, before it works.
#[derive(Clone)]
pub(crate) struct NodeContext {
    pub(crate) node: Node,
    pub(crate) store: Arc<dyn Store>,
    /// The same, whose reads are never old: for those who remove what they do not find.
    pub(crate) current: Arc<dyn Store>,
    /// Whether the store is there, if it is not on this machine.
    pub(crate) reach: Option<watch::Receiver<EtcdReach>>,
    /// How an etcd is this node's alone, if it is.
    pub(crate) away: Option<Away>,
    /// The objects of the store in memory.
    pub(crate) objects: Arc<Reflector>,
    pub(crate) artifacts: Arc<Artifacts>,
    /// What guests keep.
    pub(crate) keyvalue: Arc<KeyValues>,
    /// The values of secrets.
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) journal: Arc<Journal>,
    /// The same events, and those that have left the journal.
    pub(crate) history: Arc<EventHistory>,
    /// What guests have printed, with what has left the memory.
    pub(crate) lines: Arc<LineHistory>,
    pub(crate) loader: Arc<RuntimeLoader>,
    /// How rollouts have ended, for the metrics.
    pub(crate) rollouts: Arc<Rollouts>,
    /// What services do, measured once a second.
    pub(crate) loads: watch::Sender<Arc<Measured>>,
    /// The same of all nodes together, as far as the autoscaler needs it.
    pub(crate) merged: watch::Sender<Arc<Merged>>,
    /// What the autoscaler decided last.
    pub(crate) decisions: watch::Sender<Decided>,
    /// What was seen of the services so far, for advice on their limits.
    pub(crate) seen: Arc<Seen>,
    /// Whether the controllers of a daemon have looked at everything once.
    pub(crate) looked: watch::Sender<bool>,
    /// Directories in and below which guests may be lent directories.
    pub(crate) volumes: Vec<PathBuf>,
    /// The node as one of a cluster, if it is of one.
    pub(crate) member: Option<Arc<Member>>,
}

impl NodeContext {
    /// A context on a node whose state is here.
    pub(crate) async fn open(
        node: Node,
        data: Data,
        volumes: Vec<PathBuf>,
    ) -> Result<Self, StoreError> {
        let (store, artifacts) = (data.store, Arc::new(data.artifacts));
        let keyvalue = Arc::new(KeyValues::new(data.keyvalue, node.keyvalue.clone()));
        let secrets = Arc::new(match data.secrets {
            Some(key) => Secrets::at(Arc::clone(&store), key),
            None => Secrets::in_memory(Arc::clone(&store)),
        });
        let history = Arc::new(EventHistory::new(data.log));
        let journal = Arc::clone(&history.journal);
        let lines = LineHistory::new(Arc::clone(node.runtime.logs()), data.lines);
        let loader = RuntimeLoader::new(
            Arc::clone(&node.runtime),
            Arc::clone(&artifacts),
            neighbours(&node),
            stores(&keyvalue),
            Arc::clone(&secrets),
            node.coredumps.clone(),
            Arc::clone(&journal),
        );
        let loader = loader.with(data.member.as_ref().map(|it| it.elsewhere(&artifacts)));
        hear_deadlocks(&node, &journal);
        let objects = Reflector::start(&store, node.control.handle()).await?;
        Ok(Self {
            node,
            store,
            current: data.current,
            reach: data.reach,
            away: data.away,
            objects: Arc::new(objects),
            artifacts,
            keyvalue,
            secrets,
            journal,
            history,
            lines: Arc::new(lines),
            loader: Arc::new(loader),
            rollouts: Arc::default(),
            loads: watch::Sender::default(),
            merged: watch::Sender::default(),
            decisions: watch::Sender::default(),
            seen: Arc::default(),
            looked: watch::Sender::default(),
            volumes,
            member: data.member,
        })
    }

    /// A context whose state is in memory, as long as the process lives. What guests keep outlives
    /// it.
    pub(crate) async fn foreground(node: Node) -> Result<Self, StoreError> {
        let store: Arc<dyn Store> = Arc::new(sampan_store::Memory::new());
        let data = Data {
            store: Arc::clone(&store),
            current: store,
            reach: None,
            away: None,
            artifacts: Artifacts::memory(),
            log: None,
            lines: None,
            keyvalue: keyvalue::kept(),
            secrets: None,
            member: None,
        };
        Self::open(node, data, vec![PathBuf::from("/")]).await
    }
}

fn neighbours(node: &Node) -> NeighboursOf {
    let edge = Arc::clone(&node.edge);
    Arc::new(move |app| {
        Arc::new(GatewayNeighbours {
            edge: Arc::clone(&edge),
            app: app.clone(),
        })
    })
}

fn stores(databases: &Arc<KeyValues>) -> KeyValueOf {
    let databases = Arc::clone(databases);
    Arc::new(move |app| {
        Arc::new(OfApp {
            databases: Arc::clone(&databases),
            app: app.clone(),
        })
    })
}

/// Records every deadlock from now on.
fn hear_deadlocks(node: &Node, journal: &Arc<Journal>) {
    let (journal, registry) = (Arc::clone(journal), Arc::clone(&node.registry));
    node.runtime.on_deadlock(move |deadlock| {
        let pod = deadlock.members[deadlock.victim].pod.clone();
        if deadlock.failed_call {
            registry.record(&Termination::of_deadlock(deadlock));
        }
        let subject = Subject::Service(pod.service().clone());
        let report = deadlock.to_string();
        journal.record(subject, Change::Deadlock { pod, report });
    });
}
