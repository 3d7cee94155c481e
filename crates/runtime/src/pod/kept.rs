//! `isolation = "pod"` for WASI 0.2: one instance that lives on, one request at a time.

use std::{pin::pin, sync::Arc};

use sampan_core::provoke;
use tokio::time::Instant;
use wasmtime_wasi_http::p2::bindings::Proxy;

use super::{
    autopsy::{Outcome, Scope},
    completion::{Completion, within},
    failure::Failure,
    fresh::call_p2,
    inbox::{Inbox, Job, Ready},
    inner::{Made, PodInner},
    question,
    request::Task,
};
use crate::lane::Pace;

struct Instance {
    made: Made<Proxy>,
    /// Whether it has answered a request.
    has_answered: bool,
    /// How many it has been given.
    requests: u32,
    since: Instant,
}

/// Keeps an instance and gives it requests until the pod is gone. One that is due for renewal is
/// dropped, and the next request gets another.
pub(super) async fn run(pod: Arc<PodInner>, mut inbox: Inbox, ready: Ready, pace: Arc<Pace>) {
    // Whether one may take another request.
    let renewal = pod.template.renewal;
    let young = |it: &Instance| !renewal.is_due(it.requests, it.since.elapsed());
    let first = make(&pod, &pace).await;
    let (told, mut instance) = match first {
        Ok(instance) => (Ok(()), Some(instance)),
        Err(failure) => (Err(failure), None),
    };
    if ready.send(told).is_err() || instance.is_none() {
        return;
    }
    while let Some(job) = inbox.recv().await {
        provoke::panic_in(provoke::Task::Kept);
        if job.guard.completion().is_abandoned() {
            continue;
        }
        // A request that was cut off has cost the pod its instance, or it may have become too old
        // meanwhile: the next one gets another.
        let alive = match instance.take().filter(|it| young(it)) {
            Some(alive) => Ok(alive),
            None => match within(job.deadline, make(&pod, &pace)).await {
                Ok(made) => made,
                Err(_) => {
                    let late = Failure::TimedOut(pod.template.request_timeout);
                    let inbound = Arc::clone(job.guard.completion().inbound());
                    job.guard
                        .fail(late, |late| pod.say(inbound.id.clone(), late));
                    continue;
                }
            },
        };
        match alive {
            Ok(alive) => match answer(&pod, alive, job, &pace).await {
                Next::Keep(alive) => instance = Some(alive).filter(|it| young(it)),
                Next::Replace => {}
                Next::PodIsOver => return,
            },
            Err(failure) => match pod.unmade(failure, Some(job)) {
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

async fn make(pod: &PodInner, pace: &Arc<Pace>) -> Result<Box<Instance>, Failure> {
    Ok(Box::new(Instance {
        made: pod.make(pace, |it, store| Proxy::new(store, it)).await?,
        has_answered: false,
        requests: 0,
        since: Instant::now(),
    }))
}

/// Has the guest do what it is asked, if that has not been taken back.
async fn perform(
    pod: &PodInner,
    made: &mut Made<Proxy>,
    completion: &Arc<Completion>,
    requests: &mut u32,
) -> wasmtime::Result<()> {
    let store = &mut made.store;
    match completion.begin() {
        Some(Task::Request(request)) => {
            *requests += 1;
            let request = request.into_guest(&store.data().cell, completion.inbound());
            call_p2(&made.handler, store, request, completion).await
        }
        Some(Task::Question(question)) => {
            let exports = &pod.template.loaded.exports;
            question::ask(exports, store, &made.instance, question, completion).await
        }
        None => Ok(()),
    }
}

/// Answers one request. Gives the instance back if it can take another.
async fn answer(pod: &PodInner, mut instance: Box<Instance>, job: Job, pace: &Pace) -> Next {
    let Job {
        guard,
        deadline,
        slot: _slot,
    } = job;
    let Instance {
        made,
        has_answered,
        requests,
        ..
    } = &mut *instance;
    let completion = Arc::clone(guard.completion());
    let inbound = Arc::clone(completion.inbound());
    let refilled = pod.template.sandbox.refill(&mut made.store);
    let store = &made.store;
    store.data().hooks.request.set(inbound.id.clone());
    let cell = Arc::clone(&store.data().cell);
    cell.forget_calls();
    cell.begin(&inbound);
    completion.runs_in(&cell);
    let outcome = {
        let work = pin!(async {
            refilled?;
            perform(pod, made, &completion, requests).await
        });
        Outcome::of(work, &cell, deadline).await
    };
    cell.end(&inbound);
    pace.learn(&cell.cpu);
    pod.count(&inbound, &cell);
    let state = made.store.data_mut();
    state.hooks.request.set(None);
    let unfinished = state.holds_unfinished_body();
    let Some(failure) = outcome.failure(&completion, unfinished, &pod.template) else {
        *has_answered |= *requests > 0;
        guard.well();
        return Next::Keep(instance);
    };
    if failure.is_of_host() {
        // Of what is left of the instance nothing is known.
        guard.fail(failure, |failure| pod.say(inbound.id.clone(), failure));
        return Next::Replace;
    }
    let failure = match failure {
        // Some guests answer only once: then it was the turn and not the request.
        Failure::NoResponse if *has_answered => {
            completion.acquit();
            Failure::OnlyOnce
        }
        other => other,
    };
    let recorded = pod.close(&outcome, failure, &made.store, guard, unfinished);
    if let Some(dump) = recorded.dump {
        let Made { store, place, .. } = instance.made;
        dump.make(store, outcome.into_error(), place);
    }
    match recorded.scope {
        Scope::Pod => Next::PodIsOver,
        Scope::Instance => Next::Replace,
    }
}
