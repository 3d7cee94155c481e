//! Bodies through the whole program: HTTP/2 without TLS, streams both ways, trailers.

#![allow(
    clippy::print_stderr,
    reason = "figures that are printed with `--nocapture`"
)]

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};

use crate::rig::{Running, directory, guest, sampan};

/// Bytes of each piece.
const PIECE: usize = 64 << 10;

type Pieces =
    StreamBody<tokio_stream::wrappers::ReceiverStream<Result<Frame<Bytes>, std::io::Error>>>;

async fn connect(at: SocketAddr) -> http2::SendRequest<Pieces> {
    let stream = TcpStream::connect(at).await.expect("it accepts");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn every_piece_comes_back_before_the_next_is_sent_and_the_trailers_at_the_end() {
    for (guest_name, path) in [("echo", "/"), ("stream-p3", "/echo")] {
        let mut running = Running::start(sampan(&[
            "run",
            &guest(guest_name),
            "--addr",
            "127.0.0.1:0",
        ]));
        let mut sender = connect(running.address()).await;
        let (send, pieces) = mpsc::channel(1);
        let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(pieces));
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("te", "trailers")
            .header("trailer", "x-check")
            .body(body)
            .expect("a good request");
        let response = tokio::spawn(sender.send_request(request));
        let piece = |number: u8| Bytes::from(vec![number; PIECE]);
        send.send(Ok(Frame::data(piece(0))))
            .await
            .expect("it reads");
        let response = response.await.expect("no panic").expect("a response");
        assert_eq!(response.status(), 200, "{guest_name}");
        let mut body = response.into_body();
        for number in 1..=100 {
            let mut back = 0;
            while back < PIECE {
                let frame = body.frame().await.expect("more").expect("no error");
                let data = frame.into_data().expect("data");
                assert!(
                    data.iter().all(|&byte| byte == number - 1),
                    "{guest_name} {number}"
                );
                back += data.len();
            }
            assert_eq!(back, PIECE, "{guest_name} {number}");
            if number < 100 {
                send.send(Ok(Frame::data(piece(number))))
                    .await
                    .expect("it reads");
            }
        }
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-check"),
            HeaderValue::from_static("all aboard"),
        )]);
        send.send(Ok(Frame::trailers(trailers)))
            .await
            .expect("it reads");
        drop(send);
        let end = body.collect().await.expect("a clean end");
        let trailers = end.trailers().expect("trailers");
        assert_eq!(trailers["x-check"], "all aboard", "{guest_name}");
    }
}

/// Memory of a process that is resident, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("proc(5)") << 10
}

/// Sends so many pieces through the path and reads as many, both at once. Tells the most memory
/// that the process had meanwhile.
async fn pass(pid: u32, at: SocketAddr, path: &str, pieces: usize) -> u64 {
    let mut sender = connect(at).await;
    let (send, receive) = mpsc::channel(1);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receive));
    let request = http::Request::post(format!("http://localhost{path}"));
    let request = request.body(body).expect("a good request");
    let sending = tokio::spawn(async move {
        for number in 0..pieces {
            let piece = Bytes::from(vec![number as u8; PIECE]);
            send.send(Ok(Frame::data(piece))).await.expect("it reads");
        }
    });
    let response = sender.send_request(request).await.expect("a response");
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let (mut back, mut most) = (0, 0);
    while let Some(frame) = body.frame().await {
        let data = frame.expect("no error").into_data().expect("data");
        for (at, byte) in data.iter().enumerate().step_by(1024) {
            assert_eq!(*byte, ((back + at) / PIECE) as u8, "at {}", back + at);
        }
        // Once a megabyte.
        if back >> 20 != (back + data.len()) >> 20 {
            most = most.max(resident(pid));
        }
        back += data.len();
    }
    sending.await.expect("all is sent");
    assert_eq!(back, pieces * PIECE);
    most
}

/// `SAMPAN_STREAM_MIB=1024` makes it a gibibyte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_body_through_three_services_takes_little_memory() {
    const MOST: u64 = 64 << 20;
    let mib = std::env::var("SAMPAN_STREAM_MIB").ok();
    let mib: usize = mib.and_then(|it| it.parse().ok()).unwrap_or(128);
    let component = guest("stream-p3");
    let service = |name: &str, more: &str| {
        format!(
            "[service.{name}]\ncomponent = '{component}'\nlimits = {{ request_timeout = '10m', body = '2GiB' }}\n{more}\n"
        )
    };
    let spec = [
        "app = 'long'\n".to_owned(),
        service("a", "route = ['/']\nallow.services = ['b']"),
        service("b", "allow.services = ['c']"),
        service("c", ""),
    ];
    let home = directory(&[("sampan.toml", spec.concat().as_bytes())]);
    let file = home.path().join("sampan.toml").display().to_string();
    let mut running = Running::start(sampan(&["up", "-f", &file, "--http", "127.0.0.1:0"]));
    let path = "/forward?url=http://b/forward%3Furl=http%253A%252F%252Fc%252Fecho";
    let (pid, at) = (running.id(), running.address());
    let before = pass(pid, at, path, 64).await;
    let most = pass(pid, at, path, mib * 16).await;
    let more = most.saturating_sub(before);
    eprintln!("{mib} MiB there and back: {} MiB more", more >> 20);
    assert!(more < MOST, "{} MiB more", more >> 20);
}

#[tokio::test]
async fn a_guest_that_dies_in_mid_response_is_no_success() {
    for guest_name in ["slow", "stream-p3"] {
        let mut running = Running::start(sampan(&[
            "run",
            &guest(guest_name),
            "--addr",
            "127.0.0.1:0",
        ]));
        let at = running.address();
        let mut sender = connect(at).await;
        let (_, pieces) = mpsc::channel(1);
        let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(pieces));
        let request = http::Request::get("http://localhost/die-after-head").body(body);
        // A reset overtakes a head that is not on its way yet, and a head that waits for the body
        // of a small response becomes that of an error.
        if let Ok(response) = sender.send_request(request.expect("good")).await {
            let status = response.status();
            let end = response.into_body().collect().await;
            assert!(
                status == 500 || status == 200 && end.is_err(),
                "{guest_name}: {status} with a clean end"
            );
        }
        // The same over HTTP/1.1, byte by byte: the last chunk must be missing.
        let bytes = raw(
            at,
            "GET /die-after-head HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        .await;
        let text = String::from_utf8_lossy(&bytes);
        let is_broken = text.starts_with("HTTP/1.1 200") && !text.ends_with("0\r\n\r\n");
        let is_error = text.starts_with("HTTP/1.1 500");
        assert!(is_broken || is_error, "{guest_name}: {text}");
    }
}

/// Sends these bytes and reads until the connection ends, however it does.
async fn raw(at: SocketAddr, request: &str) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(at).await.expect("it accepts");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}
