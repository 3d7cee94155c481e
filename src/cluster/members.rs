//! The nodes of a cluster as the store says: who is of it, who runs, and who leads.
//!
//! | state | written | read |
//! |---|---|---|
//! | the roster | by one task for each of four prefixes, in the order of the store | by all, whole |
//!
//! The four are followed apart, so a roster may have a session of a node that it does not have yet:
//! what is asked of both is asked of a node first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sampan_core::{
    name::Name,
    plan::place,
    record::{
        Boots,
        cluster::{ClusterKey, Leader, Node, NodeSession, VolumeKeeper},
    },
};
use sampan_store::{Batch, Entry, Revision, Store, StoreError, WatchError};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinSet};

/// How long to wait before a store that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// Where the records begin that are followed.
const PREFIXES: [&str; 4] = [
    ClusterKey::NODES,
    ClusterKey::SESSIONS,
    ClusterKey::VOLUMES,
    "/leader",
];

/// What is known of the nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Roster {
    pub(crate) nodes: BTreeMap<Name, Node>,
    pub(crate) sessions: BTreeMap<Name, NodeSession>,
    pub(crate) leader: Option<Leader>,
    /// The transaction that put the leader there: each time in which a node leads has another one.
    pub(crate) term: Option<Revision>,
    /// The nodes that keep volumes, by app and volume.
    pub(crate) volumes: BTreeMap<(Name, Name), VolumeKeeper>,
}

/// Follows the nodes of a cluster, until this is dropped.
pub(crate) struct Members {
    roster: Arc<watch::Sender<Roster>>,
    _tasks: JoinSet<()>,
}

impl Members {
    /// Follows them from now on. All that the store has is there when this returns.
    pub(crate) async fn follow(store: &Arc<dyn Store>) -> Result<Self, StoreError> {
        let roster = Arc::new(watch::Sender::new(Roster::default()));
        let mut tasks = JoinSet::new();
        for prefix in PREFIXES {
            let listed = store.list(prefix).await?;
            roster.send_modify(|roster| roster.listed(prefix, &listed.entries));
            let (store, roster) = (Arc::clone(store), Arc::clone(&roster));
            tasks.spawn(async move { run(&store, prefix, listed.revision, &roster).await });
        }
        Ok(Self {
            roster,
            _tasks: tasks,
        })
    }

    /// What is known now.
    pub(crate) fn now(&self) -> Roster {
        self.roster.borrow().clone()
    }

    /// Asks about what is known now.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&Roster) -> T) -> T {
        ask(&self.roster.borrow())
    }

    /// Hears of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<Roster> {
        self.roster.subscribe()
    }
}

async fn run(
    store: &Arc<dyn Store>,
    prefix: &'static str,
    mut after: Revision,
    roster: &watch::Sender<Roster>,
) {
    loop {
        let followed = match store.watch(prefix, after).await {
            Ok(mut watch) => loop {
                match watch.next().await {
                    Ok(batch) => roster.send_modify(|roster| roster.changed(&batch)),
                    Err(error) => break error,
                }
            },
            Err(StoreError::Closed) => return,
            Err(_) => {
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if matches!(followed, WatchError::Closed) {
            return;
        }
        // It has fallen behind.
        loop {
            match store.list(prefix).await {
                Ok(listed) => {
                    after = listed.revision;
                    roster.send_modify(|roster| roster.listed(prefix, &listed.entries));
                    break;
                }
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, prefix, "the nodes cannot be read, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl Roster {
    /// The runs of all nodes that run.
    pub(crate) fn boots(&self) -> Boots {
        let sessions = self.sessions.iter();
        sessions.map(|(name, it)| (name.clone(), it.boot)).collect()
    }

    /// The nodes as pods are placed on them.
    pub(crate) fn for_placing(&self) -> Vec<place::Node> {
        let mut volumes: BTreeMap<&Name, BTreeSet<(Name, Name)>> = BTreeMap::new();
        for (volume, keeper) in &self.volumes {
            volumes
                .entry(&keeper.node)
                .or_default()
                .insert(volume.clone());
        }
        let nodes = self.nodes.iter();
        let shown = |(name, node)| {
            let session = self.sessions.get(name);
            let kept = volumes.remove(name).unwrap_or_default();
            place::Node::of(name, node, session, kept)
        };
        nodes.map(shown).collect()
    }

    /// What is below the prefix is this and nothing else.
    fn listed(&mut self, prefix: &str, entries: &[Entry]) {
        match prefix {
            ClusterKey::NODES => self.nodes.clear(),
            ClusterKey::SESSIONS => self.sessions.clear(),
            ClusterKey::VOLUMES => self.volumes.clear(),
            _ => (self.leader, self.term) = (None, None),
        }
        for entry in entries {
            self.put(&entry.key, Some(entry));
        }
    }

    fn changed(&mut self, batch: &Batch) {
        for change in &batch.changes {
            self.put(&change.key, change.entry.as_ref());
        }
    }

    fn put(&mut self, key: &str, entry: Option<&Entry>) {
        match ClusterKey::parse(key) {
            Some(ClusterKey::Node(name)) => put(&mut self.nodes, name, entry),
            Some(ClusterKey::Session(name)) => put(&mut self.sessions, name, entry),
            Some(ClusterKey::Volume(app, volume)) => put(&mut self.volumes, (app, volume), entry),
            Some(ClusterKey::Leader) => {
                self.leader = entry.and_then(decode);
                self.term = entry.map(|entry| entry.modified);
            }
            Some(ClusterKey::Cluster | ClusterKey::Token(_)) | None => {}
        }
    }
}

fn put<K: Ord, T: DeserializeOwned>(into: &mut BTreeMap<K, T>, name: K, entry: Option<&Entry>) {
    match entry.and_then(decode) {
        Some(value) => drop(into.insert(name, value)),
        None => drop(into.remove(&name)),
    }
}

/// What cannot be read is as if it were not there: a later version has written it.
fn decode<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    let decoded = serde_json::from_slice(&entry.value);
    let unreadable = |error: &serde_json::Error| {
        tracing::error!(key = %entry.key, %error, "a record of the cluster cannot be read");
    };
    decoded.inspect_err(unreadable).ok()
}
