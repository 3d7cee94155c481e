//! The cell of an instance: what the host knows of it from outside the store.
//!
//! The store is reached only by the task that polls it, and not while a guest runs. So what other
//! tasks and threads want to know stands here, in one `Arc` for each instance.
//!
//! | what | written by | read by |
//! |---|---|---|
//! | `run`: whether it runs or is blocked ([`crate::run_state`]) | its task, its wakers, its pod's quota | the detector of deadlocks, probes |
//! | `cpu`: what it has used ([`CpuMeter`]) | its task; the time of a wake-up by the waker | its task at each epoch tick, probes |
//! | `waits`: its requests and what its guest waits for, under a lock | its task, and bodies that other tasks read | the detector, reports |
//! | `open`: whether another request could come in | the task that takes requests | the detector |
//! | `deadlock`: the one that it is the victim of, once | the detector | its task |
//! | `called_out`: whether its guest has called a server | its task | the task that answers the caller |
//!
//! The life of a wait: the guest calls a host function, which notes in `waits` what could end the
//! call and returns pending. The poll of the store ends, and [`Cell::pause`] marks the instance
//! blocked. If nothing that is certainly alive could end the wait, the cell goes to [`Suspects`],
//! and the detector looks at it from its own thread. What ends the wait uses the cell as the waker:
//! first the run state, then the meter, then the task, so that a task that runs because of a
//! wake-up sees it in both. The note is taken back when the host function returns.
//!
//! The detector reads `blocked`, then `waits`, then `blocked` again: with the same number of changes
//! the waits are those of one pause. The victim of a deadlock is woken, and fails where it is blocked: in
//! the host function if it has noted one, as a whole if not.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Poll, Wake},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use sampan_core::name::PodName;

use super::{
    source::{InboundRequest, Source},
    suspects::Suspects,
    waits::{Wait, Waits},
};
use crate::{meter::CpuMeter, report::Deadlock, run_state::RunState};

/// One instance as the host sees it from outside.
pub(crate) struct Cell {
    pub(crate) cpu: CpuMeter,
    pub(crate) run: Arc<RunState>,
    pod: PodName,
    /// Whether a request could come in now, which could end a wait of another one.
    open: AtomicBool,
    deadlock: OnceLock<Arc<Deadlock>>,
    /// Whether its guest has called anything outside: its request must not be tried again.
    called_out: AtomicBool,
    suspects: Arc<Suspects<Self>>,
    waits: Mutex<Waits>,
}

impl Cell {
    pub(crate) fn new(
        pod: PodName,
        registers: bool,
        cpu: CpuMeter,
        suspects: &Arc<Suspects<Self>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cpu,
            run: RunState::new(),
            pod,
            open: AtomicBool::new(false),
            deadlock: OnceLock::new(),
            called_out: AtomicBool::new(false),
            suspects: Arc::clone(suspects),
            waits: Mutex::new(Waits::new(registers)),
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
        self.waits.lock()
    }

    /// Notes a request that its guest begins to answer.
    pub(crate) fn begin(&self, inbound: &Arc<InboundRequest>) {
        if let Some(call) = &inbound.call {
            call.reach(&self.run);
        }
        self.waits().requests.push(Arc::clone(inbound));
    }

    /// Notes that its guest has nothing more to do for a request.
    pub(crate) fn end(&self, inbound: &Arc<InboundRequest>) {
        let mut waits = self.waits();
        waits.requests.retain(|it| !Arc::ptr_eq(it, inbound));
    }

    /// Requests that its guest is answering, without the host's own questions.
    pub(crate) fn clients(&self) -> usize {
        let waits = self.waits();
        waits.requests.iter().filter(|it| !it.is_probe()).count()
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

    /// For how long it has waited for a processor since this was asked for the first time, until it
    /// was polled and where its thread was preempted in a poll. The time in which it was held back is
    /// not part of it.
    pub(crate) fn starved(&self) -> Duration {
        let starved = self.run.starved();
        starved + self.cpu.preempted(self.run.is_running())
    }

    /// Whether it may run now, as far as that depends on what its pod has used.
    pub(super) fn may_run(&self) -> bool {
        let quota = self.cpu.quota();
        quota.is_none_or(|quota| quota.admits(&self.run))
    }

    /// Nothing runs it any more.
    pub(super) fn rest(&self) {
        if self.run.is_in_line()
            && let Some(quota) = self.cpu.quota()
        {
            quota.forget(&self.run);
        }
        self.run.rest();
    }

    /// Ends its wait: the host function it is blocked in fails, or the instance as a whole.
    pub(crate) fn fail(self: &Arc<Self>, deadlock: &Arc<Deadlock>) {
        // Of two verdicts the first has ended it.
        let _ = self.deadlock.set(Arc::clone(deadlock));
        self.wake_by_ref();
    }

    /// Runs the instance, until it as a whole is the victim of a deadlock.
    pub(crate) async fn unless_deadlocked<T>(
        &self,
        work: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match self.deadlock.get() {
            // One that is blocked in a host function fails there.
            Some(deadlock) if self.waits().call.is_none() => {
                let victim = DeadlockVictim(Arc::clone(deadlock));
                Poll::Ready(Err(wasmtime::Error::new(victim)))
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
            if let Some(deadlock) = self.deadlock.get() {
                let victim = DeadlockVictim(Arc::clone(deadlock));
                return Poll::Ready(Err(wasmtime::Error::new(victim)));
            }
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if let Some(sources) = sources.take() {
                let sources = sources();
                if sources.iter().any(|it| matches!(it, Source::Past)) {
                    self.run.expect_wake();
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
    pub(crate) fn register(self: &Arc<Self>, function: &'static str, source: Source) -> WaitNote {
        let id = self.waits().register(function, source);
        WaitNote {
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
    pub(super) fn pause(self: &Arc<Self>) {
        if !self.run.pause() {
            return;
        }
        if !tokio::task::coop::has_budget_remaining() {
            // What it polled may have been ready all the same.
            self.wake_by_ref();
            return;
        }
        self.cpu.block();
        self.report();
    }

    /// Who could end its wait has changed while it waits.
    pub(crate) fn reconsider(self: &Arc<Self>) {
        if self.run.blocked().is_some() {
            self.report();
        }
    }

    /// Has the detector of deadlocks look at it, if it could be part of one.
    fn report(self: &Arc<Self>) {
        if self.waits().could_be_stuck() {
            self.suspects.report(self);
        }
    }
}

impl Wake for Cell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.run.wake() {
            self.cpu.wake();
        }
        // After the meter has the time: this is what makes the task look at it.
        self.run.resume();
    }
}

/// Takes a wait back.
struct Noted<'a>(&'a Cell);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.waits().call = None;
    }
}

/// Takes a registered wait back when it is dropped.
#[must_use]
pub(crate) struct WaitNote {
    pub(super) cell: Arc<Cell>,
    id: u64,
}

impl WaitNote {
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
}

impl Drop for WaitNote {
    fn drop(&mut self) {
        self.cell.waits().take_back(self.id);
    }
}

/// The error of a wait that never would have ended.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the wait can never end: it is part of a deadlock")]
pub(crate) struct DeadlockVictim(pub(crate) Arc<Deadlock>);
