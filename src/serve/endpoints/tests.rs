//! Pods without guests behind a real gateway.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty};
use sampan_core::{
    event::Reason,
    fault::Fault,
    plan::{
        pod::PodSpec,
        probe::{Outcome, ProbeKind},
    },
    spec::node::Node,
};
use sampan_gateway::{Body, Endpoint, EndpointState, Gateway, RequestContext, ServiceConfig};

use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::Grants,
};

use super::{GatewayEndpoints, InRotation};
use crate::agent::fake::{FakePod, Rig, Stage, probe, service, spec, termination};
use crate::agent::node::EndpointRegistry as _;
use crate::agent::upstream::PodUpstream;
use crate::edge::Edge;
use crate::events::{Change, Journal};
use crate::serve::single;

const PERIOD: Duration = Duration::from_millis(10);

/// A pod in rotation.
struct Replica {
    rig: Rig,
    endpoint: Arc<Endpoint>,
}

fn replica(slot: u32, spec: PodSpec) -> Replica {
    let upstream = Arc::new(PodUpstream::empty());
    let pod = PodName::new(&service(), 1, slot);
    let endpoint = Endpoint::new(pod, 1, 64, upstream.clone());
    let rotation = Arc::new(InRotation {
        endpoint: Arc::clone(&endpoint),
        edge: None,
    });
    let rig = Rig::behind(Stage::default(), spec, rotation, upstream);
    Replica { rig, endpoint }
}

/// A gateway with these pods. Whether others may come makes a difference only when none of them can
/// become ready.
fn gateway(replicas: &[&Replica]) -> Gateway {
    let gateway = Gateway::new(Node::default().gateway);
    let config = ServiceConfig {
        name: service(),
        routes: Vec::new(),
        queue: 1024,
        queue_timeout: Duration::from_secs(10),
        body: 1 << 20,
        debug_headers: false,
        expects_pods: false,
    };
    let endpoints = replicas.iter().map(|it| Arc::clone(&it.endpoint));
    gateway.publish(vec![(config, endpoints.collect())]);
    gateway
}

async fn ask(gateway: &Gateway) -> Result<(), Fault> {
    let body: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::new(body);
    let (service, context) = (service(), RequestContext::fresh());
    gateway
        .dispatch(&service, request, &context)
        .await
        .map(drop)
}

/// Whether the last that was told of a pod is that it gets no requests.
fn is_told_unready(journal: &Journal) -> bool {
    let events = journal.after(0).events;
    let reasons = events.iter().rev().filter_map(|event| match &event.change {
        Change::Pod { notice, .. } => Some(notice.reason),
        _ => None,
    });
    let mut flips = reasons.filter(|it| matches!(it, Reason::Ready | Reason::Unready));
    flips.next() == Some(Reason::Unready)
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_ready_gets_no_request_and_none_fails() {
    const REQUESTS: u64 = 10_000;
    let steady = replica(0, spec());
    let flapping = PodSpec {
        readiness: probe(PERIOD, 1),
        ..spec()
    };
    let flapping = replica(1, flapping);
    let gateway = gateway(&[&steady, &flapping]);
    let wrong = Arc::new(AtomicU64::new(0));
    let (stage, journal) = (&flapping.rig.stage, Arc::clone(&flapping.rig.journal));
    let counted = Arc::clone(&wrong);
    *stage.on_request.lock() = Some(Box::new(move || {
        counted.fetch_add(u64::from(is_told_unready(&journal)), SeqCst);
    }));
    for number in 0..REQUESTS {
        let turn = number / 100 % 2;
        stage.answer(
            ProbeKind::Readiness,
            match turn {
                0 => Outcome::Success,
                _ => Outcome::Failure("status 503".to_owned()),
            },
        );
        if number % 10 == 0 {
            tokio::time::sleep(PERIOD / 3).await;
        }
        assert_eq!(ask(&gateway).await, Ok(()), "request {number}");
    }
    let served = [&steady, &flapping].map(|it| it.rig.stage.requests.load(SeqCst));
    assert_eq!((served[0] + served[1], wrong.load(SeqCst)), (REQUESTS, 0));
    // It did flap, and did get requests in between.
    let told = flapping.rig.told();
    let flips = told.iter().filter(|text| text.contains("not ready"));
    assert!(flips.count() > 30, "{told:#?}");
    assert!(served[1] > REQUESTS / 10, "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_only_pod_to_be_restarted() {
    let only = replica(0, spec());
    let gateway = gateway(&[&only]);
    only.rig.until_told("ready after").await;
    assert_eq!(ask(&gateway).await, Ok(()));
    only.rig
        .stage
        .watch()
        .terminated(&termination("it trapped"));
    assert_eq!(only.endpoint.state(), EndpointState::Unready);
    let begin = tokio::time::Instant::now();
    assert_eq!(ask(&gateway).await, Ok(()));
    assert_eq!(begin.elapsed().as_millis() / 10, 20);
    assert_eq!(only.rig.stage.requests.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_a_restart_that_is_too_far_away() {
    let mut spec = spec();
    spec.restart.initial = Duration::from_secs(6);
    spec.restart.max = Duration::from_secs(60);
    let only = replica(0, spec);
    let gateway = gateway(&[&only]);
    only.rig.until_told("ready after").await;
    let end = || {
        only.rig
            .stage
            .watch()
            .terminated(&termination("it trapped"))
    };
    // Within the ten seconds that a request may wait.
    end();
    assert_eq!(ask(&gateway).await, Ok(()));
    *only.rig.stage.lifetime.lock() = Some(Duration::from_millis(50));
    end();
    // The next restart is after twelve seconds: requests that wait already are told so as well.
    let begin = tokio::time::Instant::now();
    assert_eq!(ask(&gateway).await, Err(Fault::NoPod));
    assert_eq!(ask(&gateway).await, Err(Fault::NoPod));
    assert!(begin.elapsed() < Duration::from_millis(10));
    // When it is near, a request waits for it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ask(&gateway).await, Ok(()));
    assert!(begin.elapsed() > Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fails_over_and_over_keeps_its_endpoint_and_fails_no_request() {
    let steady = replica(0, spec());
    let crashing = replica(1, spec());
    *crashing.rig.stage.lifetime.lock() = Some(Duration::from_millis(50));
    let gateway = gateway(&[&steady, &crashing]);
    for number in 0..2_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(ask(&gateway).await, Ok(()), "request {number}");
    }
    let made = crashing.rig.stage.made.lock().len();
    assert!(made >= 3, "{made}");
    assert!(crashing.rig.stage.requests.load(SeqCst) > 10);
    assert_eq!(crashing.endpoint.in_flight(), 0);
}

#[test]
fn a_pod_that_is_ready_has_been_published() {
    let edge = Arc::new(Edge::new(Gateway::new(Node::default().gateway)));
    let name = Name::parse("web").expect("a name");
    let source = single::service(name, "web.wasm".as_ref(), Grants::default(), &|_| {});
    edge.declare(&source.app.name, source.app.services.values());
    let key = ServiceKey::parse("web/web").expect("a key");
    // No task publishes here: it may be late on a busy machine, and a rollout is not.
    let endpoints = GatewayEndpoints(Arc::clone(&edge));
    let published = || {
        let load = edge.gateway().load(&key).expect("the service is known");
        load.endpoints.len()
    };
    let pod = |slot| PodName::new(&key, 1, slot);
    let first = endpoints.enter(&pod(0), 0, 1, Arc::new(PodUpstream::<FakePod>::empty()));
    let second = endpoints.enter(&pod(1), 0, 1, Arc::new(PodUpstream::<FakePod>::empty()));
    first.set_ready(false);
    assert_eq!(published(), 0);
    first.set_ready(true);
    assert_eq!(published(), 2, "what has a place is published together");
    second.leave();
    let load = edge.gateway().load(&key).expect("the service is known");
    assert_eq!(load.endpoints[0].state, EndpointState::Ready);
    endpoints.exit(&pod(0));
    first.set_ready(true);
    assert_eq!(published(), 2, "one without a place changes nothing");
}

/// What is published for a pod is its service, however many others there are.
#[test]
fn a_pod_costs_what_its_service_has_and_not_what_the_node_has() {
    const SERVICES: u32 = 500;
    let edge = Arc::new(Edge::new(Gateway::new(Node::default().gateway)));
    let name = |number: u32| Name::parse(&format!("s{number}")).expect("a name");
    let source = single::service(name(0), "web.wasm".as_ref(), Grants::default(), &|_| {});
    let (app, one) = (&source.app.name, &source.app.services[&name(0)]);
    let services = (0..SERVICES).map(|number| sampan_core::object::Service {
        name: name(number),
        ..one.clone()
    });
    edge.declare(app, &services.collect::<Vec<_>>());
    let endpoints = GatewayEndpoints(Arc::clone(&edge));
    for number in 0..SERVICES {
        let key = ServiceKey::new(app, &name(number));
        for slot in 0..2 {
            let pod = PodName::new(&key, 1, slot);
            let upstream = Arc::new(PodUpstream::<FakePod>::empty());
            endpoints.enter(&pod, 0, 1, upstream).set_ready(true);
        }
        let load = edge.gateway().load(&key).expect("it is published");
        assert_eq!(load.endpoints.len(), 2);
    }
    // One for the first pod of each, and two for the second.
    assert_eq!(edge.gathered(), 3 * SERVICES as usize);
}
