//! The worker of a pod: does what the planner says, and tells it what happens.
//!
//! No other task of the agent has a pod made, probed or ended. Inside of a pod its driver makes
//! instances too: one a request, or another in the place of one that is due for renewal, was cut
//! off at a time-out, or failed with the host. The worker
//! decides nothing: what comes of an event is in `sampan_core::plan::pod`.

mod incarnation;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sampan_core::{
    name::PodName,
    plan::pod::{self, Action, Event, PodSpec, PodState},
    provoke,
    time::Timestamp,
};
use sampan_runtime::Usage;
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    handle::{Maker, PodHandle as _, sample},
    prober,
    registry::{Account, PodRegistry},
    rotation::Rotation,
    upstream::PodUpstream,
};
use crate::events::{Change, Journal, Subject};
use incarnation::Incarnation;

/// Is told of every state of a pod.
pub(crate) type Report = Arc<dyn Fn(&PodState) + Send + Sync>;

/// What a worker must know of its pod.
pub(crate) struct Assignment<M: Maker> {
    pub(crate) pod: PodName,
    pub(crate) spec: Arc<PodSpec>,
    pub(crate) maker: Arc<M>,
    pub(crate) upstream: Arc<PodUpstream<M::Handle>>,
    pub(crate) rotation: Arc<dyn Rotation>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) registry: Arc<PodRegistry>,
    /// How often it was started again in earlier runs of the node.
    pub(crate) restarts: u32,
    pub(crate) report: Report,
}

/// A worker at work. Dropping it ends the pod at once; stop it first.
pub(crate) struct Worker {
    stop: Arc<StopAsked>,
    task: JoinHandle<()>,
    account: Arc<dyn Account>,
}

/// That a worker is to stop its pod.
#[derive(Default)]
struct StopAsked {
    asked: Notify,
    /// How long the pod may drain, if that is less than its spec says.
    drain: Mutex<Option<Duration>>,
}

impl Worker {
    /// Starts the pod.
    pub(crate) fn start<M: Maker>(assignment: Assignment<M>) -> Self {
        let stop = Arc::<StopAsked>::default();
        let account: Arc<dyn Account> = Arc::clone(&assignment.upstream) as _;
        assignment.registry.open(
            &assignment.pod,
            &assignment.spec,
            &account,
            assignment.restarts,
        );
        let task = Task {
            epoch: Instant::now(),
            stop: Arc::clone(&stop),
            incarnation: None,
            work: JoinSet::new(),
            assignment,
        };
        Self {
            stop,
            task: tokio::spawn(task.run()),
            account,
        }
    }

    /// What the pod has used so far.
    pub(crate) fn usage(&self) -> Usage {
        self.account.usage()
    }

    /// Drains the pod, for so long if that is less than its spec says, and stops it. Returns what it
    /// has used.
    pub(crate) async fn stop(mut self, drain: Option<Duration>) -> Usage {
        *self.stop.drain.lock() = drain;
        self.stop.asked.notify_one();
        // A worker that was aborted has nothing left to end.
        let _ = (&mut self.task).await;
        self.usage()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the worker has under way for the instance that is there.
enum Done<I> {
    Made(Result<I, String>),
    Is(Event),
}

struct Task<M: Maker> {
    assignment: Assignment<M>,
    /// What the planner's time counts from.
    epoch: Instant,
    stop: Arc<StopAsked>,
    incarnation: Option<Arc<Incarnation<M::Handle>>>,
    /// Dropped together with the instance, so that nothing of one is taken for the next.
    work: JoinSet<Done<M::Handle>>,
}

impl<M: Maker> Task<M> {
    async fn run(mut self) {
        let mut state = PodState::Pending;
        provoke::panic_in(provoke::Task::Worker);
        let mut event = Event::Begin;
        loop {
            let step = pod::step(state, event, &self.assignment.spec, self.now());
            state = step.state;
            for action in step.actions {
                self.act(action);
            }
            self.rest(&state);
            (self.assignment.report)(&state);
            let (pod, epoch) = (&self.assignment.pod, self.epoch);
            self.assignment.registry.update(pod, &state, epoch);
            if let PodState::Stopped { .. } = state {
                return;
            }
            event = self.next(step.wake_at).await;
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::after(self.epoch.elapsed())
    }

    /// Says how long the pod cannot become ready: a request that would wait for it in vain is refused.
    fn rest(&self, state: &PodState) {
        let until = match state {
            PodState::BackOff { until, .. } => self.epoch.checked_add(until.since_zero()),
            _ => None,
        };
        self.assignment.rotation.rest_until(until);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::StartInstance => self.make(),
            Action::SetReady(ready) => {
                if let Some(incarnation) = &self.incarnation {
                    incarnation.set_ready(ready);
                }
            }
            Action::RunProbe { kind, probe } => {
                if let Some(instance) = self.instance() {
                    let answer = prober::ask(instance, kind, probe);
                    self.work.spawn(async { Done::Is(answer.await) });
                }
            }
            Action::Sample => {
                if let Some(incarnation) = &self.incarnation {
                    incarnation.count_again();
                }
            }
            Action::Leave => self.assignment.rotation.leave(),
            Action::Drain => self.drain(),
            Action::Report(reason) => {
                if let Some(instance) = self.instance() {
                    self.assignment.registry.record(&instance.killed(reason));
                }
            }
            Action::DropInstance => self.drop_instance(),
            Action::Announce(notice) => {
                let pod = self.assignment.pod.clone();
                let subject = Subject::Service(pod.service().clone());
                let change = Change::Pod { pod, notice };
                self.assignment.journal.record(subject, change);
            }
        }
    }

    fn make(&mut self) {
        let incarnation = Arc::new(Incarnation::new(
            &self.assignment.upstream,
            &self.assignment.rotation,
            &self.assignment.registry,
        ));
        self.incarnation = Some(Arc::clone(&incarnation));
        let maker = Arc::clone(&self.assignment.maker);
        self.work
            .spawn(async move { Done::Made(maker.make(incarnation).await) });
    }

    fn drain(&mut self) {
        let idle = self.assignment.rotation.idle();
        let (instance, limit) = (self.instance(), self.assignment.spec.drain);
        let pod = self.assignment.pod.clone();
        self.work.spawn(async move {
            // New requests have stopped; those under way go on meanwhile.
            if let Some(instance) = instance
                && let Err(reason) = instance.pre_stop(limit).await
            {
                tracing::warn!(%pod, %reason, "pre-stop failed");
            }
            idle.await;
            Done::Is(Event::Drained)
        });
    }

    fn instance(&self) -> Option<Arc<M::Handle>> {
        self.incarnation.as_ref()?.instance()
    }

    fn drop_instance(&mut self) {
        self.work = JoinSet::new();
        if let Some(incarnation) = self.incarnation.take() {
            incarnation.retire();
        }
        if let Some(instance) = self.assignment.upstream.release() {
            instance.end();
        }
    }

    /// Waits for what happens next.
    async fn next(&mut self, wake_at: Option<Timestamp>) -> Event {
        let wake_at = wake_at.and_then(|at| self.epoch.checked_add(at.since_zero()));
        let tick = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let incarnation = self.incarnation.clone();
        let news = async {
            match &incarnation {
                Some(incarnation) => incarnation.news().await,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            biased;
            () = self.stop.asked.notified() => {
                let in_flight = self.assignment.rotation.in_flight();
                let drain = *self.stop.drain.lock();
                return Event::Stop { in_flight, drain };
            }
            news = news => return self.heard(news),
            Some(done) = self.work.join_next() => done,
            () = tick => return Event::Tick,
        };
        match done.expect("a set of tasks that is aborted is dropped, and a panic ends the process")
        {
            Done::Is(event) => event,
            Done::Made(made) => self.made(made),
        }
    }

    fn made(&mut self, made: Result<M::Handle, String>) -> Event {
        match (made, &self.incarnation) {
            (Ok(instance), Some(incarnation)) => {
                incarnation.install(Arc::new(instance));
                Event::Started
            }
            (Ok(_), None) => Event::Tick,
            (Err(reason), _) => Event::StartFailed(reason),
        }
    }

    fn heard(&self, news: incarnation::News) -> Event {
        match news {
            incarnation::News::Ended(end) => Event::Terminated(end),
            incarnation::News::Count => match self.instance() {
                Some(instance) => Event::Sampled(sample(&instance.usage())),
                None => Event::Tick,
            },
        }
    }
}

impl<M: Maker> Drop for Task<M> {
    fn drop(&mut self) {
        // An aborted worker must not leave a pod behind that has no driver.
        self.assignment.rotation.leave();
        self.drop_instance();
        self.assignment.registry.close(&self.assignment.pod);
    }
}
