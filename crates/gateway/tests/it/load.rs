//! What the gateway says of its load: latencies of an interval, and means over time.

use std::{sync::Arc, time::Duration};

use http::Response;
use sampan_gateway::{Gateway, Upstream, empty};
use tokio::task::JoinHandle;

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
    let [p50, p99] = interval.quantiles([0.5, 0.99]).map(|it| it.as_secs_f64());
    // The clock of tokio ticks in milliseconds.
    assert!(
        (0.0098..0.0113).contains(&p50) && p99 < 0.0113,
        "{p50} {p99}"
    );
    let [p50] = second.quantiles([0.5]).map(|it| it.as_secs_f64());
    assert!((p50 / 0.4 - 1.0).abs() < 0.02, "{p50}");

    // Published anew, nothing of it is old.
    gateway.publish(vec![]);
    assert_eq!(gateway.latencies(&name("web")), None);
    gateway.publish(vec![(web(), vec![ready(2, 100, takes(slow))])]);
    burst(&gateway, 3).await;
    let anew = gateway.latencies(&name("web")).unwrap();
    assert_eq!((anew.count(), anew.since(&second).count()), (3, 3));
}
