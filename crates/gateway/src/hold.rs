//! Places that are held while a client is waited for, and how they are taken back.
//!
//! A place is scarce once a request waits for it. Then the queue looks at the places whose holders
//! wait for their clients: at request bodies that are not whole yet, and at answers that are not
//! read. An answer is read ahead, so that its place becomes free; what keeps a place longer than
//! the [`Terms`] allow loses it. While no request waits, slow clients cost no other client anything
//! and may take their time.
//!
//! States of a holder, and which task moves it on:
//!
//! - a body is *coming* until its request has ended, or until the looking task *cuts* it: `is_cut`
//!   is stored (Release) before the guest's and the server's tasks are woken, and both register
//!   their wakers before they load it (Acquire), so none of them misses it;
//! - an answer is *direct* until the looking task has it *read ahead*, and then *was read ahead*
//!   or is over; all of that is under the lock of [`OpenAnswer`].
//!
//! One task for each service looks, and only while a request waits and a holder is known. It is
//! started by the request that begins to wait ([`look`] after `wanted` was stored) and by the holder
//! that becomes known ([`look`] after it was entered); it says that it has ended, in
//! `is_looked_at`, under the lock under which it saw that one of the two is missing. So either it
//! has seen both, or the later of the two starts it again.
//!
//! The clock of a [`Wait`] is written by the task that waits for the client, and only read by the
//! looking task: what that reads is late by one step at most.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    answer::OpenAnswer,
    body::{BodyError, BodyFault},
    buffers::Terms,
    queue::Queue,
};

/// How often places are looked at while requests wait for them. An answer that was not read for so
/// long is read ahead.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// The patience that is left with a client: it goes down while the client is waited for and comes
/// back with the bytes that it sends or reads, up to what it was at first.
#[derive(Debug)]
pub(crate) struct Wait {
    terms: Terms,
    opened: Instant,
    /// When the wait that goes on began, in µs since `opened`; [`NONE`] while there is none.
    since: AtomicU64,
    /// What was left then, in µs.
    patience: AtomicU64,
    /// Whether the client, when it was waited for last, made up for that with what it sent or read.
    keeps_pace: AtomicBool,
}

const NONE: u64 = u64::MAX;

impl Wait {
    /// A client that was waited for so long already, and sent so much meanwhile.
    pub(crate) fn new(terms: Terms, waited: Duration, bytes: u64) -> Self {
        let wait = Self {
            terms,
            opened: Instant::now(),
            since: AtomicU64::new(NONE),
            patience: AtomicU64::new(micros(terms.pause)),
            keeps_pace: AtomicBool::new(false),
        };
        wait.settle(micros(waited), bytes);
        wait
    }

    /// From now on the client is waited for.
    pub(crate) fn begin(&self) {
        if self.since.load(Relaxed) == NONE {
            self.since.store(micros(self.opened.elapsed()), Relaxed);
        }
    }

    /// The client has sent or read so many bytes.
    pub(crate) fn end(&self, bytes: usize) {
        let since = self.since.swap(NONE, Relaxed);
        let took = match since {
            NONE => 0,
            since => micros(self.opened.elapsed()).saturating_sub(since),
        };
        self.settle(took, bytes as u64);
    }

    fn settle(&self, took: u64, bytes: u64) {
        let earned = match self.terms.rate {
            0 => NONE,
            rate => (u128::from(bytes) * 1_000_000 / u128::from(rate)).min(NONE.into()) as u64,
        };
        let left = self.patience.load(Relaxed);
        let left = left.saturating_add(earned).saturating_sub(took);
        // A shorter wait says nothing: what filled it was in the buffers of this machine.
        if took >= micros(LOOK) {
            self.keeps_pace.store(earned >= took, Relaxed);
        }
        // One task at a time waits for a client.
        self.patience
            .store(left.min(micros(self.terms.pause)), Relaxed);
    }

    /// How long the wait that goes on has taken, if one does.
    pub(crate) fn stall(&self) -> Option<Duration> {
        let since = self.since.load(Relaxed);
        let now = micros(self.opened.elapsed());
        (since != NONE).then(|| Duration::from_micros(now.saturating_sub(since)))
    }

    /// Whether the client is waited for now and has used up this part of the patience that was left
    /// with it; all of it, if it has kept pace so far.
    pub(crate) fn is_overdue(&self, part: f64) -> bool {
        let part = match self.keeps_pace.load(Relaxed) {
            true => 1.0,
            false => part,
        };
        let patience = Duration::from_micros(self.patience.load(Relaxed)).mul_f64(part);
        let has_rate = self.terms.rate > 0;
        has_rate && self.stall().is_some_and(|stall| stall > patience)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NONE - 1)
}

/// The task to wake when a place is taken back.
#[derive(Debug, Default)]
struct Sleeper(Mutex<Option<Waker>>);

impl Sleeper {
    fn register(&self, cx: &Context<'_>) {
        let mut waker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.inspect(Waker::wake_by_ref);
    }
}

/// A request body that was not whole when its request got a place.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) wait: Wait,
    fault: Arc<BodyFault>,
    is_cut: AtomicBool,
    /// The guest that reads the body.
    guest: Sleeper,
    /// The server that sends the answer.
    server: Sleeper,
}

impl Sending {
    pub(crate) fn new(wait: Wait, fault: Arc<BodyFault>) -> Arc<Self> {
        Arc::new(Self {
            wait,
            fault,
            is_cut: AtomicBool::new(false),
            guest: Sleeper::default(),
            server: Sleeper::default(),
        })
    }

    /// Whether the place was taken back. If not, the task that asks for the guest is woken then.
    pub(crate) fn is_over_for_guest(&self, cx: &Context<'_>) -> bool {
        self.guest.register(cx);
        self.is_cut.load(Acquire)
    }

    /// Whether the place was taken back. If not, the task that sends the answer is woken then.
    pub(crate) fn is_over_for_server(&self, cx: &Context<'_>) -> bool {
        self.server.register(cx);
        self.is_cut.load(Acquire)
    }

    fn cut(&self) {
        self.is_cut.store(true, Release);
        self.fault.tell(&BodyError::TooSlow);
        self.guest.wake();
        self.server.wake();
    }
}

/// What holds a place and may wait for its client.
#[derive(Clone, Debug)]
enum Holder {
    Sending(Weak<Sending>),
    Answer(Weak<OpenAnswer>),
}

impl Holder {
    /// Whether it waits for its client now.
    fn is_waiting(&self) -> bool {
        let stall = match self {
            Self::Sending(sending) => sending.upgrade().and_then(|it| it.wait.stall()),
            Self::Answer(answer) => answer.upgrade().and_then(|it| it.wait.stall()),
        };
        stall.is_some()
    }
}

/// The places of a service whose holders may wait for their clients.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next_id: u64,
    holders: HashMap<u64, Holder>,
    /// Whether a task looks at them.
    is_looked_at: bool,
    /// The most that waited at once since that task began, slow ones among them.
    most_waiting: u32,
}

/// A holder that is known, until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    queue: Arc<Queue>,
    id: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.queue.holds().lock().holders.remove(&self.id);
    }
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each step leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a request body known that is not whole.
pub(crate) fn sending(queue: &Arc<Queue>, sending: &Arc<Sending>) -> Hold {
    add(queue, Holder::Sending(Arc::downgrade(sending)))
}

/// Makes an answer known that is not whole.
pub(crate) fn answer(queue: &Arc<Queue>, answer: &Arc<OpenAnswer>) -> Hold {
    add(queue, Holder::Answer(Arc::downgrade(answer)))
}

fn add(queue: &Arc<Queue>, holder: Holder) -> Hold {
    let mut inner = queue.holds().lock();
    let id = inner.next_id;
    inner.next_id += 1;
    inner.holders.insert(id, holder);
    drop(inner);
    look(queue);
    Hold {
        queue: Arc::clone(queue),
        id,
    }
}

/// Looks at the places, and again until no request waits for one or no holder can be waiting for
/// its client. To be called when either may have changed.
pub(crate) fn look(queue: &Arc<Queue>) {
    if !queue.is_contended() {
        return;
    }
    let mut inner = queue.holds().lock();
    if inner.is_looked_at || inner.holders.is_empty() {
        return;
    }
    inner.is_looked_at = true;
    drop(inner);
    let queue = Arc::clone(queue);
    tokio::spawn(async move {
        while take_back(&queue) {
            tokio::time::sleep(LOOK).await;
        }
    });
}

/// Takes places back from slow clients, no more than are waited for, from the slowest first.
/// Whether there may be more to do.
fn take_back(queue: &Queue) -> bool {
    let mut inner = queue.holds().lock();
    if !queue.is_contended() || inner.holders.is_empty() {
        inner.is_looked_at = false;
        inner.most_waiting = 0;
        return false;
    }
    let holders: Vec<_> = inner.holders.values().cloned().collect();
    drop(inner);
    let wanted = queue.wanted();
    if wanted == 0 {
        return true;
    }
    let mut inner = queue.holds().lock();
    inner.most_waiting = inner.most_waiting.max(queue.waiting()).max(1);
    let most = inner.most_waiting;
    drop(inner);
    // The more wait for each place, the less each holder may cost them: together they lose no more
    // than about one pause, however many slow clients stand in the line, before them or behind; and
    // when these are many, no request waits long for one of them.
    let waits = holders.iter().filter(|holder| holder.is_waiting()).count();
    let part = (waits as f64 / f64::from(most)).min(1.0).powi(2);
    let slow = holders.iter().filter_map(|holder| Slow::of(holder, part));
    let mut slow: Vec<_> = slow.collect();
    slow.sort_unstable_by_key(|slow| std::cmp::Reverse(slow.stall()));
    slow.into_iter().take(wanted).for_each(Slow::take_back);
    true
}

/// A holder whose place can be taken back.
enum Slow {
    Sending(Duration, Arc<Sending>),
    Unread(Duration, Arc<OpenAnswer>),
}

impl Slow {
    fn of(holder: &Holder, part: f64) -> Option<Self> {
        match holder {
            Holder::Sending(sending) => {
                let sending = sending.upgrade()?;
                let stall = sending.wait.stall()?;
                let is_slow = sending.wait.is_overdue(part) && !sending.is_cut.load(Acquire);
                is_slow.then_some(Self::Sending(stall, sending))
            }
            Holder::Answer(answer) => {
                let answer = answer.upgrade()?;
                let stall = answer.wait.stall().filter(|stall| *stall >= LOOK)?;
                let is_slow = answer.can_be_read_ahead() || answer.is_overdue(part);
                is_slow.then_some(Self::Unread(stall, answer))
            }
        }
    }

    fn stall(&self) -> Duration {
        let (Self::Sending(stall, _) | Self::Unread(stall, _)) = self;
        *stall
    }

    fn take_back(self) {
        match self {
            Self::Sending(stall, sending) => {
                tracing::debug!(
                    ?stall,
                    "a request lost its place: its body comes too slowly"
                );
                sending.cut();
            }
            Self::Unread(_, answer) if answer.can_be_read_ahead() => answer.read_ahead(),
            Self::Unread(stall, answer) => {
                tracing::debug!(?stall, "a request lost its place: its answer is not read");
                answer.cut();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait() -> Wait {
        let terms = Terms {
            pause: Duration::from_millis(500),
            rate: 1000,
        };
        Wait::new(terms, Duration::ZERO, 0)
    }

    #[tokio::test(start_paused = true)]
    async fn patience_runs_out_while_a_client_is_waited_for_and_comes_back_with_bytes() {
        let wait = wait();
        let step = Duration::from_millis(500);
        assert!(!wait.is_overdue(1.0));
        wait.begin();
        tokio::time::advance(step).await;
        assert!(!wait.is_overdue(1.0), "just as long as it may");
        assert!(wait.is_overdue(0.9), "more wait for its place");
        // A hundred bytes at a thousand a second.
        wait.end(100);
        assert!(!wait.is_overdue(0.0), "it is not waited for");
        wait.begin();
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(!wait.is_overdue(1.0));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(wait.is_overdue(1.0));
        // What it sends or reads at once, into the buffers of this machine, is not saved up.
        wait.end(1_000_000);
        wait.begin();
        tokio::time::advance(step + Duration::from_millis(1)).await;
        assert!(wait.is_overdue(1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_pace_has_all_of_the_pause_however_many_wait() {
        let wait = wait();
        let step = Duration::from_millis(100);
        for (bytes, is_overdue) in [(0, true), (99, true), (100, false), (99, true)] {
            wait.end(bytes);
            wait.begin();
            tokio::time::advance(step).await;
            assert_eq!(wait.is_overdue(0.01), is_overdue, "after {bytes} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_kept_waiting_before_it_had_its_place_counts() {
        let wait = Wait::new(wait().terms, Duration::from_secs(5), 300);
        wait.begin();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(wait.is_overdue(1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_no_client_is_overdue() {
        let terms = Terms {
            pause: Duration::ZERO,
            rate: 0,
        };
        let wait = Wait::new(terms, Duration::ZERO, 0);
        wait.begin();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(!wait.is_overdue(1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_no_client_is_waited_for_does_not_count() {
        let wait = wait();
        tokio::time::advance(Duration::from_secs(3600)).await;
        wait.begin();
        assert!(!wait.is_overdue(1.0));
    }
}
