//! Bodies on their way into and out of a guest.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, Sleep},
};
use wasmtime_wasi_http::{Error, WasiBody};

use super::{Failure, Shared, Slot, fate::Fate};

/// What a guest is told about a request body that failed.
pub(super) fn request_error<E: StdError + Send + Sync + 'static>(_: E) -> Error {
    Error::ConnectionTerminated
}

/// What to do with the instance when a request is given up.
pub(super) enum Guard {
    /// End the task that runs it: nobody else uses the instance.
    Abort(AbortHandle),
    /// Tell the worker that runs it.
    Tell(Arc<Notify>),
    /// Nothing: the guest notices when its writes fail.
    Leave,
}

/// What a pod owes to whoever sent a request.
pub(super) struct Debt {
    pub(super) shared: Arc<Shared>,
    pub(super) request_id: Option<Arc<str>>,
    pub(super) fate: Arc<Fate>,
    /// Taken as long as the response is on its way.
    pub(super) _slot: Slot,
    pub(super) deadline: Option<Instant>,
}

impl Debt {
    /// The deadline has passed: says so, unless something else has been said before.
    pub(super) fn time_out(&self) -> Failure {
        let failure = Failure::TimedOut(self.shared.template.request_timeout());
        // The instance may well live on: it is not counted as failed.
        let account = |failure: &Failure| {
            self.shared
                .say(self.request_id.clone(), failure.to_string());
        };
        self.fate.fail(failure.clone(), account);
        self.fate.failure().unwrap_or(failure)
    }
}

/// A response body that ends well only if its guest did.
///
/// A body of `wasi:http` ends when its sender is dropped, whether the guest finished it or died.
/// Here the second is an error, so that the client sees a reset and not a short response.
pub(super) struct ResponseBody {
    inner: WasiBody,
    debt: Debt,
    guard: Option<Guard>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    pub(super) fn new(inner: WasiBody, debt: Debt, guard: RequestGuard) -> Self {
        Self {
            inner,
            debt,
            guard: guard.disarm(),
            timer: None,
        }
    }

    fn deadline_passed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.debt.deadline else {
            return false;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        timer.as_mut().poll(cx).is_ready()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        this.debt.fate.watch(cx);
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(None) => {
                if let Some(failure) = this.debt.fate.failure() {
                    return Poll::Ready(Some(Err(failure.into())));
                }
                // The guest may still have work of its own to do: it goes on until its deadline.
                this.guard = None;
                this.debt.fate.body_is_over();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let failure = this.debt.fate.failure().map(Into::into);
                Poll::Ready(Some(Err(failure.unwrap_or_else(|| error.into()))))
            }
            Poll::Ready(Some(Ok(frame))) => {
                // A body that always has more never comes to the timer.
                if this.debt.deadline.is_some_and(|d| d <= Instant::now()) {
                    return Poll::Ready(Some(Err(this.debt.time_out().into())));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => {
                if let Some(failure) = this.debt.fate.failure() {
                    return Poll::Ready(Some(Err(failure.into())));
                }
                if this.deadline_passed(cx) {
                    return Poll::Ready(Some(Err(this.debt.time_out().into())));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.debt.fate.failure().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.debt.fate.body_is_over();
        // hyper does not read a body to its end when its length is known and reached.
        if self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0) {
            return;
        }
        give_up(&self.debt.fate, self.guard.take());
    }
}

/// Gives a request up when it is dropped before its response has begun.
pub(super) struct RequestGuard {
    fate: Arc<Fate>,
    guard: Option<Guard>,
}

impl RequestGuard {
    pub(super) fn new(fate: Arc<Fate>, guard: Guard) -> Self {
        Self {
            fate,
            guard: Some(guard),
        }
    }

    fn disarm(mut self) -> Option<Guard> {
        self.guard.take()
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        give_up(&self.fate, self.guard.take());
    }
}

fn give_up(fate: &Fate, guard: Option<Guard>) {
    let Some(guard) = guard else { return };
    fate.abandon();
    match guard {
        Guard::Abort(task) => task.abort(),
        Guard::Tell(worker) => worker.notify_one(),
        Guard::Leave => {}
    }
}
