//! The mirror of the store and the snapshots of the gateway in this process, without a node around
//! them: what it takes to read everything, and what follows from changes.

use std::{hint::black_box, sync::Arc, time::Instant};

use sampan_core::{
    name::{PodName, ServiceKey},
    object::Route,
    record::{Key, Kind, Pod, Service},
};
use sampan_gateway::{
    Endpoint, EndpointState, Gateway, Limits, RequestContext, Upstream, UpstreamFuture,
};
use sampan_store::{Memory, Store, Transaction};
use tokio::runtime::{Builder, Handle};

use super::{REQUESTS, Size, Times, empty_caches, median, millis};
use crate::{
    edge::Edge,
    mirror::{Follower, Reflector, text},
};

/// Objects written in one transaction, as the agent writes them.
const AT_ONCE: usize = 100;
/// What the components of a node follow.
const FOLLOWED: [&[Kind]; 4] = [
    &Kind::ALL,
    &[Kind::Pod, Kind::Service],
    &[Kind::Service],
    &[Kind::Job, Kind::Service, Kind::Pod],
];

/// A pod that is never asked.
struct Silent;

impl Upstream for Silent {
    fn call(&self, _: http::Request<sampan_gateway::Body>, _: &RequestContext) -> UpstreamFuture {
        Box::pin(std::future::pending())
    }
}

/// What the mirror and the snapshots of one size took, in milliseconds.
pub(crate) fn measure(size: Size) -> Times {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("threads");
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        put(&store, services(size).iter().map(service)).await;
        put(&store, pods(size, 1).map(pod)).await;
        let mut all = Vec::new();
        for _ in 0..REQUESTS {
            empty_caches();
            let start = Instant::now();
            black_box(reflect(&store).await);
            all.push(millis(start.elapsed()));
        }
        // Their tasks end, and free what they had read.
        for _ in 0..10 * REQUESTS {
            tokio::task::yield_now().await;
        }
        let mut times = vec![("mirror, read", median(all))];
        let reflector = reflect(&store).await;
        times.extend(mirror(size, &store, &reflector).await);
        times.extend(snapshots(size, &reflector).await);
        times
    })
}

async fn reflect(store: &Arc<dyn Store>) -> Reflector {
    let reflector = Reflector::start(store, &Handle::current()).await;
    reflector.expect("memory does not fail")
}

/// One object changes, then every one of them once, and all followers have heard.
async fn mirror(size: Size, store: &Arc<dyn Store>, reflector: &Reflector) -> Times {
    let mut followers = FOLLOWED.map(|kinds| reflector.follow(kinds));
    let first = pods(size, 1).next().expect("a pod");
    let mut ones = Vec::new();
    for _ in 0..REQUESTS {
        let start = Instant::now();
        put(store, [pod(first.clone())]).await;
        hear(reflector, &mut followers).await;
        ones.push(millis(start.elapsed()));
    }
    let mut all = Vec::new();
    for _ in 0..REQUESTS {
        empty_caches();
        let start = Instant::now();
        put(store, services(size).iter().map(service)).await;
        put(store, pods(size, 1).map(pod)).await;
        hear(reflector, &mut followers).await;
        all.push(millis(start.elapsed()));
    }
    vec![("mirror, one", median(ones)), ("mirror, all", median(all))]
}

/// Lets the followers have what has changed.
async fn hear(reflector: &Reflector, followers: &mut [Follower]) {
    reflector.catch_up().await.expect("memory does not fail");
    for follower in followers {
        let heard = tokio::select! {
            biased;
            keys = follower.next() => keys,
            () = std::future::ready(()) => None,
        };
        black_box(heard);
    }
}

/// All pods are replaced at once; one pod comes, becomes ready and goes; and one of each service does,
/// one after another, each published for itself.
async fn snapshots(size: Size, reflector: &Reflector) -> Times {
    let edge = Arc::new(Edge::new(Gateway::new(Limits::default())));
    let follower = reflector.follow(&[Kind::Service]);
    let following = Arc::clone(&edge);
    let task = tokio::spawn(async move { following.follow(follower, None).await });
    edge.followed().await;
    let publish = |endpoints: &[Arc<Endpoint>]| {
        endpoints.iter().for_each(|it| edge.enter(Arc::clone(it)));
        for endpoint in endpoints {
            edge.place(endpoint);
            endpoint.set_state(EndpointState::Ready);
        }
    };
    let mut times = Times::new();
    let mut revision = 0;
    let mut endpoints = || {
        revision += 1;
        pods(size, revision).map(endpoint).collect::<Vec<_>>()
    };
    let leave = |endpoints: Vec<Arc<Endpoint>>| {
        for endpoint in endpoints {
            endpoint.set_state(EndpointState::Terminating);
            edge.exit(endpoint.pod());
        }
    };
    let mut there = endpoints();
    publish(&there);
    let mut all = Vec::new();
    for _ in 0..REQUESTS {
        let next = endpoints();
        empty_caches();
        let start = Instant::now();
        publish(&next);
        leave(std::mem::replace(&mut there, next));
        all.push(millis(start.elapsed()));
    }
    let mut ones = Vec::new();
    for _ in 0..REQUESTS {
        let next = endpoints();
        let start = Instant::now();
        publish(&next[..1]);
        ones.push(millis(start.elapsed()));
        leave(next[..1].to_vec());
    }
    let mut each = Vec::new();
    for _ in 0..REQUESTS {
        // The first are of one service each.
        let next = endpoints().into_iter().take(size.services);
        let next: Vec<_> = next.collect();
        empty_caches();
        let start = Instant::now();
        for (at, new) in next.into_iter().enumerate() {
            publish(&[Arc::clone(&new)]);
            leave(vec![std::mem::replace(&mut there[at], new)]);
        }
        each.push(millis(start.elapsed()));
    }
    task.abort();
    times.push(("snapshot, one", median(ones)));
    times.push(("snapshot, all", median(all)));
    times.push(("snapshots, each service", median(each)));
    times
}

fn services(size: Size) -> Vec<ServiceKey> {
    let key = |number| ServiceKey::parse(&format!("growth/s{number}")).expect("a key");
    (0..size.services).map(key).collect()
}

/// The pods of all services, those of all services in turns.
fn pods(size: Size, revision: u64) -> impl Iterator<Item = PodName> {
    let services = services(size);
    let replicas = u32::try_from(size.pods / size.services).expect("a small number");
    (0..replicas).flat_map(move |slot| {
        let pod = |service| PodName::new(service, revision, slot);
        services.iter().map(pod).collect::<Vec<_>>()
    })
}

fn endpoint(pod: PodName) -> Arc<Endpoint> {
    let revision = pod.revision();
    Endpoint::new(pod, revision, 64, Arc::new(Silent))
}

/// A service as the store holds one.
fn service(key: &ServiceKey) -> (Key, Vec<u8>) {
    const STORED: &str = include_str!("../../crates/core/tests/it/stored.json");
    thread_local! {
        static COMPLETE: Service = {
            let all: serde_json::Value = serde_json::from_str(STORED).expect("a file of this project");
            let stored = all["/services/shop/complete"].clone();
            serde_json::from_value(stored).expect("a service")
        };
    }
    let mut service = COMPLETE.with(Service::clone);
    service.key = key.clone();
    service.spec.routes = vec![Route {
        host: Some(format!("{}.localhost", key.name)),
        prefix: "/".to_owned(),
    }];
    (Key::Service(key.clone()), text(&service))
}

fn pod(name: PodName) -> (Key, Vec<u8>) {
    let pod = Pod::new(name.service(), name.revision(), name.slot());
    (Key::Pod(name), text(&pod))
}

async fn put(store: &Arc<dyn Store>, objects: impl IntoIterator<Item = (Key, Vec<u8>)>) {
    let mut objects = objects.into_iter().peekable();
    while objects.peek().is_some() {
        let some = objects.by_ref().take(AT_ONCE);
        let put = some.fold(Transaction::new(), |put, (key, value)| {
            put.put(key.to_string(), value)
        });
        let _ = store.commit(put).await.expect("memory does not fail");
    }
}
