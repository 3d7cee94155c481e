//! This node as one of a cluster: what it knows of the others, what it answers them, and how long it
//! is one of them.

use std::{
    fs::File,
    io::{self, Read as _},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use sampan_core::{
    digest::is_digest,
    name::Name,
    plan::place,
    record::cluster::{Capacity, ClusterKey, VolumeKeeper},
    spec::node::Node as NodeLimits,
};
use sampan_peer::{
    Body, Client, ClientLimits, Credentials, Door, JoinAnswer, JoinRequest, Limits, NotBegun,
    Refusal, RequestBody, Server, empty, full,
};
use sampan_runtime::threads::processors;
use sampan_store::{Etcd, Outcome, Store, StoreError, Transaction};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    across::Visits,
    fetching::{ARTIFACTS, Fetching},
    memory::Room,
    told,
};
use crate::{
    agent::loader::Elsewhere,
    artifacts::{Artifacts, Content},
    clock::{Clock, LocalNode, wall_ms},
    cluster::{
        Calls, ClusterError, ClusterFile, Departure, Members, Peers, Place, Presence, Registrar,
        Reports, Roster, Standing, open_etcd,
    },
    mirror::{Follower, text},
};

/// How often it is looked whether the node's certificate is due.
const RENEWAL: Duration = Duration::from_secs(60 * 60);
/// The first release of etcd without faults that are known.
const GOOD_ETCD: [u32; 3] = [3, 5, 28];
/// How often history is forgotten, and how many times that before it was current.
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_AFTER: usize = 5;
/// How much of the memory of the machine pods may reserve, if the node's configuration does not say.
const MEMORY_PERCENT: u64 = 80;
/// How long a node that ends waits until its pods run elsewhere.
const EVACUATION: Duration = Duration::from_secs(30);
/// Bytes of a component that are read at once.
const PIECE: usize = 64 << 10;

/// Why a node does not join in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemberError {
    /// Its files.
    #[error(transparent)]
    Place(#[from] ClusterError),
    /// Its store cannot be opened.
    #[error("cannot open the store of the cluster")]
    Etcd(#[from] sampan_store::EtcdError),
    /// Its store cannot be read.
    #[error("cannot read the store of the cluster")]
    Store(#[from] StoreError),
    /// Its certificate.
    #[error("cannot use the certificate of this node: {0}")]
    Certificate(String),
    /// Its port.
    #[error("cannot listen for other nodes on `{address}`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// What this node has room for, as one of several.
pub(crate) fn capacity(limits: &NodeLimits) -> Capacity {
    let of_machine = || Room::now().map_or(0, |room| room.whole / 100 * MEMORY_PERCENT);
    Capacity {
        pods: limits.pods,
        memory: limits.memory.unwrap_or_else(of_machine),
        cpu_millis: processors() as u64 * 1000,
    }
}

/// What a node has of its cluster before it works.
pub(crate) struct Membership {
    pub(crate) file: ClusterFile,
    pub(crate) place: Place,
    pub(crate) store: Arc<Etcd>,
}

/// This node as one of a cluster.
pub(crate) struct Member {
    pub(crate) local: LocalNode,
    pub(crate) peers: Arc<Peers>,
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) address: SocketAddr,
    pub(crate) started_ms: u64,
    /// What it has room for.
    capacity: Capacity,
    /// What other nodes say that they measured.
    pub(crate) reports: Reports,
    /// For which services at zero other nodes have requests.
    pub(crate) calls: Calls,
    members: Arc<Members>,
    credentials: Arc<Credentials>,
    place: Place,
    store: Arc<Etcd>,
    /// That of the node alone, which is not in use but locked.
    _alone: Arc<dyn Store>,
    standing: watch::Sender<Standing>,
    seen: watch::Sender<bool>,
    departure: watch::Sender<Departure>,
}

impl Membership {
    /// Opens the store of the cluster that the node in this directory is of, if it is of one.
    pub(crate) async fn open(data: &Path) -> Result<Option<Self>, MemberError> {
        let place = Place::new(data);
        let Some(file) = place.read()? else {
            return Ok(None);
        };
        let files = place.etcd_files()?;
        let store = open_etcd(&file.cluster, &file.etcd, &files).await?;
        advise(&store).await;
        Ok(Some(Self { file, place, store }))
    }
}

impl Member {
    /// Knows the other nodes from now on.
    pub(crate) async fn open(
        membership: Membership,
        alone: Arc<dyn Store>,
        capacity: Capacity,
    ) -> Result<Self, MemberError> {
        let Membership { file, place, store } = membership;
        let credentials = Credentials::new(place.identity()?);
        let credentials =
            credentials.map_err(|error| MemberError::Certificate(error.to_string()))?;
        let credentials = Arc::new(credentials);
        let objects: Arc<dyn Store> = Arc::<Etcd>::clone(&store);
        let members = Arc::new(Members::follow(&objects).await?);
        let peers = Arc::new(Peers::new(Arc::clone(&credentials), Arc::clone(&members)));
        let boots = Arc::clone(&members);
        let boots = Arc::new(move || boots.with(|roster| roster.boots()));
        for url in &file.etcd {
            keep_from_guests(url).await;
        }
        Ok(Self {
            local: LocalNode::member(file.node, Clock::start(), boots),
            registrar: Arc::new(Registrar {
                store: objects,
                place: place.clone(),
                etcd: file.etcd,
            }),
            peers,
            address: file.peer,
            started_ms: wall_ms(),
            capacity,
            reports: Reports::default(),
            calls: Calls::default(),
            members,
            credentials,
            place,
            store,
            _alone: alone,
            standing: watch::Sender::default(),
            seen: watch::Sender::default(),
            departure: watch::Sender::default(),
        })
    }

    /// What fetches into these artifacts what other nodes have.
    pub(crate) fn elsewhere(&self, artifacts: &Arc<Artifacts>) -> Arc<dyn Elsewhere> {
        let (artifacts, peers) = (Arc::clone(artifacts), Arc::clone(&self.peers));
        Arc::new(Fetching::new(artifacts, peers))
    }

    /// What it is among the others.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Whether it plans for all.
    pub(crate) fn leads(&self) -> bool {
        self.standing.borrow().leads()
    }

    /// Whether the others see that it runs.
    pub(crate) fn seen(&self) -> watch::Receiver<bool> {
        self.seen.subscribe()
    }

    /// The nodes.
    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// How far it is on its way out.
    pub(crate) fn departure(&self) -> watch::Receiver<Departure> {
        self.departure.subscribe()
    }

    /// A client of other nodes, with connections of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(Arc::clone(&self.credentials), ClientLimits::default())
    }

    /// Listens for other nodes, which are answered from these artifacts, by `views`, and by `visits`
    /// for the gateway.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        artifacts: Arc<Artifacts>,
        views: Arc<dyn ForPeers>,
        visits: Arc<Visits>,
    ) -> Result<Server, MemberError> {
        let door = Arc::new(PeerDoor {
            member: Arc::clone(self),
            elsewhere: self.elsewhere(&artifacts),
            artifacts,
            views,
            visits,
        });
        let (address, limits) = (self.address, Limits::default());
        let bound = Server::bind(address, Arc::clone(&self.credentials), door, limits).await;
        let server = bound.map_err(|source| MemberError::Listen { address, source })?;
        sampan_runtime::protect(address);
        Ok(server)
    }

    /// Is one of the nodes until it must not be any more, which is said to people, or it has left.
    pub(crate) async fn present(&self) -> Option<String> {
        let presence = Presence {
            store: Arc::<Etcd>::clone(&self.store),
            members: Arc::clone(&self.members),
            node: self.local.name.clone(),
            boot: self.local.clock.boot(),
            address: self.address,
            since_ms: self.started_ms,
            capacity: self.capacity,
            standing: self.standing.clone(),
            seen: self.seen.clone(),
        };
        tokio::select! {
            ended = presence.run(self.departure.subscribe()) => ended,
            never = self.renew() => never,
            never = self.forget() => never,
        }
    }

    /// Forgets the history of the store for as long as the node leads: a store keeps all until it is
    /// told.
    async fn forget(&self) -> Option<String> {
        let mut standing = self.standing();
        loop {
            if standing.wait_for(|it| it.leads()).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                () = self.store.forget(FORGET_EVERY, FORGET_AFTER) => {}
                _ = standing.wait_for(|it| !it.leads()) => {}
            }
        }
    }

    /// Says that this node keeps these volumes, unless another one does.
    pub(crate) async fn keep(&self, volumes: &[(Name, Name)]) -> Result<(), StoreError> {
        let own = VolumeKeeper {
            node: self.local.name.clone(),
        };
        for (app, volume) in volumes {
            let key = ClusterKey::Volume(app.clone(), volume.clone()).to_string();
            let put = Transaction::new()
                .absent(key.as_str())
                .put(key.as_str(), text(&own));
            if let Outcome::Committed(_) = self.store.commit(put).await? {
                continue;
            }
            let keeper = self.store.get(&key).await?;
            let keeper =
                keeper.and_then(|it| serde_json::from_slice::<VolumeKeeper>(&it.value).ok());
            if let Some(VolumeKeeper { node }) = keeper
                && node != own.node
            {
                tracing::warn!(%app, %volume, %node, "a volume of this name is kept by another node");
            }
        }
        Ok(())
    }

    /// Says that a node does not keep these volumes any more.
    pub(crate) async fn give_up(
        &self,
        node: &Name,
        app: &Name,
        volumes: &[Name],
    ) -> Result<(), StoreError> {
        for volume in volumes {
            let key = ClusterKey::Volume(app.clone(), volume.clone()).to_string();
            let Some(entry) = self.store.get(&key).await? else {
                continue;
            };
            let keeper = serde_json::from_slice::<VolumeKeeper>(&entry.value);
            if keeper.is_ok_and(|keeper| keeper.node == *node) {
                let gone = Transaction::new()
                    .compare(key.as_str(), entry.modified)
                    .delete(key);
                // Another node that has taken it keeps it.
                let _ = self.store.commit(gone).await?;
            }
        }
        Ok(())
    }

    /// Says that this node is about to end, so that its pods are made elsewhere, and waits until none
    /// is left. It does so for a limited time, and not at all where no other node could take them.
    pub(crate) async fn evacuate(&self, mut pods: Follower) {
        let mut nodes = self.members.changes();
        let is_due = |pods: &Follower, nodes: &Roster| {
            let takes =
                |node: &place::Node| node.state.takes_pods() && node.name != self.local.name;
            let mirror = pods.mirror();
            let mut pods = mirror.pods.values();
            let has_pods = pods.any(|pod| pod.value.node.as_ref() == Some(&self.local.name));
            has_pods && nodes.for_placing().iter().any(takes)
        };
        if !is_due(&pods, &nodes.borrow_and_update()) {
            return;
        }
        self.departure.send_replace(Departure::Drains);
        let gone = async {
            while is_due(&pods, &nodes.borrow_and_update()) {
                tokio::select! {
                    keys = pods.next() => if keys.is_none() { return },
                    changed = nodes.changed() => if changed.is_err() { return },
                }
            }
        };
        if timeout(EVACUATION, gone).await.is_err() {
            tracing::warn!("pods of this node still run, and end with it");
        }
    }

    /// Ends the node's session in good order.
    pub(crate) fn leave(&self) {
        self.departure.send_replace(Departure::Leaves);
    }

    /// Gives the node another certificate when that is due.
    async fn renew(&self) -> Option<String> {
        let mut period = tokio::time::interval(RENEWAL);
        loop {
            period.tick().await;
            let identity = self.credentials.identity();
            let now = SystemTime::now();
            if !identity.is_due(now) {
                continue;
            }
            let renewed = async {
                let key = identity.public_key();
                let issued = self.registrar.renew(identity.node(), &key).await;
                let issued = issued.map_err(|error| error.to_string())?;
                let renewed = identity.renewed(issued, now);
                let renewed = renewed.map_err(|error| error.to_string())?;
                let kept = self.place.renew(&renewed);
                kept.map_err(|error| error.to_string())?;
                let taken = self.credentials.renew(renewed);
                taken.map_err(|error| error.to_string())
            };
            match renewed.await {
                Ok(()) => tracing::info!("the certificate of this node was renewed"),
                Err(reason) => {
                    tracing::warn!(reason, "the certificate of this node cannot be renewed");
                }
            }
        }
    }
}

/// Says what of an etcd makes it less than it could be.
async fn advise(etcd: &Etcd) {
    let (place, version) = (etcd.place(), etcd.version());
    if !etcd.is_at_least(GOOD_ETCD) {
        let [major, minor, patch] = GOOD_ETCD;
        tracing::warn!(
            "etcd at `{place}` is version `{version}`; from {major}.{minor}.{patch} on known faults \
             are mended"
        );
    }
    match etcd.limits().await {
        Ok(limits) if limits.operations && limits.bytes => {}
        Ok(_) => tracing::warn!(
            "etcd at `{place}` takes smaller changes than this node: large apps are refused, unless it \
             is started with `--max-txn-ops=10000 --max-request-bytes=10485760`"
        ),
        Err(error) => tracing::warn!(%error, "it is not known what etcd at `{place}` takes"),
    }
}

/// Refuses guests a member of etcd.
async fn keep_from_guests(url: &str) {
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    let place = place.trim_end_matches('/');
    match tokio::net::lookup_host(place).await {
        Ok(found) => found.for_each(sampan_runtime::protect),
        Err(error) => tracing::warn!(place, %error, "guests may reach this member of etcd"),
    }
}

/// What other nodes are answered, of what this one knows.
#[async_trait]
pub(crate) trait ForPeers: Send + Sync + 'static {
    /// Answers a request for what is on this node.
    async fn answer(&self, caller: &Name, request: Request<RequestBody>) -> Response<Body>;
}

/// The door of this node for the others.
struct PeerDoor {
    member: Arc<Member>,
    artifacts: Arc<Artifacts>,
    elsewhere: Arc<dyn Elsewhere>,
    views: Arc<dyn ForPeers>,
    visits: Arc<Visits>,
}

#[async_trait]
impl Door for PeerDoor {
    fn admits(&self, node: &Name) -> bool {
        self.member
            .members
            .with(|roster| roster.nodes.contains_key(node))
    }

    fn takes_any_body(&self, head: &Parts) -> bool {
        Visits::is_for_pod(head)
    }

    async fn answer(
        &self,
        caller: &Name,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, NotBegun> {
        if Visits::takes(&request) {
            return self.visits.answer(caller, request).await;
        }
        let digest = request.uri().path().strip_prefix(ARTIFACTS);
        Ok(match digest.map(str::to_owned) {
            Some(digest) if request.method() == Method::GET => self.artifact(&digest).await,
            // A node asks this one to have it, too.
            Some(digest) if request.method() == Method::POST && is_digest(&digest) => {
                match self.elsewhere.obtain_files(&digest).await {
                    true => Response::new(empty()),
                    false => status(StatusCode::NOT_FOUND),
                }
            }
            Some(_) => status(StatusCode::METHOD_NOT_ALLOWED),
            None => {
                let (reports, calls) = (&self.member.reports, &self.member.calls);
                let leads = self.member.leads();
                match told::take((reports, calls), leads, caller, request).await {
                    Ok(response) => response,
                    Err(request) => self.views.answer(caller, request).await,
                }
            }
        })
    }

    async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, Refusal> {
        let node = request.node.clone();
        let answer = self.member.registrar.join(request).await;
        match &answer {
            Ok(_) => tracing::info!(%node, "a node has joined"),
            Err(Refusal(reason)) => tracing::warn!(%node, reason, "a node was not let in"),
        }
        answer
    }
}

impl PeerDoor {
    /// A component, in pieces. The node that reads it compares its digest.
    async fn artifact(&self, digest: &str) -> Response<Body> {
        if !is_digest(digest) {
            return status(StatusCode::NOT_FOUND);
        }
        let (artifacts, digest) = (Arc::clone(&self.artifacts), digest.to_owned());
        let opened = tokio::task::spawn_blocking(move || artifacts.content(&digest)).await;
        match opened {
            Ok(Ok((Content::Bytes(bytes), _))) => Response::new(full(bytes)),
            Ok(Ok((Content::File(file), _))) => {
                let pieces = futures::stream::try_unfold(file, |file| async move {
                    let read = tokio::task::spawn_blocking(move || piece(file)).await;
                    read.map_err(io::Error::other)?
                });
                let pieces = pieces.map(|piece| piece.map(Frame::data));
                let body = StreamBody::new(pieces).map_err(Into::into);
                Response::new(BodyExt::boxed_unsync(body))
            }
            Ok(Err(_)) => status(StatusCode::NOT_FOUND),
            Err(_) => status(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// The next piece of a file, if there is one.
fn piece(mut file: File) -> io::Result<Option<(Bytes, File)>> {
    let mut piece = Vec::with_capacity(PIECE);
    (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
    Ok((!piece.is_empty()).then(|| (piece.into(), file)))
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

/// The tasks of a member that runs.
pub(crate) struct Present {
    pub(crate) member: Arc<Member>,
    tasks: JoinSet<Option<String>>,
    stop: Arc<Notify>,
}

impl Present {
    /// Answers the other nodes on these threads, and is one of them.
    pub(crate) fn begin(member: Arc<Member>, server: Server, threads: &[Handle]) -> Self {
        let server = server.on(threads.iter().cloned());
        let (mut tasks, stop) = (JoinSet::new(), Arc::<Notify>::default());
        let present = Arc::clone(&member);
        tasks.spawn(async move { present.present().await });
        let stopped = Arc::clone(&stop);
        tasks.spawn(async move {
            server.run(async move { stopped.notified().await }).await;
            None
        });
        Self {
            member,
            tasks,
            stop,
        }
    }

    /// Resolves when this node must not go on, with why.
    pub(crate) async fn failed(&mut self) -> String {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Some(why))) => return why,
                Some(Ok(None)) => {}
                Some(Err(error)) => return error.to_string(),
                None => std::future::pending().await,
            }
        }
    }

    /// Leaves the others in good order: they see at once that this node does not run.
    pub(crate) async fn end(mut self) {
        self.member.leave();
        self.stop.notify_one();
        while self.tasks.join_next().await.is_some() {}
    }
}
