//! A node whose objects are in an etcd: how that is opened, and which node it belongs to.

mod claim;
mod identity;

use std::{net::ToSocketAddrs as _, sync::Arc, time::Duration};

use sampan_store::{Etcd, EtcdError, EtcdReach, Standby, Store, StoreError};
pub(crate) use sampan_store::{EtcdOptions, EtcdTls, exposed};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

pub(crate) use claim::ClaimError;
use claim::{Claimed, Release};
pub(crate) use identity::{Identity, IdentityError};

/// How long a node waits for an etcd at its start.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it may take to give etcd back.
const RELEASE: Duration = Duration::from_secs(2);

/// How often history is forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// So many of these times later.
const REMEMBERED: usize = 5;

/// Before it, etcd has errors that Sampan steps around, and some that it cannot.
const SUPPORTED: [u32; 3] = [3, 5, 28];

/// Why there is no state in an etcd to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It cannot be used.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// It belongs to another node.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The node does not know which one it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It fails.
    #[error("cannot read what is in etcd")]
    Store(#[from] StoreError),
}

/// The state of a node in an etcd.
pub(crate) struct Opened {
    /// The objects. While etcd is away, reads show what was known then.
    pub(crate) store: Arc<dyn Store>,
    /// The same, whose reads fail then: for those who remove what they do not find.
    pub(crate) current: Arc<dyn Store>,
    /// What goes on as long as the node does.
    pub(crate) away: Away,
}

/// Whether etcd is there, and still this node's.
#[derive(Clone)]
pub(crate) struct Away {
    reach: watch::Receiver<EtcdReach>,
    taken: watch::Receiver<Option<String>>,
    release: Release,
}

impl Away {
    /// Resolves when another node has taken the place of this one, with who that is.
    pub(crate) async fn taken(&self) -> String {
        let mut taken = self.taken.clone();
        match taken.wait_for(Option::is_some).await {
            Ok(taken) => taken.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives etcd back, so that another node need not wait for the end of this one's claim. Nothing
    /// is written after it.
    pub(crate) async fn release(&self) {
        let (done, is_done) = oneshot::channel();
        if self.release.send(done).await.is_ok() {
            // An etcd that is away finds it out by itself.
            let _ = timeout(RELEASE, is_done).await;
        }
    }

    /// Whether etcd answers.
    pub(crate) fn reach(&self) -> watch::Receiver<EtcdReach> {
        self.reach.clone()
    }
}

/// Opens the state of a node. What works on it stays on the threads of the caller.
pub(crate) async fn open(options: &EtcdOptions, identity: Identity) -> Result<Opened, OpenError> {
    protect(options);
    let etcd = Arc::new(Etcd::open(options, PATIENCE).await?);
    warn(&etcd).await?;
    let reach = etcd.reach();
    let (claimed, keeping) = Claimed::claim(&etcd, identity).await?;
    let claimed: Arc<dyn Store> = Arc::new(claimed);
    let standby = Standby::start(Arc::clone(&claimed), reach.clone()).await?;
    let forgetting = Arc::downgrade(&etcd);
    tokio::spawn(async move {
        if let Some(etcd) = forgetting.upgrade() {
            etcd.forget(FORGET, REMEMBERED).await;
        }
    });
    Ok(Opened {
        store: Arc::new(standby),
        current: claimed,
        away: Away {
            reach,
            taken: keeping.taken,
            release: keeping.release,
        },
    })
}

/// Says what is not as it should be, and works all the same.
async fn warn(etcd: &Etcd) -> Result<(), StoreError> {
    let (place, version) = (etcd.place(), etcd.version());
    if !etcd.is_at_least(SUPPORTED) {
        tracing::warn!(
            "etcd at `{place}` is version {version}, which is no longer maintained: use 3.5.28 or \
             later"
        );
    }
    let limits = etcd.limits().await?;
    if !limits.operations || !limits.bytes {
        tracing::warn!(
            "etcd at `{place}` takes small changes only, and refuses those of large apps: start it \
             with `--max-txn-ops=10000 --max-request-bytes=10485760`"
        );
    }
    Ok(())
}

/// Keeps guests from the members, by whichever address.
fn protect(options: &EtcdOptions) {
    for (host, port) in options.hosts() {
        sampan_runtime::protect_name(&host, port);
        // A name that leads nowhere now is found to do so when it is asked.
        for address in (host.as_str(), port)
            .to_socket_addrs()
            .into_iter()
            .flatten()
        {
            sampan_runtime::protect(address);
        }
    }
}
