//! A running pod as its callers have it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use sampan_core::{
    histogram::Distribution,
    name::PodName,
    object::{Isolation, ServiceKind},
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    body::{ResponseBody, ResponseLease},
    completion::{Completion, CompletionGuard, Head, within},
    driver::Driver,
    failure::Failure,
    inbox::Job,
    inner::{PodInner, Slot},
    request::{CallError, Expressible, Remains, Task},
    sendable::{self, Promise},
    template::Template,
    watch::PodWatch,
};
use crate::{
    admission::inspect::Wasi,
    meter::Usage,
    neighbours::Body,
    observe::source::{Call, InboundRequest},
    report::Termination,
    runtime::{Runtime, StartError},
};

/// How much later than the deadline the caller of a request gives it up. The task that
/// runs the instance keeps the same deadline and knows better what happened; this is for when the
/// guest, inside one long instruction, keeps that task from running.
const GRACE: Duration = Duration::from_millis(50);

/// A running pod. Dropping it ends its instances at once; drain it first.
pub struct Pod {
    pub(super) inner: Arc<PodInner>,
    pub(super) driver: Driver,
}

impl Pod {
    /// Starts a pod: makes its instance, or with `isolation = "request"` a trial one. A command
    /// begins to run. `watch` is
    /// told what becomes of its instances.
    pub async fn start(
        runtime: &Arc<Runtime>,
        name: PodName,
        template: &Arc<Template>,
        watch: Arc<dyn PodWatch>,
    ) -> Result<Self, StartError> {
        let inner = PodInner::new(runtime, name, template, watch);
        let driver = Driver::start(&inner).await?;
        Ok(Self { inner, driver })
    }

    /// The pod's name.
    pub fn name(&self) -> &PodName {
        self.inner.context.log.pod()
    }

    /// Requests it takes at once.
    pub fn concurrency(&self) -> u32 {
        self.inner.template.concurrency()
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        self.inner.context.meter.usage()
    }

    /// The CPU time of guests for one request, of the requests that have ended, well or badly;
    /// those whose client went away before are not among them, nor are probes.
    ///
    /// With `isolation = "request"` the making of the instance is part of it, as it is for
    /// `request_cpu`. A WASI 0.3 instance that stays may be at several requests at once, and then
    /// what each of them costs cannot be told. Of these only the ones count that had it to themselves,
    /// from their beginning to the head of their response and what came with it.
    pub fn request_cpu(&self) -> Distribution {
        self.inner.context.meter.request_cpu()
    }

    /// Reports on a pod that is going to be ended, because its guest does not do what it should:
    /// what its instance is at, and what it waits for.
    pub fn killed(&self, reason: String) -> Arc<Termination> {
        self.inner.killed(reason)
    }

    /// Ends its instances at once, and with them the requests they have. It takes no more.
    pub fn end(&self) {
        self.driver.end();
    }

    /// Answers a request.
    ///
    /// Waits while `concurrency` requests are under way, for as long as the request's own deadline
    /// allows. Dropping the future, or the body of the response before its end, gives the request
    /// up: a fresh instance is freed at once, a kept one as soon as its guest notices.
    ///
    /// # Errors
    ///
    /// [`CallError`] has the request in it, as it was given, if no guest had begun to handle it.
    pub async fn call<B>(
        &self,
        request: http::Request<B>,
        request_id: Option<Arc<str>>,
    ) -> Result<http::Response<Body>, CallError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let pod = &self.inner;
        if pod.template.kind() == ServiceKind::Command {
            return Err(CallError::over(Failure::NoHandler));
        }
        let deadline = pod.template.deadline();
        let call = request.extensions().get::<Arc<Call>>().map(Arc::clone);
        if let Some(call) = &call {
            call.reach_host();
        }
        let inbound = InboundRequest::new(request_id, &request, call);
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let task = match Expressible::parse(request) {
            Ok(request) => Task::Request(Box::new(request)),
            Err(failure) => {
                pod.say(inbound.id.clone(), &failure);
                return Err(CallError::over(failure));
            }
        };
        match pod.slot(deadline).await {
            Ok(slot) => {
                self.exchange(Completion::new(&inbound, task), deadline, slot)
                    .await
            }
            Err(failure) => Err(CallError::before(failure, Some(task))),
        }
    }

    /// Sends a request to the driver and waits for its answer.
    pub(super) async fn exchange(
        &self,
        (completion, answer): (Arc<Completion>, oneshot::Receiver<Head>),
        deadline: Option<Instant>,
        slot: Slot,
    ) -> Result<http::Response<Body>, CallError> {
        let pod = &self.inner;
        let job = Job {
            guard: CompletionGuard::of(&completion),
            deadline,
            slot: slot.clone(),
        };
        let guard = self.driver.send(pod, job).await?;
        let patience = match (pod.template.isolation(), pod.template.wasi) {
            // The instance outlives the request, so its task does not keep the request's deadline.
            (Isolation::Pod, Wasi::P3) => deadline,
            _ => deadline.map(|deadline| deadline + GRACE),
        };
        let lease = ResponseLease {
            pod: Arc::clone(pod),
            completion,
            _slot: slot,
            deadline: patience,
        };
        let failure = match within(patience, answer).await {
            Ok(Ok(Ok(response))) => match sendable::fault(&response) {
                None => {
                    let is_head = lease.completion.inbound().method == http::Method::HEAD;
                    let promise = Promise::of(&response, is_head);
                    let body = |inner| ResponseBody::new(inner, promise, lease, guard);
                    return Ok(response.map(|inner| body(inner).boxed_unsync()));
                }
                Some(fault) => lease.refuse(Failure::Unsendable(fault)),
            },
            Ok(Ok(Err(code))) => lease.refuse(Failure::ErrorCode(code)),
            // The sender is gone, and why was said before.
            Ok(Err(_)) => lease.completion.failure().unwrap_or(Failure::NoResponse),
            Err(_) => lease.time_out(),
        };
        let completion = &lease.completion;
        // Whatever is said of it after this, no guest begins with it any more.
        if let Some(task) = completion.take_back() {
            return Err(CallError::before(failure, Some(task)));
        }
        let is_bystander = completion.is_bystander()
            || failure == Failure::Stopped && !pod.condemned.load(Ordering::Acquire);
        let repeatable = is_bystander && !completion.called_out();
        let remains = Remains::Nothing { repeatable };
        Err(CallError { failure, remains })
    }
}
