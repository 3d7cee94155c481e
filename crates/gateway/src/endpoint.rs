//! A pod as the balancer sees it: its state, its capacity and its requests in flight.

use std::{
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use parking_lot::Mutex;
use sampan_core::name::PodName;
use tokio::{sync::Notify, time::Instant};

use crate::{
    busy::Busy,
    ejection::{History, Strikes},
    stats::{Answers, Counters},
    upstream::{AnsweredBy, Upstream},
};

/// Whether a pod may get requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It gets requests.
    Ready,
    /// It gets none for now.
    Unready,
    /// It never gets one again. Final.
    Terminating,
}

/// The queue of a service, as its endpoints know it: they tell it what its requests wait for.
pub(crate) trait Owner: Send + Sync {
    /// Requests that wait may get a slot now.
    fn slot_freed(self: Arc<Self>);

    /// Requests that wait may wait for nothing now.
    fn pod_left(&self);
}

/// A pod of a service, with its count of requests in flight.
///
/// The agent makes it once per pod and publishes it as often as it likes: the count stays. It
/// belongs to one service, starts [`Unready`](EndpointState::Unready), and takes requests while it
/// is ready and published.
// What each request writes comes first, beside the counts of the `Arc`, which it writes too: most
// likely that is one cache line.
#[repr(C)]
pub struct Endpoint {
    /// One word, so that no request can slip in between "terminating" and "nothing in flight":
    /// the count in the low half, the flags in the high half.
    word: AtomicU64,
    /// From the moment a request got a slot to the moment it gave it back.
    busy: Busy,
    /// The pod counts its slots as well: a guest may keep one after its client has gone and the
    /// gateway has its own back, and then the pod makes the next request wait.
    capacity: u32,
    /// What requests took lately, in µs: each counts an eighth of what is told. It may miss some.
    pace: AtomicU32,
    strikes: Strikes,
    upstream: Arc<dyn Upstream>,
    pod: PodName,
    revision: u64,
    /// The number of the thread that its instance runs on.
    home: usize,
    idle: Notify,
    /// The queue of its service, while it is published. Locked where its state changes, by the
    /// control side and by the task of a guest that ends its pod; no request takes it on its way.
    owner: Mutex<Option<Weak<dyn Owner>>>,
    /// Where its answers are counted, once it has been published.
    answers: OnceLock<Arc<Answers>>,
    ejections: Mutex<History>,
    /// Before when it cannot become ready. Only the control side and requests that wait lock it.
    rests_until: Mutex<Option<Instant>>,
    by: AnsweredBy,
}

/// When the use of a slot began, in microseconds on the clock of its endpoint, modulo 2³²: each answer
/// on its way has one of these.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Since(u32);

/// What a quick request takes at most: less than it is worth to wake another thread for, even if there
/// are some of them before it.
const QUICK_MICROS: u32 = 2000;

const IN_FLIGHT: u64 = u32::MAX as u64;
const PUBLISHED: u64 = 1 << 32;
const READY: u64 = 1 << 33;
const TERMINATING: u64 = 1 << 34;
const FLAGS: u64 = PUBLISHED | READY | TERMINATING;

impl Endpoint {
    /// An endpoint that takes up to `capacity` requests at once, at least one. Its pod runs on the
    /// thread 0.
    pub fn new(
        pod: PodName,
        revision: u64,
        capacity: u32,
        upstream: Arc<dyn Upstream>,
    ) -> Arc<Self> {
        Self::on_thread(0, pod, revision, capacity, upstream)
    }

    /// The same for a pod that runs on one of the [numbered threads](crate::number_thread): what
    /// comes in there goes to it before others.
    pub fn on_thread(
        home: usize,
        pod: PodName,
        revision: u64,
        capacity: u32,
        upstream: Arc<dyn Upstream>,
    ) -> Arc<Self> {
        let by = AnsweredBy::new(&pod, revision);
        Arc::new(Self {
            word: AtomicU64::new(0),
            busy: Busy::default(),
            capacity: capacity.max(1),
            pace: AtomicU32::new(0),
            strikes: Strikes::default(),
            upstream,
            pod,
            revision,
            home,
            idle: Notify::new(),
            owner: Mutex::default(),
            answers: OnceLock::new(),
            ejections: Mutex::default(),
            rests_until: Mutex::default(),
            by,
        })
    }

    /// The number of the thread that its pod runs on.
    pub fn home(&self) -> usize {
        self.home
    }

    /// The pod's name.
    pub fn pod(&self) -> &PodName {
        &self.pod
    }

    /// The revision the pod runs.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many requests it takes at once.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Whether it may get requests.
    pub fn state(&self) -> EndpointState {
        let word = self.word.load(SeqCst);
        match (word & TERMINATING != 0, word & READY != 0) {
            (true, _) => EndpointState::Terminating,
            (false, true) => EndpointState::Ready,
            (false, false) => EndpointState::Unready,
        }
    }

    /// Whether it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.word.load(SeqCst) & READY != 0
    }

    /// Whether it belongs to a service that the gateway knows: only then may it get requests.
    pub fn is_published(&self) -> bool {
        self.word.load(SeqCst) & PUBLISHED != 0
    }

    /// Changes the state at once: when this returns, every later request sees it. A pod that
    /// became ready gets the requests that wait, and those that wait for nothing any more are sent
    /// away when one terminates. One that is not ready ends no wait: it may become ready again, and
    /// [`rest_until`](Self::rest_until) says when not before. `Terminating` is final: what follows
    /// it is ignored.
    pub fn set_state(&self, state: EndpointState) {
        self.update(|word| match state {
            _ if word & TERMINATING != 0 => word,
            EndpointState::Ready => word | READY,
            EndpointState::Unready => word & !READY,
            EndpointState::Terminating => word & !READY | TERMINATING,
        });
        match (state, self.owner()) {
            (EndpointState::Ready, Some(owner)) => owner.slot_freed(),
            (EndpointState::Terminating, Some(owner)) => owner.pod_left(),
            (EndpointState::Unready, _) | (_, None) => {}
        }
    }

    /// Says that the pod cannot become ready before this, or that it may at any time. Requests that
    /// cannot wait that long for any pod of the service are sent away with 503.
    pub fn rest_until(&self, until: Option<Instant>) {
        *self.rests_until.lock() = until;
        if let (Some(_), Some(owner)) = (until, self.owner()) {
            owner.pod_left();
        }
    }

    /// Whether it is ready, or may become so until then.
    pub(crate) fn may_be_ready(&self, until: Instant) -> bool {
        match self.state() {
            EndpointState::Ready => true,
            EndpointState::Unready => self.rests_until.lock().is_none_or(|rests| rests <= until),
            EndpointState::Terminating => false,
        }
    }

    /// Requests in flight. One counts from the moment the balancer picked this pod until the last
    /// byte of its response, or until the response was dropped.
    pub fn in_flight(&self) -> u32 {
        (self.word.load(SeqCst) & IN_FLIGHT) as u32
    }

    /// Resolves when the endpoint can get no more requests, being terminating or not published,
    /// and none is in flight.
    pub async fn drained(&self) {
        let mut idle = std::pin::pin!(self.idle.notified());
        loop {
            idle.as_mut().enable();
            if is_drained(self.word.load(SeqCst)) {
                return;
            }
            idle.as_mut().await;
            idle.set(self.idle.notified());
        }
    }

    /// Notes that the pod has a new instance: what the old one did is no reason to give it nothing.
    /// It is to be called while the pod is not ready. If the new one fails too, it is ejected for
    /// longer than the old.
    pub fn renew(&self) {
        self.strikes.renew();
    }

    /// Whether it is ready but gets no requests for now, because it failed too often.
    pub fn is_ejected(&self) -> bool {
        self.strikes.is_ejected(|| self.busy.micros(Instant::now()))
    }

    /// Notes that it has answered.
    pub(crate) fn succeeded(&self) {
        self.strikes.succeeded();
    }

    /// Notes that it has given no answer. Whether it should be ejected now.
    pub(crate) fn failed(&self) -> bool {
        self.strikes.failed()
    }

    /// Gives it no requests for a while from `now` on, and says how long.
    pub(crate) fn eject(&self, now: Instant) -> Duration {
        let time = self.ejections.lock().eject(now);
        self.strikes.eject(self.busy.micros(now + time));
        time
    }

    /// Ends an ejection.
    pub(crate) fn readmit(&self) {
        self.strikes.readmit();
    }

    pub(crate) fn upstream(&self) -> &dyn Upstream {
        &*self.upstream
    }

    /// Its pod, as the fields of its answers say it.
    pub(crate) fn by(&self) -> &AnsweredBy {
        &self.by
    }

    /// Lets requests of `owner` in.
    pub(crate) fn attach<O: Owner + 'static>(&self, owner: &Arc<O>, counters: &Counters) {
        self.answers
            .get_or_init(|| counters.of_revision(self.revision));
        let owner = Arc::downgrade(owner);
        *self.owner.lock() = Some(owner);
        self.update(|word| word | PUBLISHED);
    }

    /// Where its answers are counted.
    pub(crate) fn answers(&self) -> Option<Arc<Answers>> {
        self.answers.get().cloned()
    }

    /// Lets no more requests in.
    pub(crate) fn detach(&self) {
        *self.owner.lock() = None;
        self.update(|word| word & !PUBLISHED);
    }

    /// Its requests in flight, over time.
    pub(crate) fn busy(&self) -> &Busy {
        &self.busy
    }

    /// Notes that a slot is used from now on.
    pub(crate) fn is_used(&self, now: Instant) -> Since {
        self.busy.begin(now);
        Since(self.busy.micros(now) as u32)
    }

    /// Notes the end of the use of a slot, which is told before the slot is given back.
    pub(crate) fn was_used(&self, since: Since, until: Instant) {
        self.busy.end(until);
        self.took((self.busy.micros(until) as u32).wrapping_sub(since.0));
    }

    /// Notes how long it had a request.
    pub(crate) fn took(&self, micros: u32) {
        let pace = self.pace.load(Relaxed);
        self.pace.store(pace - pace / 8 + micros / 8, Relaxed);
    }

    /// Whether its requests took little lately.
    pub(crate) fn is_quick(&self) -> bool {
        self.pace.load(Relaxed) < QUICK_MICROS
    }

    /// The requests in flight if one more may come, else nothing.
    pub(crate) fn room(&self) -> Option<u32> {
        let room = room(self.word.load(SeqCst), self.capacity)?;
        (!self.is_ejected()).then_some(room)
    }

    /// How many more requests it would take now.
    pub(crate) fn free(&self) -> u32 {
        self.room().map_or(0, |in_flight| self.capacity - in_flight)
    }

    /// Whether it would take more requests, had it not as many as it can.
    pub(crate) fn is_full(&self) -> bool {
        !self.is_ejected() && self.in_flight() >= self.capacity
    }

    /// Takes a slot if there is one, also of a pod that is ejected. With `true` the caller owes a
    /// [`release`](Self::release).
    pub(crate) fn try_acquire(&self) -> bool {
        self.word
            .fetch_update(SeqCst, SeqCst, |word| {
                room(word, self.capacity).map(|_| word + 1)
            })
            .is_ok()
    }

    /// Gives a slot back.
    pub(crate) fn release(&self) {
        let word = self.word.fetch_sub(1, SeqCst) - 1;
        if is_drained(word) {
            self.idle.notify_waiters();
        }
    }

    fn update(&self, change: impl Fn(u64) -> u64) {
        let (Ok(before) | Err(before)) = self
            .word
            .fetch_update(SeqCst, SeqCst, |word| Some(change(word)));
        if is_drained(change(before)) {
            self.idle.notify_waiters();
        }
    }

    fn owner(&self) -> Option<Arc<dyn Owner>> {
        self.owner.lock().as_ref().and_then(Weak::upgrade)
    }
}

fn room(word: u64, capacity: u32) -> Option<u32> {
    let in_flight = (word & IN_FLIGHT) as u32;
    (word & FLAGS == PUBLISHED | READY && in_flight < capacity).then_some(in_flight)
}

fn is_drained(word: u64) -> bool {
    word & IN_FLIGHT == 0 && (word & TERMINATING != 0 || word & PUBLISHED == 0)
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("pod", &self.pod)
            .field("revision", &self.revision)
            .field("capacity", &self.capacity)
            .field("state", &self.state())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
