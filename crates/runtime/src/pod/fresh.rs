//! `isolation = "request"`: a fresh instance for each request, dropped after it.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use parking_lot::Mutex;
use sampan_core::provoke;
use tokio::task::JoinSet;
use wasmtime::Store;
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView as _,
    p2::bindings::{Proxy, http::types::Scheme},
    p3::bindings::Service,
};

use super::{
    autopsy::Outcome,
    body::RequestGuard,
    completion::{Completion, within},
    failure::Failure,
    held::IdleGate,
    hosted::Hosted,
    inbox::Job,
    inner::PodInner,
    p3, question,
    request::Task,
};
use crate::{
    admission::inspect::Wasi,
    host::state::State,
    lane::{Pace, ServiceKey, Work},
    observe::observed::Observed,
    runtime::StartError,
};

/// The requests of a pod that did not end at once. Dropping this ends them.
#[derive(Default)]
pub(super) struct Fresh(Mutex<JoinSet<()>>);

impl Fresh {
    /// Makes an instance and drops it: a pod whose component cannot start is no pod.
    pub(super) async fn start(pod: &Arc<PodInner>) -> Result<Self, StartError> {
        let place = pod.pool_place().await;
        let _place = place.map_err(|failure| StartError::Instance(failure.to_string()))?;
        let pace = Arc::<Pace>::default();
        let service = ServiceKey::of(&*pod.template);
        let try_instance = Box::pin(try_instance(Arc::clone(pod), Arc::clone(&pace)));
        let tried = pod.runtime.slow_lane.drive(service, &pace, try_instance);
        match pod.within_start(tried).await {
            Ok(()) => Ok(Self::default()),
            Err(failure) => Err(StartError::Instance(failure.to_string())),
        }
    }

    /// Ends the requests under way.
    pub(super) fn end(&self) {
        let mut tasks = self.0.lock();
        tasks.abort_all();
    }

    /// Runs a request right here, as far as it goes without waiting. Only what is left of it gets
    /// a task of its own, which outlives the response if the guest does.
    pub(super) async fn send(&self, pod: &Arc<PodInner>, job: Job) -> RequestGuard {
        let mut guard = RequestGuard::new(Arc::clone(job.guard.completion()), None);
        let template = &*pod.template;
        let pace = Arc::new(Pace::new(template.pace.is_long()));
        let mut work: Work<()> = Box::pin(answer(Arc::clone(pod), job, Arc::clone(&pace)));
        if !pace.is_long() {
            let ended = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await;
            if ended {
                return guard;
            }
            if pace.is_long() {
                template.pace.set(true);
            }
        }
        let (runtime, service) = (Arc::clone(&pod.runtime), ServiceKey::of(template));
        let rest = async move { runtime.slow_lane.drive(service, &pace, work).await };
        let rest = Hosted::new(Box::pin(rest));
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(rest.task());
        if pod.is_crowded() {
            guard.ends_with_body(rest);
        }
        guard
    }
}

async fn try_instance(pod: Arc<PodInner>, pace: Arc<Pace>) -> Result<(), Failure> {
    let mut store = pod.store(&pace)?;
    let cell = Arc::clone(&store.data().cell);
    let instantiate = pod.template.loaded.pre.instantiate_async(&mut store);
    let instantiate = pod.runtime.timings.instantiation(instantiate);
    match Observed::making(instantiate, cell).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::of_error(&error, &pod.template).of_making()),
    }
}

async fn answer(pod: Arc<PodInner>, job: Job, pace: Arc<Pace>) {
    // The instance counts as one of `concurrency` as long as it lives.
    let _slot = job.slot.clone();
    provoke::panic_in(provoke::Task::Fresh);
    let _place = match within(job.deadline, pod.pool_place()).await {
        Ok(Ok(place)) => place,
        Ok(Err(full)) => return job.guard.fail(full, |_| {}),
        Err(_) => {
            let late = Failure::Unavailable("no place for an instance became free".to_owned());
            return job.guard.fail(late, |_| {});
        }
    };
    let mut store = match pod.store(&pace) {
        Ok(store) => store,
        Err(failure) => return job.guard.fail(failure, |_| {}),
    };
    let Job {
        guard, deadline, ..
    } = job;
    let completion = Arc::clone(guard.completion());
    let inbound = Arc::clone(completion.inbound());
    store.data().hooks.request.set(inbound.id.clone());
    store.data_mut().answered.is_on = !pod.is_busy();
    pod.context.meter.count_instance();
    let cell = Arc::clone(&store.data().cell);
    cell.begin(&inbound);
    completion.runs_in(&cell);
    let outcome = {
        let work = pin!(work(&pod, &mut store, &completion));
        let outcome = pin!(Outcome::of(work, &cell, deadline));
        completion.unless_abandoned(outcome).await
    };
    let Some(outcome) = outcome else {
        return;
    };
    pod.template.pace.learn(&cell.cpu);
    pod.count(&inbound, &cell);
    let unfinished = store.data_mut().holds_unfinished_body();
    let Some(failure) = outcome.failure(&completion, unfinished, &pod.template) else {
        return guard.well();
    };
    if failure.is_of_host() {
        return guard.fail(failure, |failure| pod.say(inbound.id.clone(), failure));
    }
    let recorded = pod.close(&outcome, failure, &store, guard, unfinished);
    if let Some(dump) = recorded.dump {
        dump.make(store, outcome.into_error(), (_place, _slot));
    }
}

async fn work(
    pod: &PodInner,
    store: &mut Store<State>,
    completion: &Arc<Completion>,
) -> wasmtime::Result<()> {
    let loaded = &pod.template.loaded;
    let instance = loaded.pre.instantiate_async(&mut *store);
    let instance = pod.runtime.timings.instantiation(instance).await?;
    let request = match completion.begin() {
        Some(Task::Request(request)) => {
            request.into_guest(&store.data().cell, completion.inbound())
        }
        Some(Task::Question(question)) => {
            return question::ask(&loaded.exports, store, &instance, question, completion).await;
        }
        None => return Ok(()),
    };
    match pod.template.wasi {
        Wasi::P2 => {
            let proxy = Proxy::new(&mut *store, &instance)?;
            call_p2(&proxy, store, request, completion).await
        }
        Wasi::P3 => {
            let service = Service::new(&mut *store, &instance)?;
            // Five times as large as that of WASI 0.2, whose requests it would cost the same.
            Box::pin(p3(&service, store, request, completion)).await
        }
    }
}

/// Calls a WASI 0.2 handler. Returns when the guest does, which may be after its response.
pub(super) async fn call_p2(
    proxy: &Proxy,
    store: &mut Store<State>,
    request: http::Request<WasiBody>,
    completion: &Arc<Completion>,
) -> wasmtime::Result<()> {
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request)?;
    let completion = Arc::clone(completion);
    let out = http.new_response_outparam_from_callback(move |response| {
        completion.answer(response.map_err(|code| format!("{code:?}")));
    })?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(store, request, out)
        .await
}

async fn p3(
    service: &Service,
    store: &mut Store<State>,
    request: http::Request<WasiBody>,
    completion: &Completion,
) -> wasmtime::Result<()> {
    let gate = IdleGate::default();
    let cell = Arc::clone(&store.data().cell);
    let work = pin!(store.run_concurrent(async |accessor| {
        let request = p3::place(accessor, request)?;
        p3::answer(accessor, service, request, &cell, completion, &gate).await?;
        // The body is written by tasks of the guest that outlive the call.
        std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
        cell.end(completion.inbound());
        // What the guest has handed to the host, like trailers, is still on its way in the
        // store, and no task of the guest.
        completion.wait_for_reader().await;
        Ok(())
    }));
    cell.unless_deadlocked(gate.watch(work)).await?
}
