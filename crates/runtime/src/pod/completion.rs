//! The completion of a request: which side may take it, and how its end is told.
//!
//! There is one for each request. The caller shares it (the future that waits for the head, then
//! the response's body) with the driver (the task that runs the instance).
//!
//! | what | written by | read by |
//! |---|---|---|
//! | `stage`, under a lock: waiting with the task, begun, withdrawn | the driver begins, the caller takes back; the first of them gets the task, whole | both |
//! | `head`, under a lock: the sender of the response's head | the driver's answer takes it, or the first failure | |
//! | `failure`, once | the driver; the caller at its deadline; the guard where the driver is stopped | the caller, where the head or the body ends |
//! | `bystander`, `instance`, `guest_task` | the driver, before it tells of a failure | the caller, after one |
//! | `abandoned` | the caller, by dropping its guard | the driver |
//!
//! - The failure is set before the head's sender is dropped and the body's reader is woken. The
//!   channels of head and body end when the instance is dropped, too, and look as if the guest had
//!   ended them: so the guard is dropped before the store, and a caller that sees the end of a
//!   channel sees the failure as well, if there is one.
//! - A failure is accounted for before it is set: the pod of a request that has failed is out of
//!   rotation when its caller is told.
//! - A flag is set before its task is woken, and each task registers its waker before it reads the
//!   flag: so none is missed.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, error::Elapsed},
};
use wasmtime::component::GuestTaskId;
use wasmtime_wasi_http::WasiBody;

use super::{failure::Failure, request::Task};
use crate::observe::{cell::Cell, source::InboundRequest};

/// The response of a guest, or the error code it gave in place of one.
pub(super) type Head = Result<http::Response<WasiBody>, String>;

/// How far one request is, and how it ended.
pub(super) struct Completion {
    /// What was asked.
    inbound: Arc<InboundRequest>,
    stage: Mutex<Stage>,
    failure: OnceLock<Failure>,
    /// Whether the request is not the reason for its failure.
    bystander: AtomicBool,
    head: Mutex<Option<oneshot::Sender<Head>>>,
    body: AtomicWaker,
    /// The task that runs the request in an instance of its own.
    driver: AtomicWaker,
    read_out: Notify,
    /// The instance that has the request, once one has, and for how long a probe waited for that.
    instance: OnceLock<(Arc<Cell>, Duration)>,
    /// As what the guest is at it, in WASI 0.3.
    guest_task: OnceLock<GuestTaskId>,
    abandoned: AtomicBool,
}

/// How far a guest is with what it is to do.
///
/// That is kept here, and not in what is on its way to an instance: whatever happens on that way,
/// the caller can take it back, whole, as long as no guest has begun.
#[derive(Debug)]
enum Stage {
    Waiting(Task),
    Begun,
    Withdrawn,
}

impl Completion {
    /// What is told of a request that is about to be given to an instance, and where its head
    /// will come.
    pub(super) fn new(
        inbound: &Arc<InboundRequest>,
        task: Task,
    ) -> (Arc<Self>, oneshot::Receiver<Head>) {
        let (head, answer) = oneshot::channel();
        let completion = Self {
            inbound: Arc::clone(inbound),
            stage: Mutex::new(Stage::Waiting(task)),
            failure: OnceLock::new(),
            bystander: AtomicBool::new(false),
            head: Mutex::new(Some(head)),
            body: AtomicWaker::new(),
            driver: AtomicWaker::new(),
            read_out: Notify::new(),
            instance: OnceLock::new(),
            guest_task: OnceLock::new(),
            abandoned: AtomicBool::new(false),
        };
        (Arc::new(completion), answer)
    }

    /// Takes what the guest is to do, which begins with this. Nothing if the caller has taken it
    /// back.
    pub(super) fn begin(&self) -> Option<Task> {
        self.leave(Stage::Begun)
    }

    /// Takes back what no guest has begun.
    pub(super) fn take_back(&self) -> Option<Task> {
        self.leave(Stage::Withdrawn)
    }

    fn leave(&self, next: Stage) -> Option<Task> {
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, next) {
            Stage::Waiting(task) => Some(task),
            left => {
                *stage = left;
                None
            }
        }
    }

    /// Whether a guest has begun with it.
    pub(super) fn is_begun(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Begun)
    }

    /// Whether it was taken back before a guest began.
    pub(super) fn is_withdrawn(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Withdrawn)
    }

    /// Notes as what the guest is at it.
    pub(super) fn runs_as(&self, task: GuestTaskId) {
        // A request is handed to a guest once.
        let _ = self.guest_task.set(task);
    }

    pub(super) fn guest_task(&self) -> Option<GuestTaskId> {
        self.guest_task.get().copied()
    }

    /// Notes that the request is not the reason for what is going to be told of it.
    pub(super) fn acquit(&self) {
        self.bystander.store(true, Ordering::Release);
    }

    pub(super) fn is_bystander(&self) -> bool {
        self.bystander.load(Ordering::Acquire)
    }

    /// Hands over the head of the response. If its caller is gone, it is dropped.
    pub(super) fn answer(&self, head: Head) {
        self.inbound.settle();
        if let Some(sender) = self.take_head() {
            let _ = sender.send(head);
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.inbound.is_answered()
    }

    pub(super) fn inbound(&self) -> &Arc<InboundRequest> {
        &self.inbound
    }

    /// Tells how the request failed. Of several failures the first counts, later ones are
    /// consequences of it; `account` is called for that one, before its caller is told.
    pub(super) fn fail(&self, failure: Failure, account: impl FnOnce(&Failure)) {
        if self.failure.get().is_none() {
            account(&failure);
        }
        // Of two that come here at once both are accounted for, which is no lie either.
        let _ = self.failure.set(failure);
        self.inbound.call.as_ref().inspect(|call| call.settle());
        drop(self.take_head());
        self.body.wake();
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    fn take_head(&self) -> Option<oneshot::Sender<Head>> {
        self.head.lock().take()
    }

    /// Wakes this task when the request fails.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.body.register(cx.waker());
    }

    /// Notes that the body of the response has been read to its end, or will be read no further.
    pub(super) fn body_is_over(&self) {
        self.read_out.notify_one();
    }

    /// Waits for [`Self::body_is_over`]; one task may.
    pub(super) async fn wait_for_reader(&self) {
        self.read_out.notified().await;
    }

    /// Notes that the caller does not wait for the answer any more.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        // Its client may be waiting for the body to be dropped.
        drop(self.take_back());
        self.driver.wake();
    }

    /// Runs `work` until it ends, or until the caller does not wait any more.
    pub(super) async fn unless_abandoned<F: Future>(
        &self,
        mut work: Pin<&mut F>,
    ) -> Option<F::Output> {
        poll_fn(|cx| {
            self.driver.register(cx.waker());
            match self.is_abandoned() {
                true => Poll::Ready(None),
                false => work.as_mut().poll(cx).map(Some),
            }
        })
        .await
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Names the instance that has the request from now on.
    pub(super) fn runs_in(&self, instance: &Arc<Cell>) {
        let mut waited = Duration::ZERO;
        if self.inbound.is_probe() {
            // It is measured from when this is asked for the first time.
            instance.starved();
            waited = self.inbound.since.elapsed();
        }
        // A request runs in one instance only.
        let _ = self.instance.set((Arc::clone(instance), waited));
    }

    pub(super) fn instance(&self) -> Option<&Arc<Cell>> {
        self.instance.get().map(|(instance, _)| instance)
    }

    /// For a probe: the instance that has it, and for how long it waited for that.
    pub(super) fn probed(&self) -> Option<&(Arc<Cell>, Duration)> {
        self.instance.get()
    }

    pub(super) fn called_out(&self) -> bool {
        self.instance().is_some_and(|cell| cell.has_called_out())
    }
}

/// The duty to say how a request ended. Dropping it without a word says that the pod was stopped:
/// that is what happens when the task that holds it is ended.
///
/// It must be dropped before the store, so it is declared after it.
pub(super) struct CompletionGuard {
    completion: Arc<Completion>,
    open: bool,
}

impl CompletionGuard {
    pub(super) fn of(completion: &Arc<Completion>) -> Self {
        Self {
            completion: Arc::clone(completion),
            open: true,
        }
    }

    pub(super) fn completion(&self) -> &Arc<Completion> {
        &self.completion
    }

    /// The guest has done what it owed.
    pub(super) fn well(mut self) {
        self.open = false;
    }

    /// Like [`Completion::fail`].
    pub(super) fn fail(mut self, failure: Failure, account: impl FnOnce(&Failure)) {
        self.open = false;
        self.completion.fail(failure, account);
    }
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        if self.open {
            let stopped = match self.completion.is_begun() {
                true => Failure::Stopped,
                false => Failure::Unavailable("it has been stopped".to_owned()),
            };
            self.completion.fail(stopped, |_| {});
        }
    }
}

/// Waits for a future until a deadline, if there is one.
pub(super) async fn within<F: Future>(
    deadline: Option<Instant>,
    future: F,
) -> Result<F::Output, Elapsed> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await,
        None => Ok(future.await),
    }
}
