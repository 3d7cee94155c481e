//! `isolation = "pod"` for WASI 0.2: one instance that lives on, one request at a time.

use std::sync::Arc;

use sampan_core::provoke;
use tokio::time::Instant;
use wasmtime::{Store, component};
use wasmtime_wasi_http::p2::bindings::Proxy;

use super::{
    autopsy::{Outcome, Scope},
    failure::Failure,
    fate::{Fate, within},
    fresh::call_p2,
    inbox::{Inbox, Job, Ready},
    inner::Shared,
    question,
    request::Task,
};
use crate::{
    engine::Place,
    host::state::State,
    lane::Pace,
    observe::{body::read_by, observed::Observed, source::Source},
};

struct Instance {
    store: Store<State>,
    instance: component::Instance,
    proxy: Proxy,
    /// Whether it has answered a request.
    has_answered: bool,
    /// How many it has been given.
    requests: u32,
    made: Instant,
    _place: Place,
}

impl Instance {
    /// Whether it is to take no more requests.
    fn is_due(&self, shared: &Shared) -> bool {
        let renewal = shared.template.renewal();
        renewal.is_due(self.requests, self.made.elapsed())
    }
}

/// Keeps an instance and gives it requests until the pod is gone. One that is due for renewal is
/// dropped, and the next request gets another.
pub(super) async fn run(shared: Arc<Shared>, mut inbox: Inbox, ready: Ready, pace: Arc<Pace>) {
    let first = make(&shared, &pace).await;
    let (told, mut instance) = match first {
        Ok(instance) => (Ok(()), Some(instance)),
        Err(failure) => (Err(failure), None),
    };
    if ready.send(told).is_err() || instance.is_none() {
        return;
    }
    while let Some(job) = inbox.recv().await {
        provoke::panic_in(provoke::Task::Kept);
        if job.ending.fate().is_abandoned() {
            continue;
        }
        // It may have become too old meanwhile.
        let young = |it: &Instance| !it.is_due(&shared);
        // A request that was cut off has cost the pod its instance: the next one gets another.
        let alive = match instance.take().filter(young) {
            Some(alive) => Ok(alive),
            None => match within(job.deadline, make(&shared, &pace)).await {
                Ok(made) => made,
                Err(_) => {
                    let late = Failure::TimedOut(shared.template.request_timeout());
                    job.ending
                        .fail(late, |late| shared.say(job.asked.id.clone(), late));
                    continue;
                }
            },
        };
        match alive {
            Ok(alive) => match answer(&shared, alive, job, &pace).await {
                Next::Keep(alive) => instance = Some(*alive).filter(young),
                Next::Replace => {}
                Next::PodIsOver => return,
            },
            Err(failure) => match shared.unmade(failure, Some(job)) {
                Scope::Pod => return,
                Scope::Instance => {}
            },
        }
    }
}

/// What becomes of an instance after a request.
enum Next {
    Keep(Box<Instance>),
    Replace,
    PodIsOver,
}

async fn make(shared: &Shared, pace: &Arc<Pace>) -> Result<Instance, Failure> {
    let place = shared.pool_place().await?;
    let instance = shared.within_start(async {
        let mut store = shared.store(pace)?;
        let cell = Arc::clone(&store.data().cell);
        let of_error =
            |error: wasmtime::Error| Failure::of_error(&error, &shared.template).of_making();
        let instantiate = async {
            let instance = shared.template.loaded.pre.instantiate_async(&mut store);
            let instance = shared.runtime.timings.instantiation(instance).await?;
            let proxy = Proxy::new(&mut store, &instance)?;
            wasmtime::error::Ok((instance, proxy))
        };
        let (instance, proxy) = Observed::making(instantiate, cell)
            .await
            .map_err(of_error)?;
        Ok(Instance {
            store,
            instance,
            proxy,
            has_answered: false,
            requests: 0,
            made: Instant::now(),
            _place: place,
        })
    });
    let instance = instance.await?;
    shared.context.meter.count_instance();
    shared.settle(&instance.store.data().cell);
    Ok(instance)
}

/// Has the guest do what it is asked, if that has not been taken back.
async fn perform(
    shared: &Shared,
    store: &mut Store<State>,
    exporter: &component::Instance,
    proxy: &Proxy,
    fate: &Arc<Fate>,
    requests: &mut u32,
) -> wasmtime::Result<()> {
    match fate.begin() {
        Some(Task::Request(request)) => {
            *requests += 1;
            let writer = Source::Caller(Arc::clone(fate.asked()));
            let cell = Arc::clone(&store.data().cell);
            let request = request.into_guest();
            let request = request.map(|body| read_by(&cell, writer, body));
            call_p2(proxy, store, request, fate).await
        }
        Some(Task::Question(question)) => {
            let exports = &shared.template.loaded.exports;
            question::ask(exports, store, exporter, question, fate).await
        }
        None => Ok(()),
    }
}

/// Answers one request. Gives the instance back if it can take another.
async fn answer(shared: &Shared, mut instance: Instance, job: Job, pace: &Pace) -> Next {
    let Job {
        asked,
        ending,
        deadline,
        slot: _slot,
    } = job;
    let Instance {
        store,
        instance: exporter,
        proxy,
        has_answered,
        requests,
        ..
    } = &mut instance;
    let fate = Arc::clone(ending.fate());
    let refilled = shared.template.sandbox.refill(&mut *store);
    store.data().request.set(asked.id.clone());
    let cell = Arc::clone(&store.data().cell);
    cell.forget_calls();
    cell.begin(&asked);
    fate.runs_in(&cell);
    let work = async {
        refilled?;
        perform(shared, &mut *store, exporter, proxy, &fate, requests).await
    };
    let outcome = Outcome::of(work, &cell, deadline).await;
    cell.end(&asked);
    pace.learn(&cell.cpu);
    shared.count(&asked, &cell);
    let state = store.data_mut();
    state.request.set(None);
    let unfinished = state.holds_unfinished_body();
    let Some(failure) = outcome.failure(&fate, unfinished, &shared.template) else {
        *has_answered |= *requests > 0;
        ending.well();
        return Next::Keep(Box::new(instance));
    };
    if failure.is_of_host() {
        // Of what is left of the instance nothing is known.
        ending.fail(failure, |failure| shared.say(asked.id.clone(), failure));
        return Next::Replace;
    }
    let failure = match failure {
        // Some guests answer only once: then it was the turn and not the request.
        Failure::NoResponse if *has_answered => {
            fate.acquit();
            Failure::OnlyOnce
        }
        other => other,
    };
    let mourned = shared.mourn(outcome.death(&failure, &*store, &asked, &fate));
    if fate.is_answered() && !unfinished {
        // A guest that died after finishing its response has answered all the same.
        ending.well();
    } else {
        ending.fail(failure, |_| {});
    }
    if let Some(dump) = mourned.dump {
        let Instance { store, _place, .. } = instance;
        dump.make(store, outcome.into_error(), _place);
    }
    match mourned.scope {
        Scope::Pod => Next::PodIsOver,
        Scope::Instance => Next::Replace,
    }
}
