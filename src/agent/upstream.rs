//! A pod as the gateway calls it: the one place where a request leaves the gateway for a guest.

use std::{error::Error, pin::Pin, sync::Arc};

use arc_swap::ArcSwapOption;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use sampan_core::{fault::Fault, histogram::Distribution};
use sampan_gateway::{Body, BodyError, RequestContext, Upstream, UpstreamError};
use sampan_runtime::{
    Usage,
    pod::{CallError, Failure, Remains},
};

use super::{
    handle::{PodHandle, sum},
    registry::Account,
};

/// A pod behind the gateway, over all its restarts: the instance that it has now, if it has one.
pub(crate) struct PodUpstream<H> {
    /// Where requests go.
    serving: ArcSwapOption<H>,
    used: Mutex<Used<H>>,
}

/// What a pod has used.
struct Used<H> {
    /// By the instance that is there, which may have ended.
    by: Option<Arc<H>>,
    /// By those before.
    past: Usage,
    /// By each of their requests.
    past_requests: Distribution,
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, UpstreamError>> + Send>>;

impl<H: PodHandle> PodUpstream<H> {
    /// A pod without an instance.
    pub(crate) fn empty() -> Self {
        Self {
            serving: ArcSwapOption::empty(),
            used: Mutex::new(Used {
                by: None,
                past: Usage::default(),
                past_requests: Distribution::default(),
            }),
        }
    }

    /// Counts what this instance uses.
    pub(super) fn hold(&self, instance: &Arc<H>) {
        self.used.lock().by = Some(Arc::clone(instance));
    }

    /// Sends requests to this instance from now on.
    pub(super) fn serve(&self, instance: &Arc<H>) {
        self.serving.store(Some(Arc::clone(instance)));
    }

    /// Sends requests nowhere from now on.
    pub(super) fn close(&self) {
        self.serving.store(None);
    }

    /// Lets go of the instance that is there.
    pub(super) fn release(&self) -> Option<Arc<H>> {
        self.close();
        let mut used = self.used.lock();
        let instance = used.by.take()?;
        used.past = sum([used.past, instance.usage()]);
        // It holds nothing any more.
        used.past.memory_bytes = 0;
        used.past_requests.add(&instance.request_cpu());
        Some(instance)
    }
}

/// All its instances together.
impl<H: PodHandle> Account for PodUpstream<H> {
    fn usage(&self) -> Usage {
        let used = self.used.lock();
        sum([used.past]
            .into_iter()
            .chain(used.by.as_ref().map(|it| it.usage())))
    }

    fn request_cpu(&self) -> Distribution {
        let used = self.used.lock();
        let mut all = used.past_requests.clone();
        if let Some(instance) = &used.by {
            all.add(&instance.request_cpu());
        }
        all
    }
}

impl<H: PodHandle> Upstream for PodUpstream<H> {
    fn call(&self, request: http::Request<Body>, context: &RequestContext) -> Answer {
        match self.serving.load_full() {
            Some(instance) => {
                let request_id = Arc::from(context.request_id.as_str());
                Box::pin(instance.call(request, request_id))
            }
            // It was picked in the moment in which its instance ended.
            None => Box::pin(std::future::ready(Err(UpstreamError::Returned {
                kind: Fault::Unavailable,
                request: Box::new(request),
            }))),
        }
    }
}

/// What a response body that broke off is to the gateway.
pub(super) fn broken(error: &(dyn Error + Send + Sync + 'static)) -> BodyError {
    let failure = error.downcast_ref::<Failure>();
    BodyError::Upstream(failure.map_or(Fault::Trapped, Failure::fault))
}

/// What the failure of a guest is to the gateway.
pub(super) fn refused(error: CallError) -> UpstreamError {
    let kind = error.failure.fault();
    match error.remains {
        Remains::Whole(request) => UpstreamError::Returned {
            kind,
            request: Box::new(request.map(|body| body.map_err(body_error).boxed_unsync())),
        },
        Remains::Nothing { repeatable } => UpstreamError::Failed { kind, repeatable },
    }
}

/// What a request body failed with that has come back from a pod.
fn body_error(error: Box<dyn Error + Send + Sync>) -> BodyError {
    match error.downcast() {
        Ok(error) => *error,
        // It was the gateway's own when the pod was given it.
        Err(_) => BodyError::ClientGone,
    }
}
