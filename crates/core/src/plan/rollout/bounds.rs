//! How many pods there may be, and how many must be available.

use crate::{
    object::{Rollout, Strategy},
    quantity::{Amount, Percent},
    record::{MAX_REPLICAS, ServiceSpec},
};

/// `replicas`, and how far the number of pods may be from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// How many pods are wanted.
    pub(super) replicas: u32,
    pub(super) surge: u32,
    pub(super) unavailable: u32,
}

impl Bounds {
    /// What `spec` says.
    pub(super) fn new(spec: &ServiceSpec) -> Self {
        Self::of(&spec.rollout, spec.replicas)
    }

    /// What `rollout` says with so many replicas. As in Kubernetes both bounds are 0 with
    /// `recreate`, and one pod may be unavailable when both come to nothing otherwise.
    pub(super) fn of(rollout: &Rollout, replicas: u32) -> Self {
        let replicas = replicas.min(MAX_REPLICAS);
        let (surge, unavailable) = match rollout.strategy {
            Strategy::Recreate => (0, 0),
            Strategy::Rolling => {
                let surge = resolve(rollout.max_surge, replicas, 99);
                let unavailable = resolve(rollout.max_unavailable, replicas, 0);
                match (surge, unavailable) {
                    (0, 0) => (0, 1),
                    both => both,
                }
            }
        };
        Self {
            replicas,
            surge: surge.min(MAX_REPLICAS),
            unavailable: unavailable.min(replicas),
        }
    }

    /// The most pods that may be alive, as far as they are made. A service of no replicas has none.
    pub(super) fn most(self) -> u32 {
        match self.replicas {
            0 => 0,
            replicas => replicas + self.surge,
        }
    }

    /// The fewest pods that must be available for the service to count as available: one at least,
    /// where any are wanted.
    pub(super) fn needed(self) -> u32 {
        self.least().max(self.replicas.min(1))
    }

    /// The fewest pods that must be available, as far as they are stopped.
    pub(super) fn least(self) -> u32 {
        self.replicas - self.unavailable
    }
}

/// How many pods `amount` is; `remainder` hundredths are added before a share is cut off.
fn resolve(amount: Amount, replicas: u32, remainder: u64) -> u32 {
    match amount {
        Amount::Count(number) => number,
        Amount::Percent(Percent(percent)) => {
            let hundredths = u64::from(replicas) * u64::from(percent) + remainder;
            u32::try_from(hundredths / 100).unwrap_or(u32::MAX)
        }
    }
}
