//! Other nodes behind a gateway, and requests of other nodes before one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use sampan_core::{fault::Fault, name::Name};
use sampan_gateway::{
    AnsweredBy, Body, Endpoint, EndpointState, Gateway, Limits, NodeEndpoint, Offer,
    RequestContext, ServiceConfig, Targets, Turned, Upstream, UpstreamError, UpstreamFuture, full,
};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, advance},
};

use crate::fixture::*;

/// A node that is another gateway in this process.
struct Through {
    gateway: Gateway,
    /// What refused requests carried.
    refused: Arc<Mutex<Vec<String>>>,
}

impl Upstream for Through {
    fn call(&self, request: Request<Body>, context: &RequestContext) -> UpstreamFuture {
        let (gateway, context) = (self.gateway.clone(), context.clone());
        let refused = self.refused.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let request = || Request::from_parts(head.clone(), full(bytes.clone()));
            let turned = match gateway.reserve(&name("web")) {
                Some(slot) => slot.answer(request(), &context).await,
                None => Err(Turned::NotBegun),
            };
            match turned {
                Ok(response) => Ok(response.map(BodyExt::boxed_unsync)),
                Err(Turned::NotBegun) => {
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    refused.lock().unwrap().push(text);
                    let request = Box::new(request());
                    Err(UpstreamError::Refused { request })
                }
                Err(Turned::Failed {
                    kind,
                    repeatable,
                    by,
                }) => Err(UpstreamError::FailedElsewhere {
                    kind,
                    repeatable,
                    by: by.map(Box::new),
                }),
            }
        })
    }
}

fn offer(ready: u32, capacity: u32, free: u32) -> Offer {
    Offer {
        ready,
        capacity,
        free,
    }
}

fn node(name: &str, upstream: Arc<dyn Upstream>, offer: Offer) -> Arc<NodeEndpoint> {
    let node = NodeEndpoint::new(Name::parse(name).unwrap(), upstream);
    node.say(offer);
    node
}

/// A gateway with pods of its own and other nodes.
fn with_nodes(
    config: ServiceConfig,
    own: Vec<Arc<Endpoint>>,
    nodes: &[&Arc<NodeEndpoint>],
) -> Gateway {
    let gateway = Gateway::new(Limits::default());
    publish(&gateway, config, own, nodes);
    gateway
}

fn publish(
    gateway: &Gateway,
    config: ServiceConfig,
    own: Vec<Arc<Endpoint>>,
    nodes: &[&Arc<NodeEndpoint>],
) {
    let nodes = nodes.iter().map(|it| Arc::clone(it)).collect();
    let targets = Targets::new(own.into(), nodes);
    let change = Some((config, targets));
    gateway.change(BTreeMap::from([(name("web"), change)]));
}

/// Another node with these pods, and what was refused there.
fn elsewhere(
    pods: Vec<Arc<Endpoint>>,
    offer: Offer,
) -> (Gateway, Arc<NodeEndpoint>, Arc<Mutex<Vec<String>>>) {
    let gateway = gateway(web(), pods);
    let refused = Arc::<Mutex<Vec<_>>>::default();
    let through = Through {
        gateway: gateway.clone(),
        refused: refused.clone(),
    };
    let node = node("b", Arc::new(through), offer);
    (gateway, node, refused)
}

fn sent(gateway: &Gateway, request: Request<Body>) -> JoinHandle<Response<bytes::Bytes>> {
    let gateway = gateway.clone();
    tokio::spawn(async move { send(&gateway, request).await })
}

fn text(response: &Response<bytes::Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

#[tokio::test]
async fn a_node_without_pods_has_another_one_answer_and_each_counts_its_part() {
    let (b, node, _) = elsewhere(vec![ready(0, 4, echoes())], offer(1, 4, 4));
    let config = ServiceConfig {
        debug_headers: true,
        ..web()
    };
    let a = with_nodes(config, vec![], &[&node]);
    let answer = send(&a, post("/x", full("hello"))).await;
    assert_eq!((answer.status(), text(&answer)), (StatusCode::OK, "hello"));
    // Which pod that was is known here.
    assert_eq!(answer.headers()["sampan-pod"], "web-1-0");
    assert_eq!(answer.headers()["sampan-revision"], "1");
    let service = name("web");
    let by = a.revision_stats(&service);
    let answered: Vec<_> = by.iter().map(|it| (it.revision, it.classes[1])).collect();
    assert_eq!(answered, [(None, 0), (Some(1), 1)]);
    // The service is counted where the request came in, the pod where it is.
    let (at_a, at_b) = (a.load(&service).unwrap(), b.load(&service).unwrap());
    assert_eq!(
        (at_a.requests, at_a.ended, at_b.requests, at_b.ended),
        (1, 1, 0, 0)
    );
    assert_eq!((at_a.endpoints.len(), at_b.endpoints[0].requests), (0, 1));
    assert_eq!(b.stats(&service).unwrap().classes, [0; 5]);
    assert_eq!(
        (node.in_flight(), at_b.endpoints[0].in_flight.in_flight()),
        (0, 0)
    );
}

#[tokio::test]
async fn without_debug_headers_no_client_sees_the_pod_of_another_node() {
    let (_, node, _) = elsewhere(vec![ready(0, 4, says("b"))], offer(1, 4, 4));
    let a = with_nodes(web(), vec![], &[&node]);
    let answer = send(&a, get("/")).await;
    assert_eq!(text(&answer), "b");
    let own = |name: &http::HeaderName| name.as_str().starts_with("sampan-");
    assert!(!answer.headers().keys().any(own), "{answer:?}");
}

#[tokio::test]
async fn without_load_all_stays_here_and_with_load_a_pod_here_has_twice_as_much() {
    let gate = Arc::new(Semaphore::new(0));
    let nodes = ["b", "c"].map(|name| {
        let upstream = says_after(&gate, "elsewhere");
        node(name, upstream, offer(1, 1000, 1000))
    });
    let own = ready(0, 1000, says_after(&gate, "here"));
    let a = with_nodes(web(), vec![own.clone()], &[&nodes[0], &nodes[1]]);
    for _ in 0..20 {
        gate.add_permits(1);
        assert_eq!(text(&send(&a, get("/")).await), "here");
    }
    let all: Vec<_> = (0..100).map(|_| sent(&a, get("/"))).collect();
    settle().await;
    let shares = [own.in_flight(), nodes[0].in_flight(), nodes[1].in_flight()];
    let is_near = |share: u32, wanted: u32| share.abs_diff(wanted) <= 3;
    assert!(
        is_near(shares[0], 50) && is_near(shares[1], 25) && is_near(shares[2], 25),
        "{shares:?}"
    );
    gate.add_permits(100);
    for one in all {
        assert_eq!(one.await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!((own.in_flight(), nodes[0].in_flight()), (0, 0));
}

/// The picture that the first node has is old: the other one has no free slot.
#[tokio::test(start_paused = true)]
async fn a_refused_request_stands_where_it_stood_and_speaks_against_no_pod() {
    let gate = Arc::new(Semaphore::new(0));
    let pod = ready(0, 1, says_after(&gate, "b"));
    let (b, node, refused) = elsewhere(vec![pod.clone()], offer(1, 2, 2));
    let a = with_nodes(web(), vec![], &[&node]);
    let held = b.reserve(&name("web")).expect("it is free");
    let first = sent(&a, post("/", full("first")));
    settle().await;
    assert_eq!(*refused.lock().unwrap(), ["first"]);
    // It waits, and is not sent again, before the node says something. Others wait behind it.
    let second = sent(&a, post("/", full("second")));
    settle().await;
    assert_eq!(refused.lock().unwrap().len(), 1);
    assert_eq!(
        (a.stats(&name("web")).unwrap().queued, node.in_flight()),
        (2, 0)
    );
    drop(held);
    node.say(offer(1, 1, 1));
    settle().await;
    assert_eq!(
        (pod.in_flight(), a.stats(&name("web")).unwrap().queued),
        (1, 1)
    );
    gate.add_permits(1);
    assert_eq!(text(&first.await.unwrap()), "b");
    gate.add_permits(1);
    assert_eq!(text(&second.await.unwrap()), "b");
    let stats = a.stats(&name("web")).unwrap();
    assert_eq!(
        (stats.retries, stats.ejections, stats.classes[4]),
        (0, 0, 0)
    );
    assert_eq!(b.stats(&name("web")).unwrap().ejections, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_waits_no_longer_than_its_queue_timeout_in_all() {
    let (_, node, refused) = elsewhere(vec![], offer(1, 2, 2));
    let a = with_nodes(web(), vec![], &[&node]);
    let began = Instant::now();
    let answer = sent(&a, get("/"));
    for _ in 0..9 {
        settle().await;
        advance(Duration::from_secs(1)).await;
        // Each time it is asked again, and refuses again.
        node.is_there();
    }
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(&answer).contains("in time"), "{}", text(&answer));
    assert_eq!(began.elapsed().as_secs(), web().queue_timeout.as_secs());
    assert!(
        refused.lock().unwrap().len() > 3,
        "more often than others come back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_queue_has_no_refused_request_wait() {
    let (_, node, _) = elsewhere(vec![], offer(1, 2, 2));
    let (_, other, _) = elsewhere(vec![ready(0, 1, says("c"))], offer(1, 1, 1));
    let config = ServiceConfig { queue: 0, ..web() };
    let a = with_nodes(config.clone(), vec![], &[&node]);
    assert_eq!(
        send_status(&a, get("/")).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    // Where another node has room it goes there.
    node.is_there();
    publish(&a, config, vec![], &[&node, &other]);
    for _ in 0..20 {
        node.is_there();
        assert_eq!(text(&send(&a, get("/")).await), "c");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_pods_of_other_nodes_and_gets_the_first_of_them() {
    let a = with_nodes(web(), vec![], &[]);
    let waiting = sent(&a, get("/"));
    settle().await;
    assert_eq!(a.parked_services(), [name("web")]);
    let (_, node, _) = elsewhere(vec![ready(0, 1, says("b"))], offer(1, 1, 1));
    publish(&a, web(), vec![], &[&node]);
    assert_eq!(text(&waiting.await.unwrap()), "b");
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_a_chance_while_a_node_has_pods_and_none_when_it_has_not() {
    let config = ServiceConfig {
        expects_pods: false,
        ..web()
    };
    let node = node("b", says("b"), offer(1, 1, 0));
    let a = with_nodes(config, vec![], &[&node]);
    let waiting = sent(&a, get("/"));
    settle().await;
    assert!(!waiting.is_finished() && a.parked_services().is_empty());
    node.say(Offer::default());
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        text(&answer).contains("no pod is ready"),
        "{}",
        text(&answer)
    );
}

#[tokio::test]
async fn a_service_with_pods_on_other_nodes_is_never_occupied() {
    let never = || pod(|_, _| std::future::pending());
    let own = ready(0, 1, never());
    let full = node("b", never(), offer(1, 1, 0));
    let a = with_nodes(web(), vec![own.clone()], &[]);
    let _waiting = sent(&a, get("/"));
    settle().await;
    assert_eq!(a.occupied(&name("web")), Some(vec![(own.pod().clone(), 1)]));
    publish(&a, web(), vec![own], &[&full]);
    assert_eq!(a.occupied(&name("web")), None);
}

#[tokio::test]
async fn a_request_of_another_node_gets_a_slot_of_this_one_alone() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let upstream = pod(move |_, _| {
        counted.fetch_add(1, SeqCst);
        async { Ok(Response::new(full("c"))) }
    });
    let c = node("c", upstream, offer(1, 10, 10));
    let own = ready(0, 1, says("b"));
    let b = with_nodes(web(), vec![own.clone()], &[&c]);
    let held = b.reserve(&name("web")).expect("its slot");
    assert!(
        b.reserve(&name("web")).is_none(),
        "that of `c` is not for others"
    );
    drop(held);
    own.set_state(EndpointState::Unready);
    assert!(b.reserve(&name("web")).is_none());
    assert!(b.reserve(&name("api")).is_none());
    assert_eq!(calls.load(SeqCst), 0);
}

#[tokio::test]
async fn a_pod_that_gives_a_request_back_makes_its_node_refuse_it() {
    let returns = pod(|request, _| async move {
        Err(UpstreamError::Returned {
            kind: Fault::Unavailable,
            request: Box::new(request),
        })
    });
    let (b, node, refused) = elsewhere(vec![ready(0, 1, returns)], offer(1, 1, 1));
    let (_, good, _) = elsewhere(vec![ready(1, 1, echoes())], offer(1, 1, 1));
    let a = with_nodes(web(), vec![], &[&node]);
    let waiting = sent(&a, post("/", full("whole")));
    settle().await;
    assert_eq!(*refused.lock().unwrap(), ["whole"]);
    publish(&a, web(), vec![], &[&node, &good]);
    assert_eq!(text(&waiting.await.unwrap()), "whole");
    assert_eq!(
        b.load(&name("web")).unwrap().endpoints[0]
            .in_flight
            .in_flight(),
        0
    );
}

#[tokio::test]
async fn a_failure_elsewhere_has_the_name_of_its_pod_and_is_tried_again_as_here() {
    let (_, node, _) = elsewhere(vec![ready(3, 1, fails(Fault::Trapped))], offer(1, 1, 1));
    let config = ServiceConfig {
        debug_headers: true,
        ..web()
    };
    let a = with_nodes(config, vec![], &[&node]);
    let answer = send(&a, get("/")).await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.headers()["sampan-pod"], "web-1-3");

    // A node that has gone with a request that may be repeated.
    let lost = pod(|_, _| async {
        Err(UpstreamError::FailedElsewhere {
            kind: Fault::NodeLost,
            repeatable: true,
            by: None::<Box<AnsweredBy>>,
        })
    });
    // One that fails too often rests for a while, so each part has its own.
    let fresh = || self::node("b", lost.clone(), offer(1, 1, 1));
    let alone = with_nodes(web(), vec![], &[&fresh()]);
    let answer = send(&alone, get("/")).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    let (_, good, _) = elsewhere(vec![ready(0, 9, says("c"))], offer(1, 9, 9));
    publish(&alone, web(), vec![], &[&fresh(), &good]);
    for _ in 0..10 {
        assert_eq!(text(&send(&alone, get("/")).await), "c");
    }
    // A POST is not, and its client is told.
    publish(&alone, web(), vec![], &[&fresh(), &good]);
    let statuses = [(); 20].map(|()| send_status(&alone, post("/", full("x"))));
    let mut seen = Vec::new();
    for status in statuses {
        seen.push(status.await);
    }
    assert!(seen.contains(&StatusCode::BAD_GATEWAY), "{seen:?}");
}

#[tokio::test]
async fn a_node_that_is_silent_gets_nothing_while_there_is_another() {
    let [b, c] = ["b", "c"].map(|name| {
        let text = if name == "b" { "b" } else { "c" };
        node(name, says(text), offer(1, 100, 100))
    });
    let a = with_nodes(web(), vec![], &[&b, &c]);
    b.is_silent();
    for _ in 0..20 {
        assert_eq!(text(&send(&a, get("/")).await), "c");
    }
    // It is the only one that there is.
    publish(&a, web(), vec![], &[&b]);
    assert_eq!(text(&send(&a, get("/")).await), "b");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_keeps_failing_rests_but_never_the_last() {
    let bad = node("b", fails(Fault::NodeLost), offer(1, 100, 100));
    let good = node("c", says("c"), offer(1, 100, 100));
    let a = with_nodes(web(), vec![], &[&bad]);
    for _ in 0..20 {
        assert_eq!(send_status(&a, get("/")).await, StatusCode::BAD_GATEWAY);
    }
    publish(&a, web(), vec![], &[&bad, &good]);
    let mut failed = 0;
    for _ in 0..200 {
        failed += u32::from(send_status(&a, get("/")).await != StatusCode::OK);
    }
    assert!(failed <= 5, "{failed} of 200");
    assert_eq!(a.stats(&name("web")).unwrap().ejections, 1);
}

#[tokio::test]
async fn it_says_what_is_free_for_others() {
    let gate = Arc::new(Semaphore::new(0));
    let pods = vec![ready(0, 2, says_after(&gate, "x")), ready(1, 1, says("y"))];
    let a = gateway(web(), &pods);
    let offers = |gateway: &Gateway| {
        let mut all = Vec::new();
        gateway.offers(|service, offer| all.push((service.clone(), offer)));
        all
    };
    assert_eq!(offers(&a), [(name("web"), offer(2, 3, 3))]);
    pods[1].set_state(EndpointState::Terminating);
    let held = sent(&a, get("/"));
    settle().await;
    assert_eq!(offers(&a), [(name("web"), offer(1, 2, 1))]);
    pods[0].set_state(EndpointState::Unready);
    assert_eq!(offers(&a), []);
    gate.add_permits(1);
    held.await.unwrap();
}
