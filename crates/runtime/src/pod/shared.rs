//! `isolation = "pod"` for WASI 0.3: one instance that lives on and takes requests concurrently.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::Mutex;
use sampan_core::provoke;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use wasmtime::{
    Store,
    component::{self, Accessor, GuestTaskId},
};
use wasmtime_wasi_http::p3::bindings::Service;

use super::{
    autopsy::{InstanceEnd, Recorded, Scope},
    completion::{Completion, CompletionGuard},
    failure::Failure,
    held::IdleGate,
    inbox::{Inbox, Job, Ready},
    inner::{Made, PodInner},
    p3, question,
    reception::{Door, Reception},
    request::Task,
};
use crate::{
    engine::Place,
    host::state::State,
    lane::{Pace, ServiceKey, Work},
    observe::{observed::Observed, turn::Turn},
    report::OpenWait,
};

/// The requests an instance is answering, heads and bodies.
///
/// It must be dropped before the store, see [`CompletionGuard`].
#[derive(Default)]
struct Live(Mutex<Vec<LiveRequest>>);

struct LiveRequest {
    guard: CompletionGuard,
    /// Whether the guest's handler has returned.
    returned: bool,
}

impl Live {
    fn add(&self, guard: CompletionGuard) {
        let mut live = self.0.lock();
        // What has returned and has no other owner has no reader any more.
        live.retain(|request| {
            !request.returned || Arc::strong_count(request.guard.completion()) > 1
        });
        live.push(LiveRequest {
            guard,
            returned: false,
        });
    }

    fn returned(&self, completion: &Arc<Completion>) {
        let mut live = self.0.lock();
        let is_it =
            |request: &&mut LiveRequest| Arc::ptr_eq(request.guard.completion(), completion);
        if let Some(request) = live.iter_mut().find(is_it) {
            request.returned = true;
        }
    }

    /// Waits until the responses of all that is under way now have been read to their ends, or
    /// their callers have gone.
    fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let live = self.0.lock();
        let completions: Vec<_> = live
            .iter()
            .map(|request| Arc::clone(request.guard.completion()))
            .collect();
        async move {
            for completion in completions {
                completion
                    .unless_abandoned(pin!(completion.wait_for_reader()))
                    .await;
            }
        }
    }

    /// Handlers under way whose callers are gone.
    fn stuck(&self) -> usize {
        let live = self.0.lock();
        let is_stuck = |request: &&LiveRequest| {
            let completion = request.guard.completion();
            !request.returned && completion.is_abandoned() && !completion.inbound().is_probe()
        };
        live.iter().filter(is_stuck).count()
    }

    /// Fails everything under way. `culprit` is the task of the guest that has ended the instance, if
    /// that is known: then no other is to blame, and without it one alone only if it is the only one.
    fn fail(
        &self,
        pod: &PodInner,
        ended: InstanceEnd<'_>,
        culprit: Option<GuestTaskId>,
    ) -> Option<Recorded> {
        let failure = ended.failure;
        let live = std::mem::take(&mut *self.0.lock());
        let running: Vec<_> = live.iter().filter(|request| !request.returned).collect();
        let requests: Vec<_> = running
            .iter()
            .map(|request| Arc::clone(request.guard.completion().inbound()))
            .collect();
        let recorded = match failure.is_of_host() {
            true => {
                pod.say(None, failure);
                None
            }
            false => Some(pod.record_failure(InstanceEnd {
                requests: &requests,
                ..ended
            })),
        };
        let is_alone = running.len() <= 1;
        for request in live {
            let completion = request.guard.completion();
            let is_it = match culprit {
                Some(task) => completion.guest_task() == Some(task),
                None => is_alone,
            };
            if culprit.is_some() && !is_it {
                completion.acquit();
            }
            let failure = match is_it || failure.is_of_host() {
                true => failure.clone(),
                false => Failure::Neighbour(Box::new(failure.clone())),
            };
            request.guard.fail(failure, |_| {});
        }
        recorded
    }
}

/// Keeps an instance and gives it requests until the pod is gone. One that has failed without being
/// the end of its pod ([`Fault::ends_pod`](sampan_core::fault::Fault::ends_pod)), or that is to be
/// renewed, hands over what comes next; another one is made for the first request of that. One that
/// is renewed goes on until its last response has been read. `given_up` tells of requests whose
/// callers have gone.
pub(super) async fn run(
    pod: Arc<PodInner>,
    mut inbox: Inbox,
    given_up: Arc<watch::Sender<()>>,
    ready: Ready,
) {
    // Each has a task of its own, and ends with this one. Each but the last has requests under way,
    // so there are at most as many as `concurrency`, and one.
    let mut instances = JoinSet::new();
    let mut ready = Some(ready);
    // The job that makes a pod without an instance make one.
    let mut first: Option<Job> = None;
    loop {
        let (hand_over, handed_over) = oneshot::channel();
        let door = Door::new(inbox, hand_over, pod.template.renewal);
        let pace = Arc::new(Pace::default());
        let work: Work<()> = Box::pin(live(
            Arc::clone(&pod),
            door,
            first.take(),
            given_up.subscribe(),
            ready.take(),
            Arc::clone(&pace),
        ));
        let (runtime, service) = (Arc::clone(&pod.runtime), ServiceKey::of(&*pod.template));
        while instances.try_join_next().is_some() {}
        instances.spawn(async move { runtime.slow_lane.drive(service, &pace, work).await });
        // Without a successor the pod is over.
        let Ok(left) = handed_over.await else { return };
        inbox = left;
        first = loop {
            match inbox.recv().await {
                None => return,
                Some(job) if job.guard.completion().is_abandoned() => {}
                Some(job) => break Some(job),
            }
        };
    }
}

/// The life of one instance.
async fn live(
    pod: Arc<PodInner>,
    mut door: Door,
    first: Option<Job>,
    given_up: watch::Receiver<()>,
    ready: Option<Ready>,
    pace: Arc<Pace>,
) {
    let made = make(&pod, &pace).await;
    if let Some(ready) = ready {
        let told = ready.send(made.as_ref().map(drop).map_err(Clone::clone));
        if told.is_err() || made.is_err() {
            return;
        }
    }
    let served = match made {
        Ok(instance) => {
            provoke::panic_in(provoke::Task::Shared);
            serve(&pod, instance, &mut door, first, given_up, &pace).await
        }
        Err(failure) => match pod.unmade(failure, first) {
            Scope::Pod => Served::IsOver,
            Scope::Instance => Served::Failed,
        },
    };
    if served == Served::Failed {
        door.close();
    }
}

async fn make(pod: &PodInner, pace: &Arc<Pace>) -> Result<Made<Service>, Failure> {
    let made = pod.make(pace, |it, store| Service::new(store, it)).await?;
    let all = pod.template.concurrency() as usize;
    made.store.data().cell.cpu.share(&pod.slots, all);
    Ok(made)
}

/// Why an instance is served no longer.
#[derive(PartialEq, Eq)]
enum Served {
    Failed,
    /// The pod is, or the instance has handed over.
    IsOver,
}

/// Runs the instance until it fails, has done what it took before it was to be renewed, or the pod
/// is gone.
async fn serve(
    pod: &PodInner,
    made: Made<Service>,
    door: &mut Door,
    first: Option<Job>,
    mut given_up: watch::Receiver<()>,
    pace: &Pace,
) -> Served {
    // Of a pattern the last is dropped first: the place after what is in it.
    let Made {
        place,
        mut store,
        ref instance,
        ref handler,
    } = made;
    let guest = (instance, handler);
    let live = Live::default();
    let gate = IdleGate::default();
    let cell = Arc::clone(&store.data().cell);
    let limit = pod.template.concurrency() as usize;
    let requests = Arc::clone(&door.requests);
    let start = |job: Job| {
        let completion = Arc::clone(job.guard.completion());
        let task = completion.begin();
        if let Some(Task::Request(_)) = &task {
            requests.fetch_add(1, Relaxed);
        }
        // Whose call it was is not known: so it counts for all.
        completion.runs_in(&cell);
        live.add(job.guard);
        cell.begin(completion.inbound());
        (completion, task)
    };
    let work = store.run_concurrent(async |accessor| {
        let answer = async |(completion, task): (Arc<Completion>, Option<Task>)| {
            let result = perform(accessor, pod, guest, &completion, &gate, task).await;
            live.returned(&completion);
            cell.end(completion.inbound());
            result
        };
        let idle = || pace.learn(&cell.cpu);
        let take = |job| answer(start(job));
        let over = || live.over();
        let mut reception = Reception::new(accessor, pod, handler, (door, over), take);
        Turn::between(accessor, reception.run(first, idle)).await
    });
    let work = async { cell.unless_deadlocked(gate.watch(work)).await? };
    let mut work = Box::pin(Observed::new(work, Arc::clone(&cell)));
    let (failure, error) = loop {
        tokio::select! {
            result = &mut work => match result {
                Ok(()) => return Served::IsOver,
                Err(error) => break (Failure::of_error(&error, &pod.template), Some(error)),
            },
            // A guest cannot be made to give up one request. When all it can take are stuck in
            // requests whose callers are gone, the instance has to go.
            Ok(()) = given_up.changed() => if live.stuck() >= limit {
                break (Failure::TimedOut(pod.template.request_timeout), None);
            },
        }
    };
    let waits = cell.waits().open();
    drop(work);
    let has_successor = door.is_closed();
    let ended = (failure, error, waits, has_successor);
    end(pod, &live, (place, store), ended)
}

/// Tells of the end of an instance, and has it dumped if that is wanted.
fn end(
    pod: &PodInner,
    live: &Live,
    (place, store): (Place, Store<State>),
    (failure, error, waits, has_successor): (Failure, Option<wasmtime::Error>, Vec<OpenWait>, bool),
) -> Served {
    let culprit = store.data().turn.task().filter(|_| error.is_some());
    let ended = InstanceEnd {
        failure: &failure,
        error: error.as_ref(),
        store: Some(&store),
        requests: &[],
        waits,
        already_reported: false,
        has_successor,
    };
    let Some(recorded) = live.fail(pod, ended, culprit) else {
        return Served::Failed;
    };
    if let Some(dump) = recorded.dump {
        dump.make(store, error, place);
    }
    match recorded.scope {
        Scope::Pod => Served::IsOver,
        Scope::Instance => Served::Failed,
    }
}

/// Has the guest do one thing, if that has not been taken back.
async fn perform(
    accessor: &Accessor<State>,
    pod: &PodInner,
    (instance, handler): (&component::Instance, &Service),
    completion: &Arc<Completion>,
    gate: &IdleGate,
    task: Option<Task>,
) -> wasmtime::Result<()> {
    let cell = accessor.with(|mut store| Arc::clone(&store.get().cell));
    match task {
        Some(Task::Request(request)) => {
            let request = request.into_guest(&cell, completion.inbound());
            let request = match p3::place(accessor, request) {
                Ok(request) => request,
                Err(error) => {
                    let failure = Failure::Host(error.root_cause().to_string());
                    let say = |failure: &Failure| pod.say(completion.inbound().id.clone(), failure);
                    completion.fail(failure, say);
                    return Ok(());
                }
            };
            p3::answer(accessor, handler, request, &cell, completion, gate).await
        }
        Some(Task::Question(question)) => {
            let exports = &pod.template.loaded.exports;
            question::ask_concurrently(exports, accessor, instance, question, completion).await
        }
        None => Ok(()),
    }
}
