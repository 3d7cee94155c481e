//! Bodies through the whole program: HTTP/2 without TLS, streams both ways, trailers.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};

use crate::rig::{Running, guest, sampan};

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
