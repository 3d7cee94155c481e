//! Pods of the runtime: how one is made, and how a worker asks, counts and ends it.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use sampan_core::{
    histogram::Distribution,
    name::PodName,
    object::Probe,
    plan::probe::{Outcome, ProbeKind},
};
use sampan_gateway::{Body, UpstreamError};
use sampan_runtime::{
    Runtime, Usage,
    pod::{Pod, PodWatch, Probed, Termination, template::Template},
};
use tokio::sync::Semaphore;

use super::{
    handle::{Maker, PodHandle, one_line},
    upstream,
};

/// Makes instances of a revision in the runtime.
pub(crate) struct RuntimeMaker {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) name: PodName,
    pub(crate) template: Arc<Template>,
    /// Limits how many are made at once, so that each has the CPU to be made in time.
    pub(crate) turns: Arc<Semaphore>,
}

impl Maker for RuntimeMaker {
    type Handle = Pod;

    async fn make(&self, watch: Arc<dyn PodWatch>) -> Result<Pod, String> {
        let turn = self.turns.acquire().await;
        let _turn = turn.expect("the semaphore is never closed");
        let made = Pod::start(&self.runtime, self.name.clone(), &self.template, watch).await;
        made.map_err(|error| one_line(&error))
    }
}

impl PodHandle for Pod {
    async fn call(
        self: Arc<Self>,
        request: http::Request<Body>,
        request_id: Arc<str>,
    ) -> Result<http::Response<Body>, UpstreamError> {
        let response = Pod::call(&self, request, Some(request_id)).await;
        let response = response.map_err(upstream::refused)?;
        Ok(response.map(|body| {
            body.map_err(|error| upstream::broken(&*error))
                .boxed_unsync()
        }))
    }

    async fn probe(&self, kind: ProbeKind, probe: &Probe) -> Outcome {
        match Pod::probe(self, &probe.check, kind, probe.timeout).await {
            Probed::Success => Outcome::Success,
            Probed::Failure(reason) => Outcome::Failure(reason),
            Probed::Starved => Outcome::Starved,
        }
    }

    fn usage(&self) -> Usage {
        Pod::usage(self)
    }

    fn request_cpu(&self) -> Distribution {
        Pod::request_cpu(self)
    }

    async fn pre_stop(self: Arc<Self>, timeout: Duration) -> Result<(), String> {
        Pod::pre_stop(&self, timeout).await
    }

    fn killed(&self, reason: String) -> Arc<Termination> {
        Pod::killed(self, reason)
    }

    fn end(&self) {
        Pod::end(self);
    }
}
