//! The cell of an instance: whether it runs, and what it waits for.

use std::{
    error::Error as StdError,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures::task::AtomicWaker;
use pin_project_lite::pin_project;
use sampan_core::name::PodName;

use super::{
    source::{Asked, Source},
    stopwatch::Stopwatch,
};
use crate::{
    deadlock::{Deadlock, Detector},
    meter::CpuMeter,
};

/// Nothing is asked of the instance, or it has not begun.
const IDLE: u8 = 0;
/// A thread runs it.
const RUNNING: u8 = 1;
/// It has been woken.
const RUNNABLE: u8 = 2;
/// It has returned without having been woken since.
const BLOCKED: u8 = 3;

/// Its pod's share of the processors does not keep it from running.
const FREE: u8 = 0;
/// It stands in the line of those held back.
const HELD: u8 = 1;
/// It has left the line, and has not run since.
const AHEAD: u8 = 2;

/// One instance as the host sees it from outside.
pub(crate) struct Cell {
    pub(crate) cpu: CpuMeter,
    pod: PodName,
    /// Whether a request could come in now, which could end a wait of another one.
    open: AtomicBool,
    state: AtomicU8,
    /// Counts wake-ups and returns: the same number twice means that nothing happened between.
    changes: AtomicU64,
    task: AtomicWaker,
    /// A wake-up is certain, but the scheduler has put it off.
    soon: AtomicBool,
    doom: OnceLock<Arc<Deadlock>>,
    /// Whether its guest has called anything outside: its request must not be tried again.
    called_out: AtomicBool,
    /// Whether anybody wants to know for how long it waits for a processor.
    measured: AtomicBool,
    /// That, while it is known: from when it was woken until it runs.
    starved: Stopwatch,
    /// Where it is with its pod's quota. Changes with that quota's lock held.
    place: AtomicU8,
    held: Stopwatch,
    detector: Arc<Detector>,
    waits: Mutex<Waits>,
}

/// What an instance is at.
#[derive(Default)]
pub(crate) struct Waits {
    /// Requests that its guest is answering.
    pub(crate) requests: Vec<Arc<Asked>>,
    /// The host function of WASI 0.2 in which it is blocked.
    pub(crate) call: Option<Wait>,
    /// What has registered itself.
    pub(crate) leaves: Vec<Leaf>,
    /// Whether what it waits for registers itself, as everything in WASI 0.3 does.
    registers: bool,
    next: u64,
}

impl Waits {
    /// In which function it waits, and what could end that.
    pub(crate) fn sources(&self) -> (&'static str, Vec<&Source>) {
        let leaves = || self.leaves.iter().map(|leaf| &leaf.source);
        let Some(call) = &self.call else {
            if !self.registers {
                // A host function without a label, for files for example.
                return ("a host function", vec![&Source::Unknown]);
            }
            let function = self
                .leaves
                .first()
                .map_or("the guest's own code", |leaf| leaf.function);
            return (function, leaves().collect());
        };
        let mut sources: Vec<_> = call.sources.iter().collect();
        if sources
            .iter()
            .any(|source| matches!(source, Source::Leaves))
            && !self.leaves.is_empty()
        {
            sources.retain(|source| !matches!(source, Source::Leaves));
            sources.extend(leaves());
        }
        (call.function, sources)
    }
}

/// A wait in a host function that blocks the whole instance.
#[derive(Clone)]
pub(crate) struct Wait {
    pub(crate) function: &'static str,
    /// Any of these ends it.
    pub(crate) sources: Vec<Source>,
    pub(crate) since: Instant,
}

/// Something that will wake the instance.
#[derive(Clone)]
pub(crate) struct Leaf {
    id: u64,
    pub(crate) function: &'static str,
    pub(crate) source: Source,
    pub(crate) since: Instant,
}

impl Cell {
    pub(crate) fn new(
        pod: PodName,
        registers: bool,
        cpu: CpuMeter,
        detector: &Arc<Detector>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cpu,
            pod,
            open: AtomicBool::new(false),
            state: AtomicU8::new(IDLE),
            changes: AtomicU64::new(0),
            task: AtomicWaker::new(),
            soon: AtomicBool::new(false),
            doom: OnceLock::new(),
            called_out: AtomicBool::new(false),
            measured: AtomicBool::new(false),
            starved: Stopwatch::default(),
            place: AtomicU8::new(FREE),
            held: Stopwatch::default(),
            detector: Arc::clone(detector),
            waits: Mutex::new(Waits {
                registers,
                ..Waits::default()
            }),
        })
    }

    pub(crate) fn pod(&self) -> &PodName {
        &self.pod
    }

    /// Says whether requests are taken while others are under way.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Acquire)
    }

    /// Whether what it waits for must register itself.
    pub(crate) fn registers(&self) -> bool {
        self.waits().registers
    }

    pub(crate) fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of changes if it is blocked now.
    pub(crate) fn blocked(&self) -> Option<u64> {
        // In this order: a wake-up after the first reading shows in the second.
        let changes = self.changes.load(Acquire);
        (self.state.load(Acquire) == BLOCKED && self.changes.load(Acquire) == changes)
            .then_some(changes)
    }

    /// Notes a request that its guest begins to answer.
    pub(crate) fn begin(self: &Arc<Self>, asked: &Arc<Asked>) {
        asked.begin(self);
        if let Some(call) = &asked.call {
            call.reach(self);
        }
        self.waits().requests.push(Arc::clone(asked));
    }

    /// Notes that its guest has nothing more to do for a request.
    pub(crate) fn end(&self, asked: &Arc<Asked>) {
        let mut waits = self.waits();
        waits.requests.retain(|it| !Arc::ptr_eq(it, asked));
    }

    /// Requests that its guest is answering, without the host's own questions.
    pub(crate) fn clients(&self) -> usize {
        let waits = self.waits();
        waits.requests.iter().filter(|it| !it.is_probe()).count()
    }

    /// Notes that the scheduler will wake it, though it has not been woken yet.
    pub(crate) fn expect_wake(&self) {
        self.soon.store(true, Relaxed);
    }

    pub(crate) fn call_out(&self) {
        self.called_out.store(true, Relaxed);
    }

    pub(crate) fn has_called_out(&self) -> bool {
        self.called_out.load(Relaxed)
    }

    /// What comes now is another request.
    pub(crate) fn forget_calls(&self) {
        self.called_out.store(false, Relaxed);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state.load(Acquire) == IDLE
    }

    /// For how long it has waited for a processor since this was asked for the first time, until it
    /// was polled and where its thread was preempted in a poll. The time in which it was held back is
    /// not part of it.
    pub(crate) fn starved(&self) -> Duration {
        let was_measured = self.measured.swap(true, AcqRel);
        if !was_measured && self.state.load(Acquire) == RUNNABLE {
            self.note_wake();
        }
        let is_running = self.state.load(Acquire) == RUNNING;
        self.starved.read(self.cpu.wall_nanos()) + self.cpu.preempted(is_running)
    }

    /// It may run, and does not yet.
    fn note_wake(&self) {
        if self.measured.load(Relaxed) && !self.is_held() {
            self.starved.start(|| self.cpu.wall_nanos());
        }
    }

    /// It runs.
    fn note_run(&self) {
        self.starved.stop(|| self.cpu.wall_nanos());
    }

    /// Whether it could run if its pod had not used up its share of the processors.
    pub(crate) fn is_held(&self) -> bool {
        self.place.load(Acquire) == HELD
    }

    /// For how long it has been held back so far.
    pub(crate) fn held(&self) -> Duration {
        self.held.read(self.cpu.wall_nanos())
    }

    /// It is held back from now on. To whoever looks from outside it can run.
    pub(crate) fn hold(&self) {
        self.place.store(HELD, Release);
        self.note_run();
        self.held.start(|| self.cpu.wall_nanos());
        self.state.store(RUNNABLE, Release);
    }

    /// It is held back no longer, and is the next to run.
    pub(crate) fn release(&self) {
        self.held.stop(|| self.cpu.wall_nanos());
        self.place.store(AHEAD, Release);
        self.note_wake();
    }

    /// It comes to run, or never will. Says whether it was one of the next.
    pub(crate) fn pass(&self) -> bool {
        self.place.swap(FREE, AcqRel) == AHEAD
    }

    /// Has its task look whether it may run. It is not woken by this: it can run already.
    pub(crate) fn resume(&self) {
        self.task.wake();
    }

    /// Whether it may run now, as far as that depends on what its pod has used.
    fn may_run(self: &Arc<Self>) -> bool {
        let quota = self.cpu.quota();
        quota.is_none_or(|quota| quota.admits(self))
    }

    /// Nothing runs it any more.
    fn rest(self: &Arc<Self>) {
        if self.place.load(Acquire) != FREE
            && let Some(quota) = self.cpu.quota()
        {
            quota.forget(self);
        }
        self.starved.stop(|| self.cpu.wall_nanos());
        self.state.store(IDLE, Release);
    }

    /// Ends its wait: the host function it is blocked in fails, or the instance as a whole.
    pub(crate) fn doom(self: &Arc<Self>, deadlock: &Arc<Deadlock>) {
        // Of two verdicts the first has ended it.
        let _ = self.doom.set(Arc::clone(deadlock));
        self.wake_by_ref();
    }

    /// Runs the instance, until it as a whole is the victim of a deadlock.
    pub(crate) async fn unless_doomed<T>(
        &self,
        work: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match self.doom.get() {
            // One that is blocked in a host function fails there.
            Some(deadlock) if self.waits().call.is_none() => {
                let doomed = Doomed(Arc::clone(deadlock));
                Poll::Ready(Err(wasmtime::Error::new(doomed)))
            }
            _ => work.as_mut().poll(cx),
        })
        .await
    }

    /// Waits in a host function that blocks the instance. Any of `sources` ends the wait. An error
    /// means that it never would have ended.
    pub(crate) async fn block<F: Future>(
        &self,
        function: &'static str,
        sources: impl FnOnce() -> Vec<Source>,
        work: F,
    ) -> wasmtime::Result<F::Output> {
        let mut work = pin!(work);
        let mut sources = Some(sources);
        let mut noted = None;
        poll_fn(|cx| {
            if let Some(deadlock) = self.doom.get() {
                let doomed = Doomed(Arc::clone(deadlock));
                return Poll::Ready(Err(wasmtime::Error::new(doomed)));
            }
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if let Some(sources) = sources.take() {
                let sources = sources();
                if sources.iter().any(|it| matches!(it, Source::Past)) {
                    self.expect_wake();
                }
                self.waits().call = Some(Wait {
                    function,
                    sources,
                    since: Instant::now(),
                });
                noted = Some(Noted(self));
            }
            Poll::Pending
        })
        .await
    }

    /// Notes something that will wake the instance, until what comes back is dropped.
    pub(crate) fn leaf(self: &Arc<Self>, function: &'static str, source: Source) -> LeafNote {
        let mut waits = self.waits();
        let id = waits.next;
        waits.next += 1;
        waits.leaves.push(Leaf {
            id,
            function,
            source,
            since: Instant::now(),
        });
        drop(waits);
        LeafNote {
            cell: Arc::clone(self),
            id,
        }
    }

    /// Something has ended that a part of the guest had to wait for. In WASI 0.2 the whole of it
    /// waits or none.
    pub(crate) fn end_wait(&self) {
        if self.registers() {
            self.cpu.end_wait();
        }
    }

    /// What to do after a poll that has not come to an end.
    fn pause(self: &Arc<Self>) {
        if self.soon.swap(false, Relaxed) {
            self.note_wake();
            self.state.store(RUNNABLE, Release);
            return;
        }
        self.changes.fetch_add(1, AcqRel);
        let blocked = self
            .state
            .compare_exchange(RUNNING, BLOCKED, AcqRel, Acquire);
        if blocked.is_err() {
            // Woken while it ran: from now on it waits to run again.
            self.note_wake();
            return;
        }
        if !tokio::task::coop::has_budget_remaining() {
            // What it polled may have been ready all the same.
            self.wake_by_ref();
            return;
        }
        self.cpu.block();
        if self.could_be_stuck() {
            self.detector.hear(self);
        }
    }

    /// Who could end its wait has changed while it waits.
    pub(crate) fn reconsider(self: &Arc<Self>) {
        if self.blocked().is_some() && self.could_be_stuck() {
            self.detector.hear(self);
        }
    }

    /// Whether nothing that is certainly alive would end its wait. Most waits are for such a thing.
    fn could_be_stuck(&self) -> bool {
        let waits = self.waits();
        if waits.requests.is_empty() {
            return false;
        }
        let (_, sources) = waits.sources();
        let alive = |source: &&Source| source.is_alive();
        !sources.iter().any(alive)
    }
}

impl Wake for Cell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let was = self.state.swap(RUNNABLE, AcqRel);
        // After the state: who sees the old number twice sees the old state, too, and was right.
        self.changes.fetch_add(1, AcqRel);
        if was != RUNNABLE {
            self.cpu.wake();
        }
        if was != RUNNING {
            self.note_wake();
        }
        self.task.wake();
    }
}

/// Takes a wait back.
struct Noted<'a>(&'a Cell);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.waits().call = None;
    }
}

/// Takes a leaf back when it is dropped.
#[must_use]
pub(crate) struct LeafNote {
    cell: Arc<Cell>,
    id: u64,
}

impl LeafNote {
    /// Does what the note is about. That it could not be done at once is a wait.
    pub(crate) async fn wait<F: Future>(self, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut was_pending = false;
        let output = poll_fn(|cx| {
            let poll = work.as_mut().poll(cx);
            was_pending |= poll.is_pending();
            poll
        });
        let output = output.await;
        if was_pending {
            self.cell.end_wait();
        }
        output
    }

    /// Like [`Cell::end_wait`].
    pub(crate) fn end_wait(&self) {
        self.cell.end_wait();
    }

    /// Like [`Cell::reconsider`].
    pub(crate) fn reconsider(&self) {
        self.cell.reconsider();
    }
}

impl Drop for LeafNote {
    fn drop(&mut self) {
        let mut waits = self.cell.waits();
        waits.leaves.retain(|leaf| leaf.id != self.id);
    }
}

/// The error of a wait that never would have ended.
#[derive(Clone, Debug)]
pub(crate) struct Doomed(pub(crate) Arc<Deadlock>);

impl fmt::Display for Doomed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the wait can never end: it is part of a deadlock")
    }
}

impl StdError for Doomed {}

pin_project! {
    /// A future that runs an instance: its polls are charged to it, and its pauses are noted. While
    /// its pod has used up its share of the processors it is not polled.
    pub(crate) struct Observed<F> {
        #[pin]
        inner: F,
        cell: Arc<Cell>,
        waker: Waker,
        is_limited: bool,
    }

    impl<F> PinnedDrop for Observed<F> {
        fn drop(this: Pin<&mut Self>) {
            this.project().cell.rest();
        }
    }
}

impl<F> Observed<F> {
    pub(crate) fn new(inner: F, cell: Arc<Cell>) -> Self {
        let waker = Waker::from(Arc::clone(&cell));
        Self {
            inner,
            cell,
            waker,
            is_limited: true,
        }
    }

    /// One that makes the instance. That has a limit of its own, so it is charged, and not held
    /// back.
    pub(crate) fn making(inner: F, cell: Arc<Cell>) -> Self {
        let mut observed = Self::new(inner, cell);
        observed.is_limited = false;
        observed
    }
}

impl<F: Future> Future for Observed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let cell = &**this.cell;
        if !super::ON {
            cell.cpu.begin();
            let poll = this.inner.poll(cx);
            cell.cpu.end();
            return poll;
        }
        cell.task.register(cx.waker());
        if *this.is_limited && !this.cell.may_run() {
            return Poll::Pending;
        }
        cell.state.store(RUNNING, Release);
        cell.note_run();
        cell.cpu.begin();
        let poll = this.inner.poll(&mut Context::from_waker(this.waker));
        cell.cpu.end();
        match poll.is_ready() {
            true => cell.state.store(IDLE, Release),
            false => this.cell.pause(),
        }
        poll
    }
}
