//! What all tests start from: a runtime, guests, pods, requests.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, channel};
use sampan_core::{
    fault::Fault,
    name::{PodName, ServiceKey},
    object::{Grants, Isolation, Limits, Renewal},
    quantity::{ByteSize, Cpu},
    secret::SecretValues,
    spec::node::GuestLimits,
};
use sampan_runtime::{
    Body, Demands, KeyValue, LoadError, Loaded, Neighbours, PoolSize, Runtime, RuntimeConfig,
    StartError,
    artifact::cache::Cache,
    artifact::compile::{ChildCommand, CompileLimits},
    logs::Line,
    pod::{
        Failure, Pod, PodWatch, Termination, Unwatched,
        template::{Template, TemplateSpec},
    },
};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A limit that a test waits for.
pub(crate) const SHORT: Duration = Duration::from_millis(200);

/// Starts this binary as the compiling process.
pub(crate) fn compile_command() -> ChildCommand {
    Arc::new(|| {
        let mut command = Command::new(std::env::current_exe().expect("a running binary"));
        command.args([
            "compile_child",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ]);
        command
    })
}

/// A configuration whose cache outlives the test run.
pub(crate) fn config() -> RuntimeConfig {
    let cache = Cache::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile-cache"));
    RuntimeConfig {
        cache: Some(cache.expect("a cache")),
        compile_command: compile_command(),
        compile_limits: CompileLimits::default(),
        pool: PoolSize { instances: 100 },
        guest: GuestLimits::default(),
        volumes: None,
    }
}

/// The runtime that tests share.
pub(crate) fn runtime() -> &'static Arc<Runtime> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(config()).expect("a runtime"))
}

/// A guest of `workloads/`.
pub(crate) fn workload(name: &str) -> Vec<u8> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workloads/dist");
    std::fs::read(dist.join(format!("{name}.wasm"))).expect("a built workload")
}

/// A component ready to be instantiated.
pub(crate) async fn load(bytes: &[u8]) -> Arc<Loaded> {
    load_with(bytes, false).await.expect("a good component")
}

pub(crate) async fn load_with(bytes: &[u8], metered: bool) -> Result<Arc<Loaded>, LoadError> {
    runtime()
        .load(
            Bytes::copy_from_slice(bytes),
            Demands {
                metered,
                ..Demands::default()
            },
            || {},
        )
        .await
}

/// The limits of a spec that says nothing, but for `request_cpu`: the machine may be busy.
pub(crate) fn limits() -> Limits {
    Limits {
        memory: ByteSize(64 << 20),
        cpu: None,
        request_timeout: PATIENCE,
        request_cpu: PATIENCE,
        fuel: None,
        queue: 1,
        queue_timeout: PATIENCE,
        body: ByteSize(1 << 20),
    }
}

/// A pod to be.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) bytes: Vec<u8>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) grants: Grants,
    pub(crate) limits: Limits,
    pub(crate) args: Vec<String>,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) renewal: Renewal,
    pub(crate) base: PathBuf,
    pub(crate) neighbours: Option<Arc<dyn Neighbours>>,
    pub(crate) keyvalue: Option<Arc<dyn KeyValue>>,
    pub(crate) secrets: SecretValues,
    pub(crate) watch: Arc<dyn PodWatch>,
    pub(crate) coredumps: Option<PathBuf>,
    /// Where the bytes are from.
    pub(crate) path: Option<PathBuf>,
}

/// A pod of these bytes, with the defaults of a spec.
pub(crate) fn plan(bytes: Vec<u8>) -> Plan {
    Plan {
        bytes,
        runtime: Arc::clone(runtime()),
        grants: Grants::default(),
        limits: limits(),
        args: Vec::new(),
        isolation: None,
        concurrency: None,
        renewal: Renewal::default(),
        base: PathBuf::from("/"),
        neighbours: None,
        keyvalue: None,
        secrets: SecretValues::new(),
        watch: Arc::new(Unwatched),
        coredumps: None,
        path: None,
    }
}

impl Plan {
    pub(crate) fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = Some(isolation);
        self
    }

    pub(crate) fn concurrency(mut self, concurrency: u32) -> Self {
        self.concurrency = Some(concurrency);
        self
    }

    pub(crate) fn memory(mut self, bytes: u64) -> Self {
        self.limits.memory = ByteSize(bytes);
        self
    }

    /// With a `limits.cpu` of so many thousandths of a core.
    pub(crate) fn cpu(mut self, millis: u32) -> Self {
        self.limits.cpu = Some(Cpu { millis });
        self
    }

    pub(crate) fn request_cpu(mut self, limit: Duration) -> Self {
        self.limits.request_cpu = limit;
        self
    }

    pub(crate) fn request_timeout(mut self, limit: Duration) -> Self {
        self.limits.request_timeout = limit;
        self
    }

    pub(crate) fn watch(mut self, watch: &Arc<Witness>) -> Self {
        self.watch = Arc::clone(watch) as _;
        self
    }

    pub(crate) async fn try_start(self) -> Result<Pod, StartError> {
        let metered = self.limits.fuel.is_some();
        let loaded = self
            .runtime
            .load(
                Bytes::copy_from_slice(&self.bytes),
                Demands {
                    metered,
                    coredump: self.coredumps.is_some(),
                    path: self.path,
                    ..Demands::default()
                },
                || {},
            )
            .await;
        let spec = TemplateSpec {
            grants: &self.grants,
            limits: &self.limits,
            args: &self.args,
            isolation: self.isolation,
            concurrency: self.concurrency,
            renewal: self.renewal,
            base: &self.base,
            neighbours: self.neighbours.clone(),
            keyvalue: self.keyvalue.clone(),
            secrets: Some(&self.secrets),
            coredumps: self.coredumps.as_deref(),
        };
        let template = Arc::new(Template::new(loaded.expect("a good component"), &spec)?);
        Pod::start(&self.runtime, pod_name(), &template, self.watch).await
    }

    pub(crate) async fn start(self) -> Pod {
        self.try_start().await.expect("a pod that starts")
    }
}

/// Remembers what it is told.
#[derive(Default)]
pub(crate) struct Witness(Mutex<Vec<(&'static str, Arc<Termination>)>>);

impl Witness {
    pub(crate) fn told(&self) -> Vec<(&'static str, Fault)> {
        let told = self.0.lock().expect("no panic");
        told.iter().map(|(what, it)| (*what, it.verdict)).collect()
    }

    pub(crate) fn last(&self) -> Arc<Termination> {
        let told = self.0.lock().expect("no panic");
        Arc::clone(&told.last().expect("it was told").1)
    }
}

impl PodWatch for Witness {
    fn terminated(&self, termination: &Arc<Termination>) {
        let told = ("terminated", Arc::clone(termination));
        self.0.lock().expect("no panic").push(told);
    }

    fn instance_failed(&self, termination: &Arc<Termination>) {
        let told = ("instance failed", Arc::clone(termination));
        self.0.lock().expect("no panic").push(told);
    }
}

/// A name no other pod has.
pub(crate) fn pod_name() -> PodName {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let service = ServiceKey::parse("shop/web").expect("a key");
    PodName::new(&service, NEXT.fetch_add(1, Ordering::Relaxed), 0)
}

/// A `GET`.
pub(crate) fn get(path: &str) -> http::Request<Empty<Bytes>> {
    http::Request::get(format!("http://test{path}"))
        .body(Empty::new())
        .expect("a good request")
}

/// A `POST` whose body comes piece by piece.
pub(crate) fn post(
    path: &str,
) -> (
    channel::Sender<Bytes, io::Error>,
    http::Request<channel::Channel<Bytes, io::Error>>,
) {
    let (sender, body) = channel::Channel::new(1);
    let request = http::Request::post(format!("http://test{path}")).body(body);
    (sender, request.expect("a good request"))
}

/// The whole answer to a `GET`, as text.
pub(crate) async fn ask(pod: &Pod, path: &str) -> Result<(u16, String), Failure> {
    let response = pod.call(get(path), None).await;
    let response = response.map_err(|error| error.failure)?;
    let status = response.status().as_u16();
    let text = text_of(response.into_body()).await;
    Ok((status, text.expect("a whole body")))
}

/// Why a `GET` fails before its head.
pub(crate) async fn failure(pod: &Pod, path: &str) -> Failure {
    match pod.call(get(path), None).await {
        Ok(response) => panic!("answered {}", response.status()),
        Err(error) => error.failure,
    }
}

/// The text of a body, or what ended it.
pub(crate) async fn text_of(body: Body) -> Result<String, String> {
    let whole = body.collect().await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(whole.to_bytes().into()).expect("text"))
}

/// The next data of a body.
pub(crate) async fn piece(body: &mut Body) -> Bytes {
    let frame = body.frame().await.expect("a frame").expect("no failure");
    frame.into_data().expect("data")
}

/// What a pod has printed, and what was said about it.
pub(crate) fn lines(runtime: &Runtime, pod: &PodName) -> Vec<Line> {
    let batch = runtime.logs().read(0, usize::MAX);
    let mut lines = batch.lines;
    lines.retain(|line| *line.pod == *pod);
    lines
}

pub(crate) fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

/// Looks again and again until what it sees is right.
pub(crate) async fn eventually<S: Debug>(limit: Duration, mut look: impl FnMut() -> Result<(), S>) {
    let start = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(1));
    loop {
        pause.tick().await;
        match look() {
            Ok(()) => return,
            Err(state) if start.elapsed() > limit => {
                panic!("after {:?} it is still {state:?}", start.elapsed())
            }
            Err(_) => {}
        }
    }
}

/// Waits until a pod holds no memory, which is until it has no instance.
pub(crate) async fn no_instance(pod: &Pod, limit: Duration) {
    eventually(limit, || match pod.usage() {
        usage if usage.memory_bytes == 0 => Ok(()),
        usage => Err(usage),
    })
    .await;
}

/// Waits for a future that must not take long.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.expect("it hangs")
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}
