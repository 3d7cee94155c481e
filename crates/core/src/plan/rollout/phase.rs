//! How far a rollout is, and what follows from that.

use std::time::Duration;

use super::{
    Action, Gate, ObservedPod, Plan, bounds::Bounds, ended, goal::Goal, pod_set::PodSet, report,
    steps::steps,
};
use crate::{
    event::Reason,
    object::OnFailure,
    plan::stop::Turn,
    record::{Moment, Phase, Progress, Service},
    time::Timestamp,
};

/// The shortest deadline: one of nothing would be over before anything can happen.
const MIN_DEADLINE: Duration = Duration::from_millis(1);

/// Plans for `service`, which has these `pods`; others are not looked at, and their order does
/// not matter. `gate` says whether what it depends on has happened.
///
/// - Alive is every pod that there is, one that drains too: it still takes memory and CPU, so that
///   `replicas` + surge would bound nothing without it. Kubernetes calls this the
///   `podReplacementPolicy` `TerminationComplete`. Where there are pods of one revision only,
///   nothing is replaced and those that drain do not count, as in a ReplicaSet: a service that
///   scales up again, or wakes from zero, does not wait for drains.
/// - Available is a pod that has been ready for `min_ready` without a break and is not to stop.
///   None of them is stopped when fewer than `replicas` − unavailable would be left.
/// - A pod that has ended for good keeps its place and is not available.
/// - A closed gate holds a revision that has never been complete: none of its pods is made, and
///   none of another revision is stopped for it. The deadline does not run.
pub fn plan(service: &Service, pods: &[ObservedPod<'_>], gate: &Gate, moment: Moment) -> Plan {
    match service.spec.deleting {
        true => {
            let drain = service.spec.rollout.drain;
            delete(service, pods, &Turn::Now { drain }, moment)
        }
        false => {
            let set = PodSet::new(service, pods, moment);
            Rollout::new(service, set, gate, moment).plan()
        }
    }
}

/// All pods go, whatever else is wanted, once it is the service's `turn`.
pub fn delete(service: &Service, pods: &[ObservedPod<'_>], turn: &Turn, moment: Moment) -> Plan {
    let mut set = PodSet::new(service, pods, moment);
    let mut status = service.status.clone();
    let wake_at = match turn {
        Turn::Now { .. } => {
            for at in set.ranked(|_| true, |member| member.slot) {
                set.stop(at, "the service is being deleted");
            }
            if let Phase::Waiting { .. } = status.phase {
                status.phase = Phase::Progressing;
            }
            None
        }
        Turn::After { dependent, until } => {
            let on = format!("for `{}` to stop before it", dependent.name);
            status.phase = Phase::Waiting { on };
            Some(*until)
        }
    };
    let bounds = Bounds::new(&service.spec);
    report::fill(&mut status, service, &set, bounds, moment, false);
    Plan {
        actions: set.into_actions(),
        status,
        ended: None,
        wake_at,
    }
}

/// A plan in the making.
struct Rollout<'a> {
    service: &'a Service,
    gate: &'a Gate,
    moment: Moment,
    bounds: Bounds,
    /// The pods that there are.
    set: PodSet,
    /// The revision in the spec is another than before.
    changed: bool,
    /// The revision that pods should run.
    target: u64,
    last_good: Option<u64>,
    phase: Phase,
    progress: Progress,
    /// What has been decided about the service itself.
    actions: Vec<Action>,
}

/// What would be done with the pods, and what there would be then.
struct Outcome {
    set: PodSet,
    scaled: bool,
}

impl<'a> Rollout<'a> {
    /// Takes in what the user wants.
    fn new(service: &'a Service, set: PodSet, gate: &'a Gate, moment: Moment) -> Self {
        let (spec, status) = (&service.spec, &service.status);
        let changed = status.target != spec.revision;
        let last_good = match &status.phase {
            Phase::Complete | Phase::RolledBack { .. } | Phase::RollingBack { .. } => {
                Some(status.target)
            }
            Phase::Progressing
            | Phase::Waiting { .. }
            | Phase::Paused { .. }
            | Phase::Failed { .. } => status.last_good,
        };
        let mut rollout = Self {
            service,
            gate,
            moment,
            bounds: Bounds::new(spec),
            set,
            changed,
            target: spec.revision,
            last_good,
            phase: Phase::Progressing,
            progress: status.progress,
            actions: Vec::new(),
        };
        rollout.phase = rollout.begin();
        rollout
    }

    /// Decides everything.
    fn plan(mut self) -> Plan {
        self.tell_beginning();
        let mut outcome = self.outcome();
        self.mark(&outcome.set);
        if self.is_complete(&outcome.set) {
            self.complete();
        } else if self.is_late() {
            outcome = self.fail();
        }
        self.conclude(outcome)
    }

    /// The phase, before anything is done: what the user wants and what has been waited for.
    fn begin(&self) -> Phase {
        let before = match self.changed {
            true => &Phase::Progressing,
            false => &self.service.status.phase,
        };
        if self.service.spec.paused {
            let failure = match before {
                Phase::Paused { failure } => failure.clone(),
                Phase::RollingBack { reason, .. } | Phase::Failed { reason } => {
                    Some(reason.clone())
                }
                Phase::Progressing
                | Phase::Waiting { .. }
                | Phase::Complete
                | Phase::RolledBack { .. } => None,
            };
            return Phase::Paused { failure };
        }
        match before {
            Phase::Progressing | Phase::Waiting { .. } => self.go_on(),
            Phase::Paused { .. } if self.was_complete() => Phase::Complete,
            Phase::Paused { .. } => self.go_on(),
            Phase::Complete
            | Phase::RollingBack { .. }
            | Phase::RolledBack { .. }
            | Phase::Failed { .. } => before.clone(),
        }
    }

    /// Progress, unless the gate is closed.
    fn go_on(&self) -> Phase {
        match (self.is_held(), self.gate) {
            (true, Gate::Waiting(on) | Gate::Never(on)) => Phase::Waiting { on: on.clone() },
            (true, Gate::Open) | (false, Gate::Open | Gate::Waiting(_) | Gate::Never(_)) => {
                Phase::Progressing
            }
        }
    }

    /// Whether a closed gate holds the target: one that has been complete is not held.
    fn is_held(&self) -> bool {
        let open = match self.gate {
            Gate::Open => true,
            Gate::Waiting(_) | Gate::Never(_) => false,
        };
        !open && self.last_good != Some(self.target)
    }

    /// Whether a paused rollout has nothing left to do: its target has been complete, and all pods
    /// that there should be are of it.
    fn was_complete(&self) -> bool {
        let own = super::pod_set::count(self.set.active_of(self.target));
        self.last_good == Some(self.target)
            && own >= self.bounds.replicas
            && !self.set.has_others(self.target)
    }

    /// Announces what the user has done, and that the rollout waits.
    fn tell_beginning(&mut self) {
        let before = &self.service.status;
        if self.changed {
            let message = match before.target {
                0 => format!("revision {} is rolled out", self.target),
                from => format!("revision {} replaces revision {from}", self.target),
            };
            self.announce(Reason::RolloutStarted, message);
        }
        let was_paused = matches!(before.phase, Phase::Paused { .. });
        let was_waiting = matches!(before.phase, Phase::Waiting { .. });
        let target = self.target;
        match self.phase.clone() {
            Phase::Paused { .. } if !was_paused => {
                self.announce(Reason::RolloutPaused, format!("revision {target} is held"));
            }
            Phase::Waiting { on } if !was_waiting || self.changed => {
                self.announce(
                    Reason::RolloutWaiting,
                    format!("revision {target} waits {on}"),
                );
            }
            Phase::Progressing | Phase::Complete if was_paused && !self.changed => {
                self.announce(Reason::RolloutResumed, format!("revision {target} goes on"));
            }
            Phase::Paused { .. }
            | Phase::Waiting { .. }
            | Phase::Progressing
            | Phase::Complete
            | Phase::RollingBack { .. }
            | Phase::RolledBack { .. }
            | Phase::Failed { .. } => {}
        }
    }

    fn is_paused(&self) -> bool {
        matches!(self.phase, Phase::Paused { .. })
    }

    /// What is done with the pods in this phase.
    fn outcome(&self) -> Outcome {
        let spec = &self.service.spec;
        let scaled_from = Bounds::of(&spec.rollout, self.service.status.scaled_to);
        let cause = match &self.phase {
            Phase::Progressing | Phase::Waiting { .. } | Phase::Failed { .. } => {
                format!("revision {} is rolled out", self.target)
            }
            Phase::RollingBack { .. } => format!("revision {} is restored", self.target),
            Phase::Paused { .. } | Phase::Complete | Phase::RolledBack { .. } => {
                format!("{} replicas are wanted", self.bounds.replicas)
            }
        };
        let goal = Goal {
            target: self.target,
            bounds: self.bounds,
            strategy: spec.rollout.strategy,
            paused: self.is_paused(),
            waits: self.is_held(),
            last_good: self.last_good,
            scaled_from: Some(scaled_from).filter(|it| it.replicas != self.bounds.replicas),
            cause: &cause,
        };
        let mut set = self.set.clone();
        let scaled = steps(&mut set, &goal);
        Outcome { set, scaled }
    }

    /// Notes progress. What is not under way makes none, and its time does not run.
    fn mark(&mut self, set: &PodSet) {
        let Moment { boot, now, .. } = self.moment;
        let available = set.available_of(self.target);
        let old = set.alive_beside(self.target);
        if self.changed {
            self.restart_progress(set);
            return;
        }
        if !self.is_under_way() {
            return;
        }
        let before = self.progress;
        let was_held = matches!(
            self.service.status.phase,
            Phase::Waiting { .. } | Phase::Paused { .. }
        );
        let better = available > before.most_available || old < before.fewest_old;
        if better || was_held || before.boot != boot {
            self.progress = Progress {
                boot,
                since: now,
                most_available: available.max(before.most_available),
                fewest_old: old.min(before.fewest_old),
            };
        }
    }

    /// Progress is counted from here on.
    fn restart_progress(&mut self, set: &PodSet) {
        self.progress = Progress {
            boot: self.moment.boot,
            since: self.moment.now,
            most_available: set.available_of(self.target),
            fewest_old: set.alive_beside(self.target),
        };
    }

    /// Whether the deadline runs.
    fn is_under_way(&self) -> bool {
        match self.phase {
            Phase::Progressing | Phase::RollingBack { .. } => !self.is_held(),
            Phase::Waiting { .. }
            | Phase::Complete
            | Phase::Paused { .. }
            | Phase::RolledBack { .. }
            | Phase::Failed { .. } => false,
        }
    }

    /// When the rollout has failed unless it gets on.
    fn deadline(&self) -> Timestamp {
        let deadline = self.service.spec.rollout.progress_deadline;
        self.progress.since + deadline.max(MIN_DEADLINE)
    }

    fn is_late(&self) -> bool {
        self.is_under_way() && self.deadline() <= self.moment.now
    }

    /// Whether the rollout is done once the plan is carried out.
    fn is_complete(&self, set: &PodSet) -> bool {
        let pending = match self.phase {
            Phase::Progressing | Phase::RollingBack { .. } | Phase::Failed { .. } => true,
            Phase::Waiting { .. }
            | Phase::Complete
            | Phase::Paused { .. }
            | Phase::RolledBack { .. } => false,
        };
        pending
            && !self.is_held()
            && set.available_of(self.target) >= self.bounds.replicas
            && !set.has_others(self.target)
    }

    /// It is done.
    fn complete(&mut self) {
        self.last_good = Some(self.target);
        let (target, replicas) = (self.target, self.bounds.replicas);
        match std::mem::take(&mut self.phase) {
            Phase::RollingBack { from, reason } => {
                let message = format!("revision {target} runs again in place of {from}: {reason}");
                self.phase = Phase::RolledBack { from, reason };
                self.announce(Reason::RolledBack, message);
            }
            Phase::Progressing
            | Phase::Waiting { .. }
            | Phase::Complete
            | Phase::Paused { .. }
            | Phase::RolledBack { .. }
            | Phase::Failed { .. } => {
                self.phase = Phase::Complete;
                let message = format!("all {replicas} pods of revision {target} are available");
                self.announce(Reason::RolloutComplete, message);
            }
        }
    }

    /// It has not got on for too long.
    fn fail(&mut self) -> Outcome {
        let deadline = self.service.spec.rollout.progress_deadline;
        let replicas = self.bounds.replicas;
        let reason = report::stuck(&self.set, self.target, replicas, deadline);
        self.announce(Reason::ProgressDeadlineExceeded, reason.clone());
        if let Phase::RollingBack { reason: first, .. } = &self.phase {
            // Of two that fail neither is better.
            let reason = format!("{first}; then the rollback failed: {reason}");
            self.phase = Phase::Failed { reason };
            return self.outcome();
        }
        let back = self.last_good.filter(|&good| good != self.target);
        match (self.service.spec.rollout.on_failure, back) {
            (OnFailure::Rollback, Some(good)) => return self.roll_back(good, reason),
            (OnFailure::Rollback, None) => self.phase = Phase::Failed { reason },
            (OnFailure::Pause, Some(_) | None) => {
                self.phase = Phase::Paused {
                    failure: Some(reason.clone()),
                };
                self.actions.push(Action::Pause { reason });
            }
        }
        self.outcome()
    }

    /// The last good revision takes over again.
    fn roll_back(&mut self, good: u64, reason: String) -> Outcome {
        let from = self.target;
        self.actions.push(Action::RollBack {
            from,
            to: good,
            reason: reason.clone(),
        });
        self.target = good;
        self.phase = Phase::RollingBack { from, reason };
        let outcome = self.outcome();
        self.restart_progress(&outcome.set);
        if self.is_complete(&outcome.set) {
            self.complete();
        }
        outcome
    }

    fn announce(&mut self, reason: Reason, message: String) {
        self.actions.push(Action::Announce { reason, message });
    }

    /// Writes the plan.
    fn conclude(mut self, outcome: Outcome) -> Plan {
        let before = &self.service.status;
        let mut status = before.clone();
        if outcome.scaled {
            status.scaled_to = self.bounds.replicas;
            if status.scaled_to != before.scaled_to && before.target != 0 {
                let (from, to) = (before.scaled_to, status.scaled_to);
                self.announce(Reason::Scaled, format!("from {from} to {to} pods"));
            }
        }
        let deadline = Some(self.deadline()).filter(|_| self.is_under_way());
        status.target = self.target;
        status.last_good = self.last_good;
        status.phase = self.phase;
        status.progress = self.progress;
        let ended = ended::follow(before, &mut status, self.changed, self.moment);
        report::fill(
            &mut status,
            self.service,
            &outcome.set,
            self.bounds,
            self.moment,
            self.changed,
        );
        if let Some((reason, message)) = report::turn(before, &status, self.bounds) {
            self.actions.push(Action::Announce { reason, message });
        }
        let available = outcome
            .set
            .active()
            .filter_map(|member| member.available_at);
        let wake_at = available
            .chain(deadline)
            .filter(|&at| at > self.moment.now)
            .min();
        let mut actions = self.actions;
        actions.extend(outcome.set.into_actions());
        Plan {
            actions,
            status,
            ended,
            wake_at,
        }
    }
}
