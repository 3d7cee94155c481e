//! Clients that keep a service waiting, five hundred at once, and what that costs the others.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};

use super::Daemon;
use crate::rig::{guest, send};

/// Slow connections at once.
const CROWD: usize = 500;
/// Requests of another client beside them, one every [`PAUSE`].
const REQUESTS: usize = 200;
const PAUSE: Duration = Duration::from_millis(10);
/// What the slowest hundredth of them may take.
const BOUND: Duration = Duration::from_millis(50);
/// Tries for that: whatever else runs on the machine only ever makes it slower.
const TRIES: usize = 4;
/// The same beside readers. What five hundred of them send and are sent back is half a GiB of work
/// on the very pods that the others ask, for which a debug build takes three times as long.
const READERS_BOUND: Duration = match cfg!(debug_assertions) {
    true => Duration::from_millis(200),
    false => BOUND,
};
/// What a slow reader sends, and so is sent back: more than all buffers on the way hold.
const UNREAD: usize = 512 << 10;
/// The receive buffer of a slow reader, in bytes.
const WINDOW: u32 = 4 << 10;

/// Services that read bodies: host, path, and the rest of the spec.
const SERVICES: &[(&str, &str, &str, &str)] = &[
    ("fresh", "/", "echo", ""),
    ("kept", "/", "echo", "isolation = 'pod'\nreplicas = 2\n"),
    ("shared", "/echo", "stream-p3", ""),
];

/// What a slow client does.
#[derive(Clone, Copy, Debug)]
enum Slow {
    /// A head of which a field comes each second.
    Head,
    /// A body at 300 bytes a second, whose length is known.
    Body,
    /// The same in chunks, of which no one knows how many follow.
    Chunks,
    /// It sends its body, and reads nothing of the answer.
    Read,
}

impl Slow {
    /// What it sends first, and then each second.
    fn words(self, host: &str, path: &str) -> (String, String) {
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\n");
        let drop = "x".repeat(300);
        match self {
            Self::Head => (head, "x: y\r\n".to_owned()),
            Self::Body => (format!("{head}content-length: 100000\r\n\r\n"), drop),
            Self::Chunks => (
                format!("{head}transfer-encoding: chunked\r\n\r\n"),
                format!("12c\r\n{drop}\r\n"),
            ),
            Self::Read => (
                format!("{head}content-length: {UNREAD}\r\n\r\n"),
                "x".repeat(UNREAD),
            ),
        }
    }
}

/// Is slow until it is cut off. It says so once it has begun.
async fn be_slow(at: SocketAddr, (first, more): (String, String), begun: mpsc::Sender<()>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(WINDOW).expect("a size");
    let mut io = socket.connect(at).await.expect("it accepts");
    let first = io.write_all(first.as_bytes()).await;
    begun.send(()).await.expect("it is waited for");
    drop(begun);
    if first.is_err() {
        return;
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        if io.write_all(more.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What the slowest hundredth of another client's requests took, and the slowest one.
async fn beside(at: SocketAddr, host: &str, path: &str) -> (Duration, Duration) {
    let stream = TcpStream::connect(at).await.expect("it accepts");
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let mut times = Vec::new();
    let mut pause = tokio::time::interval(PAUSE);
    for _ in 0..REQUESTS {
        pause.tick().await;
        let request = http::Request::post(path).header("host", host);
        let request = request.body(Full::new(Bytes::from_static(b"hello")));
        let begin = Instant::now();
        sender.ready().await.expect("the connection stays");
        let answer = sender.send_request(request.expect("a good request")).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.expect("a whole body");
        assert_eq!(body.to_bytes(), "hello");
        times.push(begin.elapsed());
    }
    drop(sender);
    // It ends with its last handle.
    let _ = connection.await;
    times.sort_unstable();
    (times[REQUESTS * 99 / 100], times[REQUESTS - 1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_slow_clients_are_noticed_by_no_other() {
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: Some(4096),
            ..rustix::process::getrlimit(rustix::process::Resource::Nofile)
        },
    );
    let mut daemon = Daemon::start();
    let mut spec = String::new();
    for (name, _, component, more) in SERVICES {
        let component = guest(component);
        spec += &format!(
            "[service.{name}]\ncomponent = '{component}'\nroute = ['{name}.test/']\n{more}"
        );
    }
    let at = daemon.running().address();
    daemon.apply(&spec);
    let mut slow = Vec::new();
    for (name, path, ..) in SERVICES {
        let host = format!("{name}.test");
        for how in [Slow::Head, Slow::Body, Slow::Chunks, Slow::Read] {
            let bound = match how {
                Slow::Read => READERS_BOUND,
                Slow::Head | Slow::Body | Slow::Chunks => BOUND,
            };
            let mut seen = Vec::new();
            for _ in 0..TRIES {
                let (begun, mut all_begun) = mpsc::channel(CROWD);
                let words = how.words(&host, path);
                let crowd: JoinSet<()> = (0..CROWD)
                    .map(|_| be_slow(at, words.clone(), begun.clone()))
                    .collect();
                drop(begun);
                while all_begun.recv().await.is_some() {}
                seen.push(beside(at, &host, path).await);
                drop(crowd);
                if seen.last().is_some_and(|(p99, _)| *p99 < bound) {
                    break;
                }
            }
            eprintln!("{name}, {how:?}: p99 and slowest {seen:?}");
            if seen.last().is_none_or(|(p99, _)| *p99 >= bound) {
                slow.push(format!("{name}, {how:?}: {seen:?}"));
            }
        }
        let answer = send(at, "POST", &host, path, "still there").await;
        assert_eq!((answer.status, &*answer.body), (200, "still there"));
    }
    assert!(slow.is_empty(), "{slow:#?}");
}
