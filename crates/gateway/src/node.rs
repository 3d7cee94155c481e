//! Another node as the balancer sees it: what it says of its pods of a service, and the requests that
//! this node has there.
//!
//! | state | written | read |
//! |---|---|---|
//! | `told` | by what the node says and by a refusal, under its lock | by the same |
//! | `ready`, `limit`, `others`, `is_quiet` | the same, under that lock | by the balancer, without it |
//! | `in_flight` | by requests that come and go | by the balancer, and when the node says something |
//!
//! A node that has refused a request has no room until it says something again: so a request that is
//! refused everywhere waits, and is not sent round in a circle.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use sampan_core::name::Name;
use tokio::time::Instant;

use crate::{
    ejection::{History, Strikes},
    endpoint::Owner,
    upstream::Upstream,
};

/// What a node has of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Its pods that are ready.
    pub ready: u32,
    /// How many requests these take at once.
    pub capacity: u32,
    /// How many more they would take now.
    pub free: u32,
}

/// A node that has ready pods of a service, as this node's gateway sends requests to it.
///
/// It gets none before it has [said](Self::say) what it has.
pub struct NodeEndpoint {
    node: Name,
    upstream: Arc<dyn Upstream>,
    /// Requests of this gateway that are there.
    in_flight: AtomicU32,
    ready: AtomicU32,
    /// How many requests of this gateway there may be there at once, as far as is known.
    limit: AtomicU32,
    /// Requests there that are not of this gateway, as far as is known.
    others: AtomicU32,
    is_quiet: AtomicBool,
    told: Mutex<Told>,
    strikes: Strikes,
    made: Instant,
    ejections: Mutex<History>,
    /// The queue of its service, while it is published.
    owner: Mutex<Option<Weak<dyn Owner>>>,
}

#[derive(Debug, Default)]
struct Told {
    offer: Offer,
    /// How often the node has said something.
    count: u64,
}

/// What a request was sent on: how often the node had said something by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl NodeEndpoint {
    /// A node that has said nothing yet. What `upstream` is given goes there.
    pub fn new(node: Name, upstream: Arc<dyn Upstream>) -> Arc<Self> {
        Arc::new(Self {
            node,
            upstream,
            in_flight: AtomicU32::new(0),
            ready: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            others: AtomicU32::new(0),
            is_quiet: AtomicBool::new(false),
            told: Mutex::default(),
            strikes: Strikes::default(),
            made: Instant::now(),
            ejections: Mutex::default(),
            owner: Mutex::default(),
        })
    }

    /// The node.
    pub fn node(&self) -> &Name {
        &self.node
    }

    /// What it has said last.
    pub fn offer(&self) -> Offer {
        self.told.lock().offer
    }

    /// Requests of this gateway that are there.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(SeqCst)
    }

    /// The node says what it has now. Requests that wait get what is free; those that wait for nothing
    /// any more are sent away.
    pub fn say(&self, offer: Offer) {
        let mut told = self.told.lock();
        *told = Told {
            offer,
            count: told.count + 1,
        };
        let own = self.in_flight();
        let used = offer.capacity.saturating_sub(offer.free);
        self.others.store(used.saturating_sub(own), SeqCst);
        let limit = own.saturating_add(offer.free).min(offer.capacity.max(own));
        self.limit.store(limit, SeqCst);
        self.ready.store(offer.ready, SeqCst);
        self.is_quiet.store(false, SeqCst);
        drop(told);
        match (offer.ready, self.owner()) {
            (0, Some(owner)) => owner.pod_left(),
            (_, Some(owner)) if offer.free > 0 => owner.slot_freed(),
            (_, Some(_) | None) => {}
        }
    }

    /// The node says that it is there, and nothing else has changed. One that had refused a request
    /// may be asked again.
    pub fn is_there(&self) {
        let offer = self.offer();
        self.say(offer);
    }

    /// The node has said nothing for a while: it gets no requests while there is another.
    pub fn is_silent(&self) {
        self.is_quiet.store(true, SeqCst);
    }

    /// Whether it says that it has ready pods.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(SeqCst) > 0
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet.load(SeqCst)
    }

    /// How many requests its pods take at once.
    pub(crate) fn capacity(&self) -> u32 {
        self.offer().capacity
    }

    /// Its requests and its ready pods, if it takes one more, as far as is known.
    pub(crate) fn room(&self) -> Option<(u32, u32)> {
        let (ready, own) = (self.ready.load(SeqCst), self.in_flight());
        let has_room = ready > 0 && own < self.limit.load(SeqCst) && !self.is_ejected();
        has_room.then(|| (own.saturating_add(self.others.load(SeqCst)), ready))
    }

    /// Counts a request that is sent there, if it takes one more as far as is known. With a word the
    /// caller owes a [`release`](Self::release).
    pub(crate) fn try_acquire(&self) -> Option<Word> {
        if !self.is_ready() {
            return None;
        }
        let word = Word(self.told.lock().count);
        let limit = self.limit.load(SeqCst);
        let more = |own: u32| (own < limit).then_some(own + 1);
        let taken = self.in_flight.fetch_update(SeqCst, SeqCst, more);
        taken.is_ok().then_some(word)
    }

    /// A request has ended there.
    pub(crate) fn release(&self) {
        self.in_flight.fetch_sub(1, SeqCst);
    }

    /// The node has refused a request that was sent on this word. It has no room until it says more,
    /// unless it has by now.
    pub(crate) fn has_refused(&self, word: Word) {
        let told = self.told.lock();
        if told.count == word.0 {
            self.limit.store(0, SeqCst);
        }
    }

    pub(crate) fn upstream(&self) -> &dyn Upstream {
        &*self.upstream
    }

    /// Notes that an answer has come from there.
    pub(crate) fn succeeded(&self) {
        self.strikes.succeeded();
    }

    /// Notes that no answer has come from there. Whether it should be ejected now.
    pub(crate) fn failed(&self) -> bool {
        self.strikes.failed()
    }

    /// Gives it no requests for a while from `now` on, and says how long.
    pub(crate) fn eject(&self, now: Instant) -> Duration {
        let time = self.ejections.lock().eject(now);
        self.strikes.eject(self.micros(now + time));
        time
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.strikes.is_ejected(|| self.micros(Instant::now()))
    }

    fn micros(&self, at: Instant) -> u64 {
        let time = at.saturating_duration_since(self.made);
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    }

    /// Lets requests of `owner` go there.
    pub(crate) fn attach<O: Owner + 'static>(&self, owner: &Arc<O>) {
        let owner = Arc::downgrade(owner);
        *self.owner.lock() = Some(owner);
    }

    fn owner(&self) -> Option<Arc<dyn Owner>> {
        self.owner.lock().as_ref().and_then(Weak::upgrade)
    }
}

impl fmt::Debug for NodeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeEndpoint")
            .field("node", &self.node)
            .field("offer", &self.offer())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        body::Body,
        upstream::{RequestContext, UpstreamFuture},
    };

    struct Silent;

    impl Upstream for Silent {
        fn call(&self, _: Request<Body>, _: &RequestContext) -> UpstreamFuture {
            Box::pin(std::future::pending())
        }
    }

    fn node(capacity: u32, free: u32) -> Arc<NodeEndpoint> {
        let node = NodeEndpoint::new(Name::parse("b").expect("a name"), Arc::new(Silent));
        node.say(Offer {
            ready: 2,
            capacity,
            free,
        });
        node
    }

    #[test]
    fn it_takes_what_it_says_is_free_and_what_becomes_free_of_that() {
        let node = node(10, 3);
        assert_eq!(node.room(), Some((7, 2)));
        (0..3).for_each(|_| assert!(node.try_acquire().is_some()));
        assert_eq!((node.room(), node.try_acquire()), (None, None));
        node.release();
        assert_eq!(node.room(), Some((9, 2)));
        // It counts those of this gateway among its own.
        node.say(Offer {
            ready: 2,
            capacity: 10,
            free: 8,
        });
        assert_eq!(node.room(), Some((2, 2)));
    }

    #[test]
    fn one_that_refused_is_not_asked_before_it_says_something() {
        let node = node(10, 10);
        let word = node.try_acquire().expect("room");
        node.has_refused(word);
        node.release();
        assert_eq!(node.room(), None);
        node.is_there();
        assert_eq!(node.room(), Some((0, 2)));
        // What it has said since the request was sent is newer than the refusal.
        let word = node.try_acquire().expect("room");
        node.is_there();
        node.has_refused(word);
        node.release();
        assert!(node.room().is_some());
    }

    #[test]
    fn one_without_pods_takes_nothing() {
        let node = node(10, 10);
        node.say(Offer::default());
        assert_eq!((node.room(), node.try_acquire()), (None, None));
        assert_eq!(node.in_flight(), 0);
    }
}
