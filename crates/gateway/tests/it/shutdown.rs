//! Stopping a server: nothing in flight is lost in the time it has, and what is cut is counted.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{
    BodyExt,
    channel::{Channel, Sender},
};
use sampan_gateway::{BodyError, Drained, Endpoint, Limits, Server, empty};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
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
    let limits = Limits {
        drain_idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let gateway = gateway_with(limits, web(), [endpoint]);
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
    assert_eq!(rest, b"", "a connection without a request closes");
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

/// Reads one answer whose body is `hello`, and says whether it is the last one on its connection.
async fn answered(io: &mut (impl AsyncRead + Unpin)) -> bool {
    let head = read_head(io).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut body = [0; 5];
    io.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"hello");
    head.contains("connection: close\r\n")
}

/// Reads to the end, where nothing may be left.
async fn ends(io: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

const NONE_CUT: Drained = Drained {
    connections: 0,
    requests: 0,
};

#[tokio::test(start_paused = true)]
async fn an_open_connection_is_answered_once_more_and_told() {
    let gateway = gateway(web(), [ready(0, 10, says("hello"))]);
    let (mut server, dial) = serve_pipes(&gateway);
    let mut fresh = dial.connect().await;
    let mut used = dial.connect().await;
    let mut silent = dial.connect().await;
    for io in [&mut used, &mut silent] {
        io.write_all(GET).await.unwrap();
        assert!(!answered(io).await);
    }
    server.stop();
    let begin = Instant::now();
    settle().await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    for io in [&mut fresh, &mut used] {
        io.write_all(GET).await.unwrap();
        assert!(answered(io).await);
        ends(io).await;
    }
    ends(&mut silent).await;
    let took = begin.elapsed().as_millis();
    assert!((1000..1100).contains(&took), "{took} ms");
    drop((fresh, used));
    assert_eq!(server.done().await, NONE_CUT);
}

#[tokio::test(start_paused = true)]
async fn all_requests_that_were_sent_are_answered_and_the_last_says_close() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let gateway = gateway(web(), [ready(0, 10, says_after(&gate, "hello"))]);
    let (mut server, dial) = serve_pipes(&gateway);
    let mut busy = dial.connect().await;
    busy.write_all(&GET.repeat(3)).await.unwrap();
    // A head that is not whole, alone and behind others.
    let mut halved = dial.connect().await;
    halved.write_all(&GET[..20]).await.unwrap();
    let mut behind = dial.connect().await;
    behind
        .write_all(&[GET, GET, &GET[..20]].concat())
        .await
        .unwrap();
    settle().await;
    // Not accepted yet.
    let mut waiting = dial.connect().await;
    waiting.write_all(&GET.repeat(2)).await.unwrap();
    server.stop();
    settle().await;
    gate.add_permits(100);
    for last in [false, false, true] {
        assert_eq!(answered(&mut busy).await, last);
    }
    ends(&mut busy).await;
    for last in [false, true] {
        assert_eq!(answered(&mut waiting).await, last);
    }
    ends(&mut waiting).await;
    for _ in 0..2 {
        assert!(!answered(&mut behind).await);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    for io in [&mut halved, &mut behind] {
        io.write_all(&GET[20..]).await.unwrap();
        assert!(answered(io).await);
        ends(io).await;
    }
    drop((busy, halved, behind, waiting));
    assert_eq!(server.done().await, NONE_CUT);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_still_coming_is_taken() {
    // To the pod, and before there is one.
    for (limits, is_begun) in [(nothing_ahead(), true), (Limits::default(), false)] {
        let gateway = gateway_with(limits, web(), [ready(0, 10, echoes())]);
        let (mut server, dial) = serve_pipes(&gateway);
        let mut io = dial.connect().await;
        let post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nfour";
        io.write_all(post).await.unwrap();
        if is_begun {
            let head = read_head(&mut io).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        settle().await;
        server.stop();
        tokio::time::sleep(Duration::from_secs(3)).await;
        // The rest of it, and one more before its answer has ended.
        io.write_all(b"more").await.unwrap();
        io.write_all(post).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        io.write_all(b"last").await.unwrap();
        let mut rest = Vec::new();
        io.read_to_end(&mut rest).await.unwrap();
        let rest = String::from_utf8(rest).unwrap();
        let heads = 2 - usize::from(is_begun);
        assert_eq!(rest.matches("HTTP/1.1 200").count(), heads, "{rest}");
        assert!(rest.contains("last"), "{rest}");
        drop(io);
        assert_eq!(server.done().await, NONE_CUT);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_stream_its_connection_takes_one_more() {
    let (endpoint, bodies) = streaming();
    let gateway = gateway(web(), [endpoint]);
    let (mut server, dial) = serve_pipes(&gateway);
    let mut io = dial.connect().await;
    io.write_all(GET).await.unwrap();
    let head = read_head(&mut io).await;
    assert!(!head.contains("connection: close"), "{head}");
    server.stop();
    tokio::time::sleep(Duration::from_secs(20)).await;
    // Its end, and at once the next request.
    bodies.lock().unwrap().clear();
    let mut end = [0; 5];
    io.read_exact(&mut end).await.unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
    io.write_all(GET).await.unwrap();
    let head = read_head(&mut io).await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    bodies.lock().unwrap().clear();
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"0\r\n\r\n");
    drop(io);
    assert_eq!(server.done().await, NONE_CUT);
}

/// The frames in `bytes` as type, stream and payload: RFC 9113 §4.1.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, w, x, y, z, rest @ ..] = bytes {
        let (payload, after) = rest.split_at(u32::from_be_bytes([0, *a, *b, *c]) as usize);
        frames.push((
            *kind,
            u32::from_be_bytes([*w, *x, *y, *z]),
            payload.to_vec(),
        ));
        bytes = after;
    }
    frames
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_is_told_twice_and_what_crosses_the_first_is_answered() {
    const HEADERS: u8 = 1;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let gateway = gateway(web(), [ready(0, 10, says("hello"))]);
    let (mut server, dial) = serve_pipes(&gateway);
    let mut io = dial.connect().await;
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    settle().await;
    server.stop();
    settle().await;
    let mut bytes = vec![0; 4096];
    let length = io.read(&mut bytes).await.unwrap();
    let first = frames(&bytes[..length]);
    let goaway = first.iter().find(|(kind, ..)| *kind == GOAWAY);
    let (.., payload) = goaway.expect("the first GOAWAY");
    assert_eq!(payload[..4], [0x7f, 0xff, 0xff, 0xff], "{first:?}");
    let ping = first.iter().find(|(kind, ..)| *kind == PING);
    let (.., ping) = ping.expect("a PING");
    // HEADERS of stream 1 that crossed it: GET, http, /, authority `a`. Then the answer to the PING.
    io.write_all(&[0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, b'a'])
        .await
        .unwrap();
    io.write_all(&[0, 0, 8, 6, 1, 0, 0, 0, 0]).await.unwrap();
    io.write_all(ping).await.unwrap();
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    let rest = frames(&rest);
    assert!(
        rest.iter()
            .any(|(kind, stream, _)| (*kind, *stream) == (HEADERS, 1)),
        "{rest:?}"
    );
    let goaway = rest.iter().find(|(kind, ..)| *kind == GOAWAY);
    let (.., payload) = goaway.expect("the second GOAWAY");
    assert_eq!(payload[..4], [0, 0, 0, 1], "{rest:?}");
    drop(io);
    assert_eq!(server.done().await, NONE_CUT);
}

#[tokio::test]
async fn connections_that_wait_to_be_accepted_are_served() {
    let limits = Limits {
        // Fewer than there are: the others have their turn.
        connections: 3,
        ..Limits::default()
    };
    let gateway = gateway_with(limits, web(), [ready(0, 10, says("hello"))]);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(gateway, address).await.unwrap();
    let address = server.local_addr();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut io = tcp(address).await;
        io.write_all(GET).await.unwrap();
        clients.push(io);
    }
    let served = tokio::spawn(server.run(std::future::ready(())));
    for mut io in clients {
        assert!(answered(&mut io).await);
        ends(&mut io).await;
    }
    assert_eq!(served.await.unwrap(), NONE_CUT);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_is_sent_after_the_last_answer_does_not_destroy_it() {
    let (endpoint, bodies) = streaming();
    let mut config = web();
    config.body = 10;
    let gateway = gateway(config, [endpoint]);
    let mut server = serve(&gateway).await;
    // More of a body than is wanted, as fast as it goes.
    let refused = async |mut io: TcpStream| {
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\n";
        io.write_all(head).await.unwrap();
        let sent = io.write_all(&vec![b'x'; 4 << 20]).await;
        let head = read_head(&mut io).await;
        assert!(head.starts_with("HTTP/1.1 413"), "{head}");
        sent
    };
    refused(tcp(server.address).await).await.unwrap();
    // Something behind an answer that says that it is the last.
    let mut io = tcp(server.address).await;
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut io).await;
    assert!(head.contains("connection: close"), "{head}");
    let mut sender = bodies.lock().unwrap().pop().unwrap();
    let large = Bytes::from(vec![b'y'; 1 << 20]);
    let feed = tokio::spawn(async move { sender.send_data(large).await.unwrap() });
    server.stop();
    for _ in 0..10 {
        io.write_all(GET).await.unwrap();
    }
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n") && rest.len() > 1 << 20);
    feed.await.unwrap();
    drop(io);
    assert_eq!(server.done().await, NONE_CUT);
}

#[tokio::test(start_paused = true)]
async fn every_wait_for_a_client_has_an_end() {
    let gateway = gateway(web(), [ready(0, 10, says("hello"))]);
    let (mut server, dial) = serve_pipes(&gateway);
    // None of them closes its end.
    let mut told = dial.connect().await;
    let mut slow = dial.connect().await;
    let idle = dial.connect().await;
    slow.write_all(&GET[..10]).await.unwrap();
    settle().await;
    server.stop();
    settle().await;
    told.write_all(GET).await.unwrap();
    assert!(answered(&mut told).await);
    let begin = Instant::now();
    assert_eq!(server.done().await, NONE_CUT);
    // The head has had its ten seconds.
    let took = begin.elapsed().as_secs();
    assert!((9..=10).contains(&took), "{took} s");
    drop((told, slow, idle));
}
