//! `wasi:cli/run`: one instance, which runs until its command ends, and the pod with it.
//!
//! While a command of WASI 0.3 runs, its other exports can be called: the host's questions go to the
//! same instance. `run` of WASI 0.2 has the instance to itself.

use std::{pin::pin, sync::Arc};

use futures::{StreamExt as _, stream::FuturesUnordered};
use sampan_core::provoke;
use wasmtime::{
    Store,
    component::{self, Accessor},
};
use wasmtime_wasi::{I32Exit, p2, p3};

use super::{
    autopsy::InstanceEnd,
    failure::Failure,
    inbox::{Inbox, Job, MAX_PROBES, Ready},
    inner::{Made, PodInner},
    question,
    request::Task,
};
use crate::{
    admission::inspect::Wasi,
    exports::Question,
    host::state::State,
    lane::Pace,
    observe::{cell::Cell, observed::Observed, source::InboundRequest},
};

/// The export that is run.
enum Run {
    P2(p2::bindings::Command),
    P3(p3::bindings::Command),
}

/// What `run` says: the outer error is one of the instance, the inner one the guest's own.
type Said = wasmtime::Result<Result<(), ()>>;

/// Makes an instance and runs its command to its end.
pub(super) async fn run(pod: Arc<PodInner>, mut inbox: Inbox, ready: Ready, pace: Arc<Pace>) {
    let made = make(&pod, &pace).await;
    let told = ready.send(made.as_ref().map(drop).map_err(Clone::clone));
    if let (Ok(made), Ok(())) = (made, told) {
        provoke::panic_in(provoke::Task::Command);
        live(&pod, made, &mut inbox).await;
    }
}

async fn make(pod: &PodInner, pace: &Arc<Pace>) -> Result<Made<Run>, Failure> {
    let wasi = pod.template.wasi;
    pod.make(pace, |instance, store| {
        Ok(match wasi {
            Wasi::P2 => Run::P2(p2::bindings::Command::new(store, instance)?),
            Wasi::P3 => Run::P3(p3::bindings::Command::new(store, instance)?),
        })
    })
    .await
}

async fn live(pod: &PodInner, made: Made<Run>, inbox: &mut Inbox) {
    // Of a pattern the last is dropped first: the place after what is in it.
    let Made {
        place,
        mut store,
        ref instance,
        ref handler,
    } = made;
    let cell = Arc::clone(&store.data().cell);
    // What waits for the guest is no client: it is what it was started for.
    let inbound = InboundRequest::question("run");
    cell.begin(&inbound);
    let work = async {
        match handler {
            Run::P2(command) => command.wasi_cli_run().call_run(&mut store).await,
            Run::P3(command) => {
                let run = concurrently(pod, &cell, &mut store, (instance, command), inbox);
                cell.unless_deadlocked(run).await
            }
        }
    };
    let mut work = Box::pin(Observed::new(work, Arc::clone(&cell)));
    let said = work.as_mut().await;
    let waits = cell.waits().open();
    drop(work);
    let (failure, error) = ended(pod, said);
    let recorded = pod.record_failure(InstanceEnd {
        failure: &failure,
        error: error.as_ref(),
        store: Some(&store),
        requests: std::slice::from_ref(&inbound),
        waits,
        already_reported: false,
        has_successor: false,
    });
    if let Some(dump) = recorded.dump {
        dump.make(store, error, place);
    }
}

/// Runs a command of WASI 0.3, and asks its guest meanwhile what the host wants to know.
async fn concurrently(
    pod: &PodInner,
    cell: &Cell,
    store: &mut Store<State>,
    (instance, command): (&component::Instance, &p3::bindings::Command),
    inbox: &mut Inbox,
) -> Said {
    // A question could end what the guest waits for.
    let exports = &pod.template.loaded.exports;
    cell.set_open(exports.has_health() || exports.index(Question::PreStop).is_some());
    let said = store.run_concurrent(async |accessor| {
        let mut run = pin!(command.wasi_cli_run().call_run(accessor));
        let mut questions = FuturesUnordered::new();
        loop {
            let has_room = questions.len() < MAX_PROBES;
            tokio::select! {
                biased;
                said = &mut run => return said,
                Some(asked) = questions.next() => asked?,
                Some(job) = inbox.recv(), if has_room => {
                    questions.push(ask(pod, accessor, instance, job));
                }
            }
        }
    });
    said.await?
}

/// Asks the guest a question, if that has not been taken back.
async fn ask(
    pod: &PodInner,
    accessor: &Accessor<State>,
    instance: &component::Instance,
    job: Job,
) -> wasmtime::Result<()> {
    let completion = Arc::clone(job.guard.completion());
    let cell = accessor.with(|mut store| Arc::clone(&store.get().cell));
    completion.runs_in(&cell);
    match completion.begin() {
        Some(Task::Question(question)) => {
            let exports = &pod.template.loaded.exports;
            question::ask_concurrently(exports, accessor, instance, question, &completion).await?;
            job.guard.well();
        }
        // A request is refused before it comes here.
        Some(Task::Request(_)) | None => {}
    }
    Ok(())
}

/// How a command has ended.
fn ended(pod: &PodInner, said: Said) -> (Failure, Option<wasmtime::Error>) {
    match said {
        Ok(Ok(())) => (Failure::Exited(0), None),
        Ok(Err(())) => (Failure::Exited(1), None),
        Err(error) => {
            let failure = match error.downcast_ref() {
                Some(I32Exit(code)) => Failure::Exited(*code),
                None => Failure::of_error(&error, &pod.template),
            };
            (failure, Some(error))
        }
    }
}
