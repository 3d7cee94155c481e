//! Accepting, limits and times of connections, on a paused clock.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use sampan_gateway::{Accept, Gateway, Limits, Server, empty};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{Semaphore, mpsc},
    time::Instant,
};

use crate::fixture::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn hello() -> Gateway {
    gateway(web(), [ready(0, 100, says("hello"))])
}

/// Sends one request and reads its answer.
async fn ask(io: &mut DuplexStream) -> String {
    io.write_all(GET).await.unwrap();
    let head = read_head(io).await;
    let mut body = [0; 5];
    io.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"hello");
    head
}

/// Waits until the other side closes, and says after how many tenths of a second that was.
async fn closed(io: &mut DuplexStream, begin: Instant) -> u128 {
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    begin.elapsed().as_millis() / 100
}

/// Accepts a pipe after many errors, and notes when it was asked.
struct Flaky {
    errors: Vec<i32>,
    pipe: mpsc::Receiver<Pipe>,
    asked: mpsc::Sender<Instant>,
}

impl Accept for Flaky {
    type Accepted = Pipe;
    type Io = Pipe;

    async fn accept(&mut self) -> io::Result<(Pipe, SocketAddr)> {
        self.asked.send(Instant::now()).await.unwrap();
        if let Some(errno) = self.errors.pop() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        match self.pipe.recv().await {
            Some(pipe) => Ok((pipe, SocketAddr::from(([192, 0, 2, 1], 1)))),
            None => std::future::pending().await,
        }
    }

    fn close(self) -> impl Iterator<Item = (Pipe, SocketAddr)> + Send {
        std::iter::empty()
    }

    fn open(pipe: Pipe) -> io::Result<Pipe> {
        Ok(pipe)
    }
}

#[tokio::test(start_paused = true)]
async fn failing_accepts_are_spaced_out_and_end_nothing() {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ECONNABORTED: i32 = 103;
    let (pipes, pipe) = mpsc::channel(1);
    let (asked, mut times) = mpsc::channel(64);
    let errors = [EMFILE, ENFILE, ECONNABORTED].repeat(5);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let server = Server::with_accept(
        hello(),
        Flaky {
            errors,
            pipe,
            asked,
        },
        address,
    );
    let run = tokio::spawn(server.run(std::future::pending()));
    let mut last = times.recv().await.unwrap();
    for expected in [
        1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000, 1000, 1000, 1000,
    ] {
        let time = times.recv().await.unwrap();
        let pause = (time - last).as_millis();
        assert!(
            (expected..=expected + 2).contains(&pause),
            "{pause} ms for {expected}"
        );
        last = time;
    }
    let (mut client, pipe) = Pipe::pair();
    pipes.send(pipe).await.unwrap();
    ask(&mut client).await;
    assert!(!run.is_finished());
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_back_off() {
    let gateway = hello();
    let (_server, dial) = serve_pipes(&gateway);
    for _ in 0..3 {
        for _ in 0..8 {
            dial.fail(24).await;
        }
        let begin = Instant::now();
        ask(&mut dial.connect().await).await;
        // 1 + 2 + … + 128 ms each time.
        let pause = begin.elapsed().as_millis();
        assert!((255..=275).contains(&pause), "{pause}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_limited() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let gateway = gateway_with(limits, web(), [ready(0, 10, says("hello"))]);
    let (_server, dial) = serve_pipes(&gateway);
    let mut first = dial.connect().await;
    let mut second = dial.connect().await;
    let mut third = dial.connect().await;
    ask(&mut first).await;
    ask(&mut second).await;
    third.write_all(GET).await.unwrap();
    let wait = tokio::time::timeout(Duration::from_secs(5), third.read_u8()).await;
    assert!(wait.is_err(), "the third waits for a place");
    drop(first);
    let head = read_head(&mut third).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_head_must_come_in_time() {
    let gateway = hello();
    let (_server, dial) = serve_pipes(&gateway);
    for first in [
        "",
        "G",
        "GET / HTTP/1.1\r\nhost: a\r\n",
        "PRI * HTTP/2.0\r\n",
    ] {
        let mut io = dial.connect().await;
        let begin = Instant::now();
        io.write_all(first.as_bytes()).await.unwrap();
        assert_eq!(closed(&mut io, begin).await, 100, "{first:?}");
    }
    // Byte by byte does not help.
    let mut io = dial.connect().await;
    let begin = Instant::now();
    while io.write_all(b"G").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((100..=102).contains(&(begin.elapsed().as_millis() / 100)));
    // The second head has as long as the first, from its first byte.
    let mut io = dial.connect().await;
    ask(&mut io).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let begin = Instant::now();
    io.write_all(b"GET").await.unwrap();
    assert_eq!(closed(&mut io, begin).await, 100);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let gateway = hello();
    let (_server, dial) = serve_pipes(&gateway);
    let mut io = dial.connect().await;
    for _ in 0..3 {
        ask(&mut io).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
    }
    ask(&mut io).await;
    let begin = Instant::now();
    assert_eq!(closed(&mut io, begin).await, 750);

    let mut client = h2(dial.connect().await).await;
    let begin = Instant::now();
    let request = Request::get("http://a/").body(empty()).unwrap();
    let answer = client.send_request(request).await.unwrap();
    answer.into_body().collect().await.unwrap();
    while !client.is_closed() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let tenths = begin.elapsed().as_millis() / 100;
    assert!((750..=765).contains(&tenths), "{tenths}");
}

/// The types of the HTTP/2 frames in `bytes`: RFC 9113 §4.1.
fn frame_types(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [a, b, c, kind, ..] = *bytes {
        types.push(kind);
        bytes = &bytes[9 + u32::from_be_bytes([0, a, b, c]) as usize..];
    }
    types
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_ends_with_a_goaway() {
    const GOAWAY: u8 = 7;
    let gateway = hello();
    let (_server, dial) = serve_pipes(&gateway);
    let mut io = dial.connect().await;
    // The preface, empty SETTINGS, and HEADERS of stream 1: GET, http, /, authority `a`.
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    io.write_all(&[0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, b'a'])
        .await
        .unwrap();
    let begin = Instant::now();
    let mut answer = Vec::new();
    // The PING that goes with the GOAWAY is never answered, yet the connection ends.
    io.read_to_end(&mut answer).await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 76);
    assert!(frame_types(&answer).contains(&GOAWAY), "{answer:?}");
    assert_eq!(gateway.stats(&name("web")).unwrap().classes[1], 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_keeps_its_connection() {
    let gate = Arc::new(Semaphore::new(0));
    let gateway = gateway(web(), [ready(0, 1, says_after(&gate, "hello"))]);
    let (_server, dial) = serve_pipes(&gateway);
    let mut io = dial.connect().await;
    let opener = gate.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(300)).await;
        opener.add_permits(2);
    });
    let begin = Instant::now();
    ask(&mut io).await;
    assert_eq!(begin.elapsed().as_secs(), 300);
    ask(&mut io).await;
}
