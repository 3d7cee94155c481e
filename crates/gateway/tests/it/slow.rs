//! Clients that keep a connection waiting: how long they may, and what it does to others.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Response;
use http_body_util::BodyExt as _;
use sampan_core::fault::Fault;
use sampan_gateway::{Gateway, Limits, ServiceConfig, Upstream, UpstreamError, full};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

use crate::fixture::*;

const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A pod that reads the body and then says how long it was.
fn reads() -> Arc<dyn Upstream> {
    pod(|request, _| async move {
        match request.into_body().collect().await {
            Ok(body) => Ok(Response::new(full(body.to_bytes().len().to_string()))),
            Err(_) => Err(UpstreamError::new(Fault::Trapped)),
        }
    })
}

/// A pod whose answer no buffer between here and the client has room for.
fn pours() -> Arc<dyn Upstream> {
    let much = bytes::Bytes::from(vec![b'x'; 8 << 20]);
    pod(move |_, _| {
        let much = much.clone();
        async move { Ok(Response::new(full(much))) }
    })
}

fn pods(upstream: Arc<dyn Upstream>) -> Gateway {
    gateway(web(), [ready(0, 1000, upstream)])
}

/// Everything that comes until the connection ends.
async fn rest(io: &mut DuplexStream) -> String {
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_body_may_pause_for_so_long() {
    let gateway = pods(reads());
    let (_server, dial) = serve_pipes(&gateway);
    let mut io = dial.connect().await;
    io.write_all(POST).await.unwrap();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(14_900)).await;
        io.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    let begin = Instant::now();
    let answer = rest(&mut io).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(begin.elapsed().as_millis() / 100, 150);

    let mut io = dial.connect().await;
    io.write_all(POST).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(14_900)).await;
        io.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    assert!(read_head(&mut io).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn a_body_must_come_at_some_rate() {
    let gateway = pods(reads());
    let (_server, dial) = serve_pipes(&gateway);
    for (each_second, wanted) in [(200, "HTTP/1.1 408 "), (300, "HTTP/1.1 200 ")] {
        let (mut reader, mut writer) = tokio::io::split(dial.connect().await);
        let sending = tokio::spawn(async move {
            writer.write_all(POST).await.unwrap();
            for _ in 0..100_000 / each_second + 1 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                // At the end there is less to send, or the server is gone.
                let _ = writer.write_all(&vec![b'x'; each_second]).await;
            }
        });
        let head = read_head(&mut reader).await;
        assert!(head.starts_with(wanted), "{each_second}: {head}");
        sending.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_must_be_read() {
    let gateway = pods(pours());
    let (_server, dial) = serve_pipes(&gateway);
    // One that reads a little now and then keeps its connection.
    let mut patient = dial.connect().await;
    patient.write_all(GET).await.unwrap();
    for turn in 0..10 {
        tokio::time::sleep(Duration::from_millis(29_900)).await;
        let read = patient.read_exact(&mut [0; 20_000]).await;
        assert!(read.is_ok(), "cut off in turn {turn}");
    }
    for (pause, is_whole) in [(29_900, true), (30_100, false)] {
        let mut io = dial.connect().await;
        io.write_all(GET).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let mut answer = Vec::new();
        let reading = io.read_to_end(&mut answer);
        // A connection that is still there stays open behind the answer.
        let is_open = tokio::time::timeout(Duration::from_secs(1), reading)
            .await
            .is_err();
        assert_eq!(
            (answer.len() > 8 << 20, is_open),
            (is_whole, is_whole),
            "{pause} ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_has_so_many_connections() {
    let limits = Limits {
        connections_per_client: 2,
        ..Limits::default()
    };
    let gateway = gateway_with(limits, web(), [ready(0, 10, says("hello"))]);
    let (_server, dial) = serve_pipes(&gateway);
    let (first, mut second) = (dial.connect().await, dial.connect().await);
    let mut third = dial.connect().await;
    assert_eq!(rest(&mut third).await, "");
    assert_eq!(gateway.refused_connections(), 1);
    drop(first);
    settle().await;
    let mut fourth = dial.connect().await;
    for io in [&mut second, &mut fourth] {
        io.write_all(GET).await.unwrap();
        assert!(read_head(io).await.starts_with("HTTP/1.1 200 "));
    }
}

/// Slow connections at once.
const CROWD: usize = 500;
/// What hello's slowest hundredth may take beside them.
const BOUND: Duration = Duration::from_millis(50);
/// Tries for that: whatever else runs on the machine only ever makes it slower.
const TRIES: usize = 5;

/// What a slow client does until it is cut off.
#[derive(Clone, Copy, Debug)]
enum Slow {
    Head,
    Body,
    Read,
}

async fn be_slow(address: SocketAddr, how: Slow) {
    let mut io = tcp(address).await;
    let (first, more): (&[u8], &[u8]) = match how {
        Slow::Head => (b"GET / HTTP/1.1\r\nhost: a\r\n", b"x: y\r\n"),
        Slow::Body => (
            b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n",
            b"x",
        ),
        Slow::Read => (b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n", b""),
    };
    io.write_all(first).await.unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        if io.write_all(more).await.is_err() || is_cut(&io, how) {
            return;
        }
    }
}

/// Whether the server has ended the connection. A slow reader must not read to learn it.
fn is_cut(io: &TcpStream, how: Slow) -> bool {
    if matches!(how, Slow::Read) {
        return io.take_error().is_ok_and(|error| error.is_some());
    }
    match io.try_read(&mut [0; 4096]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Asks hello again and again, and says what its slowest hundredth took. On a machine so busy that
/// this client too seems slow, and is cut off, that is for ever.
async fn p99(address: SocketAddr, mut crowd: JoinSet<()>) -> Duration {
    let mut client = h1(tcp(address).await).await;
    let mut times = Vec::new();
    while crowd.try_join_next().is_some() || !crowd.is_empty() {
        let start = Instant::now();
        let answer = match client.ready().await {
            Ok(()) => client.send_request(get("/hello")).await,
            Err(error) => Err(error),
        };
        let Ok(answer) = answer else {
            while crowd.join_next().await.is_some() {}
            return Duration::MAX;
        };
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_slow_clients_is_cut_off_and_nobody_else_notices() {
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: Some(4096),
            ..rustix::process::getrlimit(rustix::process::Resource::Nofile)
        },
    );
    let limits = Limits {
        header_read_timeout: Duration::from_secs(1),
        body_idle_timeout: Duration::from_secs(1),
        write_idle_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let (slow, hello) = (pours(), says("hello"));
    let both = pod(move |request, context| {
        let (slow, hello) = (Arc::clone(&slow), Arc::clone(&hello));
        async move {
            match (request.uri().path(), request.method().as_str()) {
                ("/slow", "GET") => slow.call(request, &context).await,
                ("/slow", _) => reads().call(request, &context).await,
                _ => hello.call(request, &context).await,
            }
        }
    });
    let config = ServiceConfig {
        queue: 1024,
        ..web()
    };
    // As many places as a pod has by default.
    let gateway = gateway_with(limits, config, [ready(0, 64, both)]);
    let server = serve(&gateway).await;
    for how in [Slow::Head, Slow::Body, Slow::Read] {
        let mut seen = Vec::new();
        for _ in 0..TRIES {
            let crowd: JoinSet<()> = (0..CROWD).map(|_| be_slow(server.address, how)).collect();
            let cut = tokio::time::timeout(Duration::from_secs(60), p99(server.address, crowd));
            seen.push(cut.await.expect("all are cut off"));
            if seen.last() < Some(&BOUND) {
                break;
            }
        }
        println!("{how:?}: hello's p99 {seen:?}");
        assert!(seen.last() < Some(&BOUND), "{how:?}: hello's p99 {seen:?}");
    }
}
