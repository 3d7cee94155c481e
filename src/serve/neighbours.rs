//! Calls between services: from a guest, through the gateway, to another guest, in this process.

use std::sync::Arc;

use http::HeaderValue;
use http_body_util::BodyExt as _;
use sampan_core::name::{Name, PodName, ServiceKey};
use sampan_gateway::{BodyError, RequestContext, RequestId, TraceParent};
use sampan_runtime::{Answer, Body, Neighbours};

use crate::edge::Edge;

/// The services of one app behind a gateway.
pub(super) struct GatewayNeighbours {
    pub(super) edge: Arc<Edge>,
    pub(super) app: Name,
}

impl GatewayNeighbours {
    fn key(&self, service: &Name) -> ServiceKey {
        ServiceKey::new(&self.app, service)
    }
}

impl Neighbours for GatewayNeighbours {
    fn has(&self, service: &Name) -> bool {
        self.edge.gateway().has(&self.key(service))
    }

    fn occupied(&self, service: &Name) -> Option<Vec<(PodName, u32)>> {
        self.edge.occupied(&self.key(service))
    }

    fn call(
        &self,
        service: &Name,
        request: http::Request<Body>,
        request_id: Option<Arc<str>>,
    ) -> Answer {
        let gateway = self.edge.gateway().clone();
        let service = self.key(service);
        Box::pin(async move {
            let context = context(request.headers(), request_id.as_deref());
            // The calling guest is the client here, and its body is all that can fail.
            let gone = |_| BodyError::ClientGone;
            let request = request.map(|body| body.map_err(gone).boxed_unsync());
            let response = gateway.dispatch(&service, request, &context).await?;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}

/// The same request id, and the trace that the guest passes on, if it does.
fn context(headers: &http::HeaderMap, request_id: Option<&str>) -> RequestContext {
    let mut context = RequestContext::fresh();
    let request_id = request_id.and_then(|id| HeaderValue::from_str(id).ok());
    if let Some(request_id) = request_id.as_ref().and_then(RequestId::accept) {
        context.request_id = request_id;
    }
    let trace = headers.get("traceparent").map(HeaderValue::as_bytes);
    if let Some(trace) = trace.and_then(TraceParent::parse) {
        context.traceparent = trace;
    }
    context
}
