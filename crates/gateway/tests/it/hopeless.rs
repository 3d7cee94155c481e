//! Requests that no pod can take in time do not wait for that time.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use sampan_gateway::{Endpoint, EndpointState, Gateway, ServiceConfig};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::fixture::*;

const SECOND: Duration = Duration::from_secs(1);

/// A service whose requests wait for up to ten seconds, and to which no other pods come.
fn settled() -> ServiceConfig {
    ServiceConfig {
        expects_pods: false,
        queue_timeout: 10 * SECOND,
        ..web()
    }
}

/// A pod that is not ready, and rests for so long.
fn resting(slot: u32, time: Duration) -> Arc<Endpoint> {
    let endpoint = ready(slot, 1, says("web"));
    endpoint.set_state(EndpointState::Unready);
    endpoint.rest_until(Some(Instant::now() + time));
    endpoint
}

fn spawn(gateway: &Gateway) -> JoinHandle<(StatusCode, Duration)> {
    let gateway = gateway.clone();
    tokio::spawn(async move {
        let begin = Instant::now();
        let status = send_status(&gateway, get("/")).await;
        // The clock of a test goes in steps of a millisecond.
        let tenths = (begin.elapsed().as_millis() + 50) / 100;
        (status, Duration::from_millis(tenths as u64 * 100))
    })
}

/// It is refused in the very moment in which it is asked.
async fn is_refused(gateway: &Gateway) {
    let begin = Instant::now();
    let answer = send(gateway, get("/")).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    let text = std::str::from_utf8(answer.body()).unwrap();
    assert!(text.contains("none will be in time"), "{text}");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.queued, stats.in_flight), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_chance_no_request_waits() {
    // Nothing is there, what is there rests for too long, or is gone.
    is_refused(&gateway(settled(), [])).await;
    is_refused(&gateway(settled(), [resting(0, 11 * SECOND)])).await;
    let gone = ready(0, 1, says("web"));
    gone.set_state(EndpointState::Terminating);
    is_refused(&gateway(settled(), [gone, resting(1, 3600 * SECOND)])).await;
    // Whatever its length is, the queue is not what is full.
    let config = ServiceConfig {
        queue: 0,
        ..settled()
    };
    is_refused(&gateway(config, [])).await;
}

#[tokio::test(start_paused = true)]
async fn with_a_chance_a_request_waits() {
    let may_come_soon = resting(0, 9 * SECOND);
    let may_come = resting(0, 11 * SECOND);
    may_come.rest_until(None);
    let expects = ServiceConfig {
        expects_pods: true,
        ..settled()
    };
    for (config, endpoint) in [
        (settled(), may_come_soon),
        (settled(), may_come),
        (expects, resting(0, 3600 * SECOND)),
    ] {
        let gateway = gateway(config, [endpoint.clone()]);
        let request = spawn(&gateway);
        sleep(5 * SECOND).await;
        endpoint.set_state(EndpointState::Ready);
        assert_eq!(request.await.unwrap(), (StatusCode::OK, 5 * SECOND));
    }
    // One that is only full, or was ejected, is ready.
    let gate = Arc::new(Semaphore::new(0));
    let full = gateway(settled(), [ready(0, 1, says_after(&gate, "web"))]);
    let both = [spawn(&full), spawn(&full)];
    sleep(SECOND).await;
    gate.add_permits(2);
    for request in both {
        assert_eq!(request.await.unwrap(), (StatusCode::OK, SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_sent_away_when_the_last_chance_goes() {
    type Change = fn(&Gateway, &[Arc<Endpoint>]);
    let changes: [Change; 4] = [
        |_, all| all[0].rest_until(Some(Instant::now() + 11 * SECOND)),
        |_, all| all[0].set_state(EndpointState::Terminating),
        |gateway, all| gateway.publish(vec![(settled(), vec![all[1].clone()])]),
        |gateway, _| gateway.publish(vec![(settled(), vec![])]),
    ];
    for change in changes {
        let endpoints = [resting(0, SECOND), resting(1, 3600 * SECOND)];
        let gateway = gateway(settled(), &endpoints);
        let early = spawn(&gateway);
        sleep(3 * SECOND).await;
        change(&gateway, &endpoints);
        let refused = (StatusCode::SERVICE_UNAVAILABLE, 3 * SECOND);
        assert_eq!(early.await.unwrap(), refused);
        is_refused(&gateway).await;
    }
    // Only those go whose time is too short.
    let endpoint = resting(0, SECOND);
    let gateway = gateway(settled(), [endpoint.clone()]);
    let early = spawn(&gateway);
    sleep(5 * SECOND).await;
    let late = spawn(&gateway);
    settle().await;
    endpoint.rest_until(Some(Instant::now() + 7 * SECOND));
    let refused = (StatusCode::SERVICE_UNAVAILABLE, 5 * SECOND);
    assert_eq!(early.await.unwrap(), refused);
    sleep(7 * SECOND).await;
    endpoint.set_state(EndpointState::Ready);
    assert_eq!(late.await.unwrap(), (StatusCode::OK, 7 * SECOND));
}
