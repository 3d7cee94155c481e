//! `isolation = "pod"` for WASI 0.3: one instance that lives on and takes requests concurrently.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::AbortHandle,
};
use wasmtime::{Store, component::Accessor};
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};

use super::{
    CallError, Failure, Job, Shared,
    body::{Guard, RequestGuard},
    fate::{Ending, Fate},
    p3,
};
use crate::{meter::Metered, runtime::StartError, sandbox::State};

/// The task that owns the instance, and the way to it.
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    given_up: Arc<Notify>,
    task: AbortHandle,
}

impl Worker {
    pub(super) async fn start(shared: &Arc<Shared>) -> Result<Self, StartError> {
        let concurrency = shared.template.concurrency() as usize;
        let (jobs, inbox) = mpsc::channel(concurrency);
        let given_up = Arc::new(Notify::new());
        let (ready, started) = oneshot::channel();
        let task = tokio::spawn(run(Arc::clone(shared), inbox, Arc::clone(&given_up), ready));
        let worker = Self {
            jobs,
            given_up,
            task: task.abort_handle(),
        };
        match started.await {
            Ok(Ok(())) => Ok(worker),
            Ok(Err(failure)) => Err(StartError::Instance(failure.to_string())),
            Err(_) => Err(StartError::Instance("its task ended".to_owned())),
        }
    }

    pub(super) async fn send(&self, job: Job) -> Result<RequestGuard, CallError> {
        let fate = Arc::clone(job.ending.fate());
        match self.jobs.send(job).await {
            Ok(()) => Ok(RequestGuard::new(
                fate,
                Guard::Tell(Arc::clone(&self.given_up)),
            )),
            Err(_) => Err(CallError {
                failure: Failure::Unavailable("it has been stopped".to_owned()),
                called_out: false,
            }),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The requests an instance is answering, heads and bodies.
///
/// It must be dropped before the store, see [`Ending`].
#[derive(Default)]
struct Live(Mutex<Vec<Entry>>);

struct Entry {
    ending: Ending,
    request_id: Option<Arc<str>>,
    /// Whether the guest's handler has returned.
    returned: bool,
}

impl Live {
    fn add(&self, ending: Ending, request_id: Option<Arc<str>>) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What has returned and has no other owner has no reader any more.
        live.retain(|entry| !entry.returned || Arc::strong_count(entry.ending.fate()) > 1);
        live.push(Entry {
            ending,
            request_id,
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
        let is_stuck = |entry: &&Entry| !entry.returned && entry.ending.fate().is_abandoned();
        live.iter().filter(is_stuck).count()
    }

    /// Fails everything under way. One request alone is to blame only if there is only one.
    fn fail(&self, shared: &Shared, failure: &Failure) {
        let live = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let running: Vec<_> = live.iter().filter(|entry| !entry.returned).collect();
        let culprit = match running[..] {
            [only] => only.request_id.clone(),
            _ => None,
        };
        shared.mourn(culprit, failure);
        let failure = match running.len() {
            0 | 1 => failure.clone(),
            _ => Failure::Neighbour(Box::new(failure.clone())),
        };
        for entry in live {
            entry.ending.fail(failure.clone(), |_| {});
        }
    }
}

async fn run(
    shared: Arc<Shared>,
    mut inbox: mpsc::Receiver<Job>,
    given_up: Arc<Notify>,
    ready: oneshot::Sender<Result<(), Failure>>,
) {
    let mut ready = Some(ready);
    // The job that makes a pod without an instance make one.
    let mut first: Option<Job> = None;
    loop {
        let place = shared.pool_place().await;
        let made = Shared::within_start(make(&shared)).await;
        if let Some(ready) = ready.take() {
            let told = ready.send(made.as_ref().map(drop).map_err(Clone::clone));
            if told.is_err() || made.is_err() {
                return;
            }
        }
        match made {
            Ok((store, service)) => {
                let served = serve(
                    &shared,
                    store,
                    &service,
                    &mut inbox,
                    first.take(),
                    &given_up,
                );
                if served.await == Served::PodIsGone {
                    return;
                }
            }
            Err(failure) => {
                if let Some(job) = first.take() {
                    let account = |failure: &Failure| shared.mourn(job.request_id, failure);
                    job.ending.fail(failure, account);
                }
            }
        }
        drop(place);
        first = loop {
            match inbox.recv().await {
                None => return,
                Some(job) if job.ending.fate().is_abandoned() => {}
                Some(job) => break Some(job),
            }
        };
    }
}

async fn make(shared: &Shared) -> Result<(Store<State>, Service), Failure> {
    let mut store = shared.store()?;
    let cpu = Arc::clone(&store.data().cpu);
    let of_error = |error: wasmtime::Error| Failure::of_error(&error, &shared.template);
    let pre = ServicePre::new(shared.template.loaded.pre.clone()).map_err(of_error)?;
    let instantiate = async { pre.instantiate_async(&mut store).await };
    let service = Metered::new(instantiate, cpu).await.map_err(of_error)?;
    shared.context.meter.count_instance();
    Ok((store, service))
}

/// Why an instance is served no longer.
#[derive(PartialEq, Eq)]
enum Served {
    Failed,
    PodIsGone,
}

/// Runs the instance until it fails or the pod is gone.
async fn serve(
    shared: &Shared,
    mut store: Store<State>,
    service: &Service,
    inbox: &mut mpsc::Receiver<Job>,
    first: Option<Job>,
    given_up: &Notify,
) -> Served {
    let live = Live::default();
    let cpu = Arc::clone(&store.data().cpu);
    let limit = shared.template.concurrency() as usize;
    let called_out = Arc::clone(&store.data().called_out);
    let start = |job: Job| {
        let fate = Arc::clone(job.ending.fate());
        // Whose call it was is not known: so it counts for all.
        fate.runs_in(&called_out);
        live.add(job.ending, job.request_id);
        (fate, job.request)
    };
    let work = store.run_concurrent(async |accessor| {
        let answer = async |(fate, request): (Arc<Fate>, _)| {
            let result = p3::answer(accessor, service, request, &fate).await;
            live.returned(&fate);
            result
        };
        accept(accessor, shared, service, inbox, first, |job| {
            answer(start(job))
        })
        .await
    });
    let mut work = pin!(Metered::new(work, cpu));
    let failure = loop {
        tokio::select! {
            result = &mut work => match result {
                Ok(Ok(())) => return Served::PodIsGone,
                Ok(Err(error)) | Err(error) => break Failure::of_error(&error, &shared.template),
            },
            // A guest cannot be made to give up one request. When all it can take are stuck in
            // requests that nobody waits for, the instance has to go.
            () = given_up.notified() => if live.stuck() >= limit {
                break Failure::TimedOut(shared.template.request_timeout());
            },
        }
    };
    live.fail(shared, &failure);
    Served::Failed
}

/// Takes requests and starts them, up to the limit at once, until the pod is gone or one fails the
/// instance.
async fn accept<F: Future<Output = wasmtime::Result<()>>>(
    accessor: &Accessor<State>,
    shared: &Shared,
    service: &Service,
    inbox: &mut mpsc::Receiver<Job>,
    first: Option<Job>,
    start: impl Fn(Job) -> F,
) -> wasmtime::Result<()> {
    let limit = shared.template.concurrency() as usize;
    let handler = *service.wasi_http_handler().func_handle().func();
    let mut calls = FuturesUnordered::new();
    if let Some(job) = first {
        name_request(accessor, job.request_id.clone());
        calls.push(start(job));
    }
    let mut next = |cx: &mut Context<'_>| loop {
        match calls.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(()))) => {
                // Progress: whoever still runs gets the budget of a request from here on.
                refill(accessor, shared)?;
                name_request(accessor, None);
                continue;
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) | Poll::Pending => {}
        }
        if calls.len() >= limit
            || accessor
                .poll_ready_for_concurrent_call(handler, cx)
                .is_pending()
        {
            return Poll::Pending;
        }
        match inbox.poll_recv(cx) {
            Poll::Ready(Some(job)) if job.ending.fate().is_abandoned() => {}
            Poll::Ready(Some(job)) => {
                refill(accessor, shared)?;
                // What a guest prints belongs to a request only while it answers just one.
                name_request(
                    accessor,
                    job.request_id.clone().filter(|_| calls.is_empty()),
                );
                calls.push(start(job));
            }
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
        }
    };
    std::future::poll_fn(&mut next).await
}

fn refill(accessor: &Accessor<State>, shared: &Shared) -> wasmtime::Result<()> {
    accessor.with(|store| shared.template.sandbox.refill(store))
}

fn name_request(accessor: &Accessor<State>, request_id: Option<Arc<str>>) {
    accessor.with(|mut store| store.get().request.set(request_id));
}
