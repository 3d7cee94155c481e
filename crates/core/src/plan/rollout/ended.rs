//! How rollouts end, and how long they took.

use std::time::Duration;

use crate::record::{Begun, Moment, Phase, ServiceStatus};

/// How a rollout has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All pods are of the wanted revision.
    Complete,
    /// The last good revision runs again.
    RolledBack,
    /// It has failed, and is held.
    Paused,
    /// It has failed, and its pods are tried further.
    Failed,
}

/// The end of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it has ended.
    pub outcome: Outcome,
    /// Time from the change of the wanted revision; not known of one that an earlier run of the node
    /// began, or that had ended before.
    pub took: Option<Duration>,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Complete, Self::RolledBack, Self::Paused, Self::Failed];

    /// The outcome in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::RolledBack => "rolled_back",
            Self::Paused => "paused",
            Self::Failed => "failed",
        }
    }

    /// How a rollout in this phase has ended, if it has.
    fn of(phase: &Phase) -> Option<Self> {
        match phase {
            Phase::Complete => Some(Self::Complete),
            Phase::RolledBack { .. } => Some(Self::RolledBack),
            Phase::Paused { failure: Some(_) } => Some(Self::Paused),
            Phase::Failed { .. } => Some(Self::Failed),
            Phase::Progressing
            | Phase::Waiting { .. }
            | Phase::Paused { failure: None }
            | Phase::RollingBack { .. } => None,
        }
    }

    /// Whether only another revision begins a new rollout after it. One that has failed may end
    /// once more.
    fn is_final(self) -> bool {
        match self {
            Self::Complete | Self::RolledBack => true,
            Self::Paused | Self::Failed => false,
        }
    }
}

/// Notes in `status` whether a rollout is under way, and says how one has ended. The status was
/// `before` until now; `changed` says that another revision is wanted since.
pub(super) fn follow(
    before: &ServiceStatus,
    status: &mut ServiceStatus,
    changed: bool,
    moment: Moment,
) -> Option<Ended> {
    let stuck = Outcome::of(&before.phase).is_some_and(|it| !it.is_final());
    let outcome = Outcome::of(&status.phase);
    if changed || (stuck && outcome.is_none()) {
        let (boot, at) = (moment.boot, moment.now);
        status.begun = Some(Begun { boot, at });
    }
    let outcome = outcome?;
    let begun = status.begun.take();
    let ended = begun.is_some() || (stuck && outcome.is_final());
    let here = begun.filter(|it| it.boot == moment.boot);
    ended.then(|| Ended {
        outcome,
        took: here.map(|it| moment.now - it.at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::Boot, time::Timestamp};

    const BOOT: Boot = Boot(7);

    /// A service whose planner is at work, a second later each time.
    struct Watched {
        status: ServiceStatus,
        second: u64,
        changed: bool,
        counts: [u64; Outcome::ALL.len()],
        took: Vec<Duration>,
    }

    impl Watched {
        /// One of which nothing is known.
        fn new() -> Self {
            Self {
                changed: true,
                ..Self::known(ServiceStatus::default())
            }
        }

        fn known(status: ServiceStatus) -> Self {
            Self {
                status,
                second: 0,
                changed: false,
                counts: [0; Outcome::ALL.len()],
                took: Vec::new(),
            }
        }

        /// The planner comes to this phase. Says what was counted so far.
        fn phase(&mut self, phase: Phase) -> [u64; Outcome::ALL.len()] {
            let moment = Moment {
                boot: BOOT,
                now: Timestamp::after(Duration::from_secs(self.second)),
                wall_ms: 0,
            };
            self.second += 1;
            let before = self.status.clone();
            self.status.phase = phase;
            let changed = std::mem::take(&mut self.changed);
            if let Some(ended) = follow(&before, &mut self.status, changed, moment) {
                self.counts[ended.outcome as usize] += 1;
                self.took.extend(ended.took);
            }
            self.counts
        }
    }

    #[test]
    fn each_end_is_counted_once() {
        let mut web = Watched::new();
        assert_eq!(web.phase(Phase::Progressing), [0; 4]);
        for _ in 0..2 {
            assert_eq!(web.phase(Phase::Complete), [1, 0, 0, 0]);
        }
        // Scaling is no rollout.
        assert_eq!(web.phase(Phase::Progressing), [1, 0, 0, 0]);
        assert_eq!(web.phase(Phase::Complete), [1, 0, 0, 0]);
        web.changed = true;
        assert_eq!(web.phase(Phase::Progressing), [1, 0, 0, 0]);
        let (from, reason) = (2, String::new());
        let back = Phase::RollingBack {
            from,
            reason: reason.clone(),
        };
        assert_eq!(web.phase(back), [1, 0, 0, 0]);
        let back = Phase::RolledBack { from, reason };
        for _ in 0..2 {
            assert_eq!(web.phase(back.clone()), [1, 1, 0, 0]);
        }
        assert_eq!(web.took, [1, 2].map(Duration::from_secs));
    }

    #[test]
    fn one_that_was_held_or_failed_can_end_again() {
        let mut web = Watched::new();
        let failure = Some("no pod is ready".to_owned());
        assert_eq!(web.phase(Phase::Paused { failure }), [0, 0, 1, 0]);
        let paused = Phase::Paused { failure: None };
        assert_eq!(web.phase(paused), [0, 0, 1, 0]);
        assert_eq!(web.phase(Phase::Progressing), [0, 0, 1, 0]);
        let reason = String::new();
        assert_eq!(web.phase(Phase::Failed { reason }), [0, 0, 1, 1]);
        assert_eq!(web.phase(Phase::Complete), [1, 0, 1, 1]);
        assert_eq!(web.took, [0, 2].map(Duration::from_secs));
    }

    #[test]
    fn what_was_under_way_before_has_no_duration_and_what_was_over_is_not_counted() {
        let (boot, at) = (Boot(6), Timestamp::ZERO);
        let mut web = Watched::known(ServiceStatus {
            begun: Some(Begun { boot, at }),
            ..ServiceStatus::default()
        });
        assert_eq!(web.phase(Phase::Complete), [1, 0, 0, 0]);
        assert!(web.took.is_empty());
        let mut web = Watched::known(ServiceStatus {
            phase: Phase::Complete,
            ..ServiceStatus::default()
        });
        assert_eq!(web.phase(Phase::Complete), [0; 4]);
    }
}
