//! Pods of the runtime and of files: how one is made, and how a worker asks, counts and ends it.

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
    pod::{Evidence, Pod, PodWatch, Probed, Termination, template::Template},
};
use tokio::sync::Semaphore;

use super::{
    handle::{Maker, PodHandle, one_line},
    site::Site,
    upstream,
};

/// Makes the pods of a revision.
pub(crate) enum ServiceMaker {
    /// Of instances in the runtime.
    Guest(RuntimeMaker),
    /// That answer with files.
    Site(PodName, Arc<Site>),
}

/// A pod of a service.
pub(crate) enum ServicePod {
    /// Of a component.
    Guest(Arc<Pod>),
    /// Of files, which need nothing of their own.
    Site(PodName, Arc<Site>),
}

impl Maker for ServiceMaker {
    type Handle = ServicePod;

    async fn make(&self, watch: Arc<dyn PodWatch>) -> Result<ServicePod, String> {
        match self {
            Self::Guest(maker) => {
                let made = maker.make(watch).await;
                made.map(|pod| ServicePod::Guest(Arc::new(pod)))
            }
            Self::Site(name, site) => Ok(ServicePod::Site(name.clone(), Arc::clone(site))),
        }
    }
}

/// Makes instances of a revision in the runtime.
pub(crate) struct RuntimeMaker {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) name: PodName,
    pub(crate) template: Arc<Template>,
    /// Limits how many are made at once, so that each has the CPU to be made in time.
    pub(crate) turns: Arc<Semaphore>,
}

impl RuntimeMaker {
    async fn make(&self, watch: Arc<dyn PodWatch>) -> Result<Pod, String> {
        let turn = self.turns.acquire().await;
        let _turn = turn.expect("the semaphore is never closed");
        let made = Pod::start(&self.runtime, self.name.clone(), &self.template, watch).await;
        made.map_err(|error| one_line(&error))
    }
}

impl PodHandle for ServicePod {
    async fn call(
        self: Arc<Self>,
        request: http::Request<Body>,
        request_id: Arc<str>,
    ) -> Result<http::Response<Body>, UpstreamError> {
        let pod = match &*self {
            Self::Guest(pod) => pod,
            Self::Site(_, site) => return site.answer(request).await,
        };
        let response = pod.call(request, Some(request_id)).await;
        let response = response.map_err(upstream::refused)?;
        Ok(response.map(|body| {
            body.map_err(|error| upstream::broken(&*error))
                .boxed_unsync()
        }))
    }

    async fn probe(&self, kind: ProbeKind, probe: &Probe) -> Outcome {
        let Self::Guest(pod) = self else {
            return Outcome::Success;
        };
        match pod.probe(&probe.check, kind, probe.timeout).await {
            Probed::Success => Outcome::Success,
            Probed::Failure(reason) => Outcome::Failure(reason),
            Probed::Starved => Outcome::Starved,
        }
    }

    fn usage(&self) -> Usage {
        match self {
            Self::Guest(pod) => pod.usage(),
            Self::Site(..) => Usage::default(),
        }
    }

    fn request_cpu(&self) -> Distribution {
        match self {
            Self::Guest(pod) => pod.request_cpu(),
            Self::Site(..) => Distribution::default(),
        }
    }

    async fn pre_stop(self: Arc<Self>, timeout: Duration) -> Result<(), String> {
        match &*self {
            Self::Guest(pod) => pod.pre_stop(timeout).await,
            Self::Site(..) => Ok(()),
        }
    }

    fn killed(&self, reason: String) -> Arc<Termination> {
        match self {
            Self::Guest(pod) => pod.killed(reason),
            // No probe asks it, so nothing ends it.
            Self::Site(name, _) => {
                Termination::unhealthy(name.clone(), reason, Evidence::default())
            }
        }
    }

    fn end(&self) {
        match self {
            Self::Guest(pod) => pod.end(),
            Self::Site(..) => {}
        }
    }
}
