//! The session of this node: it says that the node runs, and lets it lead.
//!
//! A session that is lost is opened again: the node goes on with what it has meanwhile. Where another
//! process has taken the name over, or the node was removed from the cluster, this one has to end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use sampan_core::{
    name::Name,
    record::{
        Boot,
        cluster::{Capacity, ClusterKey, Leader, Node, NodeSession},
    },
};
use sampan_store::{BootInstant, Outcome, Revision, Session, Store, StoreError, Transaction};
use tokio::{sync::watch, time::sleep};

use super::members::Members;
use crate::mirror::text;

/// How long the store takes to find that a node is gone.
const SESSION_TIME: Duration = Duration::from_secs(10);
/// How often it is looked whether the session is certainly there.
const LOOK: Duration = Duration::from_millis(250);
/// The pause between two tries.
const RETRY: Duration = Duration::from_millis(500);

/// What this node is among the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The others see that it runs.
    pub(crate) is_present: bool,
    /// The transaction since which it plans for all, if it does. A node that leads no more for a moment and then again has
    /// another one, so that a component that has missed that moment sees it all the same.
    pub(crate) term: Option<Revision>,
}

impl Standing {
    /// Whether it plans for all.
    pub(crate) fn leads(self) -> bool {
        self.term.is_some()
    }
}

/// Whether this node is about to leave the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Departure {
    /// It stays.
    #[default]
    Stays,
    /// Its pods are to run elsewhere first.
    Drains,
    /// It leaves.
    Leaves,
}

/// Keeps this node present.
pub(crate) struct Presence {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) members: Arc<Members>,
    pub(crate) node: Name,
    pub(crate) boot: Boot,
    pub(crate) address: SocketAddr,
    pub(crate) since_ms: u64,
    /// What it has room for.
    pub(crate) capacity: Capacity,
    pub(crate) standing: watch::Sender<Standing>,
    /// Whether the others certainly see that this node runs: no other one is given what it runs.
    pub(crate) seen: watch::Sender<bool>,
}

/// How a session went.
enum Turn {
    /// It was lost, or the store fails.
    Again,
    /// The node must not go on.
    Over(String),
    /// It was to end, and has.
    Left,
}

/// Resolves when the node is to drain, or to leave.
async fn drained(departure: &mut watch::Receiver<Departure>) {
    // Without its sender it leaves.
    let _ = departure.wait_for(|it| *it != Departure::Stays).await;
}

/// Resolves when the node is to leave.
async fn left(departure: &mut watch::Receiver<Departure>) {
    // Without its sender it is left as well.
    let _ = departure.wait_for(|it| *it == Departure::Leaves).await;
}

impl Presence {
    /// Keeps the node present until the future is dropped, or it must not be any more, which is said
    /// to people. Its session says when it drains, and is ended in good order when it leaves.
    pub(crate) async fn run(&self, mut departure: watch::Receiver<Departure>) -> Option<String> {
        loop {
            let turn = self.turn(&mut departure).await;
            self.stand(Standing::default());
            match turn {
                Ok(Turn::Left) | Err(StoreError::Closed) => return None,
                Ok(Turn::Over(why)) => return Some(why),
                Ok(Turn::Again) => {}
                Err(error) => {
                    tracing::warn!(%error, "the store does not see this node, trying again")
                }
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = left(&mut departure) => return None,
            }
        }
    }

    fn stand(&self, now: Standing) {
        // That it is seen is said by `watch_validity` alone.
        if !now.is_present {
            self.seen.send_if_modified(std::mem::take);
        }
        self.standing
            .send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    async fn turn(&self, departure: &mut watch::Receiver<Departure>) -> Result<Turn, StoreError> {
        let session = tokio::select! {
            session = self.store.open_session(SESSION_TIME) => session?,
            () = left(departure) => return Ok(Turn::Left),
        };
        let drains = *departure.borrow() != Departure::Stays;
        if let Some(turn) = self.appear(&session, drains).await? {
            return Ok(turn);
        }
        self.stand(Standing {
            is_present: true,
            ..Standing::default()
        });
        tokio::select! {
            turn = self.stay(&session, departure.clone(), drains) => return turn,
            never = self.watch_validity(&session) => match never {},
            () = session.lost() => {
                tracing::warn!("the session of this node was lost");
                return Ok(Turn::Again);
            }
            () = left(departure) => {}
        }
        session.end().await?;
        Ok(Turn::Left)
    }

    /// Says whether the session is certainly there: while the store is not reached it may end, and the
    /// node is told of that only later.
    async fn watch_validity(&self, session: &Session) -> Infallible {
        loop {
            let valid = BootInstant::now() < session.valid_until();
            self.seen
                .send_if_modified(|seen| std::mem::replace(seen, valid) != valid);
            sleep(LOOK).await;
        }
    }

    /// Puts the node into its session, in the place of an earlier run of it, and says what it is now.
    async fn appear(&self, session: &Session, drains: bool) -> Result<Option<Turn>, StoreError> {
        let key = ClusterKey::Session(self.node.clone()).to_string();
        let node = ClusterKey::Node(self.node.clone()).to_string();
        let Some(known) = self.store.get(&node).await? else {
            let why = format!("node `{}` was removed from the cluster", self.node);
            return Ok(Some(Turn::Over(why)));
        };
        let record = NodeSession {
            boot: self.boot,
            address: self.address,
            since_ms: self.since_ms,
            ending: drains,
        };
        let before = self.store.get(&key).await?;
        let before = before.map_or(Revision(0), |entry| entry.modified);
        let mut appear = Transaction::new()
            .compare(node.as_str(), known.modified)
            .compare(key.as_str(), before)
            .put_in(session.id(), key, text(&record));
        if let Some(now) = self.present(&known.value) {
            appear = appear.put(node, text(&now));
        }
        match self.store.commit(appear).await? {
            Outcome::Committed(_) => Ok(None),
            Outcome::Conflict(_) => Ok(Some(Turn::Again)),
        }
    }

    /// The record of this node as it is now, if that is not what the store has.
    fn present(&self, stored: &[u8]) -> Option<Node> {
        let before: Node = serde_json::from_slice(stored).ok()?;
        let mut now = before.clone();
        now.status.address = self.address;
        now.status.version = env!("CARGO_PKG_VERSION").to_owned();
        now.status.capacity = self.capacity;
        (now != before).then_some(now)
    }

    /// Leads when no node does, for as long as the session lasts.
    async fn stay(
        &self,
        session: &Session,
        mut departure: watch::Receiver<Departure>,
        mut drains: bool,
    ) -> Result<Turn, StoreError> {
        let mut changes = self.members.changes();
        let own = Leader {
            node: self.node.clone(),
            boot: self.boot,
        };
        let mut was_seen = false;
        loop {
            let (seen, is_member, leader, term) = {
                let roster = changes.borrow_and_update();
                let seen = roster.sessions.get(&self.node).map(|it| it.boot);
                let is_member = roster.nodes.contains_key(&self.node);
                (seen, is_member, roster.leader.clone(), roster.term)
            };
            was_seen |= seen == Some(self.boot);
            if was_seen && !is_member {
                let why = format!("node `{}` was removed from the cluster", self.node);
                return Ok(Turn::Over(why));
            }
            if was_seen && seen.is_some_and(|boot| boot != self.boot) {
                let why = format!("another process runs as node `{}`", self.node);
                return Ok(Turn::Over(why));
            }
            self.stand(Standing {
                is_present: true,
                term: term.filter(|_| leader.as_ref() == Some(&own)),
            });
            // An earlier run of this node leads no more.
            if leader.is_none_or(|leader| leader.node == self.node && leader.boot != self.boot) {
                self.lead(session, &own).await?;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return Err(StoreError::Closed);
                },
                () = drained(&mut departure), if !drains => {
                    drains = true;
                    if let Some(turn) = self.appear(session, drains).await? {
                        return Ok(turn);
                    }
                }
            }
        }
    }

    /// Leads, if no other node does by now.
    async fn lead(&self, session: &Session, own: &Leader) -> Result<(), StoreError> {
        let key = ClusterKey::Leader.to_string();
        let before = self.store.get(&key).await?;
        let leader = before.as_ref();
        let leader = leader.and_then(|it| serde_json::from_slice::<Leader>(&it.value).ok());
        if leader.is_some_and(|leader| leader.node != self.node) {
            return Ok(());
        }
        let before = before.map_or(Revision(0), |entry| entry.modified);
        let lead =
            Transaction::new()
                .compare(key.as_str(), before)
                .put_in(session.id(), key, text(own));
        // A node that was quicker is seen.
        let _ = self.store.commit(lead).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
