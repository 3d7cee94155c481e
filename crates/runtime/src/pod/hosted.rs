//! The task that owns an instance, and the way for a caller to poll it where the call is made.
//!
//! A caller that has given the instance something to do would have to wait for its task to be polled,
//! and then to be polled itself. If nothing else polls the task just then, the caller does it at once,
//! on its own thread: most answers are there when that returns. The instance stays with its task all the
//! same. Dropping the call drops nothing of it, and whatever it waits for wakes its task.
//!
//! | what | written by | read by |
//! |---|---|---|
//! | `work`, under a lock | the task and callers poll it; at its end, or by [`end`](Hosted::end), it is dropped | the same |
//! | `task` | the task, before each poll | what wakes the work |
//! | `visited` | a caller: from before it gives the work something to do until it has unlocked it | what wakes the work |
//! | `woken` | what wakes the work; a caller clears it before it polls | a caller, after it has cleared `visited` |
//! | `over` | `end`, once | all that have unlocked the work |
//!
//! While it is visited a wake-up only sets `woken`: the caller is about to poll, or does. What comes
//! too late for that poll the caller passes on to the task. None is lost, because a wake-up sets
//! `woken` before it reads `visited`, and a caller clears `visited` before it reads `woken`; all four
//! accesses are sequentially consistent, so one of them sees the other. Of two callers in turn the first
//! may clear `visited` for the second: then the task is woken once too often. The same order between
//! `over` and the lock makes sure that the work is dropped: `end` sets `over` before it tries the lock, and
//! what has held the lock reads `over` after it has let go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::{
    lane::{self, Work},
    observe::observed::{self, MAX_DEPTH},
};

/// Whether this thread may poll work for another task: not one that gives way to others, and no deeper
/// than so many instances inside one another.
pub(super) fn may_visit() -> bool {
    !lane::is_slow_thread() && observed::depth() < MAX_DEPTH
}

/// Work with a task of its own that callers may poll.
pub(super) struct Hosted {
    work: Mutex<Option<Work<()>>>,
    task: AtomicWaker,
    visited: AtomicBool,
    woken: AtomicBool,
    over: AtomicBool,
}

impl Hosted {
    pub(super) fn new(work: Work<()>) -> Arc<Self> {
        Arc::new(Self {
            work: Mutex::new(Some(work)),
            task: AtomicWaker::new(),
            visited: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            over: AtomicBool::new(false),
        })
    }

    /// What the task is to do. The work ends with it.
    pub(super) fn task(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let ends = EndOnDrop(Arc::clone(self));
        let waker = Waker::from(Arc::clone(self));
        std::future::poll_fn(move |cx| {
            let hosted = &ends.0;
            hosted.task.register(cx.waker());
            match hosted.try_poll(&waker) {
                Some(poll) => poll,
                None => {
                    // A caller polls it on another thread, and passes this turn on.
                    hosted.wake_by_ref();
                    Poll::Pending
                }
            }
        })
    }

    /// Calls `give`, which gives the work something to do, and polls the work at once if nothing else
    /// does.
    pub(super) fn visit<T>(self: &Arc<Self>, give: impl FnOnce() -> T) -> T {
        let Some(mut work) = self.work.try_lock() else {
            return give();
        };
        self.visited.store(true, SeqCst);
        let given = give();
        self.woken.store(false, SeqCst);
        let waker = Waker::from(Arc::clone(self));
        let _ = poll(&mut work, &waker);
        drop(work);
        self.let_go();
        self.visited.store(false, SeqCst);
        if self.woken.load(SeqCst) {
            self.task.wake();
        }
        given
    }

    /// Drops the work: now, or when what polls it just now has done so.
    pub(super) fn end(&self) {
        self.over.store(true, SeqCst);
        self.let_go();
    }

    /// Polls the work, unless a caller does. A poll that finds none is its end.
    fn try_poll(&self, waker: &Waker) -> Option<Poll<()>> {
        let mut work = self.work.try_lock()?;
        let polled = poll(&mut work, waker);
        drop(work);
        self.let_go();
        Some(polled)
    }

    /// Drops the work if it is over and nothing polls it. To be called after the lock was let go.
    fn let_go(&self) {
        if self.over.load(SeqCst)
            && let Some(mut work) = self.work.try_lock()
        {
            let ended = work.take();
            drop(work);
            drop(ended);
        }
    }
}

fn poll(work: &mut Option<Work<()>>, waker: &Waker) -> Poll<()> {
    let Some(inner) = work else {
        return Poll::Ready(());
    };
    let polled = inner.as_mut().poll(&mut Context::from_waker(waker));
    if polled.is_ready() {
        *work = None;
    }
    polled
}

impl Wake for Hosted {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, SeqCst);
        if !self.visited.load(SeqCst) {
            self.task.wake();
        }
    }
}

/// Ends the work when its task is gone.
struct EndOnDrop(Arc<Hosted>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests;
