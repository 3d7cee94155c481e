//! Cold start, each part on its own: compile, load from the cache, instantiate, first response.

use bytes::Bytes;
use std::{path::Path, process::Command, sync::Arc};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http_body_util::{BodyExt as _, Empty};
use sampan_core::{
    name::{PodName, ServiceKey},
    object::{Isolation, Limits},
    spec::{self, node::GuestLimits},
};
use sampan_runtime::{
    Demands, PoolSize, Runtime, RuntimeConfig,
    artifact::{cache::Cache, compile::CompileLimits},
    pod::{
        Pod, Unwatched,
        template::{Template, TemplateSpec},
    },
};

const GUESTS: [(&str, &[u8]); 2] = [
    ("hello", include_bytes!("../workloads/dist/hello.wasm")),
    (
        "hello-p3",
        include_bytes!("../workloads/dist/hello-p3.wasm"),
    ),
];

const SPEC: &str = "app = \"bench\"\n[service.hello]\ncomponent = \"hello.wasm\"\n";

fn limits() -> Limits {
    let input = spec::Input {
        path: "bench",
        text: SPEC,
        environment: &|_| None,
        read_file: &|_| Err("no files".to_owned()),
        profiles: &[],
    };
    let app = spec::load(&input).expect("a good spec");
    app.services.into_values().next().expect("a service").limits
}

fn runtime(cache: &Path) -> Arc<Runtime> {
    Runtime::new(RuntimeConfig {
        cache: Some(Cache::open(cache).expect("a cache")),
        compile_command: Arc::new(|| Command::new(env!("CARGO_BIN_EXE_sampan"))),
        compile_limits: CompileLimits::default(),
        pool: PoolSize::DEFAULT,
        guest: GuestLimits::default(),
        volumes: None,
    })
    .expect("a runtime")
}

fn template(runtime: &tokio::runtime::Runtime, node: &Arc<Runtime>, bytes: &[u8]) -> Arc<Template> {
    let loaded = runtime
        .block_on(node.load(Bytes::copy_from_slice(bytes), Demands::default(), || {}))
        .expect("a component");
    let spec = TemplateSpec {
        grants: &Default::default(),
        limits: &limits(),
        args: &[],
        isolation: Some(Isolation::Request),
        concurrency: None,
        renewal: sampan_core::object::Renewal::default(),
        base: Path::new("."),
        neighbours: None,
        keyvalue: None,
        secrets: None,
        coredumps: None,
    };
    Arc::new(Template::new(loaded, &spec).expect("a template"))
}

fn pod_name() -> PodName {
    PodName::new(&ServiceKey::parse("shop/hello").expect("a key"), 1, 0)
}

async fn start(node: &Arc<Runtime>, template: &Arc<Template>) -> Pod {
    let started = Pod::start(node, pod_name(), template, Arc::new(Unwatched));
    started.await.expect("a pod")
}

fn request() -> http::Request<Empty<bytes::Bytes>> {
    let request = http::Request::get("http://hello.localhost/");
    request.body(Empty::new()).expect("a good request")
}

fn cold_start(criterion: &mut Criterion) {
    let tokio = tokio::runtime::Runtime::new().expect("threads");
    let _inside = tokio.enter();
    for (name, bytes) in GUESTS {
        let mut group = criterion.benchmark_group(format!("cold_start/{name}"));

        group.sample_size(10);
        group.bench_function("compile", |bencher| {
            let new = || tempfile::tempdir().expect("a directory");
            bencher.iter_batched(
                new,
                |cache| {
                    let node = runtime(cache.path());
                    tokio
                        .block_on(node.load(
                            Bytes::copy_from_slice(bytes),
                            Demands::default(),
                            || {},
                        ))
                        .expect("a component")
                },
                BatchSize::PerIteration,
            );
        });

        let cache = tempfile::tempdir().expect("a directory");
        let node = runtime(cache.path());
        drop(
            tokio
                .block_on(node.load(Bytes::copy_from_slice(bytes), Demands::default(), || {}))
                .expect("a component"),
        );
        group.sample_size(100);
        group.bench_function("load from the cache", |bencher| {
            // The component is dropped each time, so each time it is loaded anew.
            bencher.iter(|| {
                tokio
                    .block_on(node.load(Bytes::copy_from_slice(bytes), Demands::default(), || {}))
                    .expect("a hit")
            });
        });

        let template = template(&tokio, &node, bytes);
        group.bench_function("instantiate", |bencher| {
            // With `isolation = "request"`, starting a pod is making one instance and dropping it.
            bencher.iter(|| tokio.block_on(start(&node, &template)));
        });

        let pod = tokio.block_on(start(&node, &template));
        group.bench_function("first response", |bencher| {
            bencher.iter(|| {
                tokio.block_on(async {
                    let response = pod.call(request(), None).await.expect("a response");
                    response.into_body().collect().await.expect("a whole body")
                })
            });
        });
        group.finish();
    }
}

criterion_group!(benches, cold_start);
criterion_main!(benches);
