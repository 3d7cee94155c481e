//! Whose etcd it is: one node works with what is below a prefix, and no other writes there.
//!
//! The node that holds it has put the key [`CLAIM`] in its session. Each of its transactions
//! demands that the key is as it was put, so that a process that was suspended for longer than its
//! session lasts writes nothing once another one has taken over.
//!
//! A node that starts again takes the key over at once, because it knows its own mark, and its
//! directory is locked, so that its earlier process has ended. Another node waits until the session
//! has ended, and no longer.
//!
//! States: *held*, with the revision of the key, and *lost*, between the end of a session, or a
//! transaction that found the key changed, and the next claim. Only the task `keep` changes it,
//! after the key was written; a transaction that finds the key changed only wakes that task.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sampan_store::{
    Compare, Entry, Etcd, Listing, Outcome, Revision, Session, Store, StoreError, Transaction,
    Turns, Watch,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use super::identity::Identity;
use crate::{clock::wall_ms, mirror::text};

/// The key that says whose it is. It is no object.
const CLAIM: &str = "/claim";

/// How long the claim of a node outlives it.
const TTL: Duration = Duration::from_secs(10);

/// How long a node waits for the end of another one's session.
const PATIENCE: Duration = Duration::from_secs(15);

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a node cannot have what is in an etcd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// Another one has it.
    #[error(
        "another node works with what is in etcd below this prefix: process {process} on `{host}`, \
         with other data; stop it, or `--etcd-prefix` names another place for this one"
    )]
    Other {
        /// Where that runs.
        host: String,
        /// Its id there.
        process: u32,
    },
    /// etcd fails.
    #[error("cannot claim what is in etcd for this node")]
    Store(#[from] StoreError),
}

/// What is in the key.
#[derive(Serialize, Deserialize)]
struct Claim {
    mark: String,
    host: String,
    process: u32,
    since_ms: u64,
}

/// What is known of the key.
#[derive(Default)]
struct Held {
    /// The revision at which it was put; 0 while it is lost.
    revision: AtomicU64,
    /// It was found to be another one.
    changed: Notify,
}

/// Asks the task that keeps the key to give it back, and hears when that is done.
pub(super) type Release = mpsc::Sender<oneshot::Sender<()>>;

/// What a claim is besides a store.
pub(super) struct Keeping {
    /// The process that has it instead, once one has.
    pub(super) taken: watch::Receiver<Option<String>>,
    pub(super) release: Release,
}

/// An etcd that is this node's.
pub(super) struct Claimed {
    etcd: Arc<Etcd>,
    held: Arc<Held>,
    keeping: tokio::task::AbortHandle,
}

impl Claimed {
    /// Claims an etcd, and keeps it until it is given back or dropped.
    pub(super) async fn claim(
        etcd: &Arc<Etcd>,
        identity: Identity,
    ) -> Result<(Self, Keeping), ClaimError> {
        let taken = take(etcd, &identity, u64::MAX).await?;
        let held = Arc::<Held>::default();
        held.revision.store(taken.revision.0, Ordering::Relaxed);
        let (by, other) = watch::channel(None);
        let (release, released) = mpsc::channel(1);
        let beside = Keeping {
            taken: other,
            release,
        };
        let holder = Holder {
            etcd: Arc::clone(etcd),
            identity,
            held: Arc::clone(&held),
            by,
        };
        let keeping = holder.keep(taken, released);
        let claimed = Self {
            etcd: Arc::clone(etcd),
            held,
            keeping: tokio::spawn(keeping).abort_handle(),
        };
        Ok((claimed, beside))
    }

    fn lost(&self) -> StoreError {
        StoreError::Failed {
            place: self.etcd.place().to_owned(),
            reason: "it is not this node's at the moment".to_owned(),
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// A key that was taken.
struct Taken {
    session: Session,
    revision: Revision,
    since_ms: u64,
}

/// Takes the key, once it is free or this node's own: what this node put there up to `known_ms`. A
/// later one is of a copy of its directory.
async fn take(etcd: &Etcd, identity: &Identity, known_ms: u64) -> Result<Taken, ClaimError> {
    let session = etcd.open_session(TTL).await?;
    let until = Instant::now() + PATIENCE;
    let mut is_told = false;
    loop {
        let entry = etcd.get(CLAIM).await?;
        let before = entry.as_ref().map_or(Revision(0), |entry| entry.modified);
        let claim = entry.and_then(|entry| serde_json::from_slice::<Claim>(&entry.value).ok());
        let is_own = |it: &Claim| it.mark == identity.mark() && it.since_ms <= known_ms;
        if let Some(other) = claim.filter(|claim| !is_own(claim)) {
            if Instant::now() >= until {
                return Err(ClaimError::Other {
                    host: other.host,
                    process: other.process,
                });
            }
            if !std::mem::replace(&mut is_told, true) {
                let (host, process) = (&other.host, other.process);
                tracing::warn!(
                    "process {process} on `{host}` has what is in etcd: waiting for its end"
                );
            }
            sleep(PAUSE).await;
            continue;
        }
        let claim = Claim {
            mark: identity.mark().to_owned(),
            host: identity.host(),
            process: std::process::id(),
            since_ms: wall_ms(),
        };
        let taking =
            Transaction::new()
                .compare(CLAIM, before)
                .put_in(session.id(), CLAIM, text(&claim));
        // An uncertain end is found out by looking again.
        if let Outcome::Committed(revision) = etcd.commit(taking).await? {
            return Ok(Taken {
                session,
                revision,
                since_ms: claim.since_ms,
            });
        }
    }
}

/// The task that keeps the key.
struct Holder {
    etcd: Arc<Etcd>,
    identity: Identity,
    held: Arc<Held>,
    by: watch::Sender<Option<String>>,
}

impl Holder {
    /// Claims it again when the session has ended or the key was changed, as after a restored
    /// backup. Ends when another process has it instead, or when it is to be given back.
    async fn keep(self, mut taken: Taken, mut released: mpsc::Receiver<oneshot::Sender<()>>) {
        loop {
            let done = tokio::select! {
                () = taken.session.lost() => None,
                () = self.held.changed.notified() => None,
                Some(done) = released.recv() => Some(done),
            };
            self.held.revision.store(0, Ordering::Relaxed);
            if let Some(done) = done {
                // Without that it ends by itself.
                let _ = taken.session.end().await;
                let _ = done.send(());
                return;
            }
            tracing::warn!("the claim of this node in etcd is gone, claiming again");
            taken = match self.again(taken.since_ms).await {
                Some(taken) => taken,
                None => return,
            };
            let revision = taken.revision.0;
            self.held.revision.store(revision, Ordering::Relaxed);
        }
    }

    /// Takes the key again; `None` if there is none to be had.
    async fn again(&self, since_ms: u64) -> Option<Taken> {
        loop {
            match take(&self.etcd, &self.identity, since_ms).await {
                Ok(taken) => return Some(taken),
                Err(ClaimError::Store(StoreError::Closed)) => return None,
                Err(ClaimError::Store(_)) => sleep(PAUSE).await,
                Err(other @ ClaimError::Other { .. }) => {
                    self.by.send_replace(Some(other.to_string()));
                    return None;
                }
            }
        }
    }
}

#[async_trait]
impl Store for Claimed {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.etcd.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.etcd.list(prefix).await
    }

    async fn commit(&self, mut transaction: Transaction) -> Result<Outcome, StoreError> {
        let held = Revision(self.held.revision.load(Ordering::Relaxed));
        if held == Revision(0) {
            return Err(self.lost());
        }
        let key = CLAIM.into();
        // The first: a conflict names it, whatever else differs.
        let ours = Compare {
            key,
            modified: held,
        };
        transaction.compares.insert(0, ours);
        match self.etcd.commit(transaction).await? {
            Outcome::Conflict(key) if &*key == CLAIM => {
                // Unless it was claimed again meanwhile.
                if self.held.revision.load(Ordering::Relaxed) == held.0 {
                    self.held.changed.notify_one();
                }
                Err(self.lost())
            }
            outcome => Ok(outcome),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.etcd.watch(prefix, after).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.etcd.compact(through).await
    }

    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        self.etcd.open_session(ttl).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.etcd.revision().await
    }

    fn turns(&self) -> &Turns {
        self.etcd.turns()
    }
}
