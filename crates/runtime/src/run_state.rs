//! The run state of one instance: whether it runs, could run, is blocked, or is held back.
//!
//! | field | values | written by | read by |
//! |---|---|---|---|
//! | `state` | idle, running, runnable, blocked | the task that polls the instance; its wakers and its pod's quota store runnable | the detector of deadlocks, probes |
//! | `changes` | the number of wake-ups and pauses | the same task and wakers | the detector |
//! | `place` | free, held, ahead | only with the lock of the pod's quota held | the task, the quota, probes |
//! | `soon` | whether the scheduler is going to poll the instance though no waker was used | the task | the task |
//! | `measured`, `starved`, `held` | times that probes ask for | the task, wakers and the quota | probes |
//!
//! *Blocked* is exact: a poll has returned pending, and no waker was used since it began. Three
//! orders make it so.
//!
//! - A pause moves running to blocked by a compare-and-exchange. A wake-up during the poll has
//!   stored runnable, so it is not lost.
//! - A pause counts before it stores blocked, so a reader that sees the second pause as blocked
//!   sees its count too: the same count twice is the same pause.
//! - A wake-up stores runnable before it counts. [`RunState::blocked`] reads the count, the state
//!   and the count again: with equal counts no wake-up lies between, and one that has not counted
//!   yet either shows in the state, or comes after a moment at which the instance was blocked.
//!
//! All stores are releases and all loads acquires, but for `soon` and the stopwatches: `soon` is of
//! one task only, and a stopwatch that is read a little late is a little short.

mod stopwatch;

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::Waker,
    time::{Duration, Instant},
};

use futures::task::AtomicWaker;
use stopwatch::Stopwatch;

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

/// Whether one instance runs, and where it stands with its pod's quota.
pub(crate) struct RunState {
    state: AtomicU8,
    changes: AtomicU64,
    task: AtomicWaker,
    /// A wake-up is certain, but the scheduler has put it off.
    soon: AtomicBool,
    /// Whether a probe wants to know for how long it waits for a processor.
    measured: AtomicBool,
    /// That, while it is known: from when it was woken until it runs.
    starved: Stopwatch,
    place: AtomicU8,
    held: Stopwatch,
    /// What the stopwatches count from.
    base: Instant,
}

impl RunState {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(IDLE),
            changes: AtomicU64::new(0),
            task: AtomicWaker::new(),
            soon: AtomicBool::new(false),
            measured: AtomicBool::new(false),
            starved: Stopwatch::default(),
            place: AtomicU8::new(FREE),
            held: Stopwatch::default(),
            base: Instant::now(),
        })
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The number of changes if it is blocked now.
    pub(crate) fn blocked(&self) -> Option<u64> {
        let changes = self.changes.load(Acquire);
        (self.state.load(Acquire) == BLOCKED && self.changes.load(Acquire) == changes)
            .then_some(changes)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state.load(Acquire) == IDLE
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state.load(Acquire) == RUNNING
    }

    /// Notes that the scheduler will wake it, though it has not been woken yet.
    pub(crate) fn expect_wake(&self) {
        self.soon.store(true, Relaxed);
    }

    /// For how long it has waited to be polled since this was asked for the first time. The time
    /// in which it was held back is not part of it.
    pub(crate) fn starved(&self) -> Duration {
        let was_measured = self.measured.swap(true, AcqRel);
        if !was_measured && self.state.load(Acquire) == RUNNABLE {
            self.note_runnable();
        }
        self.starved.read(self.nanos())
    }

    /// It may run, and does not yet.
    fn note_runnable(&self) {
        if self.measured.load(Relaxed) && !self.is_held() {
            self.starved.start(|| self.nanos());
        }
    }

    /// Whether it could run if its pod had not used up its share of the processors.
    pub(crate) fn is_held(&self) -> bool {
        self.place.load(Acquire) == HELD
    }

    /// Whether its pod's quota knows it: it is held back, or on its way from there to a processor.
    pub(crate) fn is_in_line(&self) -> bool {
        self.place.load(Acquire) != FREE
    }

    /// For how long it has been held back so far.
    pub(crate) fn held(&self) -> Duration {
        self.held.read(self.nanos())
    }

    /// It is held back from now on. To the detector and to probes it can run.
    pub(crate) fn hold(&self) {
        self.place.store(HELD, Release);
        self.starved.stop(|| self.nanos());
        self.held.start(|| self.nanos());
        self.state.store(RUNNABLE, Release);
    }

    /// It is held back no longer, and is the next to run.
    pub(crate) fn release(&self) {
        self.held.stop(|| self.nanos());
        self.place.store(AHEAD, Release);
        self.note_runnable();
    }

    /// It comes to run, or never will. Says whether it was one of the next.
    pub(crate) fn pass(&self) -> bool {
        self.place.swap(FREE, AcqRel) == AHEAD
    }

    /// Wakes this task when it is resumed.
    pub(crate) fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Has its task look whether it may run. By itself this is no wake-up.
    pub(crate) fn resume(&self) {
        self.task.wake();
    }

    /// A waker of it was used: it can run. Says whether it could not before. The task is still to
    /// be resumed.
    pub(crate) fn wake(&self) -> bool {
        let was = self.state.swap(RUNNABLE, AcqRel);
        self.changes.fetch_add(1, AcqRel);
        if was != RUNNING {
            self.note_runnable();
        }
        was != RUNNABLE
    }

    /// Its task polls it.
    pub(crate) fn run(&self) {
        self.state.store(RUNNING, Release);
        self.starved.stop(|| self.nanos());
    }

    /// A poll has not come to an end. Says whether it is blocked now.
    pub(crate) fn pause(&self) -> bool {
        if self.soon.swap(false, Relaxed) {
            self.note_runnable();
            self.state.store(RUNNABLE, Release);
            return false;
        }
        self.changes.fetch_add(1, AcqRel);
        let blocked = self
            .state
            .compare_exchange(RUNNING, BLOCKED, AcqRel, Acquire);
        if blocked.is_err() {
            // Woken while it ran: from now on it waits to run again.
            self.note_runnable();
        }
        blocked.is_ok()
    }

    /// There is nothing to do for it.
    pub(crate) fn rest(&self) {
        self.starved.stop(|| self.nanos());
        self.state.store(IDLE, Release);
    }
}
