//! The queue of a service: requests that wait for a slot of a pod, in the order of [`line`].
//!
//! A slot is the right to send one request to one pod. A request goes this way:
//!
//! ```text
//!              a slot is free, and no request waits
//! acquire ──────────────────────────────────────────▶ Slot ──drop──▶ the slot is free
//!    │                                                 ▲
//!    │ enter: a waiter in the line                     │ serve
//!    ▼                                                 │
//! Ticket ──────────────────────────────────────────────┘
//!    │ full, closed, no chance, out of time, its body failed
//!    ▼
//! Fault
//! ```
//!
//! | what | written by | read by |
//! |---|---|---|
//! | the word of an [`Endpoint`]: its state, and requests in flight | the balancer, `Slot::drop`, the control side | the balancer, without a lock |
//! | `Inner`: the line and the endpoints | requests that enter or leave, `serve`, the control side: under the lock | the same |
//! | `waiting`, `wanted`: lengths of the line | `note_length`, under the lock after each change | `acquire`, `Slot::drop`, [`holds`], without the lock |
//! | the channel of a ticket | who takes its waiter out of the line, under the lock, once | the task of the request |
//!
//! While no request waits, taking and giving back a slot are single atomic operations on the
//! endpoint. The rule that keeps a wake-up from being lost when one does:
//!
//! - a request that waits first says so in `waiting`, then looks at the endpoints;
//! - a request that frees a slot first frees it, then looks at `waiting`.
//!
//! All four accesses are sequentially consistent, so at least one of the two sees the other.
//!
//! Who wakes a request that waits, and when:
//!
//! | what happens | through |
//! |---|---|
//! | a slot is dropped | `Slot::drop`, `hand_out` |
//! | a pod becomes ready | [`Endpoint::set_state`], [`Owner::slot_freed`], `hand_out` |
//! | a snapshot is published | `install`, `hand_out` |
//! | an ejection, which is a time that the balancer compares, ends | the timer of `eject`, `hand_out` |
//! | another request begins to wait, or may not have the slot that it found | `enter`, `acquire` |
//!
//! | what ends its wait without a slot | through |
//! |---|---|
//! | its time is up | `acquire`: [`Fault::QueueTimeout`] |
//! | no pod is ready, and none can become so in its time: one terminates or backs off, or a snapshot is published | [`Owner::pod_left`], `dismiss_hopeless`: [`Fault::NoPod`] |
//! | its service is gone | `close`: [`Fault::NoService`] |
//! | its client is slow, and another one needs its place in the full queue | `enter`: [`Fault::QueueFull`] |
//! | its body fails | `Ticket::wait`: its fault |
//! | its client goes | `Ticket::drop` |
//!
//! A request that no pod could ever take waits *parked*: `enter` says so on `parked` for the first
//! one, and `pod_left` when the last pod goes; [`Gateway::parked`](crate::Gateway::parked) wakes the
//! autoscaler. A pod that becomes unready ends no wait.
//!
//! A waiter is taken out of the line before its channel is used, so it is told once. A slot that
//! was sent to a request that has gone comes back to `serve`, or is dropped with the channel. Both
//! happen without the lock, because dropping a slot takes it.

mod again;
mod holds;
mod line;
mod pods;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::Context,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use sampan_core::fault::Fault;

use crate::{
    buffers::Buffers,
    busy::{Busy, Reading},
    client::{self, Shares},
    endpoint::{Owner, Since},
    hold::{Holder, LOOK},
    sending::Sending,
    targets::{Place, Targets},
    ticket::Ticket as Number,
};
pub(crate) use holds::Hold;
use holds::{Holds, take_back};
use line::Line;
pub(crate) use line::{Asker, Lane};
use pods::Pods;

/// The right to send one request to one pod, or to another node. Dropping it gives the slot to the
/// first that waits.
#[derive(Debug)]
pub(crate) struct Slot {
    place: Place,
    queue: Arc<Queue>,
    since: Since,
    /// Until when it was used, if that is known before it is dropped.
    pub(crate) until: Option<Instant>,
    /// The client that it is counted for.
    client: Option<IpAddr>,
    /// What of the request body is still to come.
    sending: Option<Box<(Arc<Sending>, Hold)>>,
}

impl Slot {
    /// Wraps a place that was taken just now, as `client` was counted for it.
    fn new(place: Place, queue: &Arc<Queue>, client: Option<IpAddr>, now: Instant) -> Self {
        Self {
            since: place.is_used(now),
            place,
            queue: queue.clone(),
            until: None,
            client,
            sending: None,
        }
    }

    /// Lets it be taken back when the client is too slow with the rest of its body.
    pub(crate) fn hold_for(&mut self, sending: &Arc<Sending>) {
        let hold = self.queue.hold(sending);
        self.sending = Some(Box::new((Arc::clone(sending), hold)));
    }

    /// Whether it was taken back. If not, the task that sends the answer is woken then.
    pub(crate) fn is_taken_back(&self, cx: &Context<'_>) -> bool {
        let sending = self.sending.as_ref();
        sending.is_some_and(|sending| sending.0.is_over_for_server(cx))
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Notes that its pod has given no answer. Whether the pod is ejected for that.
    pub(crate) fn failed(&self) -> bool {
        self.place.failed() && self.queue.eject(&self.place)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = self.until.unwrap_or_else(Instant::now);
        self.place.was_used(self.since, now);
        self.queue.shares.give_back(self.client);
        if self.queue.waiting() > 0 {
            self.queue.hand_out();
        }
    }
}

/// The requests of one service that wait for a slot.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The length of `waiters`, to be read without the lock.
    waiting: AtomicU32,
    /// How many of these do not stand behind, to be read without the lock.
    wanted: AtomicU32,
    holds: Arc<Holds>,
    /// The slots that each client has.
    shares: Shares,
    /// What is kept of bodies on their way.
    pub(crate) buffers: Arc<Buffers>,
    /// No code of others runs under the lock.
    inner: Mutex<Inner>,
    /// Told when a request waits that no pod could ever take.
    parked: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    /// From the entry into `waiters` to leaving it.
    busy: Busy,
    waiters: Line<Waiter>,
    pods: Pods,
    max: u32,
    closed: bool,
}

/// One that waits.
#[derive(Debug)]
struct Waiter {
    /// How long it may.
    until: Instant,
    /// Where its slot is sent to, or why it gets none.
    slot: oneshot::Sender<Result<Slot, Fault>>,
}

/// A place in the queue. Dropping it leaves the queue.
struct Ticket {
    number: Number,
    queue: Arc<Queue>,
    slot: oneshot::Receiver<Result<Slot, Fault>>,
}

enum Entry {
    Slot(Slot),
    Ticket(Ticket),
}

impl Queue {
    /// A queue without endpoints, which says on `parked` when a request waits that no pod could
    /// ever take.
    pub(crate) fn new(parked: &Arc<Notify>, buffers: &Arc<Buffers>) -> Self {
        Self {
            parked: Arc::clone(parked),
            buffers: Arc::clone(buffers),
            ..Self::default()
        }
    }

    /// Takes a slot of one of the targets, if there is a free one and the client may have it.
    fn take(
        self: &Arc<Self>,
        targets: &Targets,
        client: Option<IpAddr>,
        now: Instant,
    ) -> Option<Slot> {
        let place = targets.pick(now)?;
        let is_share = |count| targets.is_share(count, self.buffers.client_share);
        if self.shares.take(client, is_share) {
            return Some(Slot::new(place, self, client, now));
        }
        place.release();
        None
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// How many wait, over time.
    pub(crate) fn read(&self, now: Instant) -> Reading {
        self.inner.lock().busy.read(now)
    }

    /// Sets the endpoints that waiting requests go to, how many may wait, and whether other
    /// endpoints may come.
    pub(crate) fn install(self: &Arc<Self>, targets: Targets, max: u32, expects_more: bool) {
        let mut inner = self.inner.lock();
        let pods = Pods {
            targets,
            expects_more,
        };
        let old = std::mem::replace(&mut inner.pods, pods);
        inner.max = max;
        inner.closed = false;
        drop(inner);
        drop(old);
        self.hand_out();
        self.pod_left();
    }

    /// Sends away all that wait, and all that come later.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.pods.targets = Targets::default();
        let now = Instant::now();
        while inner.waiters.pop(None, |_| true).is_some() {
            inner.busy.end(now);
        }
        self.note_length(&inner);
    }

    /// Takes a slot of one of `targets`, or waits up to `timeout` for a slot of those that are
    /// installed. The request has `arrived` just now: the clock is read again only if it waits.
    ///
    /// While it waits, `body` goes on; once that is there, the request's client is not slow any more.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        targets: &Targets,
        timeout: Duration,
        arrived: Instant,
        asker: Asker,
        body: impl Future<Output = Result<Lane, Fault>>,
    ) -> Result<Slot, Fault> {
        // No new request overtakes those that wait.
        if self.waiting() == 0 {
            if let Some(slot) = self.take(targets, asker.client, arrived) {
                return Ok(slot);
            }
            // A request that came meanwhile may have missed a slot that this client may not have.
            if self.waiting() > 0 {
                self.hand_out();
            }
        }
        let mut ticket = match self.enter(asker, timeout)? {
            Entry::Slot(slot) => return Ok(slot),
            Entry::Ticket(ticket) => ticket,
        };
        match tokio::time::timeout(timeout, ticket.wait(body)).await {
            Ok(slot) => slot,
            // A slot may have come in the same moment.
            Err(_) => ticket.leave().ok_or(Fault::QueueTimeout),
        }
    }

    /// Takes a slot of one of `targets` other than that of `slot`, which is given back soon, for
    /// the same client, without waiting: the request has had its turn, and those that wait get the
    /// slot that it gives back. The request has `failed` there.
    pub(crate) fn acquire_other(
        self: &Arc<Self>,
        targets: &Targets,
        slot: &Slot,
        failed: Fault,
    ) -> Option<Slot> {
        let except = match &slot.place {
            // It has other pods, most likely.
            Place::Node(_) if failed != Fault::NodeLost => None,
            place => Some(place),
        };
        let place = targets.least_loaded(except)?;
        self.shares.take(slot.client, |_| true);
        Some(Slot::new(place, self, slot.client, Instant::now()))
    }

    /// Gives free slots to those that wait, in their order.
    fn hand_out(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        let unused = self.serve(&mut inner, Instant::now());
        drop(inner);
        // Giving it back may lock the queue.
        drop(unused);
    }

    /// Whether requests wait that none of the installed endpoints could ever take.
    pub(crate) fn is_parked(&self) -> bool {
        // Nearly always no request waits, and seeing that takes no lock.
        self.waiting() > 0 && {
            let inner = self.inner.lock();
            inner.waiters.len() > 0 && inner.pods.are_gone()
        }
    }

    /// Sends those away that wait for nothing: no pod is ready, and none can become so in their time.
    /// To be called after an endpoint has become one that cannot.
    fn dismiss_hopeless(&self) {
        if self.waiting() == 0 {
            return;
        }
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let is_hopeless = |waiter: &Waiter| !inner.pods.have_chance(waiter.until);
        let dismissed = inner.waiters.take_all(is_hopeless);
        let now = Instant::now();
        for waiter in dismissed {
            inner.busy.end(now);
            // One that has gone needs no answer.
            let _ = waiter.slot.send(Err(Fault::NoPod));
        }
        self.note_length(inner);
    }

    /// Gives a pod that keeps failing no requests for a while, unless too few would be left. Whether
    /// it did. The ejection ends with its time; the timer is for the requests that wait then.
    fn eject(self: &Arc<Self>, place: &Place) -> bool {
        let inner = self.inner.lock();
        if !inner.pods.may_eject(place) {
            return false;
        }
        let now = Instant::now();
        let time = place.eject(now);
        drop(inner);
        tracing::info!(%place, ?time, "ejected: it failed too often");
        let queue = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(now + time).await;
            if let Some(queue) = queue.upgrade() {
                queue.hand_out();
            }
        });
        true
    }

    fn enter(self: &Arc<Self>, asker: Asker, timeout: Duration) -> Result<Entry, Fault> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Fault::NoService);
        }
        inner.pods.end_panic();
        let now = Instant::now();
        // What the caller looked at may be out of date.
        if inner.waiters.len() == 0
            && let Some(slot) = self.take(&inner.pods.targets, asker.client, now)
        {
            return Ok(Entry::Slot(slot));
        }
        // What is too far away to be an instant never comes.
        let until = now.checked_add(timeout).unwrap_or(now + FAR);
        if !inner.pods.have_chance(until) {
            return Err(Fault::NoPod);
        }
        let (sender, slot) = oneshot::channel();
        let waiter = Waiter {
            until,
            slot: sender,
        };
        let max = inner.max as usize;
        let share = client::share_of(max as u64, self.buffers.client_share) as usize;
        let Some((number, displaced)) = inner.waiters.push(asker, waiter, max, share) else {
            return Err(Fault::QueueFull);
        };
        match displaced {
            // One for one: as many wait as before.
            Some(waiter) => drop(waiter.slot.send(Err(Fault::QueueFull))),
            None => inner.busy.begin(now),
        }
        self.note_length(&inner);
        let unused = self.serve(&mut inner, now);
        // Later requests wait for what the first one has set off.
        if inner.waiters.len() == 1 && inner.pods.are_gone() {
            self.parked.notify_one();
        }
        drop(inner);
        drop(unused);
        self.look_for_slow();
        Ok(Entry::Ticket(Ticket {
            number,
            queue: self.clone(),
            slot,
        }))
    }

    /// Matches waiters with free slots. Slots that found no taker come back; they must be dropped
    /// without the lock.
    #[must_use]
    fn serve(self: &Arc<Self>, inner: &mut Inner, now: Instant) -> Vec<Slot> {
        let mut unused = Vec::new();
        while inner.waiters.len() > 0
            && let Some(place) = inner.pods.targets.least_loaded(None)
        {
            let targets = &inner.pods.targets;
            let is_share = |count| targets.is_share(count, self.buffers.client_share);
            let may = |client| self.shares.take(client, is_share);
            let Some(next) = inner.waiters.pop(place.home(), may) else {
                // All that wait have a client with its share. No other request has missed this one:
                // the queue is locked, and it is not empty.
                place.release();
                break;
            };
            inner.busy.end(now);
            let mut slot = Slot::new(place, self, next.client, now);
            if let Place::Node(it) = &mut slot.place {
                it.stood = Some(next.ticket);
            }
            unused.extend(next.item.slot.send(Ok(slot)).err().and_then(Result::ok));
        }
        self.note_length(inner);
        unused
    }

    /// Makes what holds a slot known that may wait for its client, until what comes back is dropped.
    pub(crate) fn hold<H: Holder + 'static>(self: &Arc<Self>, holder: &Arc<H>) -> Hold {
        let hold = self.holds.add(holder);
        self.look_for_slow();
        hold
    }

    /// Whether a request waits for which a slot may be taken back from slow clients.
    pub(crate) fn is_contended(&self) -> bool {
        self.wanted.load(SeqCst) > 0
    }

    /// Has a task look for slow clients until no request waits for a slot or no holder can be
    /// waiting for its client. To be called when either may have changed.
    fn look_for_slow(self: &Arc<Self>) {
        if !self.is_contended() || !self.holds.begin() {
            return;
        }
        let queue = Arc::clone(self);
        tokio::spawn(async move {
            // Since this task began, slow ones among them.
            let mut most_waiting = 1;
            while let Some(holders) = queue.holds.look(|| queue.is_contended()) {
                let wanted = queue.wanted();
                if wanted > 0 {
                    most_waiting = queue.waiting().max(most_waiting);
                    take_back(holders, wanted, most_waiting);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
    }

    /// How many wait for which a slot is taken back from slow clients: not those whose client has
    /// its share of the slots.
    fn wanted(&self) -> usize {
        let inner = self.inner.lock();
        let may = |client| {
            let targets = &inner.pods.targets;
            let may = |count| targets.is_share(count, self.buffers.client_share);
            self.shares.could_take(client, may)
        };
        inner.waiters.ahead_of(may)
    }

    /// Says how many wait to those that do not take the lock.
    fn note_length(&self, inner: &Inner) {
        self.waiting.store(inner.waiters.len() as u32, SeqCst);
        self.wanted.store(inner.waiters.ahead() as u32, SeqCst);
    }
}

impl Owner for Queue {
    fn slot_freed(self: Arc<Self>) {
        self.hand_out();
    }

    fn pod_left(&self) {
        if self.is_parked() {
            self.parked.notify_one();
        }
        self.dismiss_hopeless();
    }
}

/// Longer than any request may wait.
pub(crate) const FAR: Duration = Duration::from_secs(1 << 30);

impl Ticket {
    /// Leaves the queue, with the slot if it has come.
    fn leave(mut self) -> Option<Slot> {
        self.remove();
        self.slot.try_recv().ok()?.ok()
    }

    /// Waits for the slot, and goes on with the body meanwhile.
    async fn wait(
        &mut self,
        body: impl Future<Output = Result<Lane, Fault>>,
    ) -> Result<Slot, Fault> {
        let mut body = std::pin::pin!(body);
        let mut is_there = false;
        loop {
            tokio::select! {
                biased;
                slot = &mut self.slot => return slot.unwrap_or(Err(Fault::NoService)),
                read = body.as_mut(), if !is_there => {
                    let lane = read?;
                    is_there = true;
                    self.promote(lane);
                }
            }
        }
    }

    /// Its client is not slow any more.
    fn promote(&self, lane: Lane) {
        let mut inner = self.queue.inner.lock();
        inner.waiters.promote(self.number, lane);
        self.queue.note_length(&inner);
        drop(inner);
        self.queue.look_for_slow();
    }

    /// After this no slot is sent here any more.
    fn remove(&self) {
        let mut inner = self.queue.inner.lock();
        if inner.waiters.remove(self.number).is_some() {
            inner.busy.end(Instant::now());
            self.queue.note_length(&inner);
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
