//! A step in the life of a pod: events are taken, then what is due is done.

use std::{sync::Arc, time::Duration};

use super::{
    Action, Event, Notice, Phase, PodSpec, PodState, Record, Running, Step, notice::failed_in_a_row,
};
use crate::{
    object::{Isolation, Probe},
    plan::{
        probe::{Finding, Outcome, ProbeKind, Watch},
        restart::{self, End, Sample, TrapWindow},
    },
    time::Timestamp,
};

/// What comes of `event` in `state`. An event that has no meaning there changes nothing.
pub fn step(state: PodState, event: Event, spec: &PodSpec, now: Timestamp) -> Step {
    let mut plan = Plan {
        spec,
        now,
        actions: Vec::new(),
    };
    let state = plan.take(state, event);
    // Whatever woke the pod: what is due is done now.
    let state = plan.advance(state);
    Step {
        wake_at: wake_at(&state),
        state,
        actions: plan.actions,
    }
}

/// The earliest time at which something is due.
fn wake_at(state: &PodState) -> Option<Timestamp> {
    match state {
        PodState::Pending | PodState::Stopped { .. } => None,
        PodState::Starting { phase, .. } => match phase {
            Phase::Making => None,
            Phase::ComingUp { startup, .. } => startup.due(),
        },
        PodState::Running(running) => running.due(),
        PodState::BackOff { until, .. } | PodState::Draining { until, .. } => Some(*until),
    }
}

/// A step being planned.
struct Plan<'a> {
    spec: &'a PodSpec,
    now: Timestamp,
    actions: Vec<Action>,
}

impl Plan<'_> {
    /// Takes an event.
    fn take(&mut self, state: PodState, event: Event) -> PodState {
        match (state, event) {
            (PodState::Pending, Event::Begin) => self.start(Record::default()),
            (
                PodState::Starting {
                    record,
                    begun,
                    phase: Phase::Making,
                },
                Event::Started,
            ) => self.started(record, begun),
            (
                PodState::Starting {
                    record,
                    phase: Phase::Making,
                    ..
                },
                Event::StartFailed(reason),
            ) => {
                self.announce(Notice::start_failed(&reason));
                self.ended(record, Duration::ZERO, End::Failed(reason))
            }
            (
                PodState::Starting {
                    record,
                    begun,
                    phase: Phase::ComingUp { started, startup },
                },
                Event::ProbeDone(ProbeKind::Startup, outcome),
            ) => self.startup_answered(record, begun, (started, startup), &outcome),
            (PodState::Running(running), Event::ProbeDone(kind, outcome)) => {
                self.answered(running, kind, &outcome)
            }
            (PodState::Running(running), Event::Sampled(sample)) => self.sampled(running, sample),
            (PodState::Draining { record, .. }, Event::Drained) => {
                self.actions.push(Action::DropInstance);
                self.stopped(record, None, Notice::stopped())
            }
            (state, Event::Terminated(end)) => self.terminated(state, end),
            (state, Event::Stop { in_flight, drain }) => self.stop(state, in_flight, drain),
            // What has no meaning in a state. What is due is done after every event.
            (
                state @ (PodState::Pending
                | PodState::Starting { .. }
                | PodState::Running { .. }
                | PodState::BackOff { .. }
                | PodState::Draining { .. }
                | PodState::Stopped { .. }),
                Event::Begin
                | Event::Started
                | Event::StartFailed(_)
                | Event::ProbeDone(..)
                | Event::Sampled(_)
                | Event::Tick
                | Event::Drained,
            ) => state,
        }
    }

    /// Does what is due.
    fn advance(&mut self, mut state: PodState) -> PodState {
        match &mut state {
            PodState::Starting {
                phase: Phase::ComingUp { startup, .. },
                ..
            } => self.ask(startup),
            PodState::Running(running) => {
                let probes = [&mut running.readiness, &mut running.liveness];
                for watch in probes.into_iter().flatten() {
                    self.ask(watch);
                }
                let traps = running.traps.as_mut();
                if traps.is_some_and(|traps| traps.ask(self.now)) {
                    self.actions.push(Action::Sample);
                }
            }
            PodState::BackOff { record, until, .. } if *until <= self.now => {
                record.restarts = record.restarts.saturating_add(1);
                self.announce(Notice::restarting(record.restarts));
                return self.start(*record);
            }
            PodState::Draining {
                record,
                until,
                allowed,
            } if *until <= self.now => {
                self.actions.push(Action::DropInstance);
                let notice = Notice::cut_off(self.spec.kind, *allowed);
                return self.stopped(*record, None, notice);
            }
            PodState::Pending
            | PodState::Starting {
                phase: Phase::Making,
                ..
            }
            | PodState::BackOff { .. }
            | PodState::Draining { .. }
            | PodState::Stopped { .. } => {}
        }
        state
    }

    fn announce(&mut self, notice: Notice) {
        self.actions.push(Action::Announce(notice));
    }

    fn ask(&mut self, watch: &mut Watch) {
        if watch.ask(self.now) {
            self.actions.push(Action::RunProbe {
                kind: watch.kind(),
                probe: Arc::clone(watch.probe()),
            });
        }
    }

    fn start(&mut self, record: Record) -> PodState {
        self.actions.push(Action::StartInstance);
        PodState::Starting {
            record,
            begun: self.now,
            phase: Phase::Making,
        }
    }

    /// The instance has been made: the startup probe comes first.
    fn started(&mut self, record: Record, begun: Timestamp) -> PodState {
        let Some(probe) = &self.spec.startup else {
            return self.come_up(record, begun, self.now);
        };
        self.announce(Notice::started(ProbeKind::Startup));
        PodState::Starting {
            record,
            begun,
            phase: Phase::ComingUp {
                started: self.now,
                startup: Watch::new(ProbeKind::Startup, probe, self.now, self.now),
            },
        }
    }

    /// The instance that was made at `started` has come up.
    fn come_up(&mut self, record: Record, begun: Timestamp, started: Timestamp) -> PodState {
        let watch = |kind, probe: &Option<Arc<Probe>>| {
            let probe = probe.as_ref()?;
            Some(Watch::new(kind, probe, started, self.now))
        };
        let readiness = watch(ProbeKind::Readiness, &self.spec.readiness);
        let liveness = watch(ProbeKind::Liveness, &self.spec.liveness);
        let ready = readiness.is_none();
        match ready {
            true => {
                self.actions.push(Action::SetReady(true));
                self.announce(Notice::ready_after(self.now - begun));
            }
            false => self.announce(Notice::started(ProbeKind::Readiness)),
        }
        PodState::Running(Running {
            record,
            since: self.now,
            ready,
            readiness,
            liveness,
            traps: match self.spec.isolation {
                Isolation::Pod => None,
                Isolation::Request => Some(TrapWindow::new(started)),
            },
        })
    }

    fn startup_answered(
        &mut self,
        record: Record,
        begun: Timestamp,
        (started, mut startup): (Timestamp, Watch),
        outcome: &Outcome,
    ) -> PodState {
        let finding = startup.answer(outcome, self.now);
        match self.judge(&startup, finding, outcome) {
            Verdict::Good => self.come_up(record, begun, started),
            Verdict::Bad(reason) => self.kill(record, Duration::ZERO, reason),
            Verdict::Open => PodState::Starting {
                record,
                begun,
                phase: Phase::ComingUp { started, startup },
            },
        }
    }

    fn answered(&mut self, mut running: Running, kind: ProbeKind, outcome: &Outcome) -> PodState {
        let watch = match kind {
            ProbeKind::Startup => None,
            ProbeKind::Readiness => running.readiness.as_mut(),
            ProbeKind::Liveness => running.liveness.as_mut(),
        };
        let verdict = watch.map_or(Verdict::Open, |watch| {
            let finding = watch.answer(outcome, self.now);
            self.judge(watch, finding, outcome)
        });
        match (kind, verdict) {
            (ProbeKind::Liveness, Verdict::Bad(reason)) => {
                self.actions.push(Action::SetReady(false));
                return self.kill(running.record, self.now - running.since, reason);
            }
            (ProbeKind::Readiness, Verdict::Good) if !running.ready => {
                self.set_ready(&mut running, true, Notice::ready());
            }
            (ProbeKind::Readiness, Verdict::Bad(reason)) if running.ready => {
                self.set_ready(&mut running, false, Notice::unready(reason));
            }
            (ProbeKind::Readiness | ProbeKind::Liveness, Verdict::Good | Verdict::Open)
            | (ProbeKind::Readiness, Verdict::Bad(_))
            | (ProbeKind::Startup, Verdict::Good | Verdict::Bad(_) | Verdict::Open) => {}
        }
        PodState::Running(running)
    }

    /// What a finding comes to. What it does not change, it may still tell.
    fn judge(&mut self, watch: &Watch, finding: Finding, outcome: &Outcome) -> Verdict {
        let reason = match outcome {
            Outcome::Failure(reason) => reason.as_str(),
            Outcome::Success | Outcome::Starved => "",
        };
        let (kind, failures) = (watch.kind(), watch.probe().failures);
        match finding {
            Finding::Unasked | Finding::Recovering => Verdict::Open,
            Finding::Starved(times) => {
                // A line each time the number doubles.
                if times.is_power_of_two() {
                    self.announce(Notice::starved(kind, times));
                }
                Verdict::Open
            }
            Finding::Wavering(row) => {
                if row == 1 {
                    self.announce(Notice::unhealthy(kind, failures, reason));
                }
                Verdict::Open
            }
            Finding::Passed => Verdict::Good,
            Finding::Failed(row) => Verdict::Bad(failed_in_a_row(kind, row, reason)),
        }
    }

    /// Lets the pod have requests from now on, or not.
    fn set_ready(&mut self, running: &mut Running, ready: bool, notice: Notice) {
        running.ready = ready;
        self.actions.push(Action::SetReady(ready));
        self.announce(notice);
    }

    fn sampled(&mut self, mut running: Running, sample: Sample) -> PodState {
        let traps = running.traps.as_mut();
        match traps.and_then(|traps| traps.push(sample, self.now)) {
            Some(too_many) => {
                self.actions.push(Action::SetReady(false));
                let healthy = self.now - running.since;
                self.kill(running.record, healthy, too_many)
            }
            None => PodState::Running(running),
        }
    }

    fn terminated(&mut self, state: PodState, end: End) -> PodState {
        let (record, healthy) = match state {
            // Also while it is being made: word of its end may be faster than word of its making.
            PodState::Starting { record, .. } => (record, Duration::ZERO),
            PodState::Running(running) => {
                self.actions.push(Action::SetReady(false));
                (running.record, self.now - running.since)
            }
            PodState::Draining { record, .. } => {
                self.actions.push(Action::DropInstance);
                return self.stopped(record, None, Notice::ended_while_draining(&end));
            }
            PodState::Pending | PodState::BackOff { .. } | PodState::Stopped { .. } => {
                return state;
            }
        };
        self.actions.push(Action::DropInstance);
        self.announce(Notice::terminated(&end));
        self.ended(record, healthy, end)
    }

    /// Ends an instance that is there and does not do what it should.
    fn kill(&mut self, record: Record, healthy: Duration, reason: String) -> PodState {
        self.actions
            .extend([Action::Report(reason.clone()), Action::DropInstance]);
        self.announce(Notice::killing(&reason));
        self.ended(record, healthy, End::Failed(reason))
    }

    /// The instance is gone, after so much health: the pod starts again or not.
    fn ended(&mut self, record: Record, healthy: Duration, end: End) -> PodState {
        if !restart::wanted(self.spec.restart.policy, &end) {
            self.actions.push(Action::Leave);
            let notice = Notice::not_restarted(self.spec.restart.policy);
            return self.stopped(record, Some(end), notice);
        }
        let streak = restart::streak(&self.spec.restart, record.streak, healthy);
        let delay = restart::delay(&self.spec.restart, streak);
        self.announce(Notice::back_off(streak, delay, &end));
        PodState::BackOff {
            record: Record { streak, ..record },
            until: self.now + delay,
            end,
        }
    }

    fn stop(&mut self, state: PodState, in_flight: u32, drain: Option<Duration>) -> PodState {
        match state {
            PodState::Pending | PodState::BackOff { .. } => {
                self.actions.push(Action::Leave);
                self.stopped(state.record(), None, Notice::stopped())
            }
            PodState::Starting { record, .. } => {
                self.actions.extend([Action::Leave, Action::DropInstance]);
                self.stopped(record, None, Notice::stopped())
            }
            PodState::Running(Running { record, .. }) => {
                self.actions.push(Action::Leave);
                if in_flight > 0 {
                    self.announce(Notice::draining(in_flight));
                }
                self.actions.push(Action::Drain);
                let allowed = drain.map_or(self.spec.drain, |it| it.min(self.spec.drain));
                PodState::Draining {
                    record,
                    until: self.now + allowed,
                    allowed,
                }
            }
            PodState::Draining { .. } | PodState::Stopped { .. } => state,
        }
    }

    fn stopped(&mut self, record: Record, end: Option<End>, notice: Notice) -> PodState {
        self.announce(notice);
        PodState::Stopped { record, end }
    }
}

/// What a probe's answer comes to.
enum Verdict {
    Good,
    Bad(String),
    Open,
}
