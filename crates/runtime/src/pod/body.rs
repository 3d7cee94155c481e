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
    sync::watch,
    time::{Instant, Sleep},
};
use wasmtime_wasi_http::WasiBody;

use super::{
    completion::Completion,
    failure::Failure,
    hosted::{self, Hosted},
    inner::{PodInner, Slot},
    sendable::Promise,
};
use crate::logs::Note;

/// Resources that are held until the response body ends.
pub(super) struct ResponseLease {
    pub(super) pod: Arc<PodInner>,
    pub(super) completion: Arc<Completion>,
    /// Taken as long as the response is on its way.
    pub(super) _slot: Slot,
    pub(super) deadline: Option<Instant>,
}

impl ResponseLease {
    /// The deadline has passed: says so, unless something else has been said before.
    pub(super) fn time_out(&self) -> Failure {
        let failure = Failure::TimedOut(self.pod.template.request_timeout);
        // The instance may well live on: it is not counted as failed.
        let account = |failure: &Failure| {
            let wait = self.completion.instance().and_then(|cell| {
                let waits = cell.waits().open();
                waits.into_iter().next()
            });
            let text = match wait {
                Some(wait) => format!(
                    "{failure}; its instance waits in `{}` for {}",
                    wait.function, wait.on
                ),
                None => failure.to_string(),
            };
            let log = &self.pod.context.log;
            log.note(Note::Failure, self.completion.inbound().id.clone(), || text);
        };
        self.fail(failure, account)
    }

    /// The answer is not passed on: says why, unless something else has been said before.
    pub(super) fn refuse(&self, failure: Failure) -> Failure {
        let id = || self.completion.inbound().id.clone();
        self.fail(failure, |failure| self.pod.say(id(), failure))
    }

    fn fail(&self, failure: Failure, account: impl FnOnce(&Failure)) -> Failure {
        self.completion.fail(failure.clone(), account);
        self.completion.failure().unwrap_or(failure)
    }
}

/// A response body that ends well only if its guest did.
///
/// A body of `wasi:http` ends when its sender is dropped, whether the guest finished it or died.
/// Here the second is an error, so that the client sees a reset and not a short response.
pub(super) struct ResponseBody {
    inner: WasiBody,
    /// How long it must be, if its head says so.
    promise: Option<Promise>,
    lease: ResponseLease,
    guard: Option<RequestGuard>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    pub(super) fn new(
        inner: WasiBody,
        promise: Option<Promise>,
        lease: ResponseLease,
        guard: RequestGuard,
    ) -> Self {
        Self {
            inner,
            promise,
            lease,
            guard: Some(guard),
            timer: None,
        }
    }

    /// The body is over, and nothing else is asked of the guest. It may still have work of its own to
    /// do: it goes on until its deadline. From now on it makes no difference to the guest when this is
    /// dropped.
    fn end(&mut self) {
        let completion = &self.lease.completion;
        match self.guard.take() {
            Some(guard) => guard.disarm(|| completion.body_is_over()),
            None => completion.body_is_over(),
        }
    }

    fn deadline_passed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.lease.deadline else {
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
        let completion = &this.lease.completion;
        completion.watch(cx);
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        if !matches!(frame, Poll::Ready(Some(Ok(_))))
            && let Some(failure) = completion.failure()
        {
            return Poll::Ready(Some(Err(failure.into())));
        }
        let failure = match frame {
            Poll::Ready(None) => match this.promise.as_ref().map_or(Ok(()), Promise::over) {
                Err(fault) => this.lease.refuse(Failure::Unsendable(fault)),
                Ok(()) => {
                    this.end();
                    return Poll::Ready(None);
                }
            },
            Poll::Ready(Some(Err(error))) => {
                // Said and no more: what ends the instance, if anything does, is told by its task.
                let failure = Failure::Unsendable(format!("its body failed: {error}"));
                let id = completion.inbound().id.clone();
                this.lease.pod.say(id, &failure);
                failure
            }
            // A body that always has more never comes to the timer.
            Poll::Ready(Some(Ok(_)))
                if this.lease.deadline.is_some_and(|d| d <= Instant::now()) =>
            {
                this.lease.time_out()
            }
            Poll::Ready(Some(Ok(frame))) => {
                let sent = match (&mut this.promise, frame.data_ref()) {
                    (Some(promise), Some(data)) => promise.sent(data.len()),
                    _ => Ok(()),
                };
                match sent {
                    Err(fault) => this.lease.refuse(Failure::Unsendable(fault)),
                    Ok(()) => return Poll::Ready(Some(Ok(frame))),
                }
            }
            Poll::Pending if !this.deadline_passed(cx) => return Poll::Pending,
            Poll::Pending => this.lease.time_out(),
        };
        Poll::Ready(Some(Err(failure.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.lease.completion.failure().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // hyper does not read a body to its end when its length is known and reached.
        if self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0) {
            return self.end();
        }
        self.lease.completion.body_is_over();
    }
}

/// Gives a request up when it is dropped, unless it has been disarmed.
pub(super) struct RequestGuard {
    completion: Option<Arc<Completion>>,
    /// Whom to tell besides the task that runs the request.
    worker: Option<Arc<watch::Sender<()>>>,
    /// What has nothing left to do but to see the end of the body, most likely.
    ending: Option<Arc<Hosted>>,
}

impl RequestGuard {
    pub(super) fn new(completion: Arc<Completion>, worker: Option<Arc<watch::Sender<()>>>) -> Self {
        Self {
            completion: Some(completion),
            worker,
            ending: None,
        }
    }

    /// Has this, which runs an instance for this request alone, polled at the end of the body: on the
    /// same thread, before other requests make more instances.
    pub(super) fn ends_with_body(&mut self, work: Arc<Hosted>) {
        self.ending = Some(work);
    }

    /// Tells the guest of the end by `tell`. When this is dropped it gives nothing up.
    fn disarm(mut self, tell: impl FnOnce()) {
        self.completion = None;
        match self.ending.take().filter(|_| hosted::may_visit()) {
            Some(work) => work.visit(tell),
            None => tell(),
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if let Some(completion) = &self.completion {
            completion.abandon();
            if let Some(worker) = &self.worker {
                worker.send_replace(());
            }
        }
    }
}
