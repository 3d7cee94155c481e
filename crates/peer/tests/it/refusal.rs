//! What a node does not begin with, and how the node that asks sees that.

use http::Request;
use http_body_util::BodyExt as _;
use sampan_peer::{Limits, PeerError, full};

use crate::fixture::{Cluster, get, name, send, soon};

#[tokio::test]
async fn a_request_that_is_refused_has_not_begun_and_the_connection_goes_on() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let client = cluster.client("b");
    for _ in 0..3 {
        let request = Request::post("/refuse").body(full("x".repeat(1000)));
        let refused = send(&client, &a.remote, request.expect("a request")).await;
        let error = refused.expect_err("it is refused");
        assert!(matches!(error, PeerError::Refused { .. }), "{error}");
        assert!(!error.has_begun());
        let said = get(&client, &a.remote, "/x").await.expect("an answer");
        assert_eq!(said, "/x for b");
    }
}

/// An upstream of the door's own may have been refused a stream: that says nothing of this one, whose
/// request has begun.
#[tokio::test]
async fn the_error_of_another_connection_is_no_refusal_of_this_one() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let client = cluster.client("b");
    for _ in 0..20 {
        let request = Request::get("/foreign").body(sampan_peer::empty());
        let sent = client.send(&a.remote, request.expect("a request"));
        match soon("an answer", sent).await {
            Ok(response) => {
                let body = soon("the end of a body", response.into_body().collect()).await;
                body.expect_err("it breaks off");
            }
            Err(error) => assert!(error.has_begun(), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_node_that_is_not_there_has_begun_with_nothing() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let (remote, client) = (a.remote.clone(), cluster.client("b"));
    a.stop().await;
    let error = get(&client, &remote, "/x").await.expect_err("it is gone");
    assert!(!error.has_begun(), "{error}");
}

#[tokio::test]
async fn a_node_that_dies_may_have_begun() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let (remote, client) = (a.remote.clone(), cluster.client("b"));
    let request = Request::get("/dropped").body(sampan_peer::empty());
    let sent = client.send(&remote, request.expect("a request"));
    let kill = async {
        soon("the request", until_noted(&cluster, "begun")).await;
        drop(a);
    };
    let (answered, ()) = tokio::join!(soon("the end of a connection", sent), kill);
    let error = answered.expect_err("its node has gone");
    assert!(error.has_begun(), "{error}");
}

#[tokio::test]
async fn a_request_that_is_dropped_ends_at_the_other_node() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let client = cluster.client("b");
    let request = Request::get("/dropped").body(sampan_peer::empty());
    let sent = client.send(&a.remote, request.expect("a request"));
    tokio::select! {
        answered = sent => panic!("it is never answered: {answered:?}"),
        () = soon("the request", until_noted(&cluster, "begun")) => {}
    }
    soon("its end", until_noted(&cluster, "ended")).await;
}

#[tokio::test]
async fn a_door_may_take_bodies_of_any_length() {
    let cluster = Cluster::new();
    let limits = Limits {
        body_bytes: 1000,
        ..Limits::default()
    };
    let a = cluster.node_with("a", limits).await;
    let client = cluster.client("b");
    let request = Request::post("/length?any").body(full(vec![7; 3 << 20]));
    let said = send(&client, &a.remote, request.expect("a request")).await;
    assert_eq!(said.expect("an answer"), (3 << 20).to_string());
}

async fn until_noted(cluster: &Cluster, what: &str) {
    let noted = (name("b"), what.to_owned());
    while !cluster.asked.lock().contains(&noted) {
        tokio::task::yield_now().await;
    }
}
