//! A service as the store holds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Boot;
use crate::{
    name::{Name, ServiceKey},
    object::{self, Autoscale, Route},
    quantity::duration_text,
    time::Timestamp,
};

/// A long-running workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The app it belongs to, and its name.
    pub key: ServiceKey,
    /// Raised by each change of the spec.
    pub generation: u64,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What has come of it.
    pub status: ServiceStatus,
}

/// What is wanted of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The revision that its pods should run.
    pub revision: u64,
    /// What the pods of that revision do.
    #[serde(default, skip_serializing_if = "object::ServiceKind::is_http")]
    pub kind: object::ServiceKind,
    /// The one they should run before: `undo` goes back to it.
    pub previous: Option<u64>,
    /// The highest number that was given to a revision.
    pub latest: u64,
    /// How many pods.
    pub replicas: u32,
    /// Pods of another revision are neither made nor stopped.
    pub paused: bool,
    /// It is being deleted: its pods go, then it.
    pub deleting: bool,
    /// How a revision replaces another.
    pub rollout: object::Rollout,
    /// Which requests reach it from outside.
    pub routes: Vec<Route>,
    /// What must have happened before pods of a new revision are made.
    pub depends_on: BTreeMap<Name, object::Condition>,
    /// Services of the app that it may call, and so stops before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub calls: BTreeSet<Name>,
    /// Requests that may wait for a pod.
    pub queue: u32,
    /// How long one of them may wait.
    #[serde(with = "duration_text")]
    pub queue_timeout: Duration,
    /// Largest request body, in bytes.
    pub body_bytes: u64,
    /// Whether responses carry `Sampan-Revision` and `Sampan-Pod`.
    pub debug_headers: bool,
    /// Autoscaler, when the service has one.
    pub autoscale: Option<Autoscale>,
    /// On which nodes of a cluster its pods run.
    #[serde(default, skip_serializing_if = "object::Placement::is_anywhere")]
    pub placement: object::Placement,
}

/// What was observed of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The generation that this is about.
    pub observed_generation: u64,
    /// The revision that `phase` is about.
    pub target: u64,
    /// The last revision whose rollout was completed: what a rollback restores.
    pub last_good: Option<u64>,
    /// The number of replicas that the pods were last spread for.
    pub scaled_to: u32,
    /// How far the rollout is.
    pub phase: Phase,
    /// How it has got on.
    pub progress: Progress,
    /// When the rollout that is under way began; `None` once it has ended.
    #[serde(default)]
    pub begun: Option<Begun>,
    /// Pods by how they are.
    pub counts: Counts,
    /// What holds, and since when.
    pub conditions: Vec<Condition>,
    /// What keeps a pod from serving that should, said of the first such pod. It stays until as
    /// many pods as wanted are ready, so that a pod that is tried again and again does not hide it.
    #[serde(default)]
    pub trouble: Option<String>,
    /// The last change that was refused before anything was touched, until another is accepted.
    pub refused: Option<Refusal>,
    /// How the autoscaler has changed the number of pods, the latest last: at most
    /// [`MAX_SCALINGS`].
    #[serde(default)]
    pub scalings: Vec<Scaling>,
}

/// When a rollout began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The run of the node whose clock `at` is on.
    pub boot: Boot,
    /// When it was planned first.
    pub at: Timestamp,
}

/// How the rollout of the wanted revision stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutState<'a> {
    /// Pods are replaced, or nothing has been planned for the present spec yet.
    UnderWay,
    /// It waits for what the service depends on.
    Waiting,
    /// It is paused.
    Held {
        /// Why it has failed, if it has.
        failure: Option<&'a str>,
    },
    /// All pods are of the wanted revision, and were available.
    Complete,
    /// The last good revision runs again.
    RolledBack {
        /// The reason, as a sentence for people.
        reason: &'a str,
    },
    /// There is nothing to go back to.
    Failed {
        /// The reason, as a sentence for people.
        reason: &'a str,
    },
}

impl Service {
    /// Whether the status is about the present spec.
    pub fn is_observed(&self) -> bool {
        self.status.observed_generation == self.generation
    }

    /// How the rollout of the wanted revision stands.
    pub fn rollout(&self) -> RolloutState<'_> {
        match self.is_observed() {
            true => self.status.phase.rollout(),
            false => RolloutState::UnderWay,
        }
    }

    /// Whether a revision takes the place of another, or may still have to.
    pub fn is_rolling(&self) -> bool {
        matches!(
            self.rollout(),
            RolloutState::UnderWay | RolloutState::Waiting
        )
    }

    /// Whether as many pods as are wanted are there, of the wanted revision.
    pub fn has_all_pods(&self) -> bool {
        self.is_observed() && self.status.counts.updated >= self.spec.replicas
    }

    /// Whether no pod of it is on its way.
    pub fn is_settled(&self) -> bool {
        match self.rollout() {
            RolloutState::UnderWay => false,
            RolloutState::Held { .. } => true,
            RolloutState::Waiting
            | RolloutState::Complete
            | RolloutState::RolledBack { .. }
            | RolloutState::Failed { .. } => self.has_all_pods(),
        }
    }

    /// Whether as many pods are ready as are wanted.
    pub fn is_whole(&self) -> bool {
        self.status.counts.ready >= self.spec.replicas.min(MAX_REPLICAS)
    }
}

/// The most replicas of a service: as many as a spec can ask for. What the store holds beyond that
/// makes no more pods.
pub const MAX_REPLICAS: u32 = 1000;

/// Decisions of the autoscaler that are kept of a service.
pub const MAX_SCALINGS: usize = 10;

/// A decision of the autoscaler that changed the number of pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// From how many to how many, and why, with the numbers.
    pub message: String,
    /// When: milliseconds since the beginning of 1970.
    pub at_ms: u64,
}

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// Pods of the wanted revision take the place of others.
    #[default]
    Progressing,
    /// Pods of the wanted revision are made once this has happened.
    Waiting {
        /// For what, or because of what, in a few words that begin so.
        on: String,
    },
    /// All pods are of the wanted revision, and were available.
    Complete,
    /// A user paused it, or it has failed and is held.
    Paused {
        /// Why it has failed, if it has.
        failure: Option<String>,
    },
    /// It has failed, and pods of the last good revision take over again.
    RollingBack {
        /// The revision that failed.
        from: u64,
        /// The reason, as a sentence for people.
        reason: String,
    },
    /// It has failed, and the last good revision runs again.
    RolledBack {
        /// The revision that failed.
        from: u64,
        /// The reason, as a sentence for people.
        reason: String,
    },
    /// It has failed, and there is nothing to go back to. Its pods are tried further.
    Failed {
        /// The reason, as a sentence for people.
        reason: String,
    },
}

impl Phase {
    /// How a rollout in this phase stands.
    pub fn rollout(&self) -> RolloutState<'_> {
        match self {
            Self::Progressing | Self::RollingBack { .. } => RolloutState::UnderWay,
            Self::Waiting { .. } => RolloutState::Waiting,
            Self::Paused { failure } => RolloutState::Held {
                failure: failure.as_deref(),
            },
            Self::Complete => RolloutState::Complete,
            Self::RolledBack { reason, .. } => RolloutState::RolledBack { reason },
            Self::Failed { reason } => RolloutState::Failed { reason },
        }
    }
}

/// How a rollout has got on: marks that only get better, so that pods which come and go are no
/// progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The run of the node whose clock `since` is on.
    pub boot: Boot,
    /// When the last mark was made.
    pub since: Timestamp,
    /// The most pods of the wanted revision that were available at once.
    pub most_available: u32,
    /// The fewest pods of other revisions that were left, with those that drain.
    pub fewest_old: u32,
}

/// Pods by how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All that there are, with those that drain.
    pub alive: u32,
    /// Of the wanted revision, without those that drain.
    pub updated: u32,
    /// Ready, of any revision.
    pub ready: u32,
    /// Ready for `min_ready`, of any revision.
    pub available: u32,
    /// Ready for `min_ready`, of the wanted revision.
    pub updated_available: u32,
}

/// Something that holds of a service or does not, in the manner of Kubernetes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// What the condition says of the service.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// When it last began or ceased to hold: milliseconds since the beginning of 1970.
    pub since_ms: u64,
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionKind {
    /// Enough pods are available: `replicas` less `max_unavailable`.
    Available,
    /// The rollout gets on, or is complete.
    Progressing,
}

/// A change that was refused before anything was touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason, as a sentence for people.
    pub reason: String,
    /// When: milliseconds since the beginning of 1970.
    pub at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        object::{OnFailure, Strategy},
        quantity::Amount,
    };

    /// A service of 2 pods whose status is about its present spec.
    fn service(phase: Phase, updated: u32) -> Service {
        let spec = ServiceSpec {
            revision: 1,
            kind: object::ServiceKind::Http,
            previous: None,
            latest: 1,
            replicas: 2,
            paused: false,
            deleting: false,
            rollout: object::Rollout {
                strategy: Strategy::Rolling,
                max_surge: Amount::Count(1),
                max_unavailable: Amount::Count(0),
                min_ready: Duration::ZERO,
                progress_deadline: Duration::from_secs(60),
                on_failure: OnFailure::Rollback,
                history: 2,
                drain: Duration::ZERO,
            },
            routes: Vec::new(),
            depends_on: BTreeMap::new(),
            calls: Default::default(),
            queue: 1,
            queue_timeout: Duration::ZERO,
            body_bytes: 1,
            debug_headers: false,
            autoscale: None,
            placement: object::Placement::default(),
        };
        let counts = Counts {
            updated,
            ..Counts::default()
        };
        Service {
            key: ServiceKey::parse("shop/web").expect("a key"),
            generation: 3,
            spec,
            status: ServiceStatus {
                observed_generation: 3,
                phase,
                counts,
                ..ServiceStatus::default()
            },
        }
    }

    #[test]
    fn how_a_rollout_stands_follows_from_generation_phase_and_pods() {
        let (from, reason) = (1, "it traps".to_owned());
        let because = || reason.clone();
        // The phase; whether it rolls; whether it is settled with one of two pods, and with both.
        let phases = [
            (Phase::Progressing, true, [false, false]),
            (Phase::Waiting { on: because() }, true, [false, true]),
            (Phase::Complete, false, [false, true]),
            (Phase::Paused { failure: None }, false, [true, true]),
            (
                Phase::Paused {
                    failure: Some(because()),
                },
                false,
                [true, true],
            ),
            (
                Phase::RollingBack {
                    from,
                    reason: because(),
                },
                true,
                [false, false],
            ),
            (
                Phase::RolledBack {
                    from,
                    reason: because(),
                },
                false,
                [false, true],
            ),
            (Phase::Failed { reason: because() }, false, [false, true]),
        ];
        for (phase, rolls, settled) in phases {
            for (updated, settled) in [1, 2].into_iter().zip(settled) {
                let mut web = service(phase.clone(), updated);
                assert_eq!(web.rollout(), phase.rollout());
                assert_eq!(web.is_rolling(), rolls, "{phase:?}");
                assert_eq!(web.is_settled(), settled, "{phase:?}, {updated} pods");
                assert_eq!(web.has_all_pods(), updated == 2);
                // Another spec, of which the planner has not heard.
                web.generation += 1;
                assert_eq!(web.rollout(), RolloutState::UnderWay);
                assert!(web.is_rolling() && !web.is_settled() && !web.has_all_pods());
            }
        }
    }
}
