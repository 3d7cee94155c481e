//! `isolation = "pod"` for WASI 0.2: one instance that lives on, one request at a time.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};

use super::{
    Death, Failure, Job, Scope, Shared,
    autopsy::open_waits,
    driver::{Inbox, Ready},
    fate::within,
    fresh::call_p2,
};
use crate::{
    engine::Place,
    lane::Pace,
    observe::{body::read_by, cell::Observed, source::Source},
    sandbox::State,
};

struct Instance {
    store: Store<State>,
    proxy: Proxy,
    _place: Place,
}

/// Keeps an instance and gives it requests until the pod is gone.
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
        if job.ending.fate().is_abandoned() {
            continue;
        }
        // A request that was cut off has cost the pod its instance: the next one gets another.
        let alive = match instance.take() {
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
                Next::Keep(alive) => instance = Some(*alive),
                Next::Replace => {}
                Next::PodIsOver => return,
            },
            Err(failure) => {
                shared.mourn(Death::at_start(&failure, &[job.asked]));
                return job.ending.fail(failure, |_| {});
            }
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
        let of_error = |error: wasmtime::Error| Failure::of_error(&error, &shared.template);
        let pre = ProxyPre::new(shared.template.loaded.pre.clone()).map_err(of_error)?;
        let instantiate = async { pre.instantiate_async(&mut store).await };
        let proxy = Observed::new(instantiate, cell).await.map_err(of_error)?;
        Ok(Instance {
            store,
            proxy,
            _place: place,
        })
    });
    let instance = instance.await?;
    shared.context.meter.count_instance();
    Ok(instance)
}

/// Answers one request. Gives the instance back if it can take another.
async fn answer(shared: &Shared, mut instance: Instance, job: Job, pace: &Pace) -> Next {
    let Job {
        request,
        asked,
        ending,
        deadline,
        slot: _slot,
    } = job;
    let Instance { store, proxy, .. } = &mut instance;
    let fate = Arc::clone(ending.fate());
    let refilled = shared.template.sandbox.refill(&mut *store);
    store.data().request.set(asked.id.clone());
    store.data().called_out.store(false, Ordering::Relaxed);
    fate.runs_in(&store.data().called_out);
    let cell = Arc::clone(&store.data().cell);
    cell.begin(&asked);
    let request = request.map(|body| read_by(&cell, Source::Caller(Arc::clone(&asked)), body));
    let work = async {
        refilled?;
        call_p2(proxy, &mut *store, request, &fate).await
    };
    let (result, waits) = {
        let mut work = pin!(Observed::new(work, Arc::clone(&cell)));
        let result = within(deadline, work.as_mut()).await;
        let late = result.is_err();
        (result, late.then(|| open_waits(&cell.waits())))
    };
    cell.end(&asked);
    pace.learn(&cell.cpu);
    let state = store.data_mut();
    state.request.set(None);
    let unfinished = state.holds_unfinished_body();
    let failure = match &result {
        // Some guests can answer only once, and say nothing from then on: a new one can again.
        Ok(Ok(())) if !fate.is_answered() => Failure::NoResponse,
        Ok(Ok(())) if !unfinished => {
            ending.well();
            return Next::Keep(Box::new(instance));
        }
        // Nothing runs in it until the next request, so nothing would ever end that body.
        Ok(Ok(())) => Failure::Unfinished,
        Ok(Err(error)) => Failure::of_error(error, &shared.template),
        Err(_) => Failure::TimedOut(shared.template.request_timeout()),
    };
    let told = shared.mourn(Death {
        failure: &failure,
        error: result.as_ref().ok().and_then(|ended| ended.as_ref().err()),
        store: Some(&*store),
        requests: std::slice::from_ref(&asked),
        waits: waits.unwrap_or_default(),
        is_old_news: fate.failure().is_some(),
    });
    if fate.is_answered() && !unfinished {
        // A guest that died after finishing its response has answered all the same.
        ending.well();
    } else {
        ending.fail(failure, |_| {});
    }
    match told {
        Scope::Pod => Next::PodIsOver,
        Scope::Instance => Next::Replace,
    }
}
