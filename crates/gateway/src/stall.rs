//! How long the other side keeps us waiting.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::Limits;

/// A wait for the other side, with a timer that is made at the first one and moved only when it
/// rings: most waits end long before, and must cost nothing.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Goes on waiting. Ready when that has taken `limit`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let Some(end) = since.checked_add(limit) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            if timer.as_mut().poll(cx).is_pending() {
                // One that rings too early is moved then; one that would ring too late, now.
                if timer.deadline() <= end {
                    return Poll::Pending;
                }
            } else if end <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }

    /// How long the wait has taken until now.
    fn so_far(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The wait is over. How long it took.
    pub(crate) fn over(&mut self) -> Duration {
        self.since
            .take()
            .map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Whether a client sends a body fast enough: it may pause for `idle`, and has to keep up a rate on
/// average. Only the time we wait for it counts.
#[derive(Debug)]
pub(crate) struct BodyPace {
    idle: Duration,
    /// Bytes a second.
    rate: u64,
    received: u64,
    waited: Duration,
    stall: Stall,
}

impl BodyPace {
    fn new(idle: Duration, rate: u64) -> Self {
        Self {
            idle,
            rate,
            received: 0,
            waited: Duration::ZERO,
            stall: Stall::default(),
        }
    }

    pub(crate) fn of(limits: &Limits) -> Self {
        Self::new(limits.body_idle_timeout, limits.body_min_rate)
    }

    pub(crate) fn unlimited() -> Self {
        Self::new(Duration::MAX, 0)
    }

    /// Waits for more. Ready when the client is too slow.
    pub(crate) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let earned = match self.rate {
            0 => Duration::MAX,
            rate => Duration::from_secs(self.received / rate),
        };
        let left = earned.saturating_add(self.idle).saturating_sub(self.waited);
        self.stall.poll(cx, left.min(self.idle))
    }

    /// How long the client was waited for, and how many bytes came.
    pub(crate) fn so_far(&self) -> (Duration, u64) {
        (self.waited + self.stall.so_far(), self.received)
    }

    /// Some bytes have come.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.waited += self.stall.over();
        self.received += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const IDLE: Duration = Duration::from_secs(15);

    /// How long the client may stay silent now.
    async fn patience(pace: &mut BodyPace) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| pace.poll_too_slow(cx)).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_may_be_as_long_as_the_idle_time() {
        let mut pace = BodyPace::new(IDLE, 0);
        for _ in 0..3 {
            let almost = IDLE - Duration::from_millis(10);
            let slow = tokio::time::timeout(almost, patience(&mut pace)).await;
            assert!(slow.is_err());
            pace.received(1);
        }
        let took = patience(&mut pace).await;
        assert!(
            took >= IDLE && took < IDLE + Duration::from_millis(10),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_cut_and_the_wanted_rate_is_not() {
        for (each_second, is_slow) in [(239, true), (241, false)] {
            let mut pace = BodyPace::new(IDLE, 240);
            let mut seconds = 0;
            let end = loop {
                let second = tokio::time::timeout(Duration::from_secs(1), patience(&mut pace));
                if second.await.is_ok() {
                    break true;
                }
                pace.received(each_second);
                seconds += 1;
                if seconds == 10_000 {
                    break false;
                }
            };
            assert_eq!(end, is_slow, "{each_second} bytes a second");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_a_read_does_not_count() {
        let mut pace = BodyPace::new(IDLE, 240);
        pace.received(1);
        tokio::time::advance(IDLE * 100).await;
        assert!(patience(&mut pace).await >= IDLE);
    }
}
