//! Waiting for a pod: order, limits, and what ends a wait.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};
use sampan_gateway::{Endpoint, EndpointState, Gateway, ServiceConfig, empty};
use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};

use crate::fixture::*;

fn spawn(gateway: &Gateway, path: &str) -> JoinHandle<StatusCode> {
    let (gateway, request) = (gateway.clone(), get(path));
    tokio::spawn(async move { send_status(&gateway, request).await })
}

fn queued(gateway: &Gateway) -> u32 {
    gateway.stats(&name("web")).unwrap().queued
}

#[tokio::test(start_paused = true)]
async fn slots_go_to_those_that_wait_in_their_order() {
    let gate = Arc::new(Semaphore::new(0));
    let (upstream, seen) = recording(&gate);
    let gateway = gateway(web(), [ready(0, 2, upstream)]);
    let mut requests = Vec::new();
    for n in 0..20 {
        requests.push(spawn(&gateway, &format!("/{n}")));
        settle().await;
    }
    assert_eq!((seen.lock().unwrap().len(), queued(&gateway)), (2, 18));
    for done in 1..=18 {
        gate.add_permits(1);
        settle().await;
        // Exactly one more runs: the freed slot went to one request.
        assert_eq!(seen.lock().unwrap().len(), 2 + done);
        assert_eq!(queued(&gateway), 18 - done as u32);
    }
    gate.add_permits(2);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    let order: Vec<_> = (0..20).map(|n| format!("/{n}")).collect();
    assert_eq!(*seen.lock().unwrap(), order);
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_those_that_wait() {
    let gate = Arc::new(Semaphore::new(0));
    let (upstream, seen) = recording(&gate);
    let gateway = gateway(web(), [ready(0, 1, upstream)]);
    let first = spawn(&gateway, "/1");
    settle().await;
    let second = spawn(&gateway, "/2");
    settle().await;
    gate.add_permits(1);
    // The slot becomes free and a third request comes in the same step.
    let third = spawn(&gateway, "/3");
    settle().await;
    assert_eq!(*seen.lock().unwrap(), ["/1", "/2"]);
    gate.add_permits(2);
    for request in [first, second, third] {
        assert_eq!(request.await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_becomes_ready_takes_as_many_as_it_can() {
    let gate = Arc::new(Semaphore::new(0));
    let (upstream, seen) = recording(&gate);
    let endpoint = ready(0, 3, upstream);
    endpoint.set_state(EndpointState::Unready);
    let gateway = gateway(web(), [endpoint.clone()]);
    let requests: Vec<_> = (0..5).map(|n| spawn(&gateway, &format!("/{n}"))).collect();
    settle().await;
    assert_eq!((queued(&gateway), endpoint.in_flight()), (5, 0));
    endpoint.set_state(EndpointState::Ready);
    assert_eq!((queued(&gateway), endpoint.in_flight()), (2, 3));
    settle().await;
    assert_eq!(*seen.lock().unwrap(), ["/0", "/1", "/2"]);
    gate.add_permits(5);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_takes_those_that_wait() {
    let gateway = gateway(web(), []);
    let request = spawn(&gateway, "/");
    settle().await;
    assert_eq!(queued(&gateway), 1);
    gateway.publish(vec![(web(), vec![ready(0, 1, says("web"))])]);
    let begin = Instant::now();
    assert_eq!(request.await.unwrap(), 200);
    assert_eq!((begin.elapsed(), queued(&gateway)), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_the_queue() {
    let gate = Arc::new(Semaphore::new(0));
    let (upstream, seen) = recording(&gate);
    let config = ServiceConfig { queue: 3, ..web() };
    let gateway = gateway(config, [ready(0, 1, upstream)]);
    let requests: Vec<_> = (0..4).map(|n| spawn(&gateway, &format!("/{n}"))).collect();
    settle().await;
    assert_eq!(send_status(&gateway, get("/full")).await, 503);
    requests[2].abort();
    settle().await;
    assert_eq!(queued(&gateway), 2);
    let late = spawn(&gateway, "/late");
    settle().await;
    assert_eq!(queued(&gateway), 3);
    gate.add_permits(10);
    assert_eq!(late.await.unwrap(), 200);
    assert_eq!(*seen.lock().unwrap(), ["/0", "/1", "/3", "/late"]);
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.canceled, stats.in_flight, stats.queued), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn each_waits_its_own_time() {
    let gate = Arc::new(Semaphore::new(0));
    let (upstream, seen) = recording(&gate);
    let config = ServiceConfig {
        queue_timeout: Duration::from_secs(2),
        ..web()
    };
    let gateway = gateway(config, [ready(0, 1, upstream)]);
    let begin = Instant::now();
    let first = spawn(&gateway, "/0");
    let waiting: Vec<_> = (1..4)
        .map(|n| {
            let (gateway, request) = (gateway.clone(), get(&format!("/{n}")));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(n * 500)).await;
                let status = send_status(&gateway, request).await;
                (status, begin.elapsed().as_millis() / 10)
            })
        })
        .collect();
    // At 3.2 s the first two have given up and the third gets the slot.
    tokio::time::sleep(Duration::from_millis(3200)).await;
    gate.add_permits(2);
    let ends: Vec<_> = {
        let mut ends = Vec::new();
        for request in waiting {
            ends.push(request.await.unwrap());
        }
        ends
    };
    let (busy, fine) = (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK);
    assert_eq!(ends, [(busy, 250), (busy, 300), (fine, 320)]);
    assert_eq!(first.await.unwrap(), 200);
    assert_eq!(*seen.lock().unwrap(), ["/0", "/3"]);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_comes_as_its_taker_goes_is_not_lost() {
    let gate = Arc::new(Semaphore::new(0));
    let (upstream, seen) = recording(&gate);
    let endpoint = ready(0, 1, upstream);
    let gateway = gateway(web(), [endpoint.clone()]);
    let [first, second, third] = ["/1", "/2", "/3"].map(|path| spawn(&gateway, path));
    settle().await;
    // The first goes, and its slot is handed to the second, which goes before it has run.
    first.abort();
    second.abort();
    gate.add_permits(1);
    assert_eq!(third.await.unwrap(), 200);
    assert_eq!(*seen.lock().unwrap(), ["/1", "/3"]);
    assert_eq!((endpoint.in_flight(), queued(&gateway)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn with_no_queue_a_busy_service_refuses() {
    let gate = Arc::new(Semaphore::new(0));
    let config = ServiceConfig { queue: 0, ..web() };
    let gateway = gateway(config, [ready(0, 1, says_after(&gate, "web"))]);
    let first = spawn(&gateway, "/");
    settle().await;
    assert_eq!(send_status(&gateway, get("/")).await, 503);
    gate.add_permits(2);
    assert_eq!(first.await.unwrap(), 200);
    assert_eq!(send_status(&gateway, get("/")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_comes_back_finds_its_slots() {
    let gate = Arc::new(Semaphore::new(0));
    let (upstream, seen) = recording(&gate);
    let endpoint: Arc<Endpoint> = ready(0, 1, upstream);
    let gateway = gateway(web(), [endpoint.clone()]);
    let old = spawn(&gateway, "/old");
    settle().await;
    gateway.publish(vec![]);
    gateway.publish(vec![]);
    gateway.publish(vec![(web(), vec![endpoint.clone()])]);
    let new = spawn(&gateway, "/new");
    settle().await;
    assert_eq!((queued(&gateway), endpoint.in_flight()), (1, 1));
    gate.add_permits(2);
    let begin = Instant::now();
    assert_eq!(
        (old.await.unwrap(), new.await.unwrap()),
        (StatusCode::OK, StatusCode::OK)
    );
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(*seen.lock().unwrap(), ["/old", "/new"]);
}

/// Ten times as many requests as the pod can answer, for ten seconds: it answers as many as it can,
/// in order and in time, the rest is sent away, and afterwards all is as before.
#[tokio::test(start_paused = true)]
async fn an_overload_costs_no_more_than_what_is_too_much() {
    const SERVICE_TIME: Duration = Duration::from_millis(10);
    const CAPACITY: u32 = 10;
    const SECONDS: u32 = 10;
    const A_MILLISECOND: u32 = 10;
    let upstream = pod(|_, _| async {
        tokio::time::sleep(SERVICE_TIME).await;
        Ok(Response::new(empty()))
    });
    let queue_timeout = Duration::from_millis(100);
    let config = ServiceConfig {
        queue: 50,
        queue_timeout,
        ..web()
    };
    let gateway = gateway(config, [ready(0, CAPACITY, upstream)]);
    let timed = |gateway: &Gateway| {
        let (begin, status) = (Instant::now(), spawn(gateway, "/"));
        async move { (status.await.unwrap(), begin.elapsed()) }
    };
    let mut requests = Vec::new();
    for _ in 0..SECONDS * 1000 {
        for _ in 0..A_MILLISECOND {
            requests.push(tokio::spawn(timed(&gateway)));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (mut answered, mut refused) = (0, 0);
    for request in requests {
        let (status, took) = request.await.unwrap();
        assert!(
            took <= queue_timeout + 2 * SERVICE_TIME,
            "{status} {took:?}"
        );
        match status.as_u16() {
            200 => answered += 1,
            503 => refused += 1,
            other => panic!("status {other}"),
        }
    }
    let possible = CAPACITY * SECONDS * 1000 / 10;
    assert!(answered * 10 >= possible * 9, "{answered} of {possible}");
    assert_eq!(answered + refused, A_MILLISECOND * SECONDS * 1000);
    let (status, took) = timed(&gateway).await;
    assert!(
        status == 200 && took <= 2 * SERVICE_TIME,
        "{status} {took:?}"
    );
}
