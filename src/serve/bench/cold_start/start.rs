//! One start, in its steps.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use sampan_core::{
    name::{PodName, ServiceKey},
    object::{Renewal, ServiceKind},
};
use sampan_gateway::{
    Body, Endpoint, EndpointState, Gateway, RequestContext, ServiceConfig, Upstream, UpstreamFuture,
};
use sampan_runtime::{
    Demands, Loaded, StartError,
    pod::{
        Pod, Unwatched,
        template::{Template, TemplateSpec},
    },
};

use crate::{
    agent::{handle::PodHandle, runtime_pod::ServicePod},
    edge,
    serve::{
        AppSource, Node,
        bench::{BenchError, Component},
    },
};

/// The longest that a pod may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn pod(
    node: &Node,
    component: &Component,
    run: u32,
    template: &Arc<Template>,
) -> Result<Pod, BenchError> {
    let pod = Pod::start(&node.runtime, pod_name(run), template, Arc::new(Unwatched));
    pod.await.map_err(|source| BenchError::Start {
        name: component.name.clone(),
        source,
    })
}

fn pod_name(run: u32) -> PodName {
    let key = ServiceKey::parse("bench/bench").expect("it is a key");
    PodName::new(&key, u64::from(run) + 1, 0)
}

pub(super) fn refused(
    component: &Component,
    error: impl Into<sampan_runtime::LoadError>,
) -> BenchError {
    BenchError::Load {
        name: component.name.clone(),
        source: error.into(),
    }
}

pub(super) async fn load_one(
    node: &Node,
    component: &Component,
) -> Result<Arc<Loaded>, BenchError> {
    let runtime = &node.runtime;
    let loading = runtime.load(component.bytes.clone(), Demands::default(), || {});
    loading.await.map_err(|error| refused(component, error))
}

pub(super) fn template(
    component: &Component,
    source: &AppSource,
    loaded: Arc<Loaded>,
) -> Result<Template, BenchError> {
    let mut services = source.app.services.values();
    let service = services.next().expect("the app has a service");
    let spec = TemplateSpec {
        grants: &service.grants,
        limits: &service.limits,
        args: &[],
        isolation: service.isolation,
        concurrency: None,
        renewal: Renewal::default(),
        base: std::path::Path::new("/"),
        neighbours: None,
        keyvalue: None,
        secrets: None,
        coredumps: None,
    };
    let made = match loaded.found().kind {
        // Nothing of it answers a request, which is what is measured.
        ServiceKind::Command => Err(StartError::NoHandler),
        ServiceKind::Http | ServiceKind::Static => Template::new(loaded, &spec),
    };
    made.map_err(|source| BenchError::Start {
        name: component.name.clone(),
        source,
    })
}

/// Waits until nothing of a pod is left: code that is mapped is not loaded again.
pub(super) async fn released(held: &Weak<Loaded>) -> Result<(), BenchError> {
    let gone = async {
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, gone).await;
    waited.map_err(|_| BenchError::Failed(format!("a pod did not end within {PATIENCE:?}")))
}

/// A pod without a worker.
struct Bare(Arc<ServicePod>);

impl Upstream for Bare {
    fn call(&self, request: http::Request<Body>, context: &RequestContext) -> UpstreamFuture {
        let id = Arc::from(context.request_id.as_str());
        Box::pin(PodHandle::call(Arc::clone(&self.0), request, id))
    }
}

/// How long the first request to a pod takes through the gateway, to the first byte of its answer's
/// body, or the end of an answer without one.
pub(super) async fn first(
    gateway: &Gateway,
    source: &AppSource,
    capacity: u32,
    pod: Pod,
) -> Result<Duration, BenchError> {
    let mut services = source.app.services.values();
    let service = services.next().expect("the app has a service");
    let config = ServiceConfig {
        debug_headers: false,
        ..edge::config(&source.app.name, service)
    };
    let (name, revision) = (pod.name().clone(), pod.name().revision());
    let endpoint = Endpoint::new(
        name,
        revision,
        capacity,
        Arc::new(Bare(Arc::new(ServicePod::Guest(Arc::new(pod))))),
    );
    gateway.publish(vec![(config, vec![Arc::clone(&endpoint)])]);
    endpoint.set_state(EndpointState::Ready);
    let request = http::Request::get("/").header(http::header::HOST, "bench.localhost");
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|error| BenchError::Failed(error.to_string()))?;
    let start = Instant::now();
    let response = gateway.handle(request, None).await;
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    let frame = poll_fn(|context| body.as_mut().poll_frame(context)).await;
    let took = start.elapsed();
    if let Some(Err(error)) = frame {
        return Err(BenchError::Failed(format!("the answer broke off: {error}")));
    }
    // The rest is not measured, and the pod ends when it has been read.
    let rest = body.collect().await;
    rest.map_err(|error| BenchError::Failed(format!("the answer broke off: {error}")))?;
    gateway.publish(Vec::new());
    match head.status.is_success() {
        true => Ok(took),
        false => {
            let status = head.status;
            Err(BenchError::Failed(format!(
                "`GET /` was answered with {status}"
            )))
        }
    }
}
