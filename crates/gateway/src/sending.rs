//! A request body that was not whole when its request got a place, and how that place is taken back.
//!
//! It is *coming* until its request has ended, or until the looking task of [`hold`](crate::hold)
//! *cuts* it: `is_cut` is stored (Release) before the guest's and the server's tasks are woken, and
//! both register their wakers before they load it (Acquire), so none of them misses it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use sampan_core::fault::Fault;

use crate::{
    body::BodyError,
    hold::{Holder, Wait},
};

/// Tells the task that waits for the response that the request body broke off. Then the request is
/// over, whatever the pod makes of it.
#[derive(Debug, Default)]
pub(crate) struct BodyFault {
    kind: OnceLock<Fault>,
    told: Notify,
}

impl BodyFault {
    pub(crate) fn get(&self) -> Option<Fault> {
        self.kind.get().copied()
    }

    /// Resolves once the body has broken off.
    pub(crate) async fn told(&self) -> Fault {
        loop {
            // `notify_one` keeps its permit, so nothing is lost between the look and the wait.
            if let Some(kind) = self.get() {
                return kind;
            }
            self.told.notified().await;
        }
    }

    pub(crate) fn tell(&self, error: &BodyError) {
        if self.kind.set(error.into()).is_ok() {
            self.told.notify_one();
        }
    }
}

/// The task to wake when a place is taken back.
#[derive(Debug, Default)]
struct Sleeper(Mutex<Option<Waker>>);

impl Sleeper {
    fn register(&self, cx: &Context<'_>) {
        let mut waker = self.0.lock();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        let waker = self.0.lock().take();
        waker.inspect(Waker::wake_by_ref);
    }
}

/// A request body that was not whole when its request got a place.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) wait: Wait,
    fault: Arc<BodyFault>,
    is_cut: AtomicBool,
    /// The guest that reads the body.
    guest: Sleeper,
    /// The server that sends the answer.
    server: Sleeper,
}

impl Sending {
    pub(crate) fn new(wait: Wait, fault: Arc<BodyFault>) -> Arc<Self> {
        Arc::new(Self {
            wait,
            fault,
            is_cut: AtomicBool::new(false),
            guest: Sleeper::default(),
            server: Sleeper::default(),
        })
    }

    /// Whether the place was taken back. If not, the task that asks for the guest is woken then.
    pub(crate) fn is_over_for_guest(&self, cx: &Context<'_>) -> bool {
        self.guest.register(cx);
        self.is_cut.load(Acquire)
    }

    /// Whether the place was taken back. If not, the task that sends the answer is woken then.
    pub(crate) fn is_over_for_server(&self, cx: &Context<'_>) -> bool {
        self.server.register(cx);
        self.is_cut.load(Acquire)
    }

    fn cut(&self) {
        self.is_cut.store(true, Release);
        self.fault.tell(&BodyError::TooSlow);
        self.guest.wake();
        self.server.wake();
    }
}

impl Holder for Sending {
    fn stall(&self) -> Option<Duration> {
        self.wait.stall()
    }

    fn is_slow(&self, part: f64) -> bool {
        self.wait.is_overdue(part) && !self.is_cut.load(Acquire)
    }

    fn take_back(self: Arc<Self>) {
        let stall = self.wait.stall();
        tracing::debug!(
            ?stall,
            "a request lost its place: its body comes too slowly"
        );
        self.cut();
    }
}
