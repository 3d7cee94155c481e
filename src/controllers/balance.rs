//! When a pod moves because nodes have become uneven, as after one has come back.
//!
//! A service whose pods a node that fits would have two fewer of than another, for [`PATIENCE`], gives up
//! one pod there, which its rollout's planner replaces; then another one no sooner than [`PAUSE`] later.
//! Nothing moves while the service is rolled out, scaled or not whole. The pod that moves is remembered
//! until it is gone: once its replacement is there the nodes are even, and the pod has to go all the same.

use std::{collections::BTreeMap, time::Duration};

use sampan_core::{
    name::{Name, PodName, ServiceKey},
    record::{RolloutState, Service},
    time::Timestamp,
};

/// How long nodes are uneven before a pod moves.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two moves of one service.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a pod may take to move. Then it stays, and it is tried anew.
const MOVE_TIME: Duration = Duration::from_secs(120);

/// What is remembered of the balance of services.
#[derive(Default)]
pub(super) struct Balance(BTreeMap<ServiceKey, Uneven>);

/// A service whose pods are uneven, or were.
struct Uneven {
    /// When a pod moves, or began to.
    at: Timestamp,
    moving: Option<PodName>,
}

/// What comes of looking at a service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Move {
    /// The pod that is to leave its node.
    pub(super) pod: Option<PodName>,
    /// When to look again.
    pub(super) wake_at: Option<Timestamp>,
}

impl Balance {
    /// Forgets a service that is gone.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.0.remove(service);
    }

    /// Looks at a service with its pods, each with its node. `uneven` is the node that has too many.
    pub(super) fn look<'a>(
        &mut self,
        service: &Service,
        pods: impl Iterator<Item = (&'a PodName, &'a Name)> + Clone,
        uneven: Option<&Name>,
        now: Timestamp,
    ) -> Move {
        let key = &service.key;
        if let Some(known) = self.0.get_mut(key)
            && let Some(moving) = known.moving.clone()
        {
            if pods.clone().any(|(pod, _)| *pod == moving) && now < known.at + MOVE_TIME {
                return Move {
                    wake_at: Some(known.at + MOVE_TIME),
                    pod: Some(moving),
                };
            }
            // It is gone, or does not get away.
            known.moving = None;
            known.at = now + PAUSE;
        }
        let complete = matches!(service.rollout(), RolloutState::Complete);
        let is_still = complete && service.has_all_pods() && service.is_whole();
        let (Some(from), true) = (uneven, is_still) else {
            self.0.remove(key);
            return Move::default();
        };
        let known = self.0.entry(key.clone()).or_insert(Uneven {
            at: now + PATIENCE,
            moving: None,
        });
        if now < known.at {
            return Move {
                pod: None,
                wake_at: Some(known.at),
            };
        }
        // Of those on the node the one with the last name.
        let pod = pods.filter(|(_, node)| *node == from).map(|(pod, _)| pod);
        let pod = pod.max().cloned();
        known.at = now;
        known.moving.clone_from(&pod);
        Move {
            wake_at: pod.is_some().then(|| now + MOVE_TIME),
            pod,
        }
    }
}

#[cfg(test)]
mod tests;
