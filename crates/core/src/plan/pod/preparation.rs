//! A pod whose component cannot be had yet: when it is tried again, and what is told of that.

use std::time::Duration;

use super::Notice;
use crate::{
    object::{Restart, RestartPolicy},
    plan::restart,
};

/// The first wait is 200 ms, each later one twice as long, none longer than 30 s. What is missing
/// is missing for all pods of a revision, so the restart policy of the pod says nothing about it.
const BACK_OFF: Restart = Restart {
    policy: RestartPolicy::Always,
    initial: Duration::from_millis(200),
    max: Duration::from_secs(30),
    reset_after: Duration::MAX,
};

/// The tries so far to prepare a pod: to read its component, check, compile and map it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preparation {
    failures: u32,
    reason: String,
}

/// What follows from a try that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Retry {
    /// How long to wait before the next try.
    pub delay: Duration,
    /// What to tell: all of it when the reason is a new one; otherwise something each time the
    /// number of failures has doubled, so that a pod that waits for days does not fill the events.
    pub notices: Vec<Notice>,
}

impl Preparation {
    /// A try has failed; why.
    pub fn failed(&mut self, reason: &str) -> Retry {
        self.failures = self.failures.saturating_add(1);
        let is_new = self.reason != reason;
        if is_new {
            reason.clone_into(&mut self.reason);
        }
        let delay = restart::delay(&BACK_OFF, self.failures);
        let mut notices = Vec::new();
        if is_new || self.failures.is_power_of_two() {
            notices.push(Notice::start_failed(reason));
            notices.push(Notice::unprepared(self.failures, delay));
        }
        Retry { delay, notices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_tried_less_and_less_often_and_says_so_less_and_less_often() {
        let mut preparation = Preparation::default();
        let mut told = String::new();
        for n in 1..=20 {
            let reason = if n < 12 {
                "it is missing"
            } else {
                "it is damaged"
            };
            let retry = preparation.failed(reason);
            told.push_str(&format!("{n} {:?}", retry.delay));
            for notice in &retry.notices {
                told.push_str(&format!(" | {}: {}", notice.reason, notice.text));
            }
            told.push('\n');
        }
        let expected = "\
1 200ms | Failed: cannot start: it is missing | BackOff: BackOff: next try in 200ms
2 400ms | Failed: cannot start: it is missing | BackOff: BackOff: next try in 400ms, after 2 failures in a row
3 800ms
4 1.6s | Failed: cannot start: it is missing | BackOff: BackOff: next try in 1s600ms, after 4 failures in a row
5 3.2s
6 6.4s
7 12.8s
8 25.6s | Failed: cannot start: it is missing | BackOff: BackOff: next try in 25s600ms, after 8 failures in a row
9 30s
10 30s
11 30s
12 30s | Failed: cannot start: it is damaged | BackOff: BackOff: next try in 30s, after 12 failures in a row
13 30s
14 30s
15 30s
16 30s | Failed: cannot start: it is damaged | BackOff: BackOff: next try in 30s, after 16 failures in a row
17 30s
18 30s
19 30s
20 30s
";
        assert_eq!(told, expected);
    }
}
