//! What comes to an instance that stays, and in which order.

use std::task::{Context, Poll};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{completion::CompletionGuard, failure::Failure, inner::Slot};

/// Probes on their way to an instance: one of each kind.
pub(super) const MAX_PROBES: usize = 3;

/// One request on its way to an instance. Until a guest begins, what it is to do is in the
/// request's completion.
pub(super) struct Job {
    pub(super) guard: CompletionGuard,
    pub(super) deadline: Option<Instant>,
    pub(super) slot: Slot,
}

/// Says whether the pod's first instance could be made.
pub(super) type Ready = oneshot::Sender<Result<(), Failure>>;

/// What comes to a worker.
pub(super) struct Inbox {
    pub(super) requests: mpsc::Receiver<Job>,
    pub(super) probes: mpsc::Receiver<Job>,
}

impl Inbox {
    /// The next job, a probe before a request. `None` when the pod is gone.
    pub(super) async fn recv(&mut self) -> Option<Job> {
        std::future::poll_fn(|cx| self.poll_recv(cx, true)).await
    }

    /// Like [`Self::recv`]. Without `room` only a probe comes.
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Job>> {
        if let Poll::Ready(Some(probe)) = self.probes.poll_recv(cx) {
            return Poll::Ready(Some(probe));
        }
        match room {
            true => self.requests.poll_recv(cx),
            false => Poll::Pending,
        }
    }
}
