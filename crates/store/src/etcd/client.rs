//! Calls to etcd: one member at a time, the next one when that does not answer.
//!
//! States of a client: *connected* to one member, or *looking* for one. `current` has the
//! connection; it is empty while the client looks. Written by two:
//!
//! - [`Client::leave`] empties it, if it still holds the connection that has failed: of many calls
//!   that fail together one does so. The connection is marked as over afterwards, which ends the
//!   streams that run on it; what they do next is to ask for a connection, and they get another.
//! - [`Client::connection`] fills it, under `turn`, so that one call looks and the others wait. What
//!   it found goes into `current` before `turn` is let go of. `turn` holds the member to be asked
//!   next, and is moved on before that member is asked: a call that gives up while it looks leaves
//!   the next member to the call after it.
//!
//! A call that looks asks the members one after another, without waiting for one that is slow: the
//! next member is asked when the one before has failed or has not answered within [`STAGGER`]. The
//! first that answers is taken. So a member that hangs delays a search by a moment and not by its
//! whole time to answer.
//!
//! A member counts as found when it has answered a linearizable read, so that one which is stopped,
//! or cut off from the others, is passed over although it takes connections. That read also tells
//! whether it is still the same history ([`super::seen`]), before any watch goes on there.
//!
//! etcd counts pings of HTTP/2 that come more often than every 5 s as abuse and closes the
//! connection. What finds out that a member hangs is therefore a read every 2 s ([`HEARTBEAT`]).

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream::FuturesUnordered};
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    metadata::{AsciiMetadataValue, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use super::{
    fault::{Fault, reason},
    message::{Answer, AuthenticateRequest, AuthenticateResponse, RangeRequest, RangeResponse},
    options::{EtcdError, EtcdOptions, Member},
    seen::Seen,
};

/// Bytes of the largest message that is taken: as large as the largest transaction, many times.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// How long a member may take for an answer.
pub(super) const ANSWER: Duration = Duration::from_secs(2);

/// What a request of a megabyte may take longer.
const ANSWER_PER_MIB: Duration = Duration::from_secs(1);

/// How long reads go on to ask other members.
const READ: Duration = Duration::from_secs(5);

/// How long a member may take to show that it is of use.
const PROBE: Duration = Duration::from_secs(1);

/// How long a search waits for a member before it asks the next one beside it.
const STAGGER: Duration = Duration::from_millis(150);

/// How often a client that is connected sees whether it still is.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The pause after all members were asked in vain.
const PAUSE: Duration = Duration::from_millis(100);

/// Names of methods.
pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(super) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(super) const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(super) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(super) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub(super) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(super) const LEASE_TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
pub(super) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// Whether etcd answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtcdReach {
    /// It did when it was asked last.
    Answers,
    /// No member does.
    Lost {
        /// Since when.
        since: SystemTime,
        /// What each of them says.
        reason: String,
    },
}

/// How a request is carried out.
#[derive(Clone, Copy)]
pub(super) struct Call {
    path: &'static str,
    /// How long a member may take.
    answer: Duration,
    /// Until when another member is asked.
    patience: Duration,
    /// Whether it does no harm to do it twice.
    repeatable: bool,
    /// Whether its answer shows all that was acknowledged before.
    linearizable: bool,
}

impl Call {
    /// A linearizable read.
    pub(super) const RANGE: Self = Self {
        path: RANGE,
        answer: ANSWER,
        patience: READ,
        repeatable: true,
        linearizable: true,
    };

    /// A transaction of so many bytes.
    pub(super) fn transaction(bytes: usize) -> Self {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        Self {
            path: TXN,
            answer: ANSWER + ANSWER_PER_MIB.saturating_mul(mib),
            patience: ANSWER,
            repeatable: false,
            linearizable: true,
        }
    }

    /// What does no harm when it is done twice, and shows no state.
    pub(super) fn idempotent(path: &'static str) -> Self {
        Self {
            path,
            linearizable: false,
            ..Self::RANGE
        }
    }

    /// The same, asked of one member only.
    pub(super) fn once(self) -> Self {
        Self {
            patience: Duration::ZERO,
            ..self
        }
    }
}

/// Asks the members of one etcd.
#[derive(Debug)]
pub(super) struct Client {
    members: Vec<Member>,
    user: Option<(String, String)>,
    /// The first of our keys: what is read to see whether a member is of use.
    first: Vec<u8>,
    /// The members, for messages.
    pub(super) place: String,
    pub(super) seen: Seen,
    current: Mutex<Option<Arc<Connection>>>,
    turn: tokio::sync::Mutex<Turn>,
    reach: watch::Sender<EtcdReach>,
    /// Becomes true when the store is dropped.
    closed: watch::Sender<bool>,
    /// Where watches and sessions are followed: the threads on which the store was opened.
    pub(super) threads: Handle,
}

#[derive(Debug, Default)]
struct Turn {
    /// The member to ask next.
    next: usize,
    /// When all were asked in vain, and what came of it.
    failed: Option<(Instant, Status)>,
}

/// A connection to one member.
#[derive(Debug)]
pub(super) struct Connection {
    channel: Channel,
    token: Option<AsciiMetadataValue>,
    member: usize,
    over: watch::Sender<bool>,
}

impl Connection {
    /// Becomes true when the client has left it.
    pub(super) fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        // A member without a leader says so at once, and ends its streams.
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            metadata.insert("token", token.clone());
        }
        request
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(grpc)
    }

    pub(super) async fn unary<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        answer: Duration,
    ) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let answered = timeout(answer, async {
            let mut grpc = self.ready().await?;
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(self.request(request), path, codec).await
        });
        match answered.await {
            Ok(answered) => Ok(answered?.into_inner()),
            Err(_) => Err(late(answer)),
        }
    }

    pub(super) async fn stream<Q, A>(
        &self,
        path: &'static str,
        requests: ReceiverStream<Q>,
    ) -> Result<Streaming<A>, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let answered = timeout(ANSWER, async {
            let mut grpc = self.ready().await?;
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, A>::default();
            grpc.streaming(self.request(requests), path, codec).await
        });
        match answered.await {
            Ok(answered) => Ok(answered?.into_inner()),
            Err(_) => Err(late(ANSWER)),
        }
    }
}

/// The error of a member that takes longer than this for its answer.
pub(super) fn late(answer: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {} s", answer.as_secs()))
}

impl Client {
    /// A client that looks for a member.
    pub(super) fn new(options: &EtcdOptions) -> Result<Arc<Self>, EtcdError> {
        let members = options.endpoints()?;
        let urls: Vec<_> = members.iter().map(|member| member.url.as_str()).collect();
        let client = Arc::new(Self {
            place: urls.join(","),
            user: options.user.clone(),
            first: options.prefix.clone().into_bytes(),
            seen: Seen::new(),
            current: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            reach: watch::Sender::new(EtcdReach::Answers),
            closed: watch::Sender::new(false),
            threads: Handle::current(),
            members,
        });
        tokio::spawn(beat(Arc::downgrade(&client), client.closed()));
        Ok(client)
    }

    /// Becomes true when the store is dropped.
    pub(super) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Ends the watches and sessions.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether etcd answers, as far as is known.
    pub(super) fn reach(&self) -> watch::Receiver<EtcdReach> {
        self.reach.subscribe()
    }

    /// Asks until a member answers, or until there is no patience left.
    pub(super) async fn call<Q, A>(&self, call: Call, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Clone + 'static,
        A: Answer,
    {
        // What is known to be away is asked for once more, and not waited for.
        let is_lost = *self.reach.borrow() != EtcdReach::Answers;
        let (patience, least) = match is_lost && !call.repeatable {
            true => (Duration::ZERO, PROBE),
            false => (call.patience, ANSWER),
        };
        let until = Instant::now() + patience;
        let mut has_new_token = false;
        loop {
            let floor = self.seen.floor();
            let connection = self.connection_until(until, least).await?;
            let asked = connection.unary(call.path, request.clone(), call.answer);
            let status = match asked.await {
                Ok(answer) => {
                    let answer: A = answer;
                    match call.linearizable {
                        true => self.seen.current(floor, answer.header()),
                        false => self.seen.any(answer.header()),
                    }
                    return Ok(answer);
                }
                Err(status) => status,
            };
            match Fault::of(&status) {
                Fault::Answer => return Err(status),
                Fault::Token if has_new_token => return Err(status),
                Fault::Token => {
                    self.leave(&connection, &status);
                    has_new_token = true;
                }
                Fault::Member { sent } => {
                    self.leave(&connection, &status);
                    if sent && !call.repeatable || Instant::now() >= until {
                        return Err(status);
                    }
                }
            }
        }
    }

    /// A connection, or why there is none until then, or for as long as this. Every member is asked
    /// at least once, if that is quick.
    async fn connection_until(
        &self,
        until: Instant,
        least: Duration,
    ) -> Result<Arc<Connection>, Status> {
        let latest = until.max(Instant::now() + least);
        loop {
            let looked = timeout_at(latest, self.connection()).await;
            let Ok(looked) = looked else {
                return Err(late(least));
            };
            match looked {
                Ok(connection) => return Ok(connection),
                // Another member would say the same.
                Err(status) if Fault::of(&status) == Fault::Answer => return Err(status),
                Err(status) if Instant::now() + PAUSE >= until => return Err(status),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// The connection, or another one: each member is asked at most once.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, Status> {
        if let Some(connection) = self.current.lock().clone() {
            return Ok(connection);
        }
        let mut turn = self.turn.lock().await;
        if let Some(connection) = self.current.lock().clone() {
            return Ok(connection);
        }
        if let Some((when, status)) = &turn.failed
            && when.elapsed() < PAUSE
        {
            return Err(status.clone());
        }
        let mut asked = 0;
        let mut asking = FuturesUnordered::new();
        let mut reasons = vec![None; self.members.len()];
        loop {
            if asked < self.members.len() {
                let member = turn.next;
                turn.next = (member + 1) % self.members.len();
                asked += 1;
                asking.push(async move { (member, self.connect(member).await) });
            }
            let (member, looked) = match timeout(STAGGER, asking.next()).await {
                Ok(Some(looked)) => looked,
                // All have been asked, and none is left that could answer.
                Ok(None) => break,
                Err(_) => continue,
            };
            match looked {
                Ok(connection) => {
                    turn.failed = None;
                    *self.current.lock() = Some(Arc::clone(&connection));
                    self.found(member);
                    return Ok(connection);
                }
                Err(status) if Fault::of(&status) == Fault::Answer => return Err(status),
                Err(status) => {
                    let url = &self.members[member].url;
                    reasons[member] = Some(format!("`{url}`: {}", reason(&status)));
                }
            }
        }
        let reasons: Vec<_> = reasons.into_iter().flatten().collect();
        let status = Status::unavailable(format!("no member answers: {}", reasons.join(", ")));
        turn.failed = Some((Instant::now(), status.clone()));
        self.lost(status.message());
        Err(status)
    }

    async fn connect(&self, member: usize) -> Result<Arc<Connection>, Status> {
        let connecting = self.members[member].endpoint.connect();
        let channel = timeout(PROBE, connecting).await;
        let channel = channel.map_err(|_| late(PROBE))?;
        let channel = channel.map_err(|error| Status::from_error(Box::new(error)))?;
        let mut connection = Connection {
            channel,
            token: None,
            member,
            over: watch::Sender::new(false),
        };
        if let Some((name, password)) = self.user.clone() {
            let asked = AuthenticateRequest { name, password };
            // Passwords are slow to check, on purpose.
            let answer = connection.unary(AUTHENTICATE, asked, ANSWER).await;
            let answer: AuthenticateResponse = answer?;
            let token = answer.token.parse();
            connection.token = Some(token.map_err(|_| Status::internal("a token is no text"))?);
        }
        let floor = self.seen.floor();
        let asked = RangeRequest {
            key: self.first.clone(),
            keys_only: true,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = connection.unary(RANGE, asked, PROBE).await?;
        self.seen.current(floor, answer.header());
        Ok(Arc::new(connection))
    }

    /// Leaves a connection, and with it the streams on it.
    pub(super) fn leave(&self, connection: &Arc<Connection>, why: &Status) {
        let left = {
            let mut current = self.current.lock();
            let is_current = current
                .as_ref()
                .is_some_and(|it| Arc::ptr_eq(it, connection));
            is_current.then(|| current.take()).flatten().is_some()
        };
        if left {
            let member = &self.members[connection.member].url;
            tracing::debug!(
                member,
                reason = reason(why),
                "another member of etcd is asked"
            );
        }
        connection.over.send_replace(true);
    }

    fn found(&self, member: usize) {
        let was = self.reach.send_replace(EtcdReach::Answers);
        if was != EtcdReach::Answers {
            let member = &self.members[member].url;
            tracing::warn!("etcd answers again, at `{member}`");
        }
    }

    fn lost(&self, reason: &str) {
        self.reach.send_if_modified(|reach| {
            if *reach != EtcdReach::Answers {
                return false;
            }
            tracing::warn!("etcd is away: {reason}");
            *reach = EtcdReach::Lost {
                since: SystemTime::now(),
                reason: reason.to_owned(),
            };
            true
        });
    }
}

/// Sees again and again whether the member still answers, until the store is closed.
async fn beat(client: Weak<Client>, mut closed: watch::Receiver<bool>) {
    loop {
        let pause = match client.upgrade() {
            Some(client) if *client.reach.borrow() != EtcdReach::Answers => PAUSE,
            Some(_) => HEARTBEAT,
            None => return,
        };
        tokio::select! {
            () = sleep(pause) => {}
            _ = closed.wait_for(|closed| *closed) => return,
        }
        let Some(client) = client.upgrade() else {
            return;
        };
        let asked = RangeRequest {
            key: client.first.clone(),
            keys_only: true,
            ..RangeRequest::default()
        };
        let beating = async {
            // What comes of it is known to the client.
            let answer: Result<RangeResponse, _> = client.call(Call::RANGE.once(), asked).await;
            if answer.is_err() {
                let _ = client.connection().await;
            }
        };
        tokio::select! {
            () = beating => {}
            _ = closed.wait_for(|closed| *closed) => return,
        }
    }
}
