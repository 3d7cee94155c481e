//! Where requests of a service may go: its pods on this node, and other nodes that have some.
//!
//! Without load all stays on this node. With load, requests in flight for each ready pod are compared,
//! and a pod of this node may have twice as many as one elsewhere: with all traffic coming in at one
//! of three nodes, that one does half of it and the others a quarter each.

use std::{fmt, ptr, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    balance,
    client::share_of,
    endpoint::{Endpoint, EndpointState, Since},
    node::{NodeEndpoint, Word},
    ticket::Ticket,
    upstream::{AnsweredBy, Upstream},
};

/// The endpoints of a service.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Its pods on this node, in the order of their [homes](Endpoint::home).
    pub(crate) endpoints: Arc<[Arc<Endpoint>]>,
    /// The other nodes with ready pods of it.
    pub(crate) nodes: Arc<[Arc<NodeEndpoint>]>,
}

/// Where a request goes. It is counted there.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A pod of this node.
    Pod(Arc<Endpoint>),
    /// Another node.
    Node(Box<Elsewhere>),
}

/// A place at another node.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere {
    pub(crate) node: Arc<NodeEndpoint>,
    /// On which its request is sent there.
    pub(crate) word: Word,
    /// Where its request stood in the line, if it has waited.
    pub(crate) stood: Option<Ticket>,
    /// The pod that has answered, once that is known.
    pub(crate) by: Option<AnsweredBy>,
}

impl From<Arc<[Arc<Endpoint>]>> for Targets {
    fn from(endpoints: Arc<[Arc<Endpoint>]>) -> Self {
        Self {
            endpoints,
            nodes: Arc::default(),
        }
    }
}

impl Place {
    pub(crate) fn upstream(&self) -> &dyn Upstream {
        match self {
            Self::Pod(endpoint) => endpoint.upstream(),
            Self::Node(it) => it.node.upstream(),
        }
    }

    /// The number of the thread that its pod runs on.
    pub(crate) fn home(&self) -> Option<usize> {
        match self {
            Self::Pod(endpoint) => Some(endpoint.home()),
            Self::Node(_) => None,
        }
    }

    /// Notes that it is used from now on.
    pub(crate) fn is_used(&self, now: Instant) -> Since {
        match self {
            Self::Pod(endpoint) => endpoint.is_used(now),
            Self::Node(_) => Since::default(),
        }
    }

    /// Gives it back, which was used until then.
    pub(crate) fn was_used(&self, since: Since, until: Instant) {
        if let Self::Pod(endpoint) = self {
            endpoint.was_used(since, until);
        }
        self.release();
    }

    /// Gives it back.
    pub(crate) fn release(&self) {
        match self {
            Self::Pod(endpoint) => endpoint.release(),
            Self::Node(it) => it.node.release(),
        }
    }

    /// Notes that an answer has come from there.
    pub(crate) fn succeeded(&self) {
        match self {
            Self::Pod(endpoint) => endpoint.succeeded(),
            Self::Node(it) => it.node.succeeded(),
        }
    }

    /// Gives it no requests for a while from `now` on, and says how long.
    pub(crate) fn eject(&self, now: Instant) -> Duration {
        match self {
            Self::Pod(endpoint) => endpoint.eject(now),
            Self::Node(it) => it.node.eject(now),
        }
    }

    /// Notes that none has come. Whether it should be ejected now.
    pub(crate) fn failed(&self) -> bool {
        match self {
            Self::Pod(endpoint) => endpoint.failed(),
            Self::Node(it) => it.node.failed(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(endpoint) => write!(f, "pod {}", endpoint.pod()),
            Self::Node(it) => write!(f, "node {}", it.node.node()),
        }
    }
}

impl Targets {
    /// Pods of this node, in the order of their [homes](Endpoint::home), and other nodes.
    pub fn new(endpoints: Arc<[Arc<Endpoint>]>, nodes: Arc<[Arc<NodeEndpoint>]>) -> Self {
        Self { endpoints, nodes }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len() + self.nodes.len()
    }

    /// Whether these are the same, in the same order.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        fn same<T>(some: &Arc<[Arc<T>]>, others: &Arc<[Arc<T>]>) -> bool {
            let mut each = some.iter().zip(others.iter());
            let is_same = |(one, other): (&Arc<T>, &Arc<T>)| Arc::ptr_eq(one, other);
            Arc::ptr_eq(some, others) || some.len() == others.len() && each.all(is_same)
        }
        same(&self.endpoints, &other.endpoints) && same(&self.nodes, &other.nodes)
    }

    /// A place for a request that came in `now`. `None` if there is none.
    pub(crate) fn pick(&self, now: Instant) -> Option<Place> {
        if self.nodes.is_empty() {
            return balance::pick(&self.endpoints, now).cloned().map(Place::Pod);
        }
        if self.goes_elsewhere()
            && let Some(elsewhere) = self.elsewhere(None)
        {
            return Some(elsewhere);
        }
        let own = balance::pick(&self.endpoints, now).cloned().map(Place::Pod);
        own.or_else(|| self.elsewhere(None))
    }

    /// The place with the fewest requests among all that have room, of this node if it has one,
    /// leaving out `except`.
    pub(crate) fn least_loaded(&self, except: Option<&Place>) -> Option<Place> {
        let (pod, node) = match except {
            Some(Place::Pod(pod)) => (Some(&**pod), None),
            Some(Place::Node(it)) => (None, Some(&*it.node)),
            None => (None, None),
        };
        let own = balance::least_loaded(&self.endpoints, pod).cloned();
        let own = own.map(Place::Pod);
        own.or_else(|| self.elsewhere(node))
    }

    /// Whether a request goes to another node although this one may have room for it.
    fn goes_elsewhere(&self) -> bool {
        let ready = self.endpoints.iter().filter(|it| it.is_ready());
        let (own, pods) = ready.fold((0, 0), |(own, pods), endpoint| {
            (own + endpoint.in_flight(), pods + 1)
        });
        let other = balance::two_of(&self.nodes, |node| {
            node.room().filter(|_| !node.is_quiet()).map(per_pod)
        });
        // This request counts, too, so that the first one stays here.
        other.is_some_and(|(_, other)| {
            pods > 0 && per_pod((own + pods, pods)) > 2 * other + UNIT * 2
        })
    }

    /// A place on another node, leaving out `except`. One that says nothing gets a request only if
    /// there is nowhere else that it could ever go.
    fn elsewhere(&self, except: Option<&NodeEndpoint>) -> Option<Place> {
        let is_other = |node: &NodeEndpoint| !except.is_some_and(|except| ptr::eq(except, node));
        let heard = |node: &Arc<NodeEndpoint>| {
            let is_heard = !node.is_quiet() && is_other(node);
            node.room().filter(|_| is_heard).map(per_pod)
        };
        if let Some(place) = acquire(&self.nodes, heard) {
            return Some(place);
        }
        let is_only = !self.endpoints.iter().any(|it| it.is_ready())
            && self
                .nodes
                .iter()
                .all(|node| node.is_quiet() || !node.is_ready());
        let any = |node: &Arc<NodeEndpoint>| node.room().filter(|_| is_other(node)).map(per_pod);
        if is_only {
            acquire(&self.nodes, any)
        } else {
            None
        }
    }

    /// Whether one client may have so many slots of these.
    pub(crate) fn is_share(&self, count: u32, percent: u32) -> bool {
        let mut slots = 0;
        // Nearly always the first one is enough.
        percent >= 100
            || self.endpoints.iter().any(|endpoint| {
                if endpoint.state() == EndpointState::Ready {
                    slots += u64::from(endpoint.capacity());
                }
                u64::from(count) <= share_of(slots, percent)
            })
            || self.nodes.iter().any(|node| {
                slots += u64::from(node.capacity());
                u64::from(count) <= share_of(slots, percent)
            })
    }
}

/// One request for each pod, as [`per_pod`] counts.
const UNIT: u64 = 1 << 16;

/// Requests for each ready pod.
fn per_pod((requests, pods): (u32, u32)) -> u64 {
    u64::from(requests) * UNIT / u64::from(pods.max(1))
}

/// Counts a request at one of two nodes at random, the one with the lower load, or at the one with the
/// lowest if that has no room.
fn acquire(
    nodes: &[Arc<NodeEndpoint>],
    load: impl Fn(&Arc<NodeEndpoint>) -> Option<u64>,
) -> Option<Place> {
    let place = |node: &Arc<NodeEndpoint>| {
        let word = node.try_acquire()?;
        Some(Place::Node(Box::new(Elsewhere {
            node: Arc::clone(node),
            word,
            stood: None,
            by: None,
        })))
    };
    let chosen = balance::two_of(nodes, &load);
    let chosen = chosen.and_then(|(node, _)| place(node));
    chosen.or_else(|| {
        let mut with_room: Vec<_> = nodes
            .iter()
            .filter_map(|node| Some((load(node)?, node)))
            .collect();
        with_room.sort_unstable_by_key(|(load, _)| *load);
        with_room.into_iter().find_map(|(_, node)| place(node))
    })
}
