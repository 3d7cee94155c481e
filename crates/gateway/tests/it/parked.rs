//! The signal that a request waits at a service without pods, and what comes of such a request.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use sampan_core::name::ServiceKey;
use sampan_gateway::{EndpointState, Gateway, Limits, RequestContext, ServiceConfig};
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};

use crate::fixture::*;

fn spawn(gateway: &Gateway, path: &str) -> JoinHandle<StatusCode> {
    let (gateway, request) = (gateway.clone(), get(path));
    tokio::spawn(async move { send_status(&gateway, request).await })
}

/// Whether there is a signal, after all that can happen has happened.
async fn is_told(gateway: &Gateway) -> bool {
    timeout(Duration::from_millis(10), gateway.parked())
        .await
        .is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_request_without_pods_is_told_of_and_answered_when_one_is_ready() {
    let gateway = gateway(web(), []);
    assert!(!is_told(&gateway).await);
    let told = tokio::spawn({
        let gateway = gateway.clone();
        async move { is_told(&gateway).await }
    });
    settle().await;
    let request = spawn(&gateway, "/");
    assert!(told.await.unwrap());
    assert_eq!(gateway.parked_services(), [name("web")]);
    assert!(!is_told(&gateway).await, "once for each time");
    let endpoint = ready(0, 1, says("web"));
    endpoint.set_state(EndpointState::Unready);
    gateway.publish(vec![(web(), vec![endpoint.clone()])]);
    assert_eq!(gateway.parked_services(), []);
    assert!(!is_told(&gateway).await, "there is a pod now");
    assert!(!request.is_finished());
    endpoint.set_state(EndpointState::Ready);
    assert_eq!(request.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn what_happened_before_somebody_asks_is_not_lost() {
    let gateway = gateway(web(), []);
    let requests = ["/0", "/1"].map(|path| spawn(&gateway, path));
    settle().await;
    for request in requests {
        request.abort();
    }
    settle().await;
    assert!(is_told(&gateway).await);
    assert_eq!(gateway.parked_services(), [], "they have gone");
    assert!(!is_told(&gateway).await, "many are told of once");
    let dispatched = spawn(&gateway, "/2");
    settle().await;
    assert!(is_told(&gateway).await);
    assert!(!dispatched.is_finished());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_pod_that_is_there_is_not_told_of() {
    let gate = Arc::new(Semaphore::new(0));
    let endpoint = ready(0, 1, says_after(&gate, "web"));
    let gateway = gateway(web(), [endpoint.clone()]);
    let full = ["/0", "/1"].map(|path| spawn(&gateway, path));
    assert!(!is_told(&gateway).await, "it is full");
    endpoint.set_state(EndpointState::Unready);
    let unready = spawn(&gateway, "/2");
    assert!(!is_told(&gateway).await, "it is not ready");
    assert_eq!(gateway.stats(&name("web")).unwrap().queued, 2);
    assert_eq!(gateway.parked_services(), []);
    endpoint.set_state(EndpointState::Ready);
    gate.add_permits(3);
    for request in full.into_iter().chain([unready]) {
        assert_eq!(request.await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_where_there_is_no_queue() {
    let config = ServiceConfig { queue: 0, ..web() };
    let gateway = gateway(config, []);
    assert_eq!(send_status(&gateway, get("/")).await, 503);
    assert!(!is_told(&gateway).await);
    assert_eq!(gateway.parked_services(), []);
}

/// Two pods go while a request waits, each in its own way; the last one is told of.
#[tokio::test(start_paused = true)]
async fn the_last_pod_that_goes_is_told_of() {
    for is_unpublished in [false, true] {
        let pods = [0, 1].map(|slot| {
            let endpoint = ready(slot, 1, says("web"));
            endpoint.set_state(EndpointState::Unready);
            endpoint
        });
        let gateway = gateway(web(), &pods);
        let request = spawn(&gateway, "/");
        settle().await;
        pods[0].set_state(EndpointState::Terminating);
        assert!(!is_told(&gateway).await, "one is left");
        match is_unpublished {
            true => gateway.publish(vec![(web(), vec![pods[0].clone()])]),
            false => pods[1].set_state(EndpointState::Terminating),
        }
        assert!(is_told(&gateway).await);
        assert_eq!(gateway.parked_services(), [name("web")]);
        gateway.publish(vec![(web(), vec![ready(2, 1, says("web"))])]);
        assert_eq!(request.await.unwrap(), 200);
        assert!(!is_told(&gateway).await, "nobody waits");
    }
}

#[tokio::test(start_paused = true)]
async fn services_are_told_apart() {
    let service = |text: &str| ServiceConfig {
        name: name(text),
        routes: vec![],
        ..web()
    };
    let gateway = Gateway::new(Limits::default());
    let endpoint = ready(0, 1, says("web"));
    gateway.publish(vec![
        (service("c"), vec![]),
        (service("a"), vec![]),
        (service("b"), vec![endpoint]),
    ]);
    let call = |key: ServiceKey| {
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let answer = gateway
                .dispatch(&key, get("/"), &RequestContext::fresh())
                .await;
            answer.map(|it| it.status())
        })
    };
    let [_a, b, c] = ["a", "b", "c"].map(|text| call(name(text)));
    assert_eq!(b.await.unwrap().unwrap(), 200);
    settle().await;
    assert!(is_told(&gateway).await);
    assert_eq!(gateway.parked_services(), [name("a"), name("c")]);
    gateway.publish(vec![(service("a"), vec![])]);
    assert!(c.await.unwrap().is_err());
    assert_eq!(gateway.parked_services(), [name("a")]);
}

#[tokio::test(start_paused = true)]
async fn hundreds_that_wait_without_pods_are_answered_in_order() {
    const WAITING: usize = 500;
    const CAPACITY: u32 = 64;
    let config = ServiceConfig {
        queue: WAITING as u32,
        ..web()
    };
    let gateway = gateway(config.clone(), []);
    let requests: Vec<_> = (0..WAITING)
        .map(|n| spawn(&gateway, &format!("/{n}")))
        .collect();
    assert!(is_told(&gateway).await);
    settle().await;
    let load = gateway.load(&name("web")).unwrap();
    assert_eq!(load.queued.in_flight() as usize, WAITING);

    let gate = Arc::new(Semaphore::new(0));
    let (upstream, seen) = recording(&gate);
    let endpoint = ready(0, CAPACITY, upstream);
    endpoint.set_state(EndpointState::Unready);
    gateway.publish(vec![(config, vec![endpoint.clone()])]);
    endpoint.set_state(EndpointState::Ready);
    settle().await;
    assert_eq!(seen.lock().unwrap().len(), CAPACITY as usize);
    gate.add_permits(WAITING);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    let order: Vec<_> = (0..WAITING).map(|n| format!("/{n}")).collect();
    assert_eq!(*seen.lock().unwrap(), order);
    assert_eq!(endpoint.in_flight(), 0);
}
