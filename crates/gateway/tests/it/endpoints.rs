//! Endpoints: who gets requests, how they are spread, and when a pod is drained.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, channel::Channel};
use sampan_core::name::PodName;
use sampan_gateway::{BodyError, Endpoint, EndpointState, ServiceConfig, Upstream};
use tokio::sync::Semaphore;

use crate::fixture::*;

/// A pod that counts its requests.
fn counting() -> (Arc<dyn Upstream>, Arc<AtomicU32>) {
    let count = Arc::<AtomicU32>::default();
    let upstream = pod({
        let count = count.clone();
        move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok(Response::new(sampan_gateway::empty())) }
        }
    });
    (upstream, count)
}

#[tokio::test]
async fn only_ready_endpoints_get_requests() {
    let pods: Vec<_> = (0..6).map(|_| counting()).collect();
    let endpoints: Vec<_> = (0..6)
        .map(|n| ready(n, 10, pods[n as usize].0.clone()))
        .collect();
    endpoints[1].set_state(EndpointState::Unready);
    endpoints[2].set_state(EndpointState::Terminating);
    endpoints[2].set_state(EndpointState::Ready);
    assert_eq!(
        endpoints[2].state(),
        EndpointState::Terminating,
        "that is final"
    );
    let gateway = gateway(web(), &endpoints);
    // Number 5 is not published any more.
    gateway.publish(vec![(web(), endpoints[..5].to_vec())]);
    for _ in 0..400 {
        assert_eq!(send_status(&gateway, get("/")).await, 200);
    }
    let counts: Vec<_> = pods
        .iter()
        .map(|pod| pod.1.load(Ordering::Relaxed))
        .collect();
    assert_eq!([counts[1], counts[2], counts[5]], [0; 3]);
    assert!(
        [counts[0], counts[3], counts[4]]
            .iter()
            .all(|&count| count > 50),
        "{counts:?}"
    );
}

#[tokio::test]
async fn load_is_spread_evenly() {
    let gate = Arc::new(Semaphore::new(0));
    let endpoints: Vec<_> = (0..10)
        .map(|n| ready(n, 100, says_after(&gate, "web")))
        .collect();
    let gateway = gateway(web(), &endpoints);
    for _ in 0..500 {
        let gateway = gateway.clone();
        tokio::spawn(async move { send_status(&gateway, get("/")).await });
    }
    settle().await;
    let loads: Vec<_> = endpoints
        .iter()
        .map(|endpoint| endpoint.in_flight())
        .collect();
    assert_eq!(loads.iter().sum::<u32>(), 500);
    // Two choices keep the highest load within a few of the mean; one choice would not.
    assert!(
        loads.iter().all(|load| (44..=56).contains(load)),
        "{loads:?}"
    );
    gate.add_permits(500);
    settle().await;
    assert!(endpoints.iter().all(|endpoint| endpoint.in_flight() == 0));
}

#[tokio::test]
async fn an_endpoint_is_unready_until_somebody_says_otherwise() {
    let endpoint = Endpoint::new(PodName::new(&name("web"), 1, 0), 1, 0, says("web"));
    assert_eq!(
        (endpoint.state(), endpoint.capacity()),
        (EndpointState::Unready, 1)
    );
    let config = ServiceConfig { queue: 0, ..web() };
    let gateway = gateway(config, [endpoint.clone()]);
    assert_eq!(send_status(&gateway, get("/")).await, 503);
    endpoint.set_state(EndpointState::Ready);
    assert_eq!(send_status(&gateway, get("/")).await, 200);
}

#[tokio::test]
async fn a_pod_is_drained_after_the_last_byte() {
    let (sender, body) = Channel::<Bytes, BodyError>::new(1);
    let body = std::sync::Mutex::new(Some(body));
    let upstream = pod(move |_, _| {
        let body = body.lock().unwrap().take().unwrap();
        async { Ok(Response::new(body.boxed_unsync())) }
    });
    let endpoint = ready(0, 5, upstream);
    let gateway = gateway(web(), [endpoint.clone()]);
    let mut body = gateway.handle(get("/"), None).await.into_body();
    let mut sender = sender;

    let drained = tokio::spawn({
        let endpoint = endpoint.clone();
        async move { endpoint.drained().await }
    });
    settle().await;
    assert!(!drained.is_finished(), "a ready pod is not drained");
    endpoint.set_state(EndpointState::Terminating);
    settle().await;
    assert!(!drained.is_finished());
    sender.send_data(Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "1"
    );
    settle().await;
    assert!(!drained.is_finished());
    assert_eq!(endpoint.in_flight(), 1);
    drop(sender);
    assert!(body.frame().await.is_none());
    // Drained with the end of the body, though it is still there.
    drained.await.unwrap();
    assert_eq!(endpoint.in_flight(), 0);
    drop(body);
    assert_eq!(endpoint.in_flight(), 0);
}

#[tokio::test]
async fn a_dropped_body_and_a_removed_endpoint_are_drained_too() {
    let endless = pod(|_, _| async {
        let (sender, body) = Channel::<Bytes, BodyError>::new(1);
        std::mem::forget(sender);
        Ok(Response::new(body.boxed_unsync()))
    });
    let endpoint = ready(0, 5, endless);
    endpoint.drained().await;
    let gateway = gateway(web(), [endpoint.clone()]);
    let first = gateway.handle(get("/"), None).await;
    let second = gateway.handle(get("/"), None).await;
    gateway.publish(vec![(web(), vec![])]);
    let drained = tokio::spawn({
        let endpoint = endpoint.clone();
        async move { endpoint.drained().await }
    });
    drop(first);
    settle().await;
    assert!(!drained.is_finished());
    drop(second);
    drained.await.unwrap();
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.canceled, stats.in_flight, stats.errors), (2, 0, 0));
}
