//! The queue of a service: requests that wait for a slot of a pod, first come, first served.
//!
//! A slot is a pod's promise to take one request. While nobody waits, taking and giving back a
//! slot are single atomic operations on the endpoint. The rule that keeps a wake-up from being
//! lost when somebody does:
//!
//! - who waits first says so in `waiting`, then looks at the endpoints;
//! - who frees a slot first frees it, then looks at `waiting`.
//!
//! All four accesses are sequentially consistent, so at least one of the two sees the other. A
//! change of state or of the set of endpoints always looks into the queue.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    balance,
    busy::{Busy, Reading},
    ejection,
    endpoint::{Endpoint, EndpointState},
};

/// The right to send one request to one pod. Dropping it gives the slot to the first that waits.
#[derive(Debug)]
pub(crate) struct Slot {
    endpoint: Arc<Endpoint>,
    queue: Arc<Queue>,
    /// Until when it was used, if that is known before it is dropped.
    until: Option<Instant>,
}

impl Slot {
    /// Wraps a slot that was taken with `try_acquire` just now.
    fn new(endpoint: &Arc<Endpoint>, queue: &Arc<Queue>, now: Instant) -> Self {
        endpoint.busy().begin(now);
        Self {
            endpoint: endpoint.clone(),
            queue: queue.clone(),
            until: None,
        }
    }

    /// Notes that its use has just ended, for one who has looked at the clock and drops it now.
    pub(crate) fn used_until(&mut self, now: Instant) {
        self.until = Some(now);
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Notes that its pod has given no answer. Whether the pod is ejected for that.
    pub(crate) fn failed(&self) -> bool {
        self.endpoint.failed() && self.queue.eject(&self.endpoint)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = self.until.unwrap_or_else(Instant::now);
        self.endpoint.busy().end(now);
        self.endpoint.release();
        if self.queue.waiting() > 0 {
            self.queue.hand_out();
        }
    }
}

/// Why a request got no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// As many wait already as may.
    Full,
    /// It waited as long as it may.
    TimedOut,
    /// The service is gone.
    Closed,
}

/// The requests of one service that wait for a slot.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The length of `waiters`, to be read without the lock.
    waiting: AtomicU32,
    inner: Mutex<Inner>,
    /// Told when a request waits that no pod could ever take.
    parked: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    /// From the entry into `waiters` to leaving it.
    busy: Busy,
    /// In the order of their ids.
    waiters: VecDeque<Waiter>,
    next_id: u64,
    endpoints: Arc<[Arc<Endpoint>]>,
    max: u32,
    closed: bool,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    slot: oneshot::Sender<Slot>,
}

/// A place in the queue. Dropping it leaves the queue.
struct Ticket {
    id: u64,
    queue: Arc<Queue>,
    slot: oneshot::Receiver<Slot>,
}

enum Entry {
    Slot(Slot),
    Ticket(Ticket),
}

impl Queue {
    /// A queue without endpoints, which says on `parked` when a request waits that no pod could
    /// ever take.
    pub(crate) fn new(parked: &Arc<Notify>) -> Self {
        Self {
            parked: Arc::clone(parked),
            ..Self::default()
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// How many wait, over time.
    pub(crate) fn read(&self, now: Instant) -> Reading {
        self.lock().busy.read(now)
    }

    /// Sets the endpoints that waiting requests go to and how many may wait.
    pub(crate) fn install(self: &Arc<Self>, endpoints: Arc<[Arc<Endpoint>]>, max: u32) {
        let mut inner = self.lock();
        let old = std::mem::replace(&mut inner.endpoints, endpoints);
        inner.max = max;
        inner.closed = false;
        drop(inner);
        drop(old);
        self.hand_out();
        self.look_for_parked();
    }

    /// Sends away all that wait, and all that come later.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.endpoints = Arc::default();
        let now = Instant::now();
        while inner.waiters.pop_front().is_some() {
            inner.busy.end(now);
        }
        self.waiting.store(0, SeqCst);
    }

    /// Takes a slot of one of `endpoints`, or waits up to `timeout` for a slot of those that are
    /// installed. The request has `arrived` just now: the clock is read again only if it waits.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        endpoints: &[Arc<Endpoint>],
        timeout: Duration,
        arrived: Instant,
    ) -> Result<Slot, NoSlot> {
        // Nobody overtakes those that wait.
        if self.waiting() == 0
            && let Some(endpoint) = balance::pick(endpoints)
        {
            return Ok(Slot::new(endpoint, self, arrived));
        }
        let mut ticket = match self.enter()? {
            Entry::Slot(slot) => return Ok(slot),
            Entry::Ticket(ticket) => ticket,
        };
        match tokio::time::timeout(timeout, &mut ticket.slot).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(NoSlot::Closed),
            // A slot may have come in the same moment.
            Err(_) => ticket.leave().ok_or(NoSlot::TimedOut),
        }
    }

    /// Takes a slot of one of `endpoints` other than `except`, without waiting.
    pub(crate) fn acquire_other(
        self: &Arc<Self>,
        endpoints: &[Arc<Endpoint>],
        except: &Endpoint,
    ) -> Option<Slot> {
        balance::least_loaded(endpoints, Some(except))
            .map(|endpoint| Slot::new(endpoint, self, Instant::now()))
    }

    /// Gives free slots to those that wait, in their order.
    pub(crate) fn hand_out(self: &Arc<Self>) {
        let mut inner = self.lock();
        let unused = self.serve(&mut inner, Instant::now());
        drop(inner);
        // Giving it back may lock the queue.
        drop(unused);
    }

    /// Whether requests wait that none of the installed endpoints could ever take.
    pub(crate) fn is_parked(&self) -> bool {
        // Nearly always nobody waits, and seeing that takes no lock.
        self.waiting() > 0 && self.lock().is_parked()
    }

    /// Tells of requests that wait and that no pod can take any more. To be called after an endpoint
    /// has gone.
    pub(crate) fn look_for_parked(&self) {
        if self.is_parked() {
            self.parked.notify_one();
        }
    }

    /// Gives a pod that keeps failing no requests for a while, unless too few would be left. Whether
    /// it did.
    pub(crate) fn eject(&self, endpoint: &Arc<Endpoint>) -> bool {
        let inner = self.lock();
        let (ready, ejected) = inner.ready();
        let is_ejected = !endpoint.is_ejected() && ejection::may_eject(ready, ejected);
        if is_ejected {
            endpoint.eject();
        }
        is_ejected
    }

    fn enter(self: &Arc<Self>) -> Result<Entry, NoSlot> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(NoSlot::Closed);
        }
        inner.end_panic();
        let now = Instant::now();
        // What the caller looked at may be out of date.
        if inner.waiters.is_empty()
            && let Some(endpoint) = balance::pick(&inner.endpoints)
        {
            return Ok(Entry::Slot(Slot::new(endpoint, self, now)));
        }
        if inner.waiters.len() >= inner.max as usize {
            return Err(NoSlot::Full);
        }
        let (sender, slot) = oneshot::channel();
        let id = inner.next_id;
        inner.next_id += 1;
        inner.waiters.push_back(Waiter { id, slot: sender });
        inner.busy.begin(now);
        self.waiting.store(inner.waiters.len() as u32, SeqCst);
        let unused = self.serve(&mut inner, now);
        // Whoever comes later waits for what the first has set off.
        if inner.waiters.len() == 1 && inner.is_parked() {
            self.parked.notify_one();
        }
        drop(inner);
        drop(unused);
        Ok(Entry::Ticket(Ticket {
            id,
            queue: self.clone(),
            slot,
        }))
    }

    /// Matches waiters with free slots. A slot that found no taker comes back; it must be dropped
    /// without the lock.
    #[must_use]
    fn serve(self: &Arc<Self>, inner: &mut Inner, now: Instant) -> Option<Slot> {
        let mut unused = None;
        while !inner.waiters.is_empty() {
            let slot = match unused.take() {
                Some(slot) => slot,
                None => match balance::least_loaded(&inner.endpoints, None) {
                    Some(endpoint) => Slot::new(endpoint, self, now),
                    None => break,
                },
            };
            if let Some(waiter) = inner.waiters.pop_front() {
                inner.busy.end(now);
                unused = waiter.slot.send(slot).err();
            }
        }
        self.waiting.store(inner.waiters.len() as u32, SeqCst);
        unused
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code of others runs under the lock, and each step leaves the queue whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Ready endpoints, and how many of these are ejected.
    fn ready(&self) -> (usize, usize) {
        let is_ready = |endpoint: &&Arc<Endpoint>| endpoint.state() == EndpointState::Ready;
        let ready = self.endpoints.iter().filter(is_ready);
        ready.fold((0, 0), |(ready, ejected), endpoint| {
            (ready + 1, ejected + usize::from(endpoint.is_ejected()))
        })
    }

    /// Whether requests wait that none of the endpoints could ever take. One that is not ready may
    /// become so; one that terminates never takes another.
    fn is_parked(&self) -> bool {
        let is_gone = |endpoint: &Arc<Endpoint>| endpoint.state() == EndpointState::Terminating;
        !self.waiters.is_empty() && self.endpoints.iter().all(is_gone)
    }

    /// Takes ejected pods back when too few others are left.
    fn end_panic(&self) {
        let (ready, ejected) = self.ready();
        if ejection::is_panic(ready, ejected) {
            self.endpoints
                .iter()
                .for_each(|endpoint| endpoint.readmit());
        }
    }
}

impl Ticket {
    /// Leaves the queue, with the slot if it has come.
    fn leave(mut self) -> Option<Slot> {
        self.remove();
        self.slot.try_recv().ok()
    }

    /// After this nobody sends a slot here any more.
    fn remove(&self) {
        let mut inner = self.queue.lock();
        if let Ok(index) = inner
            .waiters
            .binary_search_by_key(&self.id, |waiter| waiter.id)
        {
            inner.waiters.remove(index);
            inner.busy.end(Instant::now());
            self.queue.waiting.store(inner.waiters.len() as u32, SeqCst);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A slot that came in the same moment is dropped with the receiver, after the lock, and so
        // goes to the next.
        self.remove();
    }
}

#[cfg(test)]
mod tests;
