//! How many connections there may be, and whose.
//!
//! A connection is a *stranger* until it has shown a certificate of the cluster. When all places of
//! strangers are taken, the one that comes cuts off the oldest of the address that has the most: so
//! connections that say nothing keep no node out, and one address cannot take the places of others.
//! A node has places of its own, of which its own oldest connection gives way.
//!
//! | state | written | read |
//! |---|---|---|
//! | permits of strangers | taken by accepting; given back when the stranger's task drops its seat | by accepting |
//! | seats, by their order | added by accepting and by the end of a handshake; removed by being cut off and by being dropped | by accepting, by the end of a handshake |

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sampan_core::name::Name;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What a stream may send before it is read.
pub(crate) const STREAM_WINDOW: u32 = 128 << 10;
/// Requests at once on a connection. A node that has more for another one waits.
pub const STREAMS: u32 = 2048;
/// What a connection may send before it is read: as much as all its streams, so that no number of
/// streams that are not read holds up another one.
pub(crate) const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;

/// What the port for other nodes allows.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of all nodes together.
    pub connections: usize,
    /// Connections of one node.
    pub connections_per_node: usize,
    /// Connections that have not shown a certificate yet.
    pub handshakes: usize,
    /// Time from a new connection to the end of its handshake.
    pub handshake_time: Duration,
    /// Time that joining may take behind the handshake.
    pub join_time: Duration,
    /// Bytes of the head of a request.
    pub head_bytes: u32,
    /// Bytes of the body of a request.
    pub body_bytes: usize,
    /// Requests at once on a connection.
    pub streams: u32,
    /// Time after which a connection is ended in good order, so that the next one shows its
    /// certificates again.
    pub age: Duration,
    /// Time that requests under way have when a connection ends.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            connections_per_node: 16,
            handshakes: 256,
            handshake_time: Duration::from_secs(5),
            join_time: Duration::from_secs(10),
            head_bytes: 64 << 10,
            body_bytes: 64 << 20,
            streams: STREAMS,
            age: Duration::from_secs(60 * 60),
            drain: Duration::from_secs(10),
        }
    }
}

/// The connections of a server.
pub(crate) struct Places {
    permits: Arc<Semaphore>,
    strangers: Arc<Seats<IpAddr>>,
    nodes: Arc<Seats<Name>>,
    connections: usize,
    per_node: usize,
}

/// The place of a connection that has shown no certificate.
pub(crate) struct Stranger {
    seat: Seat<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

/// Connections by the order of their arrival.
struct Seats<K>(Mutex<Taken<K>>);

struct Taken<K> {
    next: u64,
    /// Of whom each is, and what tells it to end.
    held: BTreeMap<u64, (K, Arc<Notify>)>,
}

/// One connection, until it is dropped.
pub(crate) struct Seat<K> {
    seats: Arc<Seats<K>>,
    number: u64,
    cut: Arc<Notify>,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits.handshakes)),
            strangers: Arc::default(),
            nodes: Arc::default(),
            connections: limits.connections,
            per_node: limits.connections_per_node,
        }
    }

    /// A place for a new connection, for which another one gives way if there is none.
    pub(crate) async fn stranger(&self, address: IpAddr) -> Stranger {
        if self.permits.available_permits() == 0 {
            self.strangers.cut_one_of_the_most();
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        Stranger {
            seat: Seats::take(&self.strangers, address.to_canonical()),
            _permit: permit.expect("the semaphore is never closed"),
        }
    }

    /// A place for a connection of a node; `None` if there is none for any node.
    pub(crate) fn node(&self, node: &Name) -> Option<Seat<Name>> {
        while self.nodes.count(node) >= self.per_node.max(1) {
            self.nodes.cut_oldest(node);
        }
        (self.nodes.len() < self.connections).then(|| Seats::take(&self.nodes, node.clone()))
    }
}

impl Stranger {
    /// Resolves when the connection has to give way.
    pub(crate) async fn cut(&self) {
        self.seat.cut().await;
    }
}

impl<K: Ord + Clone> Seats<K> {
    fn take(this: &Arc<Self>, of: K) -> Seat<K> {
        let cut = Arc::<Notify>::default();
        let mut taken = this.0.lock();
        let number = taken.next;
        taken.next += 1;
        taken.held.insert(number, (of, Arc::clone(&cut)));
        Seat {
            seats: Arc::clone(this),
            number,
            cut,
        }
    }

    fn len(&self) -> usize {
        self.0.lock().held.len()
    }

    fn count(&self, of: &K) -> usize {
        let taken = self.0.lock();
        taken.held.values().filter(|(held, _)| held == of).count()
    }

    fn cut_oldest(&self, of: &K) {
        let mut taken = self.0.lock();
        let mut held = taken.held.iter();
        let oldest = held.find(|(_, (held, _))| held == of);
        if let Some(number) = oldest.map(|(number, _)| *number) {
            taken.cut(number);
        }
    }

    fn cut_one_of_the_most(&self) {
        let mut counts = BTreeMap::<K, usize>::new();
        for (of, _) in self.0.lock().held.values() {
            *counts.entry(of.clone()).or_default() += 1;
        }
        let most = counts.iter().max_by_key(|(_, count)| **count);
        if let Some((of, _)) = most {
            self.cut_oldest(of);
        }
    }
}

impl<K> Default for Seats<K> {
    fn default() -> Self {
        Self(Mutex::new(Taken {
            next: 0,
            held: BTreeMap::new(),
        }))
    }
}

impl<K> Taken<K> {
    /// Tells one to end. It is out of the list then, so it is told once.
    fn cut(&mut self, number: u64) {
        if let Some((_, cut)) = self.held.remove(&number) {
            cut.notify_one();
        }
    }
}

impl<K> Seat<K> {
    /// Resolves when the connection has to give way.
    pub(crate) async fn cut(&self) {
        self.cut.notified().await;
    }
}

impl<K> Drop for Seat<K> {
    fn drop(&mut self) {
        self.seats.0.lock().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future as _,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn is_cut<K>(seat: &Seat<K>) -> bool {
        let cut = pin!(seat.cut());
        cut.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_oldest_of_the_address_with_the_most_gives_way() {
        let limits = Limits {
            handshakes: 4,
            ..Limits::default()
        };
        let places = Places::new(&limits);
        let other = now(places.stranger(ip("192.0.2.9"))).expect("a place");
        let many: Vec<_> = (0..3)
            .map(|_| now(places.stranger(ip("::ffff:192.0.2.1"))).expect("a place"))
            .collect();
        // It has to end before its place is another's.
        let mut next = pin!(places.stranger(ip("192.0.2.2")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        assert!(is_cut(&many[0].seat));
        assert!(!is_cut(&many[1].seat) && !is_cut(&many[2].seat) && !is_cut(&other.seat));
        drop(many);
        assert!(next.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_node_takes_no_place_of_another() {
        let limits = Limits {
            connections: 5,
            connections_per_node: 2,
            ..Limits::default()
        };
        let places = Places::new(&limits);
        let name = |text| Name::parse(text).expect("a name");
        let (a, b) = (name("a"), name("b"));
        let first = places.node(&a).expect("a place");
        let second = places.node(&a).expect("a place");
        let of_b = places.node(&b).expect("a place");
        let third = places.node(&a).expect("a place");
        assert!(is_cut(&first) && !is_cut(&second) && !is_cut(&third) && !is_cut(&of_b));
        let more: Vec<_> = ["c", "d"].map(|node| places.node(&name(node))).into();
        assert!(more.iter().all(Option::is_some));
        assert!(places.node(&name("e")).is_none(), "five are there");
        drop(second);
        assert!(places.node(&name("e")).is_some());
    }
}
