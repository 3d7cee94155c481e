//! A request body that was not whole when its request got a slot, and how that slot is taken back.
//!
//! It is *coming* until its request has ended, or until the looking task of [`hold`](crate::hold)
//! *cuts* it: `is_cut` is stored (Release) before the guest's and the server's tasks are woken, and
//! both register their wakers before they load it (Acquire), so none of them misses it.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::Context,
    time::Duration,
};

use atomic_waker::AtomicWaker;
use tokio::sync::SetOnce;

use sampan_core::fault::Fault;

use crate::{
    body::BodyError,
    hold::{Holder, Wait},
};

/// Tells the task that waits for the response that the request body broke off, and how. Then the
/// request is over, whatever the pod makes of it.
pub(crate) type BodyFault = SetOnce<Fault>;

/// A request body that was not whole when its request got a slot.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) wait: Wait,
    fault: Arc<BodyFault>,
    is_cut: AtomicBool,
    /// The guest that reads the body.
    guest: AtomicWaker,
    /// The server that sends the answer.
    server: AtomicWaker,
}

impl Sending {
    pub(crate) fn new(wait: Wait, fault: Arc<BodyFault>) -> Arc<Self> {
        Arc::new(Self {
            wait,
            fault,
            is_cut: AtomicBool::new(false),
            guest: AtomicWaker::new(),
            server: AtomicWaker::new(),
        })
    }

    /// Whether the slot was taken back. If not, the task that asks for the guest is woken then.
    pub(crate) fn is_over_for_guest(&self, cx: &Context<'_>) -> bool {
        self.guest.register(cx.waker());
        self.is_cut.load(Acquire)
    }

    /// Whether the slot was taken back. If not, the task that sends the answer is woken then.
    pub(crate) fn is_over_for_server(&self, cx: &Context<'_>) -> bool {
        self.server.register(cx.waker());
        self.is_cut.load(Acquire)
    }

    fn cut(&self) {
        self.is_cut.store(true, Release);
        // Of two ways to break off the first counts.
        let _ = self.fault.set((&BodyError::TooSlow).into());
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
