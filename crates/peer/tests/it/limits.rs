//! What a node takes of others, and what it does not.

use std::time::Duration;

use http::Request;
use sampan_peer::{Limits, full};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

use crate::fixture::{Cluster, get, send, soon, until_closed};

#[tokio::test]
async fn five_hundred_slow_handshakes_keep_no_node_out() {
    let cluster = Cluster::new();
    // They are slower than this test: it is by giving way that they make room.
    let limits = Limits {
        handshake_time: Duration::from_secs(600),
        ..Limits::default()
    };
    let a = cluster.node_with("a", limits).await;
    let mut slow = Vec::new();
    for number in 0..500 {
        let mut stream = TcpStream::connect(a.remote.address)
            .await
            .expect("a connection");
        // Half say nothing, half begin a record and do not end it.
        if number % 2 == 0 {
            stream
                .write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc")
                .await
                .expect("written");
        }
        slow.push(stream);
    }
    for node in ["b", "c", "d"] {
        let client = cluster.client(node);
        let said = get(&client, &a.remote, "/x").await.expect("an answer");
        assert_eq!(said, format!("/x for {node}"));
    }
    // No more of them are left than may be.
    let mut ended = JoinSet::new();
    for mut stream in slow {
        ended.spawn(async move { until_closed(&mut stream).await });
    }
    for _ in 0..500 - Limits::default().handshakes {
        let received = soon("a slow handshake to be cut off", ended.join_next()).await;
        assert_eq!(received.expect("one more").expect("no panic"), b"");
    }
}

#[tokio::test]
async fn a_slow_handshake_is_closed_when_its_time_is_up() {
    let cluster = Cluster::new();
    let limits = Limits {
        handshake_time: Duration::from_millis(50),
        ..Limits::default()
    };
    let a = cluster.node_with("a", limits).await;
    let mut stream = TcpStream::connect(a.remote.address)
        .await
        .expect("a connection");
    stream.write_all(b"\x16\x03\x01").await.expect("written");
    assert_eq!(until_closed(&mut stream).await, b"");
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    let cluster = Cluster::new();
    let limits = Limits {
        body_bytes: 100_000,
        ..Limits::default()
    };
    let a = cluster.node_with("a", limits).await;
    let client = cluster.client("b");
    for (length, answer) in [
        (100_000, "100000"),
        (100_001, "refused: length limit exceeded"),
    ] {
        let request = Request::post("/length")
            .body(full(vec![7; length]))
            .expect("a request");
        let said = send(&client, &a.remote, request).await.expect("an answer");
        assert_eq!(said, answer, "{length}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_does_not_reach_the_door() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let client = cluster.client("b");
    let request = Request::get("/x").header("x-large", "x".repeat(65 << 10));
    let request = request.body(sampan_peer::empty()).expect("a request");
    let answered = client.send(&a.remote, request);
    match soon("an answer", answered).await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.to_string().contains("node `a`"), "{error}"),
    }
    assert_eq!(*cluster.asked.lock(), []);
}

#[tokio::test]
async fn a_node_with_too_many_connections_loses_its_oldest() {
    let cluster = Cluster::new();
    let limits = Limits {
        connections_per_node: 2,
        ..Limits::default()
    };
    let a = cluster.node_with("a", limits).await;
    let clients = [(); 3].map(|()| cluster.client("b"));
    // A request that is never answered shows when its connection goes.
    let request = Request::get("/never")
        .body(sampan_peer::empty())
        .expect("a request");
    let waiting = clients[0].send(&a.remote, request);
    let more = async {
        for client in &clients[1..] {
            get(client, &a.remote, "/x").await.expect("an answer");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // The first has asked once it is there before the others.
        biased;
        ended = soon("the end of the oldest", waiting) => {
            ended.expect_err("it was cut off");
        }
        () = async {
            soon("the first request", async {
                while cluster.asked.lock().is_empty() {
                    tokio::task::yield_now().await;
                }
            }).await;
            more.await;
        } => {}
    }
    // Of the others none was.
    for client in &clients[1..] {
        get(client, &a.remote, "/x").await.expect("an answer");
    }
}

#[tokio::test]
async fn a_server_that_stops_lets_requests_end_and_the_client_finds_the_next_one() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let remote = a.remote.clone();
    let client = cluster.client("b");
    get(&client, &remote, "/x").await.expect("an answer");
    a.stop().await;
    let error = get(&client, &remote, "/x")
        .await
        .expect_err("no server listens there")
        .to_string();
    assert!(error.contains("node `a`"), "{error}");
    // It listens again, elsewhere.
    let again = cluster.node("a").await;
    assert_eq!(
        get(&client, &again.remote, "/y").await.expect("an answer"),
        "/y for b"
    );
}
