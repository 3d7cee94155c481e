//! Who is told what becomes of a pod.

use std::sync::Arc;

use crate::report::Termination;

/// Who is told what becomes of a pod.
///
/// The calls come from the task that runs the guest, so they must be quick and must not wait.
pub trait PodWatch: Send + Sync + 'static {
    /// The pod's only instance has ended, and the pod with it: it takes no more requests.
    /// Callers that wait for an answer are told after this call.
    fn terminated(&self, termination: &Arc<Termination>);

    /// An instance has ended, and the pod goes on with another one.
    fn instance_failed(&self, termination: &Arc<Termination>);
}

/// A watch that does nothing.
pub struct Unwatched;

impl PodWatch for Unwatched {
    fn terminated(&self, _: &Arc<Termination>) {}

    fn instance_failed(&self, _: &Arc<Termination>) {}
}
