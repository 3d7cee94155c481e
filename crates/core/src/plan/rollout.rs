//! Rollouts: which pods a service should have, and how one revision takes the place of another.
//!
//! As for a Deployment of Kubernetes where nothing else is said: `max_surge` and
//! `max_unavailable` bound what exists and what is available, a deadline says when a rollout has
//! failed, and scaling in the middle of one is spread over its revisions.
//!
//! ```text
//!                gate closed               all available, no others
//!     Waiting ◀──────────────▶ Progressing ────────────────────────▶ Complete ◀─┐
//!                              │  │     │                                       │
//!                    deadline, │  │     │ deadline,                             │
//!       on_failure = rollback  │  │     │ nothing to go back to                 │
//!                              ▼  │     ▼                                       │
//!                    RollingBack  │     Failed ── all available, no others ─────┘
//!                     │       │   │     ▲
//!      all available, │       └───┼─────┘ deadline
//!           no others ▼           │
//!            RolledBack           │ deadline, on_failure = pause
//!                                 ▼
//!                               Paused
//! ```
//!
//! Another revision in the spec leads to `Progressing` or `Waiting` from everywhere, `paused` in it
//! to `Paused`. From there `Progressing` or `Waiting` follows, or `Complete` at once when the target
//! has been complete before and has all its pods.

mod bounds;
mod ended;
mod goal;
mod phase;
mod pod_set;
mod readiness;
mod report;
mod retire;
mod scale;
mod steps;

pub use super::gate::Gate;
use crate::{
    event::Reason,
    name::PodName,
    record::{ServiceSpec, ServiceStatus},
    time::Timestamp,
};
use bounds::Bounds;
pub use ended::{Ended, Outcome};
pub use phase::{delete, plan};
pub use readiness::{ObservedPod, Readiness};

/// What to do with a service now, what to say of it, and when to look again.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Plan {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// What the service is once all of that has been done. It is the old one when nothing has
    /// changed.
    pub status: ServiceStatus,
    /// How the rollout has ended, if it has with this plan.
    pub ended: Option<Ended>,
    /// When to plan again at the latest. Always after `now`.
    pub wake_at: Option<Timestamp>,
}

/// What to do.
///
/// `RollBack` and `Pause` are written together with the status that was planned with them: alone,
/// either would be read as a user's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod that [`Pod::new`](crate::record::Pod::new) describes.
    Create {
        /// The name of the pod.
        pod: PodName,
        /// The reason, as a sentence for people.
        reason: String,
    },
    /// Set the pod's `stop`.
    Stop {
        /// The name of the pod.
        pod: PodName,
        /// The reason, as a sentence for people.
        reason: String,
    },
    /// Set the spec's `revision` to `to` and its `previous` to `from`.
    RollBack {
        /// The revision that failed.
        from: u64,
        /// The last good one.
        to: u64,
        /// The reason, as a sentence for people.
        reason: String,
    },
    /// Set the spec's `paused`.
    Pause {
        /// The reason, as a sentence for people.
        reason: String,
    },
    /// Tell what has happened.
    Announce {
        /// In one word.
        reason: Reason,
        /// In a sentence.
        message: String,
    },
}

/// How many pods more, and how many fewer, there may be while a revision takes the place of another.
pub(super) fn margins(spec: &ServiceSpec) -> (u32, u32) {
    let bounds = Bounds::new(spec);
    (bounds.surge, bounds.unavailable)
}

/// The most pods that a service with this spec may come to: with all that its autoscaler may ask
/// for, and the surge of a rollout.
pub fn most_pods(spec: &ServiceSpec) -> u32 {
    let bounds = spec.autoscale.as_ref();
    let replicas = bounds.map_or(spec.replicas, |it| it.min.max(it.max).max(spec.replicas));
    Bounds::of(&spec.rollout, replicas).most()
}

#[cfg(test)]
mod tests;
