//! One probe of one instance: when it is asked, and what its answers say together.
//!
//! The meaning is that of Kubernetes: thresholds count answers in a row, of which one of the other
//! kind begins a new row; liveness and startup take one success. One thing is added: an answer that
//! is missing because the pod got no CPU says nothing about the pod.

use std::{fmt, sync::Arc, time::Duration};

use crate::{object::Probe, time::Timestamp};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Whether the instance has come up. The others wait for it.
    Startup,
    /// Whether the pod should get requests.
    Readiness,
    /// Whether the instance still works; one that does not is replaced.
    Liveness,
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "startup probe",
            Self::Readiness => "readiness probe",
            Self::Liveness => "liveness probe",
        })
    }
}

/// What one try of a probe has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest answered well.
    Success,
    /// The guest answered badly, or not in time although it was given CPU; why.
    Failure(String),
    /// The guest did not answer and was not given the CPU to: this counts for nothing.
    Starved,
}

/// What the answers so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No probe was under way.
    Unasked,
    /// The pod got no CPU, for the n-th time. Nothing has changed.
    Starved(u64),
    /// Successes, but not enough of them yet.
    Recovering,
    /// Failures in a row, but not enough of them yet.
    Wavering(u32),
    /// Enough successes in a row.
    Passed,
    /// Enough failures in a row, so many.
    Failed(u32),
}

/// The shortest time between two tries, whatever the spec says.
const MIN_PERIOD: Duration = Duration::from_millis(1);

/// A probe at work on one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    kind: ProbeKind,
    probe: Arc<Probe>,
    turn: Turn,
    streak: Streak,
    starved: u64,
    /// Why the last try failed, if it did.
    failure: Option<String>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The next try is due then.
    Due(Timestamp),
    /// A try has been under way since then.
    Asked(Timestamp),
}

/// Answers of one kind in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streak {
    None,
    Successes(u32),
    Failures(u32),
}

impl Watch {
    /// A probe of an instance that was made at `started`. The first try is due after the probe's
    /// `delay` from then, but not before `now`.
    pub fn new(kind: ProbeKind, probe: &Arc<Probe>, started: Timestamp, now: Timestamp) -> Self {
        Self {
            kind,
            probe: Arc::clone(probe),
            turn: Turn::Due((started + probe.delay).max(now)),
            streak: Streak::None,
            starved: 0,
            failure: None,
        }
    }

    /// What it is for.
    pub fn kind(&self) -> ProbeKind {
        self.kind
    }

    /// What is asked, and its thresholds.
    pub fn probe(&self) -> &Arc<Probe> {
        &self.probe
    }

    /// Tries that got no answer because the pod got no CPU.
    pub fn starved(&self) -> u64 {
        self.starved
    }

    /// Why the last try failed, if it did; one for which there was no CPU does not count.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// When the next try is due; nothing while one is under way.
    pub fn due(&self) -> Option<Timestamp> {
        match self.turn {
            Turn::Due(at) => Some(at),
            Turn::Asked(_) => None,
        }
    }

    /// Begins a try if one is due. Says whether it did.
    pub fn ask(&mut self, now: Timestamp) -> bool {
        match self.turn {
            Turn::Due(at) if at <= now => {
                self.turn = Turn::Asked(now);
                true
            }
            Turn::Due(_) | Turn::Asked(_) => false,
        }
    }

    /// Takes the outcome of the try under way. The next one is due a period after this one began,
    /// or at once when this one took longer.
    pub fn answer(&mut self, outcome: &Outcome, now: Timestamp) -> Finding {
        let asked = match self.turn {
            Turn::Due(_) => return Finding::Unasked,
            Turn::Asked(asked) => asked,
        };
        self.turn = Turn::Due((asked + self.probe.period.max(MIN_PERIOD)).max(now));
        match outcome {
            Outcome::Starved => {
                self.starved = self.starved.saturating_add(1);
                Finding::Starved(self.starved)
            }
            Outcome::Success => {
                let row = match self.streak {
                    Streak::Successes(row) => row.saturating_add(1),
                    Streak::None | Streak::Failures(_) => 1,
                };
                self.streak = Streak::Successes(row);
                self.failure = None;
                match row >= self.successes() {
                    true => Finding::Passed,
                    false => Finding::Recovering,
                }
            }
            Outcome::Failure(why) => {
                self.failure = Some(why.clone());
                let row = match self.streak {
                    Streak::Failures(row) => row.saturating_add(1),
                    Streak::None | Streak::Successes(_) => 1,
                };
                self.streak = Streak::Failures(row);
                match row >= self.probe.failures {
                    true => Finding::Failed(row),
                    false => Finding::Wavering(row),
                }
            }
        }
    }

    fn successes(&self) -> u32 {
        match self.kind {
            ProbeKind::Startup | ProbeKind::Liveness => 1,
            ProbeKind::Readiness => self.probe.successes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Check;

    fn probe(failures: u32, successes: u32) -> Arc<Probe> {
        Arc::new(Probe {
            check: Check::Http("/healthz".to_owned()),
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            failures,
            successes,
            delay: Duration::from_secs(5),
        })
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::after(Duration::from_secs(seconds))
    }

    /// Answers, one letter each: what is found after each of them, one letter each.
    fn findings(kind: ProbeKind, failures: u32, successes: u32, answers: &str) -> String {
        let mut watch = Watch::new(kind, &probe(failures, successes), at(0), at(0));
        let mut now = at(5);
        let mut found = String::new();
        for answer in answers.chars() {
            assert!(watch.ask(now), "{watch:?}");
            let outcome = match answer {
                's' => Outcome::Success,
                'f' => Outcome::Failure("status 500".to_owned()),
                _ => Outcome::Starved,
            };
            found.push(match watch.answer(&outcome, now) {
                Finding::Unasked => '!',
                Finding::Starved(_) => '-',
                Finding::Recovering => 'r',
                Finding::Wavering(_) => 'w',
                Finding::Passed => 'P',
                Finding::Failed(_) => 'F',
            });
            now = watch.due().expect("it has been answered");
        }
        found
    }

    #[test]
    fn thresholds_count_answers_in_a_row() {
        for (kind, failures, successes, answers, found) in [
            // The defaults: one success is enough, the third failure in a row is too many.
            (ProbeKind::Readiness, 3, 1, "sfffs", "PwwFP"),
            (ProbeKind::Readiness, 3, 1, "ffsffsfff", "wwPwwPwwF"),
            (ProbeKind::Readiness, 1, 1, "fsfs", "FPFP"),
            (ProbeKind::Readiness, 3, 3, "ssfsss", "rrwrrP"),
            (ProbeKind::Readiness, 2, 2, "ssfssff", "rPwrPwF"),
            // They go on saying the same.
            (ProbeKind::Readiness, 2, 1, "sssffff", "PPPwFFF"),
            // Liveness and startup take one success, whatever else is written.
            (ProbeKind::Liveness, 3, 9, "sffsfff", "PwwPwwF"),
            (ProbeKind::Startup, 30, 9, "ffs", "wwP"),
            // No CPU, no answer, no change: neither a failure nor the end of a row.
            (ProbeKind::Liveness, 3, 1, "-----", "-----"),
            (ProbeKind::Liveness, 3, 1, "f-f-f", "w-w-F"),
            (ProbeKind::Readiness, 3, 2, "s-s", "r-P"),
            // Nonsense is taken for the least.
            (ProbeKind::Readiness, 0, 0, "sf", "PF"),
        ] {
            assert_eq!(
                findings(kind, failures, successes, answers),
                found,
                "{kind}, {failures} failures, {successes} successes: {answers}"
            );
        }
    }

    #[test]
    fn a_try_begins_a_period_after_the_one_before() {
        let mut watch = Watch::new(ProbeKind::Liveness, &probe(3, 1), at(100), at(100));
        assert_eq!(watch.due(), Some(at(105)));
        assert!(!watch.ask(at(104)));
        assert!(watch.ask(at(106)));
        assert_eq!((watch.due(), watch.ask(at(106))), (None, false));
        watch.answer(&Outcome::Success, at(107));
        assert_eq!(watch.due(), Some(at(116)));
        // One that takes longer than the period is followed at once.
        assert!(watch.ask(at(116)));
        watch.answer(&Outcome::Success, at(130));
        assert_eq!(watch.due(), Some(at(130)));
    }

    #[test]
    fn the_delay_counts_from_the_start_of_the_instance() {
        // Startup took longer than the delay of liveness.
        let watch = Watch::new(ProbeKind::Liveness, &probe(3, 1), at(0), at(60));
        assert_eq!(watch.due(), Some(at(60)));
        let watch = Watch::new(ProbeKind::Liveness, &probe(3, 1), at(0), at(2));
        assert_eq!(watch.due(), Some(at(5)));
    }

    #[test]
    fn an_answer_without_a_question_is_none() {
        let mut watch = Watch::new(ProbeKind::Liveness, &probe(1, 1), at(0), at(0));
        let before = watch.clone();
        let finding = watch.answer(&Outcome::Failure(String::new()), at(50));
        assert_eq!((finding, watch), (Finding::Unasked, before));
    }
}
