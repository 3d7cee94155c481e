//! A future that runs an instance, and tells its cell when it does.
//!
//! An instance may be run inside the poll of another one: a guest that calls another service has
//! the host poll the callee where it is called (`host::waits::direct`). While the inner poll goes
//! on the outer instance is charged nothing and counts as running.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use pin_project_lite::pin_project;

use super::cell::Cell;

thread_local! {
    /// The instances that this thread is polling, the innermost last.
    static POLLED: RefCell<Vec<Arc<Cell>>> = const { RefCell::new(Vec::new()) };
}

/// Instances that may be run inside one another. Each guest has a stack of its own, but they have
/// one thread together, on which other requests wait.
pub(crate) const MAX_DEPTH: usize = 4;

/// How many instances this thread is polling, each inside the poll of the one before.
pub(crate) fn depth() -> usize {
    POLLED.with_borrow(Vec::len)
}

/// Charges what `poll` takes to the instance of `cell`, and not to the one in whose poll this
/// happens, if there is one.
fn charged<T>(cell: &Arc<Cell>, poll: impl FnOnce() -> T) -> T {
    let outer = POLLED.with_borrow_mut(|polled| {
        let outer = polled.last().map(Arc::clone);
        polled.push(Arc::clone(cell));
        outer
    });
    if let Some(outer) = &outer {
        outer.cpu.end();
    }
    cell.cpu.begin();
    let output = poll();
    cell.cpu.end();
    POLLED.with_borrow_mut(Vec::pop);
    if let Some(outer) = &outer {
        outer.cpu.begin();
    }
    output
}

pin_project! {
    /// A future that runs an instance: its polls are charged to it, and its pauses are noted. While
    /// its pod has used up its share of the processors it is not polled.
    pub(crate) struct Observed<F> {
        #[pin]
        inner: F,
        cell: Arc<Cell>,
        waker: Waker,
        is_limited: bool,
    }

    impl<F> PinnedDrop for Observed<F> {
        fn drop(this: Pin<&mut Self>) {
            this.project().cell.rest();
        }
    }
}

impl<F> Observed<F> {
    pub(crate) fn new(inner: F, cell: Arc<Cell>) -> Self {
        let waker = Waker::from(Arc::clone(&cell));
        Self {
            inner,
            cell,
            waker,
            is_limited: true,
        }
    }

    /// One that makes the instance. That has a limit of its own, so it is charged, and not held
    /// back.
    pub(crate) fn making(inner: F, cell: Arc<Cell>) -> Self {
        let mut observed = Self::new(inner, cell);
        observed.is_limited = false;
        observed
    }
}

impl<F: Future> Future for Observed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let cell = &*this.cell;
        if !super::ON {
            return charged(cell, || this.inner.poll(cx));
        }
        cell.run.register(cx.waker());
        if *this.is_limited && !cell.may_run() {
            return Poll::Pending;
        }
        cell.run.run();
        let poll = charged(cell, || {
            this.inner.poll(&mut Context::from_waker(this.waker))
        });
        match poll.is_ready() {
            true => cell.run.rest(),
            false => cell.pause(),
        }
        poll
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        time::{Duration, Instant},
    };

    use sampan_core::name::{PodName, ServiceKey};

    use super::*;
    use crate::meter::{CpuMeter, PodMeter};

    fn cell(pod: &Arc<PodMeter>) -> Arc<Cell> {
        let service = ServiceKey::parse("shop/web").expect("a key");
        let cpu = CpuMeter::new(Arc::clone(pod));
        Cell::new(PodName::new(&service, 1, 0), false, cpu, &Arc::default())
    }

    fn burn(time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    /// A callee that is run where it is called costs its caller nothing.
    #[test]
    fn what_an_inner_instance_computes_is_its_own() {
        let (caller, callee) = (Arc::<PodMeter>::default(), Arc::<PodMeter>::default());
        let inner = cell(&callee);
        let outer = Observed::new(
            async {
                let called = async {
                    assert_eq!(depth(), 2);
                    burn(Duration::from_millis(200));
                };
                Observed::new(called, Arc::clone(&inner)).await;
                assert_eq!(depth(), 1);
            },
            cell(&caller),
        );
        let polled = std::pin::pin!(outer).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready());
        assert_eq!(depth(), 0);
        // Both are CPU time. What else had the processor is in neither, so one is compared with the
        // other.
        let (caller, callee) = (caller.usage().cpu, callee.usage().cpu);
        assert!(callee > caller * 10, "{callee:?} and {caller:?}");
    }

    /// An instance that waits for the one inside it is not blocked while that runs, and is so once
    /// neither has anything to do.
    #[test]
    fn an_outer_instance_counts_as_running() {
        let outer = cell(&Arc::default());
        let seen = Arc::clone(&outer);
        let inner = cell(&Arc::default());
        let observed = Observed::new(
            async move {
                let mut called = std::pin::pin!(Observed::new(
                    async {
                        assert!(seen.run.is_running());
                        std::future::pending::<()>().await;
                    },
                    inner,
                ));
                let polled = poll_fn(|cx| Poll::Ready(called.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
                std::future::pending::<()>().await;
            },
            Arc::clone(&outer),
        );
        let mut observed = std::pin::pin!(observed);
        let polled = observed
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        assert!(outer.run.blocked().is_some());
    }
}
