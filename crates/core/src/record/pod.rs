//! A pod as the store holds it.

use serde::{Deserialize, Serialize};

use super::{Boot, Boots};
use crate::name::{Name, PodName, ServiceKey};

/// A pod that should be there, or should go. Its key says its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// The service it belongs to.
    pub service: ServiceKey,
    /// The revision that it runs.
    pub revision: u64,
    /// Which of the revision's pods it is.
    pub slot: u32,
    /// The node that runs it, for good: a pod that is to run elsewhere is another pod.
    pub node: Option<Name>,
    /// Why it should go, once it should: it is drained, stopped, and then removed.
    pub stop: Option<String>,
    /// What it takes of its node, where there are several.
    #[serde(default, skip_serializing_if = "Reserved::is_nothing")]
    pub reserved: Reserved,
    /// How many milliseconds it may drain then, if that is less than its revision says: what stops
    /// after others has what they have left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
    /// How it is.
    pub status: PodStatus,
}

impl Pod {
    /// A pod that should be there from now on, which no node runs yet.
    pub fn new(service: &ServiceKey, revision: u64, slot: u32) -> Self {
        Self {
            service: service.clone(),
            revision,
            slot,
            node: None,
            stop: None,
            reserved: Reserved::default(),
            drain_ms: None,
            status: PodStatus::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> PodName {
        PodName::new(&self.service, self.revision, self.slot)
    }

    /// Whether it waits for a node that has room for it.
    pub fn is_unplaced(&self) -> bool {
        self.node.is_none()
    }

    /// The node that ran it and does not run any more.
    pub fn lost(&self, boots: &Boots) -> Option<&Name> {
        let node = self.node.as_ref();
        node.filter(|node| boots.of(node).is_none())
    }

    /// What the present run of its node has observed of it. An end is for good, whichever run saw it;
    /// all else that an earlier run observed holds no more. Of a pod without a node it is what its
    /// planner has found.
    pub fn observed(&self, boots: &Boots) -> Option<&PodStatus> {
        let boot = self.node.as_ref().and_then(|node| boots.of(node));
        let holds = boot == Some(self.status.boot)
            || self.status.phase == PodPhase::Ended
            || self.is_unplaced();
        holds.then_some(&self.status)
    }

    /// How it is.
    pub fn phase(&self, boots: &Boots) -> PodPhase {
        self.observed(boots)
            .map_or(PodPhase::Pending, |it| it.phase)
    }
}

/// What a pod takes of its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// Memory, in bytes.
    pub memory: u64,
    /// Thousandths of a core.
    pub cpu_millis: u64,
}

impl Reserved {
    /// Whether it takes nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// How a pod is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodStatus {
    /// The run of its node that observed this.
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
        /// How often it has become ready in this run of its node. That it has another number says
        /// that it was not ready in between; since when it is, another node's clock could not say.
        nth: u32,
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
