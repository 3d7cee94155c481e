//! A pod as the gateway calls it: the one place where a request leaves the gateway for a guest.

use std::{error::Error, pin::Pin, sync::Arc};

use http_body_util::BodyExt as _;
use sampan_gateway::{Body, BodyError, RequestContext, Upstream, UpstreamError, UpstreamErrorKind};
use sampan_runtime::pod::{CallError, Failure, Pod};

/// A pod behind the gateway.
pub(crate) struct PodUpstream(pub(crate) Arc<Pod>);

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, UpstreamError>> + Send>>;

impl Upstream for PodUpstream {
    fn call(&self, request: http::Request<Body>, context: &RequestContext) -> Answer {
        let pod = Arc::clone(&self.0);
        let request_id = Arc::from(context.request_id.as_str());
        Box::pin(async move {
            let response = pod
                .call(request, Some(request_id))
                .await
                .map_err(|e| explain(&e))?;
            Ok(response.map(|body| body.map_err(|error| broken(&*error)).boxed_unsync()))
        })
    }
}

/// What a response body that broke off is to the gateway.
fn broken(error: &(dyn Error + Send + Sync + 'static)) -> BodyError {
    let failure = error.downcast_ref::<Failure>();
    BodyError::Upstream(failure.map_or(UpstreamErrorKind::Trapped, kind))
}

/// What the failure of a guest is to the gateway.
fn explain(error: &CallError) -> UpstreamError {
    UpstreamError {
        kind: kind(&error.failure),
        side_effects: error.called_out,
    }
}

fn kind(failure: &Failure) -> UpstreamErrorKind {
    match failure {
        Failure::Trapped(_) | Failure::ErrorCode(_) => UpstreamErrorKind::Trapped,
        Failure::Spinning(_) | Failure::OutOfFuel(_) => UpstreamErrorKind::Spinning,
        Failure::Deadlocked(_) => UpstreamErrorKind::Deadlocked,
        Failure::TimedOut(_) => UpstreamErrorKind::TimedOut,
        Failure::NoResponse | Failure::Unfinished => UpstreamErrorKind::NoResponse,
        Failure::Unavailable(_) => UpstreamErrorKind::Unavailable,
        Failure::Neighbour(failure) => match kind(failure) {
            // It was not this request that burned the time.
            UpstreamErrorKind::Spinning => UpstreamErrorKind::Trapped,
            kind => kind,
        },
    }
}
