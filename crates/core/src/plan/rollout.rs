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
mod phase;
mod pod_set;
mod report;
mod scale;
mod steps;

use std::borrow::Borrow;

pub use super::gate::Gate;
use crate::{
    event::Reason,
    name::PodName,
    record::{Moment, Pod, Service, ServiceSpec, ServiceStatus},
    time::Timestamp,
};
use bounds::Bounds;
pub use ended::{Ended, Outcome};
use phase::Rollout;
use pod_set::PodSet;

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
    /// Make the pod that [`Pod::new`] describes.
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

/// The most pods that a service with this spec may come to: with all that its autoscaler may ask
/// for, and the surge of a rollout.
pub fn most_pods(spec: &ServiceSpec) -> u32 {
    let bounds = spec.autoscale.as_ref();
    let replicas = bounds.map_or(spec.replicas, |it| it.min.max(it.max).max(spec.replicas));
    Bounds::of(&spec.rollout, replicas).most()
}

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
pub fn plan(service: &Service, pods: &[impl Borrow<Pod>], gate: &Gate, moment: Moment) -> Plan {
    let set = PodSet::new(service, pods, moment);
    match service.spec.deleting {
        true => delete(service, set, moment),
        false => Rollout::new(service, set, gate, moment).plan(),
    }
}

/// All pods go, whatever else is wanted.
fn delete(service: &Service, mut set: PodSet, moment: Moment) -> Plan {
    for at in set.ranked(|_| true, |member| member.slot) {
        set.stop(at, "the service is being deleted");
    }
    let mut status = service.status.clone();
    let bounds = Bounds::new(&service.spec);
    report::fill(&mut status, service, &set, bounds, moment, false);
    Plan {
        actions: set.into_actions(),
        status,
        ended: None,
        wake_at: None,
    }
}

#[cfg(test)]
mod tests;
