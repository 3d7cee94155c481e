//! Makes clusters and tokens, and lets nodes in and out.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sampan_core::{
    name::Name,
    record::{
        Pod,
        cluster::{
            CLUSTER_SCHEMA, Capacity, Cluster, ClusterKey, JoinToken, Node, NodeSpec, NodeStatus,
        },
    },
    view,
};
use sampan_peer::{
    Authority, Certificate, ClusterSecret, IdentityError, IssueError, JoinAnswer, JoinRequest,
    PublicKey, Refusal, SecretError, StoredToken, TOKEN_LIFETIME, Token, TokenError,
};
use sampan_store::{Entry, Outcome, Store, StoreError, Transaction};

use super::place::{ClusterError, Place};
use crate::{clock::wall_ms, mirror::text};

/// Where pods are, which are not taken along: their nodes make others.
const PODS: &str = "/pods/";
/// The version of what is in a store, which each store has.
const FORMAT: &str = "/format";
/// Objects and bytes in one transaction while objects are taken along: what any etcd takes.
const LOT: usize = 100;
const LOT_BYTES: usize = 1 << 20;

/// A cluster that was made.
pub(crate) struct Found {
    pub(crate) authority: Authority,
    pub(crate) secret: ClusterSecret,
}

/// Lets nodes in and out, for a node of the cluster.
pub(crate) struct Registrar {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) place: Place,
    /// Members of etcd, as URLs.
    pub(crate) etcd: Vec<String>,
}

/// Why the cluster does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrarError {
    /// The files of this node.
    #[error(transparent)]
    Place(#[from] ClusterError),
    /// The store.
    #[error("cannot ask the store of the cluster")]
    Store(#[from] StoreError),
    /// The authority.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Its certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// What the store has is no record of this version.
    #[error("the record of the cluster in its store cannot be read: is this sampan an older one?")]
    Unreadable,
    /// There is none.
    #[error("there is no node `{0}` in the cluster")]
    Absent(Name),
    /// It runs.
    #[error(
        "node `{0}` runs: `sampan cluster leave` takes it out where it runs, or end it there first"
    )]
    Runs(Name),
    /// Another node has written.
    #[error("the cluster has changed meanwhile: try again")]
    Conflict,
}

impl Found {
    /// The authority and the secret of a new cluster.
    pub(crate) fn draw(id: &str) -> Result<Self, RegistrarError> {
        Ok(Self {
            authority: Authority::create(id)?,
            secret: ClusterSecret::draw()?,
        })
    }

    /// Writes the cluster with its first node into its store, which has none yet.
    pub(crate) async fn write(
        &self,
        store: &dyn Store,
        id: &str,
        node: &Name,
        about: Node,
    ) -> Result<(), RegistrarError> {
        let cluster = Cluster {
            id: id.to_owned(),
            ca: self.authority.certificate().to_pem(),
            sealed_key: STANDARD.encode(self.authority.seal(&self.secret)?),
            schema: CLUSTER_SCHEMA,
        };
        let (first, itself) = (ClusterKey::Node(node.clone()), ClusterKey::Cluster);
        let (first, itself) = (first.to_string(), itself.to_string());
        let found = Transaction::new()
            .absent(itself.as_str())
            .absent(first.as_str())
            .put(itself, text(&cluster))
            .put(first, text(&about));
        match store.commit(found).await? {
            Outcome::Committed(_) => Ok(()),
            Outcome::Conflict(_) => Err(RegistrarError::Conflict),
        }
    }
}

/// Takes the objects of a node that was alone along into the store of a cluster, and says how many.
pub(crate) async fn take_along(from: &dyn Store, to: &dyn Store) -> Result<usize, StoreError> {
    let entries = from.list("/").await?.entries;
    let kept = |entry: &&Entry| !entry.key.starts_with(PODS) && entry.session.is_none();
    let kept: Vec<_> = entries.iter().filter(kept).collect();
    let mut lot = Transaction::new();
    for entry in &kept {
        let full = lot.writes.len() >= LOT
            || lot.bytes() + entry.value.len() > LOT_BYTES && !lot.writes.is_empty();
        if full {
            let _ = to.commit(std::mem::take(&mut lot)).await?;
        }
        lot = lot.put(Arc::clone(&entry.key), entry.value.clone());
    }
    if !lot.writes.is_empty() {
        let _ = to.commit(lot).await?;
    }
    Ok(kept.len())
}

/// Deletes what was taken along from where it was: it is the cluster's now.
pub(crate) async fn hand_over(from: &dyn Store) -> Result<(), StoreError> {
    let entries = from.list("/").await?.entries;
    let objects: Vec<_> = entries.iter().filter(|it| &*it.key != FORMAT).collect();
    for lot in objects.chunks(LOT) {
        let keys = lot.iter().map(|entry| Arc::clone(&entry.key));
        let _ = from
            .commit(keys.fold(Transaction::new(), Transaction::delete))
            .await?;
    }
    Ok(())
}

/// How often a change of a node is tried again that another change was before.
const TRIES: u32 = 10;

/// Makes the key of apps' secrets if the node has none yet: the nodes of a cluster share it, so it is
/// there before the second of them.
pub(crate) fn make_secrets_key(place: &Place) -> Result<(), RegistrarError> {
    if place.secrets_key()?.is_none() {
        place.keep_secrets_key(&ClusterSecret::draw()?.to_hex())?;
    }
    Ok(())
}

/// A node as it comes into a cluster.
pub(crate) fn newcomer(
    address: SocketAddr,
    labels: BTreeMap<String, String>,
    version: &str,
) -> Node {
    Node {
        spec: NodeSpec {
            labels,
            ..NodeSpec::default()
        },
        status: NodeStatus {
            address,
            version: version.to_owned(),
            joined_ms: wall_ms(),
            capacity: Capacity::default(),
        },
    }
}

/// What is wanted of a node once this has changed.
fn changed(spec: &mut NodeSpec, change: &view::NodeChange, wall_ms: u64) {
    match change.cordoned {
        Some(true) => drop(spec.cordoned_ms.get_or_insert(wall_ms)),
        Some(false) => {
            spec.cordoned_ms = None;
            spec.draining = false;
        }
        None => {}
    }
    if let Some(draining) = change.draining {
        spec.draining = draining;
        if draining {
            spec.cordoned_ms.get_or_insert(wall_ms);
        }
    }
    for (label, value) in &change.labels {
        match value {
            Some(value) => drop(spec.labels.insert(label.clone(), value.clone())),
            None => drop(spec.labels.remove(label)),
        }
    }
}

/// Why a node cannot be let in, which is told to this node's people and not to the stranger.
fn fails(error: impl Into<RegistrarError>) -> Refusal {
    let error = error.into();
    let reason = &error as &dyn std::error::Error;
    tracing::warn!(error = reason, "a node cannot be let in");
    Refusal("the node that was asked cannot ask the store, or open the authority".to_owned())
}

impl Registrar {
    async fn cluster(&self) -> Result<Cluster, RegistrarError> {
        let entry = self.store.get(&ClusterKey::Cluster.to_string()).await?;
        let entry = entry.ok_or(RegistrarError::Unreadable)?;
        let read = serde_json::from_slice::<Cluster>(&entry.value);
        let read = read.map_err(|_| RegistrarError::Unreadable)?;
        (read.schema <= CLUSTER_SCHEMA)
            .then_some(read)
            .ok_or(RegistrarError::Unreadable)
    }

    async fn authority(&self) -> Result<(Cluster, Authority, ClusterSecret), RegistrarError> {
        let (cluster, secret) = (self.cluster().await?, self.place.secret()?);
        let sealed = STANDARD.decode(&cluster.sealed_key);
        let sealed = sealed.map_err(|_| RegistrarError::Unreadable)?;
        let certificate = Certificate::from_pem(cluster.ca.as_bytes())?;
        let authority = Authority::open(&cluster.id, certificate, &sealed, &secret)?;
        Ok((cluster, authority, secret))
    }

    /// Another token, for nodes that can reach one of these addresses.
    pub(crate) async fn token(&self, addresses: Vec<SocketAddr>) -> Result<Token, RegistrarError> {
        let ca = Certificate::from_pem(self.cluster().await?.ca.as_bytes())?;
        let (token, stored) = Token::draw(ca.hash(), addresses, SystemTime::now())?;
        let record = JoinToken {
            hash: stored.hash,
            until_ms: stored.until_ms,
        };
        // Not renewed: the store forgets it by itself.
        let session = self
            .store
            .open_session(TOKEN_LIFETIME + Duration::from_secs(60))
            .await?;
        let key = ClusterKey::Token(token.id.clone()).to_string();
        let put = Transaction::new()
            .absent(key.as_str())
            .put_in(session.id(), key, text(&record));
        match self.store.commit(put).await? {
            Outcome::Committed(_) => Ok(token),
            Outcome::Conflict(_) => Err(RegistrarError::Conflict),
        }
    }

    /// Lets a node in that shows a token, once.
    pub(crate) async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, Refusal> {
        let (key, entry) = self.shown(&request).await?;
        let name = &request.node;
        let node = ClusterKey::Node(name.clone()).to_string();
        if self.store.get(&node).await.map_err(fails)?.is_some() {
            return Err(Refusal(format!(
                "there is a node `{name}` already: `sampan cluster remove {name}` takes it out, or \
                 `--node` gives this one another name"
            )));
        }
        let public = PublicKey::parse(&request.public_key);
        let public = public.ok_or_else(|| Refusal("its key is none".to_owned()))?;
        let (cluster, authority, secret) = self.authority().await.map_err(fails)?;
        let certificate = authority.issue(name, &public, SystemTime::now());
        let certificate = certificate.map_err(fails)?;
        let answer = JoinAnswer {
            cluster: cluster.id,
            certificate: certificate.to_pem(),
            ca: cluster.ca,
            secret: secret.to_hex(),
            secrets_key: self.place.secrets_key().map_err(fails)?,
            store: self.etcd.clone(),
            store_files: self.place.etcd_files().map_err(fails)?,
        };
        let about = newcomer(request.address, request.labels, &request.version);
        let join = Transaction::new()
            .compare(key.as_str(), entry.modified)
            .absent(node.as_str())
            .delete(key)
            .put(node, text(&about));
        match self.store.commit(join).await.map_err(fails)? {
            Outcome::Committed(_) => Ok(answer),
            Outcome::Conflict(_) => Err(Refusal(TokenError::Unknown.to_string())),
        }
    }

    /// What the store has of the token that is shown, if it is good.
    async fn shown(&self, request: &JoinRequest) -> Result<(String, Entry), Refusal> {
        let refuse = |error: TokenError| Refusal(error.to_string());
        let key = ClusterKey::Token(request.token.clone()).to_string();
        // What is no number of a token is part of no key.
        ClusterKey::parse(&key).ok_or_else(|| refuse(TokenError::Unknown))?;
        let entry = self.store.get(&key).await.map_err(fails)?;
        let entry = entry.ok_or_else(|| refuse(TokenError::Unknown))?;
        let stored = serde_json::from_slice::<JoinToken>(&entry.value);
        let stored = stored.map_err(|_| refuse(TokenError::Unknown))?;
        let stored = StoredToken {
            hash: stored.hash,
            until_ms: stored.until_ms,
        };
        let checked = stored.check(&request.token, &request.secret, SystemTime::now());
        checked.map_err(refuse)?;
        Ok((key, entry))
    }

    /// Another certificate for a node that has one.
    pub(crate) async fn renew(
        &self,
        node: &Name,
        key: &PublicKey,
    ) -> Result<Certificate, RegistrarError> {
        let (_, authority, _) = self.authority().await?;
        Ok(authority.issue(node, key, SystemTime::now())?)
    }

    /// Takes a node out that does not run.
    pub(crate) async fn remove(&self, node: &Name) -> Result<(), RegistrarError> {
        let session = ClusterKey::Session(node.clone()).to_string();
        let key = ClusterKey::Node(node.clone()).to_string();
        let entry = self.store.get(&key).await?;
        let entry = entry.ok_or_else(|| RegistrarError::Absent(node.clone()))?;
        let remove = Transaction::new()
            .absent(session.as_str())
            .compare(key.as_str(), entry.modified)
            .delete(key);
        match self.store.commit(remove).await? {
            Outcome::Committed(_) => self.forget_pods(node).await,
            Outcome::Conflict(with) if *with == session => Err(RegistrarError::Runs(node.clone())),
            Outcome::Conflict(_) => Err(RegistrarError::Conflict),
        }
    }

    /// Changes what is wanted of a node.
    pub(crate) async fn change(
        &self,
        node: &Name,
        change: &view::NodeChange,
    ) -> Result<(), RegistrarError> {
        let key = ClusterKey::Node(node.clone()).to_string();
        for _ in 0..TRIES {
            let entry = self.store.get(&key).await?;
            let entry = entry.ok_or_else(|| RegistrarError::Absent(node.clone()))?;
            let record = serde_json::from_slice::<Node>(&entry.value);
            let mut record = record.map_err(|_| RegistrarError::Unreadable)?;
            let before = record.spec.clone();
            changed(&mut record.spec, change, wall_ms());
            if record.spec == before {
                return Ok(());
            }
            let write = Transaction::new()
                .compare(key.as_str(), entry.modified)
                .put(key.as_str(), text(&record));
            if let Outcome::Committed(_) = self.store.commit(write).await? {
                return Ok(());
            }
        }
        Err(RegistrarError::Conflict)
    }

    /// Deletes the pods of a node that is gone, so that others are made.
    async fn forget_pods(&self, node: &Name) -> Result<(), RegistrarError> {
        let pods = self.store.list(PODS).await?.entries;
        let own = pods.iter().filter(|entry| {
            let pod = serde_json::from_slice::<Pod>(&entry.value);
            pod.is_ok_and(|pod| pod.node.as_ref() == Some(node))
        });
        let own: Vec<_> = own.collect();
        for lot in own.chunks(LOT) {
            let gone = lot.iter().fold(Transaction::new(), |gone, entry| {
                let gone = gone.compare(Arc::clone(&entry.key), entry.modified);
                gone.delete(Arc::clone(&entry.key))
            });
            if let Outcome::Conflict(_) = self.store.commit(gone).await? {
                return Err(RegistrarError::Conflict);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
