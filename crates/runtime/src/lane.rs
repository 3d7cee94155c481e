//! Where guests run: short ones where their request comes in, long ones on threads that give way.
//!
//! A guest starts on the threads that also serve connections. One that computes for longer than
//! [`FAST_SLICE`] is moved, in the middle of its call, to threads of a lower priority, of which
//! there is one for each processor. There the services take turns of one epoch tick: a service
//! that has the most guests waiting gets no more of the processors than the others. So neither a spinning
//! nor a flooding service keeps another's short requests, or its long ones, from running.

use std::{
    cell::Cell,
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use parking_lot::Mutex;
use sampan_core::provoke;
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle};

use crate::{
    meter::CpuMeter,
    threads::{self, ThreadsError},
};

/// CPU time of a request after which its guest counts as a long one.
pub(crate) const FAST_SLICE: Duration = Duration::from_millis(2);
/// How much less urgent long guests are than everything else, as a `nice` value: a third of the
/// share of a processor that both want.
const SLOW_NICE: i32 = 5;

thread_local! {
    static IS_SLOW: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is one of the slow lane.
pub(crate) fn is_slow_thread() -> bool {
    IS_SLOW.get()
}

/// Work that may change threads between two polls.
pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Whether a guest, or a pod's only instance, belongs on the slow lane.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicBool);

impl Pace {
    pub(crate) fn new(long: bool) -> Self {
        Self(AtomicBool::new(long))
    }

    pub(crate) fn is_long(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, long: bool) {
        // Most requests find what they would write.
        if self.is_long() != long {
            self.0.store(long, Relaxed);
        }
    }

    /// Takes the next request to be as long as the last one was.
    pub(crate) fn learn(&self, cpu: &CpuMeter) {
        self.set(cpu.spent() >= FAST_SLICE);
    }
}

/// The threads of long guests.
pub(crate) struct SlowLane {
    // Only none while it is dropped.
    threads: Option<tokio::runtime::Runtime>,
    handle: Handle,
    turns: Arc<Turns>,
}

impl SlowLane {
    /// Starts a thread for each processor.
    pub(crate) fn start() -> Result<Self, ThreadsError> {
        let count = threads::processors();
        let threads = threads::start(count, |settings| {
            // Where that is forbidden long guests are as urgent as the rest, and take turns.
            let less_urgent = threads::less_urgent(SLOW_NICE);
            settings
                .thread_name("sampan-long")
                .on_thread_start(move || {
                    IS_SLOW.set(true);
                    less_urgent();
                })
        })?;
        Ok(Self {
            handle: threads.handle().clone(),
            threads: Some(threads),
            turns: Arc::new(Turns::new(count)),
        })
    }

    /// Drives `work` to its end: here while `pace` is short, on the slow lane while it is long.
    /// `service` says with whom it shares its turns. Dropping the future drops the work, at the
    /// latest when its turn has ended.
    pub(crate) async fn drive<T: Send + 'static>(
        &self,
        service: ServiceKey,
        pace: &Arc<Pace>,
        mut work: Work<T>,
    ) -> T {
        loop {
            match until(&mut work, || pace.is_long()).await {
                Some(output) => return output,
                None => match self.run(service, Arc::clone(pace), work).await {
                    Ok(output) => return output,
                    Err(unfinished) => work = unfinished,
                },
            }
        }
    }

    /// Drives `work` on the slow lane. It comes back unfinished when its pace is short again.
    async fn run<T: Send + 'static>(
        &self,
        service: ServiceKey,
        pace: Arc<Pace>,
        mut work: Work<T>,
    ) -> Result<T, Work<T>> {
        let turns = Arc::clone(&self.turns);
        let mut task = AbortOnDrop(self.handle.spawn(async move {
            loop {
                let turn = turns.take(service).await;
                let mut one = Some(turn);
                let step = std::future::poll_fn(|cx| {
                    // A second poll is one for which it has no turn.
                    let Some(turn) = one.take() else {
                        return Poll::Ready(Step::Woken);
                    };
                    provoke::panic_in(provoke::Task::SlowLane);
                    let poll = work.as_mut().poll(cx);
                    drop(turn);
                    match poll {
                        Poll::Ready(output) => Poll::Ready(Step::Done(output)),
                        Poll::Pending if !pace.is_long() => Poll::Ready(Step::Short),
                        Poll::Pending => Poll::Pending,
                    }
                });
                match step.await {
                    Step::Done(output) => return Ok(output),
                    Step::Short => return Err(work),
                    Step::Woken => {}
                }
            }
        }));
        match (&mut task.0).await {
            Ok(end) => end,
            // The lane is gone, and with it the node.
            Err(error) => {
                debug_assert!(error.is_cancelled(), "a panic ends the process: {error}");
                std::future::pending().await
            }
        }
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // It may be dropped by a task, which must not wait for threads.
            threads.shutdown_background();
        }
    }
}

/// What became of one turn.
enum Step<T> {
    Done(T),
    Short,
    Woken,
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Polls `work` until it ends, or until after a poll `stop` says so.
async fn until<T>(work: &mut Work<T>, stop: impl Fn() -> bool) -> Option<T> {
    if stop() {
        return None;
    }
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if stop() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Whose guests are in the rotation as one: the address of what they have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServiceKey(usize);

impl ServiceKey {
    pub(crate) fn of<T>(template: &T) -> Self {
        Self(std::ptr::from_ref(template).addr())
    }
}

/// Turns on the slow lane, as many at once as it has threads, given to the services in rotation.
#[derive(Debug)]
struct Turns(Mutex<Rotation>);

#[derive(Debug)]
struct Rotation {
    free: usize,
    /// Services with guests that wait, the next one first. None is empty.
    waiting: VecDeque<(ServiceKey, VecDeque<oneshot::Sender<Turn>>)>,
}

/// The right to run until the next epoch tick.
#[derive(Debug)]
struct Turn(Option<Arc<Turns>>);

impl Turns {
    fn new(count: usize) -> Self {
        Self(Mutex::new(Rotation {
            free: count,
            waiting: VecDeque::new(),
        }))
    }

    async fn take(self: &Arc<Self>, service: ServiceKey) -> Turn {
        let turn = {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return Turn(Some(Arc::clone(self)));
            }
            let (sender, turn) = oneshot::channel();
            match state.waiting.iter_mut().find(|(key, _)| *key == service) {
                Some((_, queue)) => queue.push_back(sender),
                None => state.waiting.push_back((service, VecDeque::from([sender]))),
            }
            turn
        };
        turn.await.expect("a sender leaves the queue only to send")
    }
}

impl Rotation {
    /// The next to have a turn: the first of the first service, which then goes to the end.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let (service, mut queue) = self.waiting.pop_front()?;
        let sender = queue.pop_front();
        if !queue.is_empty() {
            self.waiting.push_back((service, queue));
        }
        sender
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        let mut state = turns.0.lock();
        while let Some(sender) = state.next() {
            match sender.send(Turn(Some(Arc::clone(&turns)))) {
                Ok(()) => return,
                // Its guest is gone. What came back must not come here with the lock held.
                Err(mut unused) => drop(unused.0.take()),
            }
        }
        state.free += 1;
    }
}

#[cfg(test)]
mod tests;
