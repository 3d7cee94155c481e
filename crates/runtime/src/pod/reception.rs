//! How requests come into an instance that answers several at once.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use sampan_core::object::Renewal;
use tokio::{sync::oneshot, time::Instant};
use wasmtime::component::{Accessor, Func};
use wasmtime_wasi_http::p3::bindings::Service;

use super::{
    inbox::{Inbox, Job},
    inner::PodInner,
};
use crate::{host::state::State, observe::cell::Cell};

/// The way of requests into an instance, as long as it takes any.
pub(super) struct Door {
    inbox: Option<Inbox>,
    hand_over: Option<oneshot::Sender<Inbox>>,
    renewal: Renewal,
    since: Instant,
    /// Requests that the guest has been given.
    pub(super) requests: Arc<AtomicU32>,
}

impl Door {
    /// Of an instance that is about to be made. The next one gets `inbox` by `hand_over`.
    pub(super) fn new(inbox: Inbox, hand_over: oneshot::Sender<Inbox>, renewal: Renewal) -> Self {
        Self {
            inbox: Some(inbox),
            hand_over: Some(hand_over),
            renewal,
            since: Instant::now(),
            requests: Arc::default(),
        }
    }

    /// What comes, unless that is for another instance.
    fn inbox(&mut self) -> Option<&mut Inbox> {
        let requests = self.requests.load(Relaxed);
        if self.renewal.is_due(requests, self.since.elapsed()) {
            self.close();
        }
        self.inbox.as_mut()
    }

    /// Takes no more: what comes is for the next instance.
    pub(super) fn close(&mut self) {
        if let (Some(inbox), Some(next)) = (self.inbox.take(), self.hand_over.take()) {
            // Without a receiver the pod is gone.
            let _ = next.send(inbox);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inbox.is_none()
    }
}

/// Takes requests and starts them, up to the limit at once.
///
/// `over` waits until the responses of all that are under way then have been read.
pub(super) struct Reception<'a, F, S, O> {
    accessor: &'a Accessor<State>,
    pod: &'a PodInner,
    cell: Arc<Cell>,
    handler: Func,
    door: &'a mut Door,
    over: O,
    start: S,
    calls: FuturesUnordered<F>,
    alone: Alone,
    /// Whether it has waited for others to come with the next request.
    gathered: bool,
    last: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<'a, F, S, O, E> Reception<'a, F, S, O>
where
    F: Future<Output = wasmtime::Result<()>>,
    S: Fn(Job) -> F,
    O: Fn() -> E,
    E: Future<Output = ()> + Send + 'static,
{
    pub(super) fn new(
        accessor: &'a Accessor<State>,
        pod: &'a PodInner,
        service: &Service,
        (door, over): (&'a mut Door, O),
        start: S,
    ) -> Self {
        Self {
            accessor,
            pod,
            cell: accessor.with(|mut store| Arc::clone(&store.get().cell)),
            handler: *service.wasi_http_handler().func_handle().func(),
            door,
            over,
            start,
            calls: FuturesUnordered::new(),
            alone: Alone::default(),
            gathered: false,
            last: None,
        }
    }

    /// Until the pod is gone or a request fails the instance, or until it is due for renewal and
    /// those under way are over. `idle` is called when the last one under way has ended.
    pub(super) async fn run(
        &mut self,
        first: Option<Job>,
        idle: impl Fn(),
    ) -> wasmtime::Result<()> {
        if let Some(job) = first {
            self.take(job)?;
        }
        poll_fn(|cx| self.poll(cx, &idle)).await
    }

    fn take(&mut self, job: Job) -> wasmtime::Result<()> {
        let is_only = self.calls.is_empty();
        // What a guest prints belongs to a request only while it answers just one.
        self.turn_to(
            job.guard
                .completion()
                .inbound()
                .id
                .clone()
                .filter(|_| is_only),
        )?;
        self.alone.begin(&job, is_only, &self.cell);
        self.calls.push((self.start)(job));
        Ok(())
    }

    /// Goes on with the requests that it has.
    fn progress(&mut self, cx: &mut Context<'_>, idle: &impl Fn()) -> wasmtime::Result<()> {
        while let Poll::Ready(Some(ended)) = self.calls.poll_next_unpin(cx) {
            ended?;
            if self.calls.is_empty() {
                self.alone.end(self.pod, &self.cell);
                idle();
            }
            // Progress: each guest task that still runs gets the budget of a request from here on.
            self.turn_to(None)?;
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>, idle: &impl Fn()) -> Poll<wasmtime::Result<()>> {
        let limit = self.pod.template.concurrency() as usize;
        loop {
            self.cell.set_open(false);
            self.progress(cx, idle)?;
            let Some(inbox) = self.door.inbox() else {
                let over = &self.over;
                let last = self.last.get_or_insert_with(|| Box::pin(over()));
                return last.as_mut().poll(cx).map(Ok);
            };
            // A probe needs no room, and takes none.
            let room = self.calls.len() < limit || self.cell.clients() < limit;
            let accessor = self.accessor;
            if accessor
                .poll_ready_for_concurrent_call(self.handler, cx)
                .is_pending()
            {
                return Poll::Pending;
            }
            if !self.gathered && self.calls.is_empty() && self.pod.is_busy() {
                self.gathered = true;
                self.cell.run.expect_wake();
                // Polled once it asks for another turn after all others have had theirs.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            match inbox.poll_recv(cx, room) {
                Poll::Ready(Some(job)) if job.guard.completion().is_abandoned() => {}
                Poll::Ready(Some(job)) => self.take(job)?,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    self.cell.set_open(room);
                    self.gathered = false;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Gives the instance the budget of a request, and names that request if it is the only
    /// one that it serves.
    fn turn_to(&self, request_id: Option<Arc<str>>) -> wasmtime::Result<()> {
        self.accessor.with(|mut store| {
            store.get().hooks.request.set(request_id);
            self.pod.template.sandbox.refill(store)
        })
    }
}

/// The request that has the instance to itself, if one has: only what that costs is known. It is
/// what the instance had used when it began.
#[derive(Default)]
struct Alone(Option<Duration>);

impl Alone {
    fn begin(&mut self, job: &Job, is_first: bool, cell: &Cell) {
        let counts = is_first && !job.guard.completion().inbound().is_probe();
        self.0 = counts.then(|| cell.cpu.used_now());
    }

    fn end(&mut self, pod: &PodInner, cell: &Cell) {
        if let Some(before) = self.0.take() {
            let cpu = cell.cpu.used_now().saturating_sub(before);
            pod.context.meter.count_request(cpu);
        }
    }
}
