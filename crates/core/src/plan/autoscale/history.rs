//! What later decisions need of earlier ones.

use std::{collections::VecDeque, time::Duration};

use crate::time::Timestamp;

/// Pods that may come in [`RATE_PERIOD`], if that is more than as many as there are.
pub(super) const RATE_PODS: u32 = 4;
/// Over this time.
pub(super) const RATE_PERIOD: Duration = Duration::from_secs(15);
/// The mean load of this time counts for panic: one second is cut in two by any step.
const PANIC_LOAD: Duration = Duration::from_secs(2);
/// And the fewest pods of this time: Knative's stable window of 60 s, of which 10 %.
const PANIC_WINDOW: Duration = Duration::from_secs(6);
/// Panic begins at this multiple of what the pods are for.
const PANIC_FACTOR: f64 = 2.0;

/// What was needed, what was done and what there was, as far back as it counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    has_begun: bool,
    /// Since when there have been pods.
    awake_since: Option<Timestamp>,
    /// Needs of the window, each with when it was seen, without those after which as much or more
    /// was needed: they fall, so there are no more of them than there can be pods.
    needs: VecDeque<(Timestamp, u32)>,
    /// By how much the number of pods has changed.
    changes: VecDeque<(Timestamp, i64)>,
    /// The load in pods, and how many were ready.
    loads: VecDeque<(Timestamp, f64, u32)>,
}

impl History {
    /// The first decision: nothing is known, so what there is was needed.
    pub(super) fn begin(&mut self, current: u32, now: Timestamp) {
        if !self.has_begun {
            self.has_begun = true;
            self.needs.push_back((now, current));
        }
        self.awake_since = match current {
            0 => None,
            1.. => self.awake_since.or(Some(now)),
        };
    }

    /// For how long there have been pods.
    pub(super) fn awake(&self, now: Timestamp) -> Duration {
        self.awake_since.map_or(Duration::ZERO, |since| now - since)
    }

    /// Notes what is needed now.
    pub(super) fn needed(&mut self, pods: u32, window: Duration, now: Timestamp) {
        let is_less = |(_, needed): &mut (_, u32)| *needed <= pods;
        while self.needs.pop_back_if(is_less).is_some() {}
        self.needs.push_back((now, pods));
        let is_old = |(at, _): &mut (Timestamp, _)| now - *at >= window;
        while self.needs.len() > 1 && self.needs.pop_front_if(is_old).is_some() {}
    }

    /// The highest need of the window.
    pub(super) fn highest_need(&self) -> u32 {
        self.needs.front().map_or(0, |(_, pods)| *pods)
    }

    /// Notes that a decision has been carried out.
    pub fn scaled(&mut self, from: u32, to: u32, now: Timestamp) {
        self.changes
            .push_back((now, i64::from(to) - i64::from(from)));
        let is_old = |(at, _): &mut (Timestamp, _)| now - *at >= RATE_PERIOD;
        while self.changes.pop_front_if(is_old).is_some() {}
    }

    /// The most pods there may be now.
    pub(super) fn rate_limit(&self, current: u32, now: Timestamp) -> u32 {
        let recent = self
            .changes
            .iter()
            .filter(|(at, _)| now - *at < RATE_PERIOD);
        let change: i64 = recent.map(|(_, change)| change).sum();
        let before = (i64::from(current) - change).max(0);
        let most = (before + i64::from(RATE_PODS)).max(before * 2);
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// Notes the load, and says whether it is far above what there was.
    pub(super) fn load(&mut self, load: f64, ready: u32, now: Timestamp) -> bool {
        self.loads.push_back((now, load, ready));
        let is_old = |(at, ..): &mut (Timestamp, _, _)| now - *at >= PANIC_WINDOW;
        while self.loads.pop_front_if(is_old).is_some() {}
        let recent = self.loads.iter().filter(|(at, ..)| now - *at < PANIC_LOAD);
        let (sum, count) = recent.fold((0.0, 0.0), |(sum, count), (_, load, _)| {
            (sum + load, count + 1.0)
        });
        let mean = sum / f64::max(count, 1.0);
        let fewest = self.loads.iter().map(|(.., ready)| *ready).min();
        mean >= PANIC_FACTOR * f64::from(fewest.unwrap_or_default().max(1))
    }
}
