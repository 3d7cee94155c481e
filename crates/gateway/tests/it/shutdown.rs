//! Stopping a server: nothing in flight is lost in the time it has, and what is cut is counted.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{
    BodyExt,
    channel::{Channel, Sender},
};
use sampan_gateway::{BodyError, Drained, Endpoint, empty};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::fixture::*;

type Bodies = Arc<Mutex<Vec<Sender<Bytes, BodyError>>>>;

/// A pod whose bodies the test feeds.
fn streaming() -> (Arc<Endpoint>, Bodies) {
    let bodies = Bodies::default();
    let upstream = pod({
        let bodies = bodies.clone();
        move |_, _| {
            let (sender, body) = Channel::<Bytes, BodyError>::new(4);
            bodies.lock().unwrap().push(sender);
            async { Ok(Response::new(body.boxed_unsync())) }
        }
    });
    (ready(0, 10, upstream), bodies)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn an_answer_in_flight_is_sent_to_its_end() {
    let (endpoint, bodies) = streaming();
    let gateway = gateway(web(), [endpoint]);
    let mut server = serve(&gateway).await;
    // Comes first, so that it is accepted when the second is served.
    let mut fresh = tcp(server.address).await;
    let mut busy = tcp(server.address).await;
    busy.write_all(GET).await.unwrap();
    let head = read_head(&mut busy).await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let mut two = h2(tcp(server.address).await).await;
    let request = Request::get("http://a/").body(empty()).unwrap();
    let answer = two.send_request(request).await.unwrap();

    server.stop();
    let mut rest = Vec::new();
    fresh.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"", "a connection without a request closes at once");
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "nobody is accepted"
    );
    assert!(!server.is_done());

    let mut senders = std::mem::take(&mut *bodies.lock().unwrap());
    for sender in &mut senders {
        sender.send_data(Bytes::from_static(b"the ")).await.unwrap();
        sender.send_data(Bytes::from_static(b"end")).await.unwrap();
    }
    drop(senders);
    busy.read_to_end(&mut rest).await.unwrap();
    assert_eq!(
        String::from_utf8(rest).unwrap(),
        "4\r\nthe \r\n3\r\nend\r\n0\r\n\r\n"
    );
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "the end"
    );
    assert_eq!(
        server.done().await,
        Drained {
            connections: 0,
            requests: 0
        }
    );
    assert!(two.is_closed());
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!(
        (stats.requests, stats.dropped, stats.canceled, stats.errors),
        (2, 0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_that_its_connection_closes() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let gateway = gateway(web(), [ready(0, 1, says_after(&gate, "hello"))]);
    let (mut server, dial) = serve_pipes(&gateway);
    let mut idle = dial.connect().await;
    gate.add_permits(1);
    idle.write_all(GET).await.unwrap();
    read_head(&mut idle).await;
    let mut busy = dial.connect().await;
    busy.write_all(GET).await.unwrap();
    settle().await;
    server.stop();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"hello");
    gate.add_permits(1);
    let head = read_head(&mut busy).await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(
        server.done().await,
        Drained {
            connections: 0,
            requests: 0
        }
    );
    assert!(dial.is_closed());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_cut_and_counted() {
    let (endpoint, bodies) = streaming();
    let gateway = gateway(web(), [endpoint.clone()]);
    let (mut server, dial) = serve_pipes(&gateway);
    let mut one = dial.connect().await;
    one.write_all(GET).await.unwrap();
    read_head(&mut one).await;
    let mut two = h2(dial.connect().await).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let request = Request::get("http://a/").body(empty()).unwrap();
        answers.push(two.send_request(request).await.unwrap());
    }
    assert_eq!(endpoint.in_flight(), 4);
    server.stop();
    let begin = Instant::now();
    let drained = server.done().await;
    assert_eq!(
        drained,
        Drained {
            connections: 2,
            requests: 4
        }
    );
    let took = begin.elapsed();
    assert!((30..31).contains(&took.as_secs()), "{took:?}");
    assert_eq!(endpoint.in_flight(), 0);
    assert!(bodies.lock().unwrap().iter_mut().all(|sender| {
        sender
            .try_send(http_body::Frame::data(Bytes::new()))
            .is_err()
    }));
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.dropped, stats.canceled, stats.in_flight), (4, 0, 0));
    // No client takes that for an end.
    let mut rest = Vec::new();
    one.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    for answer in answers {
        assert!(answer.into_body().collect().await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_cut_too() {
    let mut config = web();
    config.queue_timeout = Duration::from_secs(600);
    let gateway = gateway(config, []);
    let (mut server, dial) = serve_pipes(&gateway);
    let mut one = dial.connect().await;
    one.write_all(GET).await.unwrap();
    settle().await;
    assert_eq!(gateway.stats(&name("web")).unwrap().queued, 1);
    server.stop();
    assert_eq!(
        server.done().await,
        Drained {
            connections: 1,
            requests: 1
        }
    );
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.dropped, stats.queued), (1, 0));
}
