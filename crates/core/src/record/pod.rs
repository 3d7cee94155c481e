//! A pod as the store holds it.

use serde::{Deserialize, Serialize};

use super::Boot;
use crate::{
    name::{PodName, ServiceKey},
    time::Timestamp,
};

/// A pod that should be there, or should go. Its key says its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// The service it belongs to.
    pub service: ServiceKey,
    /// The revision that it runs.
    pub revision: u64,
    /// Which of the revision's pods it is.
    pub slot: u32,
    /// Why it should go, once it should: it is drained, stopped, and then removed.
    pub stop: Option<String>,
    /// How it is.
    pub status: PodStatus,
}

impl Pod {
    /// A pod that should be there from now on.
    pub fn new(service: &ServiceKey, revision: u64, slot: u32) -> Self {
        Self {
            service: service.clone(),
            revision,
            slot,
            stop: None,
            status: PodStatus::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> PodName {
        PodName::new(&self.service, self.revision, self.slot)
    }

    /// How it is in this run of the node.
    pub fn phase(&self, boot: Boot) -> PodPhase {
        match self.status.boot == boot {
            true => self.status.phase,
            // An end is for good.
            false if self.status.phase == PodPhase::Ended => PodPhase::Ended,
            false => PodPhase::Pending,
        }
    }

    /// Since when it has been ready without a break, if it is.
    pub fn ready_since(&self, boot: Boot) -> Option<Timestamp> {
        match self.phase(boot) {
            PodPhase::Ready { since } => Some(since),
            PodPhase::Pending
            | PodPhase::Starting
            | PodPhase::Unready
            | PodPhase::BackOff
            | PodPhase::CrashLoopBackOff
            | PodPhase::Draining
            | PodPhase::Ended => None,
        }
    }
}

/// How a pod is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodStatus {
    /// The run of the node in which this was so.
    pub boot: Boot,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// How often it was started again, over all runs of the node.
    pub restarts: u32,
    /// Why it is in this phase, if there is more to say.
    pub reason: Option<String>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodPhase {
    /// It waits for its component.
    #[default]
    Pending,
    /// Its instance is being made, or has not come up yet.
    Starting,
    /// It has come up and gets requests.
    Ready {
        /// Since when without a break, on the clock of its run.
        since: Timestamp,
    },
    /// It has come up and gets none.
    Unready,
    /// It has no instance, because the last one has ended or none can be made, and gets one later.
    BackOff,
    /// The same, and not for the first time in a row.
    CrashLoopBackOff,
    /// It gets no more requests and ends those it has.
    Draining,
    /// It has ended and is not started again.
    Ended,
}

impl PodPhase {
    /// All words of [`Self::word`], in the order of a pod's life.
    pub const WORDS: [&'static str; 7] = [
        "Pending",
        "Starting",
        "Running",
        "BackOff",
        "CrashLoopBackOff",
        "Draining",
        "Stopped",
    ];

    /// The phase in one word, as it is shown everywhere. Whether a pod that runs gets requests is
    /// shown beside it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Ready { .. } | Self::Unready => "Running",
            Self::BackOff => "BackOff",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::Draining => "Draining",
            Self::Ended => "Stopped",
        }
    }
}
