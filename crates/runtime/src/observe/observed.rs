//! A future that runs an instance, and tells its cell when it does.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use pin_project_lite::pin_project;

use super::cell::Cell;

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
        let cell = &**this.cell;
        if !super::ON {
            cell.cpu.begin();
            let poll = this.inner.poll(cx);
            cell.cpu.end();
            return poll;
        }
        cell.run.register(cx.waker());
        if *this.is_limited && !cell.may_run() {
            return Poll::Pending;
        }
        cell.run.run();
        cell.cpu.begin();
        let poll = this.inner.poll(&mut Context::from_waker(this.waker));
        cell.cpu.end();
        match poll.is_ready() {
            true => cell.run.rest(),
            false => this.cell.pause(),
        }
        poll
    }
}
