//! Nodes of a cluster on loopback.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;
use sampan_core::name::Name;
use sampan_peer::{
    Authority, Body, BoxError, Client, ClientLimits, ClusterSecret, Credentials, Door, Identity,
    JoinAnswer, JoinRequest, Limits, NotBegun, PeerError, PublicKey, Refusal, Remote, RequestBody,
    Server, StoredToken, Token, TokenError, empty, full,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::oneshot, task::JoinHandle};

/// Time that anything here may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// What must come, in time.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not in {PATIENCE:?}"),
    }
}

/// A cluster: its authority, its secret, and what its store would have.
pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    pub(crate) secret: ClusterSecret,
    pub(crate) members: Mutex<BTreeSet<Name>>,
    pub(crate) tokens: Mutex<BTreeMap<String, StoredToken>>,
    /// Who asked what, as their nodes' doors have seen it.
    pub(crate) asked: Mutex<Vec<(Name, String)>>,
    /// The time by the clock of the cluster.
    pub(crate) now: Mutex<SystemTime>,
}

impl Cluster {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            authority: Authority::create("c1").expect("an authority"),
            secret: ClusterSecret::draw().expect("a secret"),
            members: Mutex::default(),
            tokens: Mutex::default(),
            asked: Mutex::default(),
            now: Mutex::new(SystemTime::now()),
        })
    }

    pub(crate) fn identity(&self, node: &str) -> Identity {
        let identity = self.authority.identity(&name(node), SystemTime::now());
        identity.expect("an identity")
    }

    /// A node that listens.
    pub(crate) async fn node(self: &Arc<Self>, node: &str) -> Node {
        self.node_with(node, Limits::default()).await
    }

    pub(crate) async fn node_with(self: &Arc<Self>, node: &str, limits: Limits) -> Node {
        self.members.lock().insert(name(node));
        Node::start(self, self.identity(node), limits).await
    }

    /// A client of a node of this name.
    pub(crate) fn client(&self, node: &str) -> Client {
        self.members.lock().insert(name(node));
        client(self.identity(node))
    }

    pub(crate) fn token(&self, address: SocketAddr) -> Token {
        let ca = self.authority.certificate().hash();
        let drawn = Token::draw(ca, vec![address], SystemTime::now());
        let (token, stored) = drawn.expect("a token");
        self.tokens.lock().insert(token.id.clone(), stored);
        token
    }
}

pub(crate) fn client(identity: Identity) -> Client {
    let credentials = Credentials::new(identity).expect("credentials");
    let limits = ClientLimits {
        connect: PATIENCE,
        ..ClientLimits::default()
    };
    Client::new(Arc::new(credentials), limits)
}

/// A node that listens, until it is dropped or stopped.
pub(crate) struct Node {
    pub(crate) remote: Remote,
    pub(crate) credentials: Arc<Credentials>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(cluster: &Arc<Cluster>, identity: Identity, limits: Limits) -> Self {
        let node = identity.node().clone();
        let credentials = Arc::new(Credentials::new(identity).expect("credentials"));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let door = Arc::new(TestDoor(Arc::clone(cluster)));
        let server = Server::bind(address, Arc::clone(&credentials), door, limits).await;
        let server = server.expect("a listener");
        let address = server.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async move { stopped.await.unwrap_or_default() }));
        Self {
            remote: Remote { node, address },
            credentials,
            stop: Some(stop),
            task,
        }
    }

    /// Ends it in good order.
    pub(crate) async fn stop(mut self) {
        let stop = self.stop.take().expect("it runs");
        stop.send(()).expect("it runs");
        soon("the end of a server", &mut self.task)
            .await
            .expect("no panic");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Notes that it is dropped.
struct Noted(Arc<Cluster>, Name);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0
            .asked
            .lock()
            .push((self.1.clone(), "ended".to_owned()));
    }
}

struct TestDoor(Arc<Cluster>);

#[async_trait]
impl Door for TestDoor {
    fn admits(&self, node: &Name) -> bool {
        self.0.members.lock().contains(node)
    }

    fn takes_any_body(&self, head: &Parts) -> bool {
        head.uri.query() == Some("any")
    }

    async fn answer(
        &self,
        caller: &Name,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, NotBegun> {
        let path = request.uri().path().to_owned();
        self.0.asked.lock().push((caller.clone(), path.clone()));
        Ok(match path.as_str() {
            "/never" => std::future::pending().await,
            "/refuse" => return Err(NotBegun),
            // The error of a stream of another connection, which was refused there.
            "/foreign" => {
                let foreign = h2::Error::from(h2::Reason::REFUSED_STREAM);
                let frames = futures::stream::iter([Err::<Frame<Bytes>, BoxError>(foreign.into())]);
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
            "/length" => match request.into_body().collect().await {
                Ok(body) => Response::new(full(body.to_bytes().len().to_string())),
                Err(error) => Response::new(full(format!("refused: {error}"))),
            },
            "/dropped" => {
                let _noted = Noted(Arc::clone(&self.0), caller.clone());
                self.0
                    .asked
                    .lock()
                    .push((caller.clone(), "begun".to_owned()));
                std::future::pending().await
            }
            _ => Response::new(full(format!("{path} for {caller}"))),
        })
    }

    async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, Refusal> {
        let cluster = &self.0;
        let refuse = |error: TokenError| Refusal(error.to_string());
        let now = *cluster.now.lock();
        {
            // As one transaction of a store.
            let mut tokens = cluster.tokens.lock();
            let stored = tokens
                .get(&request.token)
                .ok_or(TokenError::Unknown)
                .map_err(refuse)?;
            stored
                .check(&request.token, &request.secret, now)
                .map_err(refuse)?;
            tokens.remove(&request.token);
        }
        let key = PublicKey::parse(&request.public_key).ok_or(Refusal("no key".to_owned()))?;
        let certificate = cluster
            .authority
            .issue(&request.node, &key, SystemTime::now());
        let certificate = certificate.map_err(|error| Refusal(error.to_string()))?;
        cluster.members.lock().insert(request.node);
        Ok(JoinAnswer {
            cluster: "c1".to_owned(),
            certificate: certificate.to_pem(),
            ca: cluster.authority.certificate().to_pem(),
            secret: cluster.secret.to_hex(),
            secrets_key: None,
            store: vec!["http://127.0.0.1:2379".to_owned()],
            store_files: BTreeMap::new(),
        })
    }
}

/// The body of the answer to a GET.
pub(crate) async fn get(client: &Client, remote: &Remote, path: &str) -> Result<String, PeerError> {
    let request = Request::get(path).body(empty()).expect("a request");
    send(client, remote, request).await
}

pub(crate) async fn send(
    client: &Client,
    remote: &Remote,
    request: Request<Body>,
) -> Result<String, PeerError> {
    let response = soon("an answer", client.send(remote, request)).await?;
    let body = soon("a body", response.into_body().collect()).await;
    let bytes: Bytes = body.expect("a whole body").to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).expect("text"))
}

/// What the other side sends until it closes.
pub(crate) async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    // A reset is an end, too.
    let _ = soon("the end of a connection", stream.read_to_end(&mut received)).await;
    received
}
