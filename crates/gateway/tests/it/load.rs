//! What the gateway says of its load: latencies of an interval, and means over time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, channel::Channel};
use sampan_core::fault::Fault;
use sampan_gateway::{
    BodyError, EndpointState, Gateway, Latencies, ServiceConfig, ServiceLoad, Upstream,
    UpstreamError, empty,
};
use tokio::{sync::Semaphore, task::JoinHandle, time::advance};

use crate::fixture::*;

/// A pod that takes a time for each request.
fn takes(time: Duration) -> Arc<dyn Upstream> {
    pod(move |_, _| async move {
        tokio::time::sleep(time).await;
        Ok(Response::new(empty()))
    })
}

fn spawn(gateway: &Gateway) -> JoinHandle<()> {
    let gateway = gateway.clone();
    tokio::spawn(async move { assert_eq!(send_status(&gateway, get("/")).await, 200) })
}

/// Sends requests at once and waits for their answers.
async fn burst(gateway: &Gateway, count: u32) {
    let requests: Vec<_> = (0..count).map(|_| spawn(gateway)).collect();
    for request in requests {
        request.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn latencies_of_an_interval_are_those_of_its_answers() {
    let slow = Duration::from_millis(400);
    let gateway = gateway(web(), [ready(0, 100, takes(slow))]);
    burst(&gateway, 50).await;
    let first = gateway.latencies(&name("web")).unwrap();
    let fast = ready(1, 100, takes(Duration::from_millis(10)));
    gateway.publish(vec![(web(), vec![fast])]);
    burst(&gateway, 20).await;
    let second = gateway.latencies(&name("web")).unwrap();
    let interval = second.since(&first);
    assert_eq!((first.count(), interval.count()), (50, 20));
    let seconds = |it: &Latencies, part| it.quantile(part).expect("some").as_secs_f64();
    let [p50, p99] = [0.5, 0.99].map(|part| seconds(&interval, part));
    // The clock of tokio ticks in milliseconds.
    assert!(
        (0.0098..0.0113).contains(&p50) && p99 < 0.0113,
        "{p50} {p99}"
    );
    let p50 = seconds(&second, 0.5);
    assert!((p50 / 0.4 - 1.0).abs() < 0.02, "{p50}");

    // Published anew, nothing of it is old.
    gateway.publish(vec![]);
    assert_eq!(gateway.latencies(&name("web")), None);
    gateway.publish(vec![(web(), vec![ready(2, 100, takes(slow))])]);
    burst(&gateway, 3).await;
    let anew = gateway.latencies(&name("web")).unwrap();
    assert_eq!((anew.count(), anew.since(&second).count()), (3, 3));
}

fn load(gateway: &Gateway) -> ServiceLoad {
    gateway.load(&name("web")).unwrap()
}

/// A pod that holds each request until the gate opens.
fn holds(gate: &Arc<Semaphore>) -> Arc<dyn Upstream> {
    says_after(gate, "web")
}

/// Ten milliseconds, in steps that no timer falls between.
const TICK: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn each_place_counts_a_request_for_as_long_as_it_is_there() {
    let gate = Arc::new(Semaphore::new(0));
    let gateway = gateway(web(), [ready(0, 2, holds(&gate))]);
    let first = load(&gateway);
    let requests: Vec<_> = (0..6).map(|_| spawn(&gateway)).collect();
    settle().await;
    advance(TICK * 3).await;
    // Two are in the pod, and four wait.
    let second = load(&gateway);
    assert_eq!((second.requests, second.ended), (6, 0));
    let in_flight = |load: &ServiceLoad| {
        let pod = load.endpoints[0].in_flight;
        [load.in_flight, load.queued, pod].map(|it| it.in_flight())
    };
    let means = |now: &ServiceLoad, then: &ServiceLoad| {
        let pods = [now, then].map(|it| it.endpoints[0].in_flight);
        [
            now.in_flight.mean_since(&then.in_flight),
            now.queued.mean_since(&then.queued),
            pods[0].mean_since(&pods[1]),
        ]
    };
    assert_eq!(in_flight(&second), [6, 4, 2]);
    assert_eq!(means(&second, &first), [6.0, 4.0, 2.0]);
    assert_eq!(second.endpoints[0].requests, 2);

    // Half the time as before, half of it with three fewer, of which one had waited.
    advance(TICK).await;
    gate.add_permits(3);
    settle().await;
    advance(TICK).await;
    let third = load(&gateway);
    assert_eq!(in_flight(&third), [3, 1, 2]);
    assert_eq!(means(&third, &second), [4.5, 2.5, 2.0]);
    assert_eq!((third.ended, third.endpoints[0].requests), (3, 5));
    gate.add_permits(10);
    for request in requests {
        request.await.unwrap();
    }
    advance(TICK).await;
    let last = load(&gateway);
    assert_eq!((in_flight(&last), last.ended), ([0, 0, 0], 6));
    assert_eq!(means(&last, &third), [0.0; 3]);
    // 60 ms: of the area of all requests, which is the sum of their latencies.
    let all = last.in_flight.mean_since(&first.in_flight) * 0.06;
    let sum: Duration = gateway
        .revision_stats(&name("web"))
        .iter()
        .map(|it| it.latency.sum)
        .sum();
    assert!((all - sum.as_secs_f64()).abs() < 1e-9, "{all} {sum:?}");
}

#[tokio::test(start_paused = true)]
async fn the_load_says_how_each_pod_is() {
    let fails = fails(Fault::TimedOut);
    let pods = [
        ready(0, 7, fails),
        ready(1, 8, says("web")),
        ready(2, 9, says("web")),
        ready(3, 1, says("web")),
    ];
    pods[2].set_state(EndpointState::Unready);
    pods[3].set_state(EndpointState::Terminating);
    let gateway = gateway(web(), &pods);
    for _ in 0..1000 {
        send_status(&gateway, get("/")).await;
        if pods[0].is_ejected() {
            break;
        }
    }
    let load = load(&gateway);
    let (ready, gone) = (EndpointState::Ready, EndpointState::Terminating);
    let how: Vec<_> = load
        .endpoints
        .iter()
        .map(|it| {
            (
                it.pod.clone(),
                it.revision,
                it.state,
                it.is_ejected,
                it.capacity,
            )
        })
        .collect();
    let pod = |n: usize| pods[n].pod().clone();
    assert_eq!(
        how,
        [
            (pod(0), 1, ready, true, 7),
            (pod(1), 1, ready, false, 8),
            (pod(2), 1, EndpointState::Unready, false, 9),
            (pod(3), 1, gone, false, 1),
        ]
    );
    let requests: Vec<_> = load.endpoints.iter().map(|it| it.requests).collect();
    assert_eq!(requests, [5, load.requests - 5, 0, 0]);
    assert!(gateway.load(&name("other")).is_none());
}

/// A pod whose answers end as their path says, or else once the gate lets them.
fn ends_variously(gate: &Arc<Semaphore>) -> Arc<dyn Upstream> {
    pod({
        let gate = gate.clone();
        move |request, _| {
            let gate = gate.clone();
            async move {
                match request.uri().path() {
                    "/error" => Err(UpstreamError::new(Fault::Trapped)),
                    "/endless" => {
                        let (sender, body) = Channel::<Bytes, BodyError>::new(1);
                        std::mem::forget(sender);
                        Ok(Response::new(body.boxed_unsync()))
                    }
                    "/short" => Ok(Response::builder()
                        .header("content-length", 9)
                        .body(sampan_gateway::full("four"))
                        .unwrap()),
                    _ => {
                        gate.acquire().await.unwrap().forget();
                        Ok(Response::new(empty()))
                    }
                }
            }
        }
    })
}

/// However a request ends, it is counted as long as it was there, at each of the places.
#[tokio::test(start_paused = true)]
async fn every_way_to_end_ends() {
    let gate = Arc::new(Semaphore::new(0));
    let config = ServiceConfig {
        queue: 2,
        queue_timeout: TICK * 5,
        ..web()
    };
    let gateway = gateway(config, [ready(0, 1, ends_variously(&gate))]);
    assert_eq!(send_status(&gateway, get("/error")).await, 500);
    drop(gateway.handle(get("/endless"), None).await);
    let broken = gateway.handle(get("/short"), None).await.into_body();
    assert!(broken.collect().await.is_err());
    assert_eq!(load(&gateway).endpoints[0].in_flight.in_flight(), 0);
    let start = load(&gateway);

    // One holds the slot, one goes while it waits, one waits for too long, one is refused.
    let held = spawn(&gateway);
    settle().await;
    let [goes, waits] = ["/goes", "/waits"].map(|path| {
        let (gateway, request) = (gateway.clone(), get(path));
        tokio::spawn(async move { send_status(&gateway, request).await })
    });
    settle().await;
    assert_eq!(send_status(&gateway, get("/full")).await, 503);
    advance(TICK * 2).await;
    goes.abort();
    settle().await;
    let middle = load(&gateway);
    assert_eq!(
        (middle.in_flight.in_flight(), middle.queued.in_flight()),
        (2, 1)
    );
    assert_eq!(middle.queued.mean_since(&start.queued), 2.0);
    assert_eq!(waits.await.unwrap(), 503);
    gate.add_permits(1);
    held.await.unwrap();
    // Sent away when the service goes.
    let held = spawn(&gateway);
    let away = tokio::spawn({
        let gateway = gateway.clone();
        async move { send_status(&gateway, get("/")).await }
    });
    settle().await;
    gateway.publish(vec![]);
    assert_eq!(away.await.unwrap(), 503);
    gateway.publish(vec![(web(), vec![])]);
    let last = load(&gateway);
    assert_eq!(
        (last.queued.in_flight(), last.in_flight.in_flight()),
        (0, 1)
    );
    gate.add_permits(1);
    held.await.unwrap();
    let last = load(&gateway);
    assert_eq!((last.in_flight.in_flight(), last.requests), (0, last.ended));
    assert_eq!(last.requests, 9);
}
