//! Probes: the question of a plan, asked of an instance.

use std::sync::Arc;

use sampan_core::{
    object::Probe,
    plan::{pod::Event, probe::ProbeKind},
};

use super::handle::PodHandle;

/// Asks, and waits for the answer as long as the probe says.
pub(super) async fn ask<H: PodHandle>(
    instance: Arc<H>,
    kind: ProbeKind,
    probe: Arc<Probe>,
) -> Event {
    let outcome = instance.probe(kind, &probe).await;
    Event::ProbeDone(kind, outcome)
}
