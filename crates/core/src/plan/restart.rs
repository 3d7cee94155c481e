//! Restarts: whether, how long after, and when single failures are too many.

use std::{collections::VecDeque, fmt, time::Duration};

use crate::{
    object::{Restart, RestartPolicy},
    time::Timestamp,
};

/// How an instance ended that the host did not stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, and well.
    Well,
    /// It failed, or could not be made; why.
    Failed(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("it ended by itself, with exit code 0"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Ends in a row from which on the wait is called `CrashLoopBackOff`.
pub const CRASH_LOOP: u32 = 2;

/// Whether a pod whose instance ended so is started again.
pub fn wanted(policy: RestartPolicy, end: &End) -> bool {
    match (policy, end) {
        (RestartPolicy::Always, End::Well | End::Failed(_))
        | (RestartPolicy::OnFailure, End::Failed(_)) => true,
        (RestartPolicy::OnFailure, End::Well)
        | (RestartPolicy::Never, End::Well | End::Failed(_)) => false,
    }
}

/// The ends in a row, after one more that came after `healthy` time of health.
pub fn streak(restart: &Restart, before: u32, healthy: Duration) -> u32 {
    match healthy >= restart.reset_after {
        true => 1,
        false => before.saturating_add(1),
    }
}

/// How long to wait after this many ends in a row: `initial`, doubling up to `max`.
pub fn delay(restart: &Restart, streak: u32) -> Duration {
    let doubled = 2_u32.checked_pow(streak.saturating_sub(1));
    let delay = doubled.and_then(|factor| restart.initial.checked_mul(factor));
    delay.map_or(restart.max, |delay| delay.min(restart.max))
}

/// Requests of a pod so far, and how many of them ended their instance. Both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// All requests.
    pub requests: u64,
    /// Those whose instance trapped.
    pub trapped: u64,
}

/// The time over which requests are judged together.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Fewer requests say nothing.
pub const MIN_REQUESTS: u64 = 20;
/// How long after a trap the next sample is taken, and after that one, until the window is past.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// Samples nearer to one another than this are kept as one, which bounds the memory.
const RESOLUTION: Duration = Duration::from_millis(250);

/// The last 10 s of a pod whose requests have an instance each. One that traps takes nothing with
/// it; when it is more than half of them, the pod is to blame.
///
/// Samples are taken when a request traps, and every second from then on until none has for the
/// length of the window: a pod that does not fail costs nothing. When there is no sample from
/// exactly 10 s ago an older one is taken, so that more good requests are counted, never fewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrapWindow {
    /// The first is the last one before the window, or the pod's beginning. Never empty.
    kept: VecDeque<(Timestamp, Sample)>,
    due: Option<Timestamp>,
}

impl TrapWindow {
    /// The window of a pod that has had no request yet.
    pub fn new(now: Timestamp) -> Self {
        Self {
            kept: VecDeque::from([(now, Sample::default())]),
            due: None,
        }
    }

    /// When a sample is due, if one is.
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Notes that a sample is being taken, if one is due. Says whether it is.
    pub fn ask(&mut self, now: Timestamp) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            self.due = Some(now + SAMPLE_PERIOD);
        }
        due
    }

    /// Takes a sample. Says, in words, if too many requests have trapped.
    pub fn push(&mut self, sample: Sample, now: Timestamp) -> Option<String> {
        let started = |(at, _): &(Timestamp, Sample)| *at + WINDOW <= now;
        while self.kept.get(1).is_some_and(started) {
            self.kept.pop_front();
        }
        let before = self.kept.front().map_or(sample, |(_, sample)| *sample);
        let recent = self
            .kept
            .back()
            .is_some_and(|(at, _)| now - *at < RESOLUTION);
        if !recent {
            self.kept.push_back((now, sample));
        }
        let requests = sample.requests.saturating_sub(before.requests);
        let trapped = sample.trapped.saturating_sub(before.trapped);
        self.due = (trapped > 0).then(|| now + SAMPLE_PERIOD);
        let too_many = requests >= MIN_REQUESTS && trapped > requests / 2;
        let seconds = WINDOW.as_secs();
        too_many.then(|| format!("{trapped} of {requests} requests within {seconds} s trapped"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn restart(policy: RestartPolicy) -> Restart {
        Restart {
            policy,
            initial: Duration::from_millis(200),
            max: Duration::from_secs(60),
            reset_after: Duration::from_secs(60),
        }
    }

    fn millis(millis: u64) -> Timestamp {
        Timestamp::after(Duration::from_millis(millis))
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let restart = restart(RestartPolicy::Always);
        let delays: Vec<_> = (1..=11).map(|n| delay(&restart, n).as_millis()).collect();
        assert_eq!(
            delays,
            [
                200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000
            ]
        );
        for streak in [0, 1, 32, 33, 64, u32::MAX] {
            let delay = delay(&restart, streak);
            assert!(delay >= restart.initial && delay <= restart.max);
        }
    }

    #[test]
    fn health_begins_a_new_row() {
        let restart = restart(RestartPolicy::Always);
        for (before, healthy_ms, after) in [
            (0, 0, 1),
            (1, 59_999, 2),
            (7, 60_000, 1),
            (0, 60_000, 1),
            (u32::MAX, 0, u32::MAX),
        ] {
            let healthy = Duration::from_millis(healthy_ms);
            assert_eq!(streak(&restart, before, healthy), after);
        }
    }

    #[test]
    fn policies() {
        let failed = End::Failed("trapped".to_owned());
        for (policy, well, badly) in [
            (RestartPolicy::Always, true, true),
            (RestartPolicy::OnFailure, false, true),
            (RestartPolicy::Never, false, false),
        ] {
            assert_eq!(wanted(policy, &End::Well), well, "{policy:?}");
            assert_eq!(wanted(policy, &failed), badly, "{policy:?}");
        }
    }

    /// Samples as `(milliseconds, requests, trapped)`: what the last one says.
    fn last(samples: &[(u64, u64, u64)]) -> Option<String> {
        let mut window = TrapWindow::new(millis(0));
        let push = |&(at, requests, trapped): &(u64, u64, u64)| {
            window.push(Sample { requests, trapped }, millis(at))
        };
        samples.iter().map(push).last().flatten()
    }

    #[test]
    fn more_than_half_of_twenty_requests_are_too_many() {
        for (samples, too_many) in [
            (&[(100, 19, 19)][..], false),
            (&[(100, 20, 10)], false),
            (&[(100, 20, 11)], true),
            (&[(100, 21, 10)], false),
            (&[(100, 21, 11)], true),
            // Good ones before the first trap count too.
            (&[(9_000, 1_021, 21)], false),
            // What is past does not.
            (&[(1_000, 100, 100), (11_000, 119, 119)], false),
            (&[(1_000, 100, 100), (11_000, 120, 111)], true),
            (&[(1_000, 1_000, 0), (20_000, 1_020, 20)], true),
            // One now and then is no matter.
            (&[(1_000, 1, 1), (5_000, 2, 2), (9_000, 3, 3)], false),
        ] {
            assert_eq!(last(samples).is_some(), too_many, "{samples:?}");
        }
        let shown = last(&[(5_000, 30, 29)]);
        let wanted = "29 of 30 requests within 10 s trapped";
        assert_eq!(shown.as_deref(), Some(wanted));
    }

    #[test]
    fn samples_are_taken_while_there_are_traps_in_the_window() {
        let mut window = TrapWindow::new(millis(0));
        let sample = Sample {
            requests: 5,
            trapped: 1,
        };
        assert_eq!((window.due(), window.ask(millis(9))), (None, false));
        window.push(sample, millis(100));
        assert_eq!(window.due(), Some(millis(1_100)));
        assert!(!window.ask(millis(1_099)) && window.ask(millis(1_100)));
        let mut now = 1_100;
        while window.due().is_some() {
            window.push(sample, millis(now));
            now += 1_000;
            assert!(now < 20_000, "{window:?}");
        }
        assert!(now > 10_100, "{window:?}");
    }

    proptest! {
        #[test]
        fn delays_never_shrink(initial in 1_u64..10_000, more in 0_u64..1_000_000, streak in any::<u32>()) {
            let restart = Restart {
                initial: Duration::from_millis(initial),
                max: Duration::from_millis(initial + more),
                ..restart(RestartPolicy::Always)
            };
            let (this, next) = (delay(&restart, streak), delay(&restart, streak.saturating_add(1)));
            prop_assert!(this <= next);
            prop_assert!(next <= this * 2);
        }

        /// Against a window that keeps everything: it may take in more, by as much as the time
        /// between two samples, and is never blind to what is in the window.
        #[test]
        fn the_window_is_bounded_and_no_shorter_than_it_says(
            steps in proptest::collection::vec((0_u64..3_000, 0_u64..30, 0_u64..30), 1..200)
        ) {
            let mut window = TrapWindow::new(millis(0));
            let (mut now, mut total) = (0, Sample::default());
            let mut all = vec![(millis(0), total)];
            for (wait, good, trapped) in steps {
                now += wait;
                total.requests += good + trapped;
                total.trapped += trapped;
                let at = millis(now);
                window.push(total, at);
                all.push((at, total));
                prop_assert!(window.kept.len() <= 42, "{}", window.kept.len());
                // The last sample that is outside of the window, or the beginning.
                let outside = all.iter().rev().find(|(t, _)| *t + WINDOW <= at).unwrap_or(&all[0]);
                let (from, _) = window.kept[0];
                prop_assert!(from <= outside.0);
                prop_assert!(outside.0 - from <= RESOLUTION);
            }
        }
    }
}
