//! Over real sockets: HTTP/1.1, HTTP/1.0 and HTTP/2.

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, channel::Channel};
use sampan_core::fault::Fault;
use sampan_gateway::{
    Body, BodyError, Endpoint, EndpointState, ServiceConfig, Upstream, empty, full,
};
use tokio::io::AsyncWriteExt;

use crate::fixture::*;

/// A pod whose body fails after its first bytes.
fn breaks(length: Option<u64>) -> Arc<dyn Upstream> {
    pod(move |_, _| async move {
        let (mut sender, body) = Channel::<Bytes, BodyError>::new(2);
        tokio::spawn(async move {
            sender
                .send_data(Bytes::from_static(b"first part"))
                .await
                .unwrap();
            sender.abort(BodyError::Upstream(Fault::Trapped));
        });
        let mut response = Response::new(body.boxed_unsync());
        if let Some(length) = length {
            response
                .headers_mut()
                .insert("content-length", length.into());
        }
        Ok(response)
    })
}

#[tokio::test]
async fn an_answer_that_fails_does_not_end_cleanly_over_http1() {
    for length in [None, Some(20)] {
        let gateway = gateway(web(), [ready(0, 1, breaks(length))]);
        let server = serve(&gateway).await;
        let answer = talk(
            tcp(server.address).await,
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        )
        .await;
        let answer = answer.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        match length {
            None => assert!(
                answer.ends_with("\r\n\r\nA\r\nfirst part\r\n"),
                "{answer:?}"
            ),
            Some(_) => assert!(answer.ends_with("\r\n\r\nfirst part"), "{answer:?}"),
        }
        let stats = gateway.stats(&name("web")).unwrap();
        assert_eq!((stats.errors, stats.classes[1], stats.in_flight), (1, 1, 0));
    }
}

#[tokio::test]
async fn an_answer_that_fails_resets_an_http10_connection() {
    let gateway = gateway(web(), [ready(0, 1, breaks(None))]);
    let server = serve(&gateway).await;
    // Here the end of the connection is the end of the body, unless it is a reset.
    let answer = talk(tcp(server.address).await, b"GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    gateway.publish(vec![(web(), vec![ready(0, 1, says("whole"))])]);
    let answer = talk(tcp(server.address).await, b"GET / HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    assert!(answer.ends_with("\r\n\r\nwhole"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_fails_resets_its_http2_stream_alone() {
    let read = Arc::new(tokio::sync::Notify::new());
    let upstream = pod({
        let read = read.clone();
        move |_, _| {
            let read = read.clone();
            async move {
                let (mut sender, body) = Channel::<Bytes, BodyError>::new(2);
                tokio::spawn(async move {
                    sender
                        .send_data(Bytes::from_static(b"first part"))
                        .await
                        .unwrap();
                    read.notified().await;
                    sender.abort(BodyError::Upstream(Fault::Trapped));
                });
                Ok(Response::new(body.boxed_unsync()))
            }
        }
    });
    let gateway = gateway(web(), [ready(0, 1, upstream)]);
    let server = serve(&gateway).await;
    let mut client = h2(tcp(server.address).await).await;
    for _ in 0..2 {
        let request = Request::get("http://a/").body(empty()).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_2);
        let mut body = answer.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "first part");
        read.notify_one();
        let error = body.frame().await.unwrap().unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("stream error received"), "{source}");
    }
    assert_eq!(gateway.stats(&name("web")).unwrap().errors, 2);
}

fn sum(text: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        text.parse().unwrap(),
    )])
}

fn with_trailers(text: &'static str) -> Body {
    let (mut sender, body) = Channel::<Bytes, BodyError>::new(2);
    let mut trailers = sum("42");
    trailers.insert("content-length", 1.into());
    sender
        .try_send(Frame::data(Bytes::from_static(text.as_bytes())))
        .unwrap();
    sender.try_send(Frame::trailers(trailers)).unwrap();
    body.boxed_unsync()
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let upstream = pod({
        let seen = seen.clone();
        move |request: Request<Body>, _| {
            let seen = seen.clone();
            async move {
                let body = request.into_body().collect().await.unwrap();
                seen.lock().unwrap().push(body.trailers().cloned());
                let mut response = Response::new(with_trailers("down"));
                response
                    .headers_mut()
                    .insert("trailer", "x-sum".parse().unwrap());
                Ok(response)
            }
        }
    });
    let gateway = gateway(web(), [ready(0, 1, upstream)]);
    let server = serve(&gateway).await;
    let request = || {
        let request = Request::post("http://a/").header("te", "trailers");
        let request = request.header("host", "a").header("trailer", "x-sum");
        request.body(with_trailers("up")).unwrap()
    };
    let one = h1(tcp(server.address).await)
        .await
        .send_request(request())
        .await
        .unwrap();
    let two = h2(tcp(server.address).await)
        .await
        .send_request(request())
        .await
        .unwrap();
    for answer in [one, two] {
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.trailers(), Some(&sum("42")));
        assert_eq!(body.to_bytes(), "down");
    }
    assert_eq!(*seen.lock().unwrap(), [Some(sum("42")), Some(sum("42"))]);
}

#[tokio::test]
async fn bodies_stream_both_ways_in_bounded_pieces() {
    let largest = Arc::new(Mutex::new(0));
    let upstream = pod({
        let largest = largest.clone();
        move |request: Request<Body>, _| {
            let largest = largest.clone();
            async move {
                let body = request.into_body().map_frame(move |frame| {
                    let len = frame.data_ref().map_or(0, Bytes::len);
                    let mut largest = largest.lock().unwrap();
                    *largest = len.max(*largest);
                    frame
                });
                Ok(Response::new(body.boxed_unsync()))
            }
        }
    });
    let config = ServiceConfig {
        body: 8 << 20,
        ..web()
    };
    let gateway = gateway(config, [ready(0, 1, upstream)]);
    let body = Bytes::from(fastrand::Rng::with_seed(1).alphanumeric_bytes(5 << 20));
    // In one piece, as no network would deliver it.
    let answer = send(&gateway, post("/", full(body.clone()))).await;
    assert!(*answer.body() == body);
    assert_eq!(*largest.lock().unwrap(), 64 << 10);

    let server = serve(&gateway).await;
    let mut one = h1(tcp(server.address).await).await;
    let answer = one
        .send_request(post("/", full(body.clone())))
        .await
        .unwrap();
    assert!(answer.into_body().collect().await.unwrap().to_bytes() == body);
    let mut two = h2(tcp(server.address).await).await;
    let request = Request::post("http://a/").body(full(body.clone())).unwrap();
    let answer = two.send_request(request).await.unwrap();
    assert!(answer.into_body().collect().await.unwrap().to_bytes() == body);
    assert_eq!(*largest.lock().unwrap(), 64 << 10);
}

trait AlphanumericBytes {
    fn alphanumeric_bytes(&mut self, len: usize) -> Vec<u8>;
}

impl AlphanumericBytes for fastrand::Rng {
    fn alphanumeric_bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.alphanumeric() as u8).collect()
    }
}

#[tokio::test]
async fn a_connection_is_kept_and_pipelined() {
    let gateway = gateway(web(), [ready(0, 1, echoes())]);
    let server = serve(&gateway).await;
    let mut io = tcp(server.address).await;
    let mut client = h1(tcp(server.address).await).await;
    for n in 0..3 {
        let answer = client
            .send_request(post("/", full(n.to_string())))
            .await
            .unwrap();
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            n.to_string()
        );
    }
    let requests = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n1\
                    POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1\r\n\r\n2";
    let answer = talk(&mut io, requests.as_bytes()).await.unwrap();
    let heads = answer.matches("HTTP/1.1 200 OK").count();
    assert_eq!(
        (
            heads,
            answer.contains("\r\n\r\n1HTTP"),
            answer.ends_with("\r\n\r\n2")
        ),
        (2, true, true)
    );
    assert!(answer.contains("connection: close"));
}

#[tokio::test]
async fn requests_hyper_refuses_are_refused_with_the_right_status() {
    let gateway = gateway(web(), [ready(0, 1, says("web"))]);
    let server = serve(&gateway).await;
    let many = "x: 1\r\n".repeat(101);
    let large = format!("x: {}\r\n", "y".repeat(33 << 10));
    for (request, status) in [
        (
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            200,
        ),
        ("GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n".to_owned(), 400),
        (
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned(),
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{large}\r\n"), 431),
        (
            format!(
                "GET /{} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
                "y".repeat(8192)
            ),
            414,
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n".to_owned(),
            405,
        ),
        ("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
    ] {
        let answer = talk(tcp(server.address).await, request.as_bytes()).await;
        // A request that was not read to its end may end in a reset after the answer.
        let Ok(answer) = answer else { continue };
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:.60}: {answer}"
        );
    }
}

#[tokio::test]
async fn an_upload_known_to_be_too_large_is_refused_before_it_is_sent() {
    let config = ServiceConfig { body: 10, ..web() };
    let gateway = gateway(
        config,
        [ready(0, 1, pod(|_, _| async { panic!("called") }))],
    );
    let server = serve(&gateway).await;
    let mut io = tcp(server.address).await;
    io.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut io).await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    let mut two = h2(tcp(server.address).await).await;
    let request = Request::post("http://a/")
        .body(full(vec![0; 1 << 20]))
        .unwrap();
    let answer = two.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 413);
}

/// A pod that tells when its work on a request was dropped.
fn watched() -> (
    Arc<Endpoint>,
    tokio::sync::mpsc::Receiver<tokio::sync::oneshot::Receiver<()>>,
) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let upstream = pod(move |request: Request<Body>, _| {
        let (on_drop, dropped) = OnDrop::new();
        sender.try_send(dropped).unwrap();
        async move {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            let (mut sender, body) = Channel::<Bytes, BodyError>::new(1);
            sender
                .try_send(Frame::data(Bytes::from_static(b"x")))
                .unwrap();
            let body = body.map_frame(move |frame| {
                let _ = (&on_drop, &sender);
                frame
            });
            Ok(Response::new(body.boxed_unsync()))
        }
    });
    (ready(0, 1, upstream), receiver)
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_work_at_once() {
    let (endpoint, mut calls) = watched();
    let gateway = gateway(web(), [endpoint.clone()]);
    let server = serve(&gateway).await;
    for path in ["/never", "/body"] {
        let mut io = tcp(server.address).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let dropped = calls.recv().await.unwrap();
        if path == "/body" {
            read_head(&mut io).await;
        }
        drop(io);
        dropped.await.unwrap();

        let mut client = h2(tcp(server.address).await).await;
        let request = Request::get(format!("http://a{path}"))
            .body(empty())
            .unwrap();
        let answer = client.send_request(request);
        if path == "/body" {
            let mut answer = answer.await.unwrap();
            answer.body_mut().frame().await.unwrap().unwrap();
            let dropped = calls.recv().await.unwrap();
            drop(answer);
            dropped.await.unwrap();
        } else {
            let answer = tokio::spawn(answer);
            let dropped = calls.recv().await.unwrap();
            answer.abort();
            dropped.await.unwrap();
        }
        // The connection itself is still good.
        assert!(!client.is_closed());
    }
    // Counted just before the work is dropped, or just after.
    while gateway.stats(&name("web")).unwrap().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (
            gateway.stats(&name("web")).unwrap().canceled,
            endpoint.in_flight()
        ),
        (4, 0)
    );
}

#[tokio::test]
async fn a_request_body_that_stops_is_an_error_to_the_pod() {
    let (sender, mut errors) = tokio::sync::mpsc::channel(1);
    let upstream = pod(move |request: Request<Body>, _| {
        let sender = sender.clone();
        async move {
            // In a task of its own, so that it sees the end though the request is dropped.
            let body = tokio::spawn(request.into_body().collect());
            tokio::spawn(async move {
                let end = body.await.unwrap().map(|_| ());
                sender.send(end).await.unwrap();
            });
            std::future::pending::<Answer>().await
        }
    });
    let endpoint = ready(0, 10, upstream);
    let gateway = gateway_with(nothing_ahead(), web(), [endpoint.clone()]);
    let server = serve(&gateway).await;
    let mut io = tcp(server.address).await;
    io.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    drop(io);
    let error = errors.recv().await.unwrap();
    assert!(matches!(error, Err(BodyError::ClientGone)));
    let chunked = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let answer = talk(tcp(server.address).await, chunked).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let error = errors.recv().await.unwrap();
    assert!(matches!(error, Err(BodyError::Malformed(_))));
    // Though the pod does not give up by itself.
    endpoint.set_state(EndpointState::Terminating);
    endpoint.drained().await;
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.canceled, stats.classes[3]), (1, 1));
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let gateway = gateway(web(), [ready(0, 100, echoes()), ready(1, 100, echoes())]);
    let server = serve(&gateway).await;
    let client = h2(tcp(server.address).await).await;
    let calls: Vec<_> = (0..150)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let request = Request::post("http://a/")
                    .body(full(n.to_string()))
                    .unwrap();
                let answer = client.send_request(request).await.unwrap();
                answer.into_body().collect().await.unwrap().to_bytes()
            })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), n.to_string());
    }
}

#[tokio::test]
async fn an_inherited_listener_is_served() {
    let gateway = gateway(web(), [ready(0, 1, says("web"))]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = sampan_gateway::Server::from_listener(gateway, listener).unwrap();
    assert_eq!(server.local_addr(), address);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = talk(tcp(address).await, request).await.unwrap();
    assert!(answer.ends_with("web"), "{answer}");
    drop(stop);
    assert_eq!(run.await.unwrap().connections, 0);
}
