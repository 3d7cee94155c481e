//! What pods a service should have, for the steps that bring it there.

use std::cmp::Reverse;

use super::{
    bounds::Bounds,
    pod_set::{Grade, Member},
};
use crate::object::Strategy;

/// What pods are wanted.
#[derive(Clone, Debug)]
pub(super) struct Goal<'a> {
    /// The revision.
    pub(super) target: u64,
    /// How many, and how far from that it may be.
    pub(super) bounds: Bounds,
    /// How one revision takes the place of another.
    pub(super) strategy: Strategy,
    /// Whether a user paused the rollout.
    pub(super) paused: bool,
    /// It waits for what it depends on: pods of the target are not made.
    pub(super) waits: bool,
    /// The last revision whose rollout was completed.
    pub(super) last_good: Option<u64>,
    /// The bounds before, if the number of replicas has changed.
    pub(super) scaled_from: Option<Bounds>,
    /// Why pods of the target are made.
    pub(super) cause: &'a str,
}

/// In this order pods of one revision go when there are too many: those that take no requests
/// first, then those in the highest slots.
pub(super) fn worst_first(member: &Member) -> (Grade, Reverse<u32>) {
    (member.grade, Reverse(member.slot))
}
