//! How long it takes until a component answers, step by step.

use std::{
    fs,
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
    object::{Isolation, Renewal, ServiceKind},
};
use sampan_gateway::{
    Body, Endpoint, EndpointState, Gateway, RequestContext, ServiceConfig, Upstream, UpstreamFuture,
};
use sampan_runtime::{
    Demands, Loaded, Origin, StartError,
    admission::inspect::Inspection,
    pod::{
        Pod, Unwatched,
        template::{Template, TemplateSpec},
    },
};
use serde::Serialize;

use super::{BenchError, Component, Workbench, app, sketch::Sketch};
use crate::{
    agent::{handle::PodHandle, runtime_pod::ServicePod},
    edge,
    serve::AppSource,
};

/// The longest that a pod may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to measure.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) component: Component,
    pub(crate) isolation: Option<Isolation>,
    /// How often to measure each step but compiling.
    pub(crate) runs: u32,
    /// How often to compile.
    pub(crate) compile_runs: u32,
}

/// How long each step took.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) component: String,
    pub(crate) component_bytes: usize,
    pub(crate) digest: String,
    /// What requests share.
    pub(crate) isolation: Isolation,
    pub(crate) steps: Vec<Step>,
}

/// How long one step took, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) step: &'static str,
    pub(crate) runs: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Step {
    fn of(step: &'static str, sketch: &Sketch) -> Self {
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        Self {
            step,
            runs: sketch.count(),
            p50_ms: millis(sketch.quantile(0.5)),
            p90_ms: millis(sketch.quantile(0.9)),
            p99_ms: millis(sketch.quantile(0.99)),
            max_ms: millis(sketch.max()),
        }
    }
}

/// Measures every step. Nothing else runs on the node meanwhile.
pub(crate) async fn measure(wanted: Wanted) -> Result<Report, BenchError> {
    let source = app(1, wanted.isolation);
    let bench = Workbench::new(&source)?;
    let Wanted {
        component,
        runs,
        compile_runs,
        ..
    } = &wanted;
    let fetch = fetch(&bench, component, *runs)?;
    let (compile, loaded) = compile(&bench, component, *compile_runs).await?;
    let template = template(component, &source, loaded)?;
    let isolation = template.isolation();
    let capacity = template.concurrency();
    let inspection = Inspection::of(&component.bytes).map_err(|error| refused(component, error))?;
    let [mut load, mut instantiate, mut first_byte] = <[Sketch; 3]>::default();
    drop(template);
    for run in 0..*runs {
        let start = Instant::now();
        let loaded = load_one(&bench, component).await?;
        load.record(start.elapsed());
        let held = Arc::downgrade(&loaded);
        let template = Arc::new(self::template(component, &source, loaded)?);
        let start = Instant::now();
        let pod = Pod::start(
            &bench.node.runtime,
            pod_name(run),
            &template,
            Arc::new(Unwatched),
        );
        let pod = pod.await.map_err(|source| BenchError::Start {
            name: component.name.clone(),
            source,
        })?;
        instantiate.record(start.elapsed());
        let gateway = bench.node.edge.gateway();
        first_byte.record(first(gateway, &source, capacity, pod).await?);
        drop(template);
        released(&held).await?;
    }
    Ok(Report {
        component: component.name.clone(),
        component_bytes: component.bytes.len(),
        digest: inspection.digest.to_string(),
        isolation,
        steps: vec![
            Step::of("fetch", &fetch),
            Step::of("compile", &compile),
            Step::of("load", &load),
            Step::of("instantiate", &instantiate),
            Step::of("first_byte", &first_byte),
        ],
    })
}

fn pod_name(run: u32) -> PodName {
    let key = ServiceKey::parse("bench/bench").expect("it is a key");
    PodName::new(&key, u64::from(run) + 1, 0)
}

fn refused(component: &Component, error: impl Into<sampan_runtime::LoadError>) -> BenchError {
    BenchError::Load {
        name: component.name.clone(),
        source: error.into(),
    }
}

/// Reads the component, hashes it and finds out what it is.
fn fetch(bench: &Workbench, component: &Component, runs: u32) -> Result<Sketch, BenchError> {
    let path = bench.directory.path().join("component.wasm");
    fs::write(&path, &component.bytes)?;
    let mut sketch = Sketch::default();
    for _ in 0..runs {
        let start = Instant::now();
        let bytes = fs::read(&path)?;
        Inspection::of(&bytes).map_err(|error| refused(component, error))?;
        sketch.record(start.elapsed());
    }
    Ok(sketch)
}

/// Compiles the component, which leaves its code in the cache. What is in the cache already is of
/// other digests.
async fn compile(
    bench: &Workbench,
    component: &Component,
    runs: u32,
) -> Result<(Sketch, Arc<Loaded>), BenchError> {
    let mut sketch = Sketch::default();
    for run in 1..runs {
        let variant = component.variant(&run.to_string());
        note(&mut sketch, &*load_one(bench, &variant).await?);
    }
    let loaded = load_one(bench, component).await?;
    note(&mut sketch, &loaded);
    Ok((sketch, loaded))
}

fn note(sketch: &mut Sketch, loaded: &Loaded) {
    if let Origin::Compiled(took) = loaded.origin {
        sketch.record(took);
    }
}

async fn load_one(bench: &Workbench, component: &Component) -> Result<Arc<Loaded>, BenchError> {
    let runtime = &bench.node.runtime;
    let loading = runtime.load(component.bytes.clone(), Demands::default(), || {});
    loading.await.map_err(|error| refused(component, error))
}

fn template(
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
async fn released(held: &Weak<Loaded>) -> Result<(), BenchError> {
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
async fn first(
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
