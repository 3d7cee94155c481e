//! The state of a daemon on disk.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sampan_core::{record::cluster::Capacity, spec::node::LogLimits};
use sampan_store::{EtcdReach, EventLog, LineLog, OpenError, Sqlite, Standby, Store};

use tokio::{sync::watch, time::Instant};

use super::{
    etcd::{self, Away, EtcdOptions, Identity},
    format::{self, FormatError},
    member::{Member, MemberError, Membership},
};
use crate::{artifacts::Artifacts, file};

/// How long a node waits for the end of another one that has its data.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no state to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// The directory cannot be used.
    #[error("cannot keep state in `{path}`; `--data` names another place")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others could put files of theirs in the place of the daemon's.
    #[error(
        "others may write to `{}`, where state is to be kept: `chmod go-w` and `chown` make it this \
         user's own, or `--data` names another place", .0.display()
    )]
    Unsafe(PathBuf),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The cluster that the node is of.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The etcd cannot be used.
    #[error(transparent)]
    Etcd(#[from] etcd::OpenError),
    /// What is in the database cannot be worked with.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// The state that a node works on.
pub(crate) struct Data {
    /// The objects. Where they are not on this machine, what is read may be from before the store
    /// was lost.
    pub(crate) store: Arc<dyn Store>,
    /// The same, whose reads fail then: for those who remove what they do not find.
    pub(crate) current: Arc<dyn Store>,
    /// Whether they are there, if they are not on this machine.
    pub(crate) reach: Option<watch::Receiver<EtcdReach>>,
    /// How they are this node's alone, if they are in an etcd and it is of no cluster.
    pub(crate) away: Option<Away>,
    /// The components.
    pub(crate) artifacts: Artifacts,
    /// The events of this node. Without it they end with the process.
    pub(crate) log: Option<EventLog>,
    /// What guests have printed. Without it that ends with the process.
    pub(crate) lines: Option<LineLog>,
    /// Where guests' key-value stores are, if there is a place for them.
    pub(crate) keyvalue: Option<PathBuf>,
    /// The file of the key with which secrets are sealed. Without it the key ends with the process.
    pub(crate) secrets: Option<PathBuf>,
    /// The node as one of a cluster, if it is of one: the objects are those of all its nodes.
    pub(crate) member: Option<Arc<Member>>,
}

/// Opens what is below a directory, which is created if missing. So much is kept of what guests
/// print.
pub(crate) async fn open(directory: &Path, logs: LogLimits) -> Result<Data, DataError> {
    own(directory)?;
    let database = directory.join("sampan.db");
    let is_new = !database.exists();
    let store = Sqlite::open(&database)?;
    let artifacts = artifacts(directory)?;
    let known = artifacts.list().map_err(|source| failed(directory, source));
    if is_new && !known?.is_empty() {
        // To move a damaged database away is one of the remedies, so this is no error.
        let (database, components) = (database.display(), directory.join("artifacts"));
        let components = components.display();
        tracing::warn!(
            "`{database}` is missing and begun anew, without the apps whose components are in \
             `{components}`"
        );
    }
    let store: Arc<dyn Store> = Arc::new(store);
    beside(directory, logs, artifacts, Arc::clone(&store), store, None).await
}

/// A directory that only this process works with.
pub(crate) struct Locked {
    directory: PathBuf,
    identity: Identity,
}

/// Locks a directory, which is created if missing, for a node whose objects are elsewhere.
pub(crate) fn lock(directory: &Path) -> Result<Locked, DataError> {
    own(directory)?;
    Ok(Locked {
        identity: Identity::open(directory).map_err(etcd::OpenError::from)?,
        directory: directory.to_owned(),
    })
}

/// The same with the objects in an etcd.
pub(crate) async fn open_with_etcd(
    locked: Locked,
    logs: LogLimits,
    options: EtcdOptions,
) -> Result<Data, DataError> {
    let directory = &*locked.directory;
    let artifacts = artifacts(directory)?;
    let database = directory.join("sampan.db");
    if database.exists() {
        let database = database.display();
        tracing::warn!("the apps in `{database}` are not looked at: they are in etcd from now on");
    }
    let opened = etcd::open(&options, locked.identity).await?;
    let (store, current) = (opened.store, opened.current);
    beside(
        directory,
        logs,
        artifacts,
        store,
        current,
        Some(opened.away),
    )
    .await
}

fn failed(directory: &Path, source: io::Error) -> DataError {
    let path = directory.to_owned();
    DataError::Directory { path, source }
}

/// Makes sure that the directory is there and this user's own.
fn own(directory: &Path) -> Result<(), DataError> {
    match file::own_directory(directory).map_err(|source| failed(directory, source))? {
        true => Ok(()),
        false => Err(DataError::Unsafe(directory.to_owned())),
    }
}

fn artifacts(directory: &Path) -> Result<Artifacts, DataError> {
    let opened = Artifacts::open(&directory.join("artifacts"));
    opened.map_err(|source| failed(directory, source))
}

/// Opens what each node has for itself.
async fn beside(
    directory: &Path,
    logs: LogLimits,
    artifacts: Artifacts,
    store: Arc<dyn Store>,
    current: Arc<dyn Store>,
    away: Option<Away>,
) -> Result<Data, DataError> {
    // Events are not vital: the node works without a log.
    let log = EventLog::open(&directory.join("events.db"));
    let log = log.map_err(|error| tracing::warn!(%error, "events are not kept"));
    let log = log.ok();
    let lines = LineLog::open(&directory.join("logs.db"), logs);
    let lines = lines.map_err(|error| tracing::warn!(%error, "lines are not kept"));
    format::carry_over(&*current, log.as_ref()).await?;
    Ok(Data {
        store,
        current,
        reach: away.as_ref().map(Away::reach),
        away,
        artifacts,
        log,
        lines: lines.ok(),
        keyvalue: Some(directory.join("keyvalue")),
        secrets: Some(directory.join("secrets.key")),
        member: None,
    })
}

/// Has the node be one of its cluster, if it is of one: the objects are those of the cluster. Its own
/// database stays open, so that no second process works in the directory.
pub(crate) async fn join_in(
    directory: &Path,
    mut data: Data,
    capacity: Capacity,
) -> Result<Data, DataError> {
    let Some(membership) = Membership::open(directory).await? else {
        return Ok(data);
    };
    format::carry_over(&*membership.store, None).await?;
    let (objects, reach) = (Arc::clone(&membership.store), membership.store.reach());
    data.current = objects;
    let standby = Standby::start(Arc::clone(&data.current), reach.clone()).await;
    let standby = Arc::new(standby.map_err(MemberError::from)?);
    data.reach = Some(reach);
    let alone = std::mem::replace(&mut data.store, standby);
    data.member = Some(Arc::new(Member::open(membership, alone, capacity).await?));
    Ok(data)
}

/// The same, once another node that is about to end has left it.
pub(crate) async fn open_when_free(directory: &Path, logs: &LogLimits) -> Result<Data, DataError> {
    let begun = Instant::now();
    loop {
        match open(directory, logs.clone()).await {
            Err(DataError::Store(OpenError::InUse(_))) if begun.elapsed() < MAX_WAIT => {
                tokio::time::sleep(PAUSE).await;
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    async fn message(directory: &Path) -> String {
        let failed = open(directory, LogLimits::default()).await.err();
        failed.map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_directory_that_others_may_write_to_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let data = home.path().join("data");
        fs::create_dir(&data).expect("writable");
        for (mode, good) in [
            (0o777, false),
            (0o757, false),
            (0o775, false),
            (0o755, true),
        ] {
            fs::set_permissions(&data, fs::Permissions::from_mode(mode)).expect("ours");
            let error = message(&data).await;
            assert_eq!(error.is_empty(), good, "{mode:o}: {error}");
            assert!(good || error.contains("`chmod go-w`"), "{error}");
            assert_eq!(data.join("sampan.db").exists(), good, "{mode:o}");
        }
    }

    #[tokio::test]
    async fn a_database_that_was_there_is_not_begun_anew_in_silence() {
        let home = tempfile::tempdir().expect("a directory");
        assert_eq!(message(home.path()).await, "");
        // One that has been closed has no log beside it.
        fs::remove_file(home.path().join("sampan.db")).expect("there");
        let error = message(home.path()).await;
        assert!(error.contains("is missing"), "{error}");
        assert!(!home.path().join("sampan.db").exists());
        // The remedy helps.
        fs::remove_file(home.path().join("sampan.db.lock")).expect("there");
        assert_eq!(message(home.path()).await, "");
    }

    #[tokio::test]
    async fn a_node_works_without_a_log_of_events() {
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir(home.path().join("events.db")).expect("writable");
        fs::create_dir(home.path().join("logs.db")).expect("writable");
        let data = open(home.path(), LogLimits::default());
        let data = data.await.expect("the rest is there");
        assert!(data.log.is_none() && data.lines.is_none());
    }
}
