//! How the pods of one revision are doing, counted together.

use sampan_core::plan::pod::PodState;
use tokio::sync::watch;

/// How the pods of one revision are doing, counted by their workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Pods that are ready now.
    pub(crate) ready: u32,
    /// Pods that were ready at some time.
    pub(crate) been_ready: u32,
    /// Pods that have come up or failed at some time: the first of them says how it went.
    pub(crate) settled: u32,
    /// Pods that have failed at some time.
    pub(crate) failed: u32,
    /// Pods that have ended without having been asked to stop.
    pub(crate) lost: u32,
}

/// What this pod has been counted as.
#[derive(Default)]
struct Counted {
    ready: bool,
    been_ready: bool,
    settled: bool,
    failed: bool,
    lost: bool,
}

/// Counts one pod.
pub(crate) struct Counter {
    was: Counted,
    census: watch::Sender<Census>,
}

impl Counter {
    pub(crate) fn new(census: watch::Sender<Census>) -> Self {
        Self {
            was: Counted::default(),
            census,
        }
    }

    /// Counts the pod among those of its revision.
    pub(crate) fn see(&mut self, state: &PodState) {
        let ready = state.is_ready();
        let (up, failed, lost) = match state {
            PodState::Pending | PodState::Starting { .. } | PodState::Draining { .. } => {
                (false, false, false)
            }
            PodState::Running { .. } => (true, false, false),
            PodState::BackOff { .. } => (false, true, false),
            PodState::Stopped { end, .. } => (false, end.is_some(), end.is_some()),
        };
        let was = &mut self.was;
        let first = |was: &mut bool, is: bool| u32::from(is && !std::mem::replace(was, *was || is));
        let been_ready = first(&mut was.been_ready, ready);
        let settled = first(&mut was.settled, up || failed);
        let failed = first(&mut was.failed, failed);
        let lost = first(&mut was.lost, lost);
        let was_ready = std::mem::replace(&mut was.ready, ready);
        let changed = was_ready != ready || been_ready + settled + failed + lost > 0;
        self.census.send_if_modified(|census| {
            census.ready = census.ready + u32::from(ready) - u32::from(was_ready);
            census.been_ready += been_ready;
            census.settled += settled;
            census.failed += failed;
            census.lost += lost;
            changed
        });
    }
}
