//! What runs a pod's instances, and the way to it.

use std::sync::Arc;

use sampan_core::object::{Isolation, ServiceKind};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    task::AbortHandle,
};

use super::{
    body::RequestGuard,
    command,
    failure::Failure,
    fresh::Fresh,
    hosted::{self, Hosted},
    inbox::{Inbox, Job, MAX_PROBES},
    inner::PodInner,
    kept,
    request::CallError,
    shared,
};
use crate::{
    admission::inspect::Wasi,
    lane::{Pace, ServiceKey, Work},
    runtime::StartError,
};

/// What runs a pod's instances. Dropping it ends them at once.
pub(super) enum Driver {
    /// One for each request.
    Fresh(Fresh),
    /// One that stays, in a task of its own.
    Worker(Worker),
}

/// The task that owns an instance, and the way to it.
///
/// It is not owned by the task that sends a request: dropping a call in the middle leaves an instance
/// of WASI 0.2 unusable, and clients do go away in the middle. That task may poll it, though: see
/// [`hosted`](super::hosted). Requests of WASI 0.3 that come close together are run in one go,
/// which is cheaper than one at a time.
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    /// Probes do not wait behind requests.
    probes: mpsc::Sender<Job>,
    given_up: Option<Arc<watch::Sender<()>>>,
    task: AbortHandle,
    hosted: Arc<Hosted>,
    /// Of an instance that takes one request at a time.
    alone: Option<Arc<Pace>>,
}

impl Driver {
    pub(super) async fn start(pod: &Arc<PodInner>) -> Result<Self, StartError> {
        if pod.template.isolation() == Isolation::Request {
            return Ok(Self::Fresh(Fresh::start(pod).await?));
        }
        let (jobs, requests) = mpsc::channel(pod.template.concurrency() as usize);
        let (probes, questions) = mpsc::channel(MAX_PROBES);
        let inbox = Inbox {
            requests,
            probes: questions,
        };
        let (ready, started) = oneshot::channel();
        let pace = Arc::new(Pace::default());
        let owned = Arc::clone(pod);
        let mut given_up = None;
        let work: Work<()> = match (pod.template.kind(), pod.template.wasi) {
            (ServiceKind::Command, _) => {
                Box::pin(command::run(owned, inbox, ready, Arc::clone(&pace)))
            }
            (ServiceKind::Http | ServiceKind::Static, Wasi::P2) => {
                Box::pin(kept::run(owned, inbox, ready, Arc::clone(&pace)))
            }
            (ServiceKind::Http | ServiceKind::Static, Wasi::P3) => {
                let told = Arc::clone(given_up.insert(Arc::default()));
                Box::pin(shared::run(owned, inbox, told, ready))
            }
        };
        let service = ServiceKey::of(&*pod.template);
        let runtime = Arc::clone(&pod.runtime);
        let takes_one = (pod.template.kind(), pod.template.wasi) == (ServiceKind::Http, Wasi::P2);
        let alone = takes_one.then(|| Arc::clone(&pace));
        let drive = async move { runtime.slow_lane.drive(service, &pace, work).await };
        let hosted = Hosted::new(Box::pin(drive));
        let task = tokio::spawn(hosted.task());
        let driver = Self::Worker(Worker {
            jobs,
            probes,
            given_up,
            task: task.abort_handle(),
            hosted,
            alone,
        });
        match started.await {
            Ok(Ok(())) => Ok(driver),
            Ok(Err(failure)) => Err(StartError::Instance(failure.to_string())),
            Err(_) => Err(StartError::Instance("its task ended".to_owned())),
        }
    }

    pub(super) async fn send(
        &self,
        pod: &Arc<PodInner>,
        job: Job,
    ) -> Result<RequestGuard, CallError> {
        let worker = match self {
            Self::Fresh(fresh) => return Ok(fresh.send(pod, job).await),
            Self::Worker(worker) => worker,
        };
        let completion = Arc::clone(job.guard.completion());
        let way = match job.slot {
            Some(_) => &worker.jobs,
            None => &worker.probes,
        };
        let job = match worker.may_be_visited() {
            // There is room: it has at most as many requests as `concurrency`.
            true => worker.hosted.visit(|| way.try_send(job)),
            false => Err(TrySendError::Full(job)),
        };
        let sent = match job {
            Err(TrySendError::Full(job)) => way.send(job).await.is_ok(),
            sent => sent.is_ok(),
        };
        match sent {
            true => Ok(RequestGuard::new(completion, worker.given_up.clone())),
            // The request is in its completion, not in the job.
            false => {
                let stopped = Failure::Unavailable("it has been stopped".to_owned());
                Err(CallError::before(stopped, completion.take_back()))
            }
        }
    }

    /// Waits until the task that owns the instance has ended.
    pub(super) async fn ended(&self) {
        match self {
            // Each request has an instance, and none of them is waited for.
            Self::Fresh(_) => {}
            Self::Worker(worker) => worker.probes.closed().await,
        }
    }

    /// Ends all instances at once.
    pub(super) fn end(&self) {
        match self {
            Self::Fresh(fresh) => fresh.end(),
            Self::Worker(worker) => worker.end(),
        }
    }
}

impl Worker {
    /// Whether a caller may poll the instance on this thread. Not if that is likely to compute for
    /// long.
    fn may_be_visited(&self) -> bool {
        let is_short = self.alone.as_ref().is_some_and(|pace| !pace.is_long());
        is_short && hosted::may_visit()
    }

    fn end(&self) {
        self.task.abort();
        self.hosted.end();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}
