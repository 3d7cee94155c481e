//! How long a client may keep waiting what holds a slot for it.
//!
//! A slot is scarce once a request waits for it. Then the queue looks at the slots whose holders
//! wait for their clients: at request bodies that are not whole yet, and at answers that are not
//! read. An answer is read ahead, so that its slot becomes free; what keeps a slot longer than
//! the [`Terms`] allow loses it. While no request waits, slow clients cost no other client anything
//! and may take their time.
//!
//! How a holder gives its slot back is its own affair: see [`Sending`](crate::sending::Sending) for
//! bodies and [`OpenAnswer`](crate::answer::OpenAnswer) for answers.
//!
//! The clock of a [`Wait`] is written by the task that waits for the client, and only read by the
//! looking task: what that reads is late by one step at most.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::buffers::Terms;

/// How often slots are looked at while requests wait for them. An answer that was not read for so
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

/// What holds a slot and may wait for its client.
pub(crate) trait Holder: fmt::Debug + Send + Sync {
    /// How long it has waited for its client, if it does now.
    fn stall(&self) -> Option<Duration>;

    /// Whether its slot can be taken back: it waits for its client, which has used up this part of
    /// the patience that was left with it.
    fn is_slow(&self, part: f64) -> bool;

    /// Does without its slot, at once or as soon as it can.
    fn take_back(self: Arc<Self>);
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
        assert!(wait.is_overdue(0.9), "more wait for its slot");
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
