//! Sessions: leases of etcd, renewed three times in their time.
//!
//! States: *held* and *ended*. Only the task that renews a lease writes: `valid_until` after each
//! renewal that was acknowledged, and `ended` when etcd says that there is no such lease. The moment
//! is taken before a renewal is sent, so that it is never later than the one that etcd counts from.
//! The task goes on while etcd is away, because that ends no lease; whether the owner still believes
//! in the session is for the owner, who has `valid_until`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    client::{ANSWER, Call, Client, LEASE_KEEP_ALIVE, LEASE_REVOKE, late},
    fault,
    message::{
        Answer as _, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseRevokeRequest, LeaseRevokeResponse,
    },
};
use crate::error::StoreError;
use crate::session::{BootInstant, SESSION_MARGIN, Session, SessionSource};
use crate::value::SessionId;

/// Renewals in the time of a lease: one may fail, and the next is in time.
const RENEWALS: u32 = 3;

/// The pause after one that has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A lease that this process holds.
struct Held {
    client: Arc<Client>,
    id: i64,
    state: Arc<State>,
    renewing: AbortHandle,
}

struct State {
    valid_until: Mutex<BootInstant>,
    ended: watch::Sender<bool>,
    /// That its owner ends it, and does not renew it any more.
    ending: AtomicBool,
}

/// The session of a lease that was granted to what was asked at `sent`.
pub(super) fn hold(
    client: &Arc<Client>,
    granted: &LeaseGrantResponse,
    sent: BootInstant,
) -> Session {
    let ttl = Duration::from_secs(granted.ttl.max(0).cast_unsigned());
    let state = Arc::new(State {
        valid_until: Mutex::new(valid(sent, ttl)),
        ended: watch::Sender::new(false),
        ending: AtomicBool::new(false),
    });
    let renewing = renew(Arc::clone(client), granted.id, ttl, Arc::clone(&state));
    let held = Held {
        client: Arc::clone(client),
        id: granted.id,
        state,
        renewing: client.threads.spawn(renewing).abort_handle(),
    };
    Session::new(SessionId(granted.id.cast_unsigned()), held)
}

fn valid(sent: BootInstant, ttl: Duration) -> BootInstant {
    sent.after(ttl.saturating_sub(SESSION_MARGIN))
}

/// Renews a lease until it has ended or the store is closed.
async fn renew(client: Arc<Client>, id: i64, ttl: Duration, state: Arc<State>) {
    let mut closed = client.closed();
    let mut pause = ttl / RENEWALS;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            _ = closed.wait_for(|closed| *closed) => break,
        }
        if state.ending.load(Ordering::Relaxed) {
            return;
        }
        let sent = BootInstant::now();
        pause = match keep_alive(&client, id).await {
            Ok(0) => break,
            Ok(seconds) => {
                let left = Duration::from_secs(seconds);
                let mut until = state.valid_until.lock();
                *until = (*until).max(valid(sent, left));
                left / RENEWALS
            }
            Err(status) => {
                tracing::debug!(reason = fault::reason(&status), "a lease is not renewed");
                PAUSE
            }
        };
    }
    state.ended.send_replace(true);
}

/// Renews a lease once, at one member; the seconds that it then has, and 0 if there is none.
async fn keep_alive(client: &Client, id: i64) -> Result<u64, Status> {
    let connection = client.connection().await?;
    let asked = async {
        let (requests, sent) = mpsc::channel(1);
        let _ = requests.try_send(LeaseKeepAliveRequest { id });
        let sent = ReceiverStream::new(sent);
        let answers = connection.stream(LEASE_KEEP_ALIVE, sent).await;
        let mut answers: Streaming<LeaseKeepAliveResponse> = answers?;
        answers.message().await
    };
    let status = match timeout(ANSWER, asked).await {
        Ok(Ok(Some(answer))) => {
            client.seen.any(answer.header());
            return Ok(answer.ttl.max(0).cast_unsigned());
        }
        Ok(Ok(None)) => Status::unavailable("a stream ended without an answer"),
        Ok(Err(status)) if fault::is_no_lease(&status) => return Ok(0),
        Ok(Err(status)) => status,
        Err(_) => late(ANSWER),
    };
    client.leave(&connection, &status);
    Err(status)
}

#[async_trait]
impl SessionSource for Held {
    fn valid_until(&self) -> BootInstant {
        *self.state.valid_until.lock()
    }

    async fn lost(&self) {
        let mut ended = self.state.ended.subscribe();
        // The sender is here as long as this is.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    async fn end(self: Box<Self>) -> Result<(), StoreError> {
        if *self.client.closed().borrow() {
            return Err(StoreError::Closed);
        }
        self.state.ending.store(true, Ordering::Relaxed);
        let asked = LeaseRevokeRequest { id: self.id };
        let ended = self
            .client
            .call(Call::idempotent(LEASE_REVOKE), asked)
            .await;
        let ended: Result<LeaseRevokeResponse, _> = ended;
        match ended {
            Ok(_) => Ok(()),
            Err(status) if fault::is_no_lease(&status) => Ok(()),
            Err(status) => Err(fault::error(&self.client.place, &status)),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}
