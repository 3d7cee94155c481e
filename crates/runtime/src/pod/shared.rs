//! `isolation = "pod"` for WASI 0.3: one instance that lives on and takes requests concurrently.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use sampan_core::provoke;
use tokio::sync::Notify;
use wasmtime::{
    Store,
    component::{self, Accessor, GuestTaskId},
};
use wasmtime_wasi_http::p3::bindings::Service;

use super::{
    Death, Failure, Job, OpenWait, Scope, Shared, Task,
    autopsy::{Mourned, open_waits},
    driver::{Inbox, Ready},
    fate::{Ending, Fate},
    held::Lull,
    p3,
};
use crate::{
    engine::Place,
    lane::Pace,
    observe::{
        body::read_by,
        cell::{Cell, Observed},
        source::Source,
        turn::Turn,
    },
    sandbox::State,
};

/// The requests an instance is answering, heads and bodies.
///
/// It must be dropped before the store, see [`Ending`].
#[derive(Default)]
struct Live(Mutex<Vec<Entry>>);

struct Entry {
    ending: Ending,
    /// Whether the guest's handler has returned.
    returned: bool,
}

impl Live {
    fn add(&self, ending: Ending) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What has returned and has no other owner has no reader any more.
        live.retain(|entry| !entry.returned || Arc::strong_count(entry.ending.fate()) > 1);
        live.push(Entry {
            ending,
            returned: false,
        });
    }

    fn returned(&self, fate: &Arc<Fate>) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |entry: &&mut Entry| Arc::ptr_eq(entry.ending.fate(), fate);
        if let Some(entry) = live.iter_mut().find(is_it) {
            entry.returned = true;
        }
    }

    /// Handlers under way that nobody waits for.
    fn stuck(&self) -> usize {
        let live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stuck = |entry: &&Entry| {
            let fate = entry.ending.fate();
            !entry.returned && fate.is_abandoned() && !fate.asked().is_probe()
        };
        live.iter().filter(is_stuck).count()
    }

    /// Fails everything under way. `culprit` is the task of the guest that has ended the instance, if
    /// that is known: then no other is to blame, and without it one alone only if it is the only one.
    fn fail(
        &self,
        shared: &Shared,
        death: Death<'_>,
        culprit: Option<GuestTaskId>,
    ) -> Option<Mourned> {
        let failure = death.failure;
        let live = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let running: Vec<_> = live.iter().filter(|entry| !entry.returned).collect();
        let requests: Vec<_> = running
            .iter()
            .map(|entry| Arc::clone(entry.ending.fate().asked()))
            .collect();
        let mourned = match failure.is_of_host() {
            true => {
                shared.say(None, failure);
                None
            }
            false => Some(shared.mourn(Death {
                requests: &requests,
                ..death
            })),
        };
        let is_alone = running.len() <= 1;
        for entry in live {
            let fate = entry.ending.fate();
            let is_it = match culprit {
                Some(task) => fate.guest_task() == Some(task),
                None => is_alone,
            };
            if culprit.is_some() && !is_it {
                fate.acquit();
            }
            let failure = match is_it || failure.is_of_host() {
                true => failure.clone(),
                false => Failure::Neighbour(Box::new(failure.clone())),
            };
            entry.ending.fail(failure, |_| {});
        }
        mourned
    }
}

/// Keeps an instance and gives it requests until the pod is gone. `given_up` tells of requests
/// that nobody waits for any more.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut inbox: Inbox,
    given_up: Arc<Notify>,
    ready: Ready,
    pace: Arc<Pace>,
) {
    let mut ready = Some(ready);
    // The job that makes a pod without an instance make one.
    let mut first: Option<Job> = None;
    loop {
        let made = make(&shared, &pace).await;
        if let Some(ready) = ready.take() {
            let told = ready.send(made.as_ref().map(drop).map_err(Clone::clone));
            if told.is_err() || made.is_err() {
                return;
            }
        }
        match made {
            Ok(instance) => {
                provoke::panic_in(provoke::Task::Shared);
                let served = serve(
                    &shared,
                    instance,
                    &mut inbox,
                    first.take(),
                    &given_up,
                    &pace,
                );
                if served.await == Served::PodIsOver {
                    return;
                }
            }
            Err(failure) => match shared.unmade(failure, first.take()) {
                Scope::Pod => return,
                Scope::Instance => {}
            },
        }
        first = loop {
            match inbox.recv().await {
                None => return,
                Some(job) if job.ending.fate().is_abandoned() => {}
                Some(job) => break Some(job),
            }
        };
    }
}

/// In this order, so that the place is free when the store is gone.
struct Instance {
    store: Store<State>,
    guest: Guest,
    _place: Place,
}

/// What it exports.
struct Guest {
    instance: component::Instance,
    service: Service,
}

async fn make(shared: &Shared, pace: &Arc<Pace>) -> Result<Instance, Failure> {
    let place = shared.pool_place().await?;
    let instance = shared.within_start(async {
        let mut store = shared.store(pace)?;
        let cell = Arc::clone(&store.data().cell);
        let instantiate = async {
            let pre = &shared.template.loaded.pre;
            let instance = pre.instantiate_async(&mut store);
            let instance = shared.runtime.timings.instantiation(instance).await?;
            let service = Service::new(&mut store, &instance)?;
            wasmtime::error::Ok(Guest { instance, service })
        };
        let of_error =
            |error: wasmtime::Error| Failure::of_error(&error, &shared.template).of_making();
        let made = Observed::making(instantiate, cell).await;
        let guest = made.map_err(of_error)?;
        Ok(Instance {
            store,
            guest,
            _place: place,
        })
    });
    let instance = instance.await?;
    shared.context.meter.count_instance();
    let cell = &instance.store.data().cell;
    let all = shared.template.concurrency() as usize;
    cell.cpu.share(&shared.slots, all);
    shared.settle(cell);
    Ok(instance)
}

/// Why an instance is served no longer.
#[derive(PartialEq, Eq)]
enum Served {
    Failed,
    PodIsOver,
}

/// Runs the instance until it fails or the pod is gone.
async fn serve(
    shared: &Shared,
    instance: Instance,
    inbox: &mut Inbox,
    first: Option<Job>,
    given_up: &Notify,
    pace: &Pace,
) -> Served {
    let Instance {
        mut store,
        ref guest,
        _place,
    } = instance;
    let live = Live::default();
    let lull = Lull::default();
    let cell = Arc::clone(&store.data().cell);
    let limit = shared.template.concurrency() as usize;
    let start = |job: Job| {
        let fate = Arc::clone(job.ending.fate());
        let task = fate.begin();
        // Whose call it was is not known: so it counts for all.
        fate.runs_in(&cell);
        live.add(job.ending);
        cell.begin(&job.asked);
        (fate, task)
    };
    let work = store.run_concurrent(async |accessor| {
        let answer = async |(fate, task): (Arc<Fate>, Option<Task>)| {
            let result = match task {
                Some(task) => perform(accessor, shared, guest, &fate, &lull, task).await,
                None => Ok(()),
            };
            live.returned(&fate);
            cell.end(fate.asked());
            result
        };
        let idle = || pace.learn(&cell.cpu);
        let take = |job| answer(start(job));
        let all = accept(accessor, shared, &guest.service, inbox, first, take, idle);
        Turn::between(accessor, all).await
    });
    let work = async { cell.unless_doomed(lull.watch(work)).await? };
    let mut work = Box::pin(Observed::new(work, Arc::clone(&cell)));
    let (failure, error) = loop {
        tokio::select! {
            result = &mut work => match result {
                Ok(()) => return Served::PodIsOver,
                Err(error) => break (Failure::of_error(&error, &shared.template), Some(error)),
            },
            // A guest cannot be made to give up one request. When all it can take are stuck in
            // requests that nobody waits for, the instance has to go.
            () = given_up.notified() => if live.stuck() >= limit {
                break (Failure::TimedOut(shared.template.request_timeout()), None);
            },
        }
    };
    let waits = open_waits(&cell.waits());
    drop(work);
    end(shared, &live, (store, _place), failure, error, waits)
}

/// Tells of the end of an instance, and has it dumped if that is wanted.
fn end(
    shared: &Shared,
    live: &Live,
    (store, place): (Store<State>, Place),
    failure: Failure,
    error: Option<wasmtime::Error>,
    waits: Vec<OpenWait>,
) -> Served {
    let culprit = store.data().turn.task().filter(|_| error.is_some());
    let death = Death {
        failure: &failure,
        error: error.as_ref(),
        store: Some(&store),
        requests: &[],
        waits,
        is_old_news: false,
    };
    let Some(mourned) = live.fail(shared, death, culprit) else {
        return Served::Failed;
    };
    if let Some(dump) = mourned.dump {
        dump.make(store, error, place);
    }
    match mourned.scope {
        Scope::Pod => Served::PodIsOver,
        Scope::Instance => Served::Failed,
    }
}

/// Has the guest do one thing.
async fn perform(
    accessor: &Accessor<State>,
    shared: &Shared,
    guest: &Guest,
    fate: &Arc<Fate>,
    lull: &Lull,
    task: Task,
) -> wasmtime::Result<()> {
    let cell = accessor.with(|mut store| Arc::clone(&store.get().cell));
    match task {
        Task::Request(request) => {
            let writer = Source::Caller(Arc::clone(fate.asked()));
            let request = request.into_guest();
            let request = request.map(|body| read_by(&cell, writer, body));
            let request = match p3::place(accessor, request) {
                Ok(request) => request,
                Err(error) => {
                    let failure = Failure::Host(error.root_cause().to_string());
                    let say = |failure: &Failure| shared.say(fate.asked().id.clone(), failure);
                    fate.fail(failure, say);
                    return Ok(());
                }
            };
            p3::answer(accessor, &guest.service, request, &cell, fate, lull).await
        }
        Task::Question(question) => {
            let exports = &shared.template.loaded.exports;
            let asked = exports.ask_concurrently(accessor, &guest.instance, question, fate);
            asked.await
        }
    }
}

/// Takes requests and starts them, up to the limit at once, until the pod is gone or one fails the
/// instance. `idle` is called when the last one under way has ended.
async fn accept<F: Future<Output = wasmtime::Result<()>>>(
    accessor: &Accessor<State>,
    shared: &Shared,
    service: &Service,
    inbox: &mut Inbox,
    first: Option<Job>,
    start: impl Fn(Job) -> F,
    idle: impl Fn(),
) -> wasmtime::Result<()> {
    let limit = shared.template.concurrency() as usize;
    let handler = *service.wasi_http_handler().func_handle().func();
    let mut calls = FuturesUnordered::new();
    let cell = accessor.with(|mut store| Arc::clone(&store.get().cell));
    let mut alone = Alone::default();
    if let Some(job) = first {
        turn_to(accessor, shared, job.asked.id.clone())?;
        alone.begin(&job, true, &cell);
        calls.push(start(job));
    }
    // Whether it has waited for others to come with the next request.
    let mut gathered = false;
    let mut next = |cx: &mut Context<'_>| loop {
        cell.set_open(false);
        match calls.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(()))) => {
                if calls.is_empty() {
                    alone.end(shared, &cell);
                    idle();
                }
                // Progress: whoever still runs gets the budget of a request from here on.
                turn_to(accessor, shared, None)?;
                continue;
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) | Poll::Pending => {}
        }
        // A probe needs no room, and takes none.
        let room = calls.len() < limit || cell.clients() < limit;
        if accessor
            .poll_ready_for_concurrent_call(handler, cx)
            .is_pending()
        {
            return Poll::Pending;
        }
        if !gathered && calls.is_empty() && shared.is_busy() {
            gathered = true;
            cell.expect_wake();
            // Polled once it asks for another turn after all others have had theirs.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        match inbox.poll_recv(cx, room) {
            Poll::Ready(Some(job)) if job.ending.fate().is_abandoned() => {}
            Poll::Ready(Some(job)) => {
                // What a guest prints belongs to a request only while it answers just one.
                let only = job.asked.id.clone().filter(|_| calls.is_empty());
                turn_to(accessor, shared, only)?;
                alone.begin(&job, calls.is_empty(), &cell);
                calls.push(start(job));
            }
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Pending => {
                cell.set_open(room);
                gathered = false;
                return Poll::Pending;
            }
        }
    };
    std::future::poll_fn(&mut next).await
}

/// The request that has the instance to itself, if one has: only what that costs is known. It is
/// what the instance had used when it began.
#[derive(Default)]
struct Alone(Option<Duration>);

impl Alone {
    fn begin(&mut self, job: &Job, is_first: bool, cell: &Cell) {
        let counts = is_first && !job.asked.is_probe();
        self.0 = counts.then(|| cell.cpu.used_now());
    }

    fn end(&mut self, shared: &Shared, cell: &Cell) {
        if let Some(before) = self.0.take() {
            let cpu = cell.cpu.used_now().saturating_sub(before);
            shared.context.meter.count_request(cpu);
        }
    }
}

/// Gives the instance the budget of a request, and says which one it is at if it is at one only.
fn turn_to(
    accessor: &Accessor<State>,
    shared: &Shared,
    request_id: Option<Arc<str>>,
) -> wasmtime::Result<()> {
    accessor.with(|mut store| {
        store.get().request.set(request_id);
        shared.template.sandbox.refill(store)
    })
}
