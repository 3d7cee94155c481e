//! A store in etcd, which several processes share and which is theirs to lose: the client only asks.
//!
//! [`client`] asks one member at a time and moves on when that does not answer. Reads are asked
//! again; a transaction only if it certainly was not sent, because etcd cannot tell a second one from
//! the first. [`following`] are watches, which outlive the members they run at; [`lease`] are sessions.
//! [`seen`] finds out that the history is another one than before. Each says in its head who writes
//! what, and why the order holds.
//!
//! etcd is kept as it comes: keys below one prefix, no key of ours but those of the store. It forgets
//! history when it is told to ([`Etcd::forget`]), and by default takes smaller transactions than this
//! crate does ([`Etcd::limits`]).

mod client;
mod fault;
mod following;
mod lease;
mod message;
mod options;
mod seen;
mod space;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tonic::Status;

pub use self::{
    client::EtcdReach,
    options::{EtcdError, EtcdOptions, EtcdTls, MAX_PREFIX_BYTES, exposed},
};
use self::{
    client::{COMPACT, Call, Client, LEASE_GRANT, LEASE_TIME_TO_LIVE, STATUS},
    message::{
        Answer, CompactionRequest, CompactionResponse, Compare, CompareTarget, DeleteRangeRequest,
        LeaseGrantRequest, LeaseGrantResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
        Operation, PutRequest, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
        TxnRequest, TxnResponse,
    },
    space::Space,
};
use crate::error::StoreError;
use crate::session::{BootInstant, Session};
use crate::store::Store;
use crate::transaction::{MAX_OPERATIONS, MAX_TRANSACTION_BYTES, Outcome, Transaction, Write};
use crate::turns::Turns;
use crate::value::{Entry, Listing, Revision, SessionId};
use crate::watch::Watch;

/// Entries of a page of a listing.
const PAGE: i64 = 1_000;

/// How often a listing begins anew because its revision was compacted meanwhile.
const LISTINGS: usize = 5;

/// The pause between two looks for a member while the store is opened.
const PAUSE: Duration = Duration::from_millis(100);

/// The shortest time of a session.
const SHORTEST_SESSION: Duration = Duration::from_secs(2);

/// A store below a prefix of an etcd.
///
/// It needs a tokio runtime. Dropping it ends its watches and loses its sessions, whose entries
/// stay until etcd ends their leases. Its history is bounded by the component that calls
/// [`Etcd::forget`].
#[derive(Debug)]
pub struct Etcd {
    client: Arc<Client>,
    space: Arc<Space>,
    version: String,
    turns: Turns,
}

/// What an etcd takes less of than a store has to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdLimits {
    /// It takes [`MAX_OPERATIONS`] in a transaction.
    pub operations: bool,
    /// It takes [`MAX_TRANSACTION_BYTES`] in a transaction.
    pub bytes: bool,
}

impl Etcd {
    /// Opens a store in an etcd: looks for a member for so long, and asks for its version.
    pub async fn open(options: &EtcdOptions, patience: Duration) -> Result<Self, EtcdError> {
        if options.prefix.is_empty() || options.prefix.len() > MAX_PREFIX_BYTES {
            return Err(EtcdError::Prefix(options.prefix.clone()));
        }
        let client = Client::new(options)?;
        let mut etcd = Self {
            space: Space::new(&options.prefix),
            client,
            version: String::new(),
            turns: Turns::default(),
        };
        let until = Instant::now() + patience;
        etcd.version = loop {
            match etcd.ask_version().await {
                Ok(version) => break version,
                Err(status) if fault::Fault::of(&status) == fault::Fault::Answer => {
                    return Err(EtcdError::Refused {
                        place: etcd.client.place.clone(),
                        reason: fault::reason(&status),
                    });
                }
                Err(status) if Instant::now() >= until => {
                    return Err(EtcdError::Unreachable(fault::reason(&status)));
                }
                Err(_) => sleep(PAUSE).await,
            }
        };
        match etcd.is_at_least([3, 4, 0]) {
            true => Ok(etcd),
            false => Err(EtcdError::Old {
                place: etcd.client.place.clone(),
                version: etcd.version.clone(),
            }),
        }
    }

    async fn ask_version(&self) -> Result<String, Status> {
        let asked = self.client.call(Call::idempotent(STATUS), StatusRequest {});
        let answer: StatusResponse = asked.await?;
        Ok(answer.version)
    }

    /// What the member that was asked first says it is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether its version is this or a later one.
    pub fn is_at_least(&self, wanted: [u32; 3]) -> bool {
        version(&self.version) >= wanted
    }

    /// The members, for messages.
    pub fn place(&self) -> &str {
        &self.client.place
    }

    /// Whether etcd answers, as far as is known: found out by what is asked of it, and every 2 s.
    pub fn reach(&self) -> watch::Receiver<EtcdReach> {
        self.client.reach()
    }

    /// Finds out what it takes, by asking for what is nothing to do: two requests, one of them large.
    pub async fn limits(&self) -> Result<EtcdLimits, StoreError> {
        let compare = |bytes: usize| Compare {
            target: CompareTarget::Mod.into(),
            key: vec![b'~'; bytes],
            mod_revision: Some(i64::MAX),
        };
        let many = vec![compare(1); MAX_OPERATIONS];
        let large = vec![compare(1 << 10); MAX_TRANSACTION_BYTES >> 10];
        let mut taken = [false; 2];
        for (taken, compare) in taken.iter_mut().zip([many, large]) {
            let asked = TxnRequest {
                compare,
                ..TxnRequest::default()
            };
            let call = Call::transaction(MAX_TRANSACTION_BYTES);
            let answer: Result<TxnResponse, _> = self.client.call(call, asked).await;
            *taken = match answer {
                Ok(_) => true,
                Err(status) => match self.error(&status) {
                    StoreError::Refused(_) => false,
                    error => return Err(error),
                },
            };
        }
        let [operations, bytes] = taken;
        Ok(EtcdLimits { operations, bytes })
    }

    /// Forgets history for as long as the store is open: every `often` that through what was
    /// current `often` times `rounds` before.
    pub async fn forget(&self, often: Duration, rounds: usize) {
        let mut past = std::collections::VecDeque::with_capacity(rounds);
        loop {
            match self.revision().await {
                Ok(revision) => past.push_back(revision),
                Err(error) => tracing::debug!(%error, "the revision of etcd is not known"),
            }
            if past.len() > rounds
                && let Some(through) = past.pop_front()
                && let Err(error) = self.compact(through).await
            {
                tracing::warn!(%error, "cannot forget the history of etcd");
            }
            sleep(often).await;
        }
    }

    fn error(&self, status: &Status) -> StoreError {
        fault::error(&self.client.place, status)
    }

    async fn range(&self, asked: RangeRequest) -> Result<RangeResponse, Status> {
        self.client.call(Call::RANGE, asked).await
    }

    /// One listing, in pages of one revision.
    async fn pages(&self, prefix: &str) -> Result<Listing, Status> {
        let (mut key, range_end) = self.space.below(prefix);
        let (mut limit, mut revision) = (PAGE, 0);
        let mut entries = Vec::new();
        loop {
            let asked = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit,
                revision,
                keys_only: false,
            };
            let page = match self.range(asked).await {
                // Values may be so large that fewer are a message.
                Err(status) if fault::is_too_large(&status) && limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                page => page?,
            };
            if revision == 0 {
                revision = page.header().revision;
            }
            if let Some(last) = page.kvs.last() {
                key = last.key.to_vec();
                // The next key there can be.
                key.push(0);
            }
            let found = page.kvs.into_iter();
            entries.extend(found.filter_map(|kv| self.space.entry(kv)));
            if !page.more {
                let revision = Revision(revision.cast_unsigned());
                return Ok(Listing { entries, revision });
            }
        }
    }

    fn request(&self, transaction: &Transaction) -> TxnRequest {
        let compare = transaction.compares.iter().map(|compare| Compare {
            target: CompareTarget::Mod.into(),
            key: self.space.inside(&compare.key),
            mod_revision: Some(signed(compare.modified.0)),
        });
        // If one differs, which it was.
        let look = transaction.compares.iter().map(|compare| {
            Operation::Range(RangeRequest {
                key: self.space.inside(&compare.key),
                keys_only: true,
                ..RangeRequest::default()
            })
        });
        let write = transaction.writes.iter().map(|write| match write {
            Write::Put {
                key,
                value,
                session,
            } => Operation::Put(PutRequest {
                key: self.space.inside(key),
                value: value.clone(),
                lease: session.map_or(0, |session| session.0.cast_signed()),
            }),
            Write::Delete { key } => Operation::Delete(DeleteRangeRequest {
                key: self.space.inside(key),
            }),
        });
        TxnRequest {
            compare: compare.collect(),
            success: write.map(Into::into).collect(),
            failure: look.map(Into::into).collect(),
        }
    }

    /// The session of a transaction that has ended, of which etcd says only that there is one.
    async fn over(&self, transaction: &Transaction) -> Result<SessionId, StoreError> {
        let mut sessions: Vec<_> = transaction
            .writes
            .iter()
            .filter_map(Write::session)
            .collect();
        sessions.dedup();
        for session in &sessions {
            let asked = LeaseTimeToLiveRequest {
                id: session.0.cast_signed(),
            };
            let call = Call::idempotent(LEASE_TIME_TO_LIVE);
            let left: Result<LeaseTimeToLiveResponse, _> = self.client.call(call, asked).await;
            match left {
                Ok(left) if left.ttl <= 0 => return Ok(*session),
                Err(status) if fault::is_no_lease(&status) => return Ok(*session),
                Ok(_) => {}
                Err(status) => return Err(self.error(&status)),
            }
        }
        Err(StoreError::Failed {
            place: self.client.place.clone(),
            reason: "a lease was not found and is there".to_owned(),
        })
    }
}

/// The first key that was compared and differs.
fn conflict(transaction: &Transaction, answer: &TxnResponse) -> Option<Outcome> {
    let compared = transaction.compares.iter().zip(&answer.responses);
    let mut differing = compared.filter(|(compare, response)| {
        let found = response.range.as_ref().and_then(|range| range.kvs.first());
        found.map_or(0, |kv| kv.mod_revision) != signed(compare.modified.0)
    });
    let (compare, _) = differing.next()?;
    Some(Outcome::Conflict(compare.key.clone()))
}

/// A revision that etcd can compare with: no larger one has happened.
fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn version(text: &str) -> [u32; 3] {
    let mut numbers = text
        .split(['.', '-', '+'])
        .map(|it| it.parse().unwrap_or(0));
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let asked = RangeRequest {
            key: self.space.inside(key),
            ..RangeRequest::default()
        };
        let answer = self.range(asked).await.map_err(|it| self.error(&it))?;
        let kv = answer.kvs.into_iter().next();
        Ok(kv.and_then(|kv| self.space.entry(kv)))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let mut listings = 1;
        loop {
            match self.pages(prefix).await {
                Err(status) if fault::is_compacted(&status) && listings < LISTINGS => {
                    listings += 1;
                }
                listing => return listing.map_err(|status| self.error(&status)),
            }
        }
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        transaction.check()?;
        let call = Call::transaction(transaction.bytes());
        let answer = self.client.call(call, self.request(&transaction)).await;
        let answer: TxnResponse = match answer {
            Ok(answer) => answer,
            Err(status) if fault::is_no_lease(&status) => {
                return Err(StoreError::SessionOver(self.over(&transaction).await?));
            }
            Err(status) => return Err(self.error(&status)),
        };
        if answer.succeeded {
            let revision = answer.header().revision.cast_unsigned();
            return Ok(Outcome::Committed(Revision(revision)));
        }
        conflict(&transaction, &answer).ok_or_else(|| StoreError::Failed {
            place: self.client.place.clone(),
            reason: "a comparison failed and none differs".to_owned(),
        })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let following = following::follow(&self.client, &self.space, prefix, after);
        Ok(Watch::new(following))
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        let asked = CompactionRequest {
            revision: signed(through.0),
        };
        let call = Call::idempotent(COMPACT);
        let answer: Result<CompactionResponse, _> = self.client.call(call, asked).await;
        match answer {
            Ok(_) => Ok(()),
            Err(status) if fault::is_compacted(&status) => Ok(()),
            Err(status) if fault::is_future(&status) => Err(StoreError::Future {
                asked: through,
                revision: self.revision().await?,
            }),
            Err(status) => Err(self.error(&status)),
        }
    }

    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        let ttl = ttl.max(SHORTEST_SESSION);
        let asked = LeaseGrantRequest {
            // Never shorter than what was asked for.
            ttl: i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX),
        };
        // A lease that was granted twice is never used, and ends.
        let call = Call::idempotent(LEASE_GRANT);
        let sent = BootInstant::now();
        let granted: LeaseGrantResponse = match self.client.call(call, asked).await {
            Ok(granted) => granted,
            Err(status) => return Err(self.error(&status)),
        };
        Ok(lease::hold(&self.client, &granted, sent))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        let asked = RangeRequest {
            key: self.space.inside(""),
            keys_only: true,
            ..RangeRequest::default()
        };
        let answer = self.range(asked).await.map_err(|it| self.error(&it))?;
        Ok(Revision(answer.header().revision.cast_unsigned()))
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.client.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (text, numbers) in [
            ("3.4.23", [3, 4, 23]),
            ("3.6.0-rc.1", [3, 6, 0]),
            ("3.10", [3, 10, 0]),
            ("junk", [0, 0, 0]),
        ] {
            assert_eq!(version(text), numbers, "{text}");
        }
    }
}
