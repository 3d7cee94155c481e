//! The life of a pod: what to do about each thing that happens to it.
//!
//! ```text
//! Pending ──Begin──▶ Starting ──came up──▶ Running (ready or not) ──Stop──▶ Draining ──▶ Stopped
//!    ╎                ▲    │                  │
//!    ╎    time is up  │    │ could not start, │ instance ended, liveness failed,
//!    ╎                │    │ startup failed   │ too many requests trapped
//!    ╎                │    ▼                  │
//!    └╌╌╌╌╌╌╌╌╌╌╌╌╌╌ BackOff ◀────────────────┘
//! ```
//!
//! A pod that the restart policy does not start again goes to `Stopped` instead of `BackOff`. A
//! stop leads to `Stopped` at once where no instance has come up, and through `Draining` from
//! `Running`, with requests in flight or without.
//!
//! The dashed line is no step: what a pod is made from is prepared before `Begin`, and while that
//! fails ([`Preparation`]) its object says `BackOff`.

mod notice;
mod preparation;
mod step;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub use notice::Notice;
pub use preparation::{Preparation, Retry};
pub use step::step;

use super::{
    probe::{Outcome, ProbeKind, Watch},
    restart::{CRASH_LOOP, End, Sample, TrapWindow},
};
use crate::{
    object::{Isolation, Probe, Restart, ServiceKind},
    quantity::{ByteSize, Cpu},
    record::{Boot, PodPhase, PodStatus, Template},
    time::Timestamp,
};

/// What a planner must know of a pod's service.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSpec {
    /// What it does.
    pub kind: ServiceKind,
    /// The startup probe.
    pub startup: Option<Arc<Probe>>,
    /// The readiness probe.
    pub readiness: Option<Arc<Probe>>,
    /// The liveness probe.
    pub liveness: Option<Arc<Probe>>,
    /// When and how fast it is started again.
    pub restart: Restart,
    /// With an instance for each request the pod is judged by how many of them trap.
    pub isolation: Isolation,
    /// How long requests in flight have to end.
    pub drain: Duration,
    /// Share of a core that it may use; `None` means no cap.
    pub cpu: Option<Cpu>,
    /// Bytes that each of its instances may use.
    pub memory: ByteSize,
}

impl PodSpec {
    /// What the template of a revision says.
    pub fn of(template: &Template, isolation: Isolation) -> Self {
        let probe = |probe: &Option<Probe>| probe.clone().map(Arc::new);
        Self {
            kind: template.kind,
            startup: probe(&template.startup),
            readiness: probe(&template.readiness),
            liveness: probe(&template.liveness),
            restart: template.restart.clone(),
            isolation,
            drain: template.drain,
            cpu: template.limits.cpu,
            memory: template.limits.memory,
        }
    }
}

/// What is remembered of a pod's earlier instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// How often it was started again.
    pub restarts: u32,
    /// Ends in a row, without `reset_after` of health between them.
    pub streak: u32,
}

/// Where a pod is in its life.
#[derive(Clone, Debug, PartialEq)]
pub enum PodState {
    /// What it is made from is being prepared, or requests to its service are not taken yet.
    Pending,
    /// Its instance is being made, or has not come up yet.
    Starting {
        /// Earlier instances.
        record: Record,
        /// When the making began.
        begun: Timestamp,
        /// How far it is.
        phase: Phase,
    },
    /// Its instance has come up.
    Running(Running),
    /// It has no instance, and gets a new one later.
    BackOff {
        /// Earlier instances.
        record: Record,
        /// When the next try begins.
        until: Timestamp,
        /// Why the last one ended.
        end: End,
    },
    /// It gets no more requests and ends those it has.
    Draining {
        /// Earlier instances.
        record: Record,
        /// Until when it may.
        until: Timestamp,
        /// How long that was when it began.
        allowed: Duration,
    },
    /// It is gone. Final.
    Stopped {
        /// Earlier instances.
        record: Record,
        /// Why: by itself, or because the host stopped it.
        end: Option<End>,
    },
}

/// A pod whose instance has come up.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// Earlier instances.
    pub record: Record,
    /// When it came up.
    pub since: Timestamp,
    /// Whether it gets requests.
    pub ready: bool,
    /// The readiness probe; without one it is ready.
    pub readiness: Option<Watch>,
    /// The liveness probe.
    pub liveness: Option<Watch>,
    /// How many requests trap, when each has an instance.
    pub traps: Option<TrapWindow>,
}

impl Running {
    fn probes(&self) -> impl Iterator<Item = &Watch> {
        [&self.readiness, &self.liveness].into_iter().flatten()
    }

    /// Probes that were missed because the pod got no CPU.
    pub fn starved(&self) -> u64 {
        self.probes().map(Watch::starved).sum()
    }

    /// Why it gets no requests, if that is so and known.
    fn unready(&self) -> Option<String> {
        let readiness = self.readiness.as_ref().filter(|_| !self.ready);
        readiness.and_then(failing)
    }

    /// The earliest time at which something is due.
    fn due(&self) -> Option<Timestamp> {
        let samples = self.traps.as_ref().and_then(TrapWindow::due);
        self.probes().filter_map(Watch::due).chain(samples).min()
    }
}

/// What is the matter with a probe, if anything is.
fn failing(watch: &Watch) -> Option<String> {
    let why = watch.failure()?;
    Some(format!("{} failed: {why}", watch.kind()))
}

impl PodState {
    /// Whether it gets requests.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Running(running) if running.ready)
    }

    /// The state as the store has it. A pod that is ready is so for the `nth` time in the run of
    /// its node that is called `boot`, and was started again `earlier` times before that run.
    pub fn status(&self, boot: Boot, nth: u32, earlier: u32) -> PodStatus {
        PodStatus {
            boot,
            phase: self.phase(nth),
            restarts: earlier.saturating_add(self.record().restarts),
            reason: self.reason(),
        }
    }

    /// The state as the store has it and everything shows it. One that is ready is so for the
    /// `nth` time.
    pub fn phase(&self, nth: u32) -> PodPhase {
        match self {
            Self::Pending => PodPhase::Pending,
            Self::Starting { .. } => PodPhase::Starting,
            Self::Running(running) if running.ready => PodPhase::Ready { nth },
            Self::Running(_) => PodPhase::Unready,
            Self::BackOff { record, .. } if record.streak >= CRASH_LOOP => {
                PodPhase::CrashLoopBackOff
            }
            Self::BackOff { .. } => PodPhase::BackOff,
            Self::Draining { .. } => PodPhase::Draining,
            Self::Stopped { .. } => PodPhase::Ended,
        }
    }

    /// Why it is in this state, if there is more to say.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Pending | Self::Draining { .. } => None,
            Self::Starting { phase, .. } => match phase {
                Phase::Making => None,
                Phase::ComingUp { startup, .. } => failing(startup),
            },
            Self::Running(running) => running.unready(),
            Self::BackOff { end, .. } => Some(end.to_string()),
            Self::Stopped { end, .. } => end.as_ref().map(ToString::to_string),
        }
    }

    /// What is remembered of its earlier instances.
    pub fn record(&self) -> Record {
        match self {
            Self::Pending => Record::default(),
            Self::Running(running) => running.record,
            Self::Starting { record, .. }
            | Self::BackOff { record, .. }
            | Self::Draining { record, .. }
            | Self::Stopped { record, .. } => *record,
        }
    }
}

/// How far a pod is that starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// An instance is being made.
    Making,
    /// It is there, and the startup probe waits for it to come up.
    ComingUp {
        /// When it was made.
        started: Timestamp,
        /// The startup probe.
        startup: Watch,
    },
}

/// What happens to a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What it is made from is there, and requests to its service are taken.
    Begin,
    /// The instance has been made.
    Started,
    /// The instance could not be made; why.
    StartFailed(String),
    /// The instance has ended.
    Terminated(End),
    /// A probe has been tried.
    ProbeDone(ProbeKind, Outcome),
    /// Requests have been counted.
    Sampled(Sample),
    /// Time has passed.
    Tick,
    /// The pod is asked to stop; this many requests are in flight.
    Stop {
        /// So many.
        in_flight: u32,
        /// How long they may take, if that is less than the spec says.
        drain: Option<Duration>,
    },
    /// No request is in flight any more.
    Drained,
}

/// What to do, in the order in which it is said.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make an instance: `Started` or `StartFailed` follows, unless it is dropped before.
    StartInstance,
    /// Let the pod have requests, or not, from this moment on.
    SetReady(bool),
    /// Ask the instance; `ProbeDone` follows, unless it is dropped before.
    RunProbe {
        /// What for.
        kind: ProbeKind,
        /// What, and how long to wait for the answer.
        probe: Arc<Probe>,
    },
    /// Count the requests; `Sampled` follows.
    Sample,
    /// Take the pod out of the gateway for good.
    Leave,
    /// Let the requests in flight end; `Drained` follows, unless the instance is dropped before.
    Drain,
    /// Report on the instance, which is there still and will be ended for this reason.
    Report(String),
    /// Free the instance, or give up making it. No event of this instance may follow.
    DropInstance,
    /// Tell what happened.
    Announce(Notice),
}

/// What comes of an event.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Step {
    /// Where the pod is now.
    pub state: PodState,
    /// What is to be done.
    pub actions: Vec<Action>,
    /// When to send a `Tick` at the latest. Always after `now`.
    pub wake_at: Option<Timestamp>,
}
