//! Connections that keep the API waiting, on a paused clock.

use axum::{middleware, middleware::Next, response::Response, routing};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::{Mutex as AsyncMutex, mpsc},
    task::JoinHandle,
};

use super::*;
use crate::api::pace;

/// Streams in memory.
struct Queue<const TRUSTED: bool>(AsyncMutex<mpsc::Receiver<DuplexStream>>);

impl<const TRUSTED: bool> Listener for Queue<TRUSTED> {
    type Io = DuplexStream;

    const TRUSTED: bool = TRUSTED;

    async fn accept(&self) -> io::Result<DuplexStream> {
        match self.0.lock().await.recv().await {
            Some(stream) => Ok(stream),
            None => std::future::pending().await,
        }
    }
}

struct Rig {
    streams: mpsc::Sender<DuplexStream>,
    server: JoinHandle<()>,
}

/// Bytes of the answer to `GET /large`.
const LARGE: usize = 4 << 20;

/// A request with the header `token` makes its connection known.
async fn token(request: Request, next: Next) -> Response {
    if request.headers().contains_key("token") {
        let place = request.extensions().get::<Arc<Place>>();
        place.expect("every request has one").keep();
    }
    next.run(request).await
}

impl Rig {
    fn new<const TRUSTED: bool>(limit: usize) -> Self {
        let router = Router::new()
            .route("/", routing::get(|| async { "hello" }))
            .route("/large", routing::get(|| async { vec![b'x'; LARGE] }))
            .route("/echo", routing::post(echo))
            .layer(middleware::from_fn(token))
            .layer(middleware::from_fn(pace::keep))
            .layer(middleware::from_fn(crate::api::error::finish));
        let (streams, queue) = mpsc::channel(1024);
        let queue = Queue::<TRUSTED>(AsyncMutex::new(queue));
        Self {
            streams,
            server: tokio::spawn(serve(queue, router, limit)),
        }
    }

    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = duplex(8 << 10);
        assert!(self.streams.try_send(theirs).is_ok());
        ours
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn echo(body: crate::api::body::Body<serde_json::Value>) -> String {
    body.0.to_string()
}

/// Everything that comes until the connection is closed, and the seconds that took.
async fn rest(stream: &mut DuplexStream) -> (String, u64) {
    let (start, mut text) = (Instant::now(), Vec::new());
    // Being reset is an end too.
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    (text, start.elapsed().as_secs())
}

async fn ask(stream: &mut DuplexStream, head: &str) -> String {
    let head = format!("{head}\r\nHost: a\r\n\r\n");
    if stream.write_all(head.as_bytes()).await.is_err() {
        return "closed".to_owned();
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let mut part = [0; 1024];
        match stream.read(&mut part).await {
            Ok(count) if count > 0 => answer.extend_from_slice(&part[..count]),
            Ok(_) | Err(_) => return "closed".to_owned(),
        }
    }
    "answered".to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_head_has_so_much_time_however_it_comes() {
    let rig = Rig::new::<true>(8);
    let mut silent = rig.connect();
    assert_eq!(rest(&mut silent).await, (String::new(), 30));
    let mut begun = rig.connect();
    begun.write_all(b"GET / HTTP/1.1\r\n").await.expect("open");
    assert_eq!(rest(&mut begun).await.1, 30);
    let mut dripping = rig.connect();
    let start = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nX: "
        .iter()
        .chain(std::iter::repeat(&b'x'))
    {
        if dripping.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(start.elapsed() <= Duration::from_secs(32));
    let mut idle = rig.connect();
    assert_eq!(ask(&mut idle, "GET / HTTP/1.1").await, "answered");
    assert_eq!(rest(&mut idle).await, (String::new(), 30));
}

/// The status of the answer to a body that comes in `pieces` of so many bytes, one a second.
async fn body(rig: &Rig, pieces: usize, bytes: usize) -> (String, u64) {
    let mut stream = rig.connect();
    let length = pieces * bytes;
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: \
         {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("open");
    let (mut reading, mut writing) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        for _ in 0..pieces {
            if writing.write_all(&vec![b' '; bytes]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let (start, mut text) = (Instant::now(), Vec::new());
    let _ = reading.read_to_end(&mut text).await;
    sending.abort();
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.lines().next().unwrap_or_default().to_owned();
    (status, start.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_body_has_so_much_time_as_its_length_allows() {
    let rig = Rig::new::<true>(8);
    let (status, seconds) = body(&rig, 1000, 1).await;
    assert_eq!(status, "HTTP/1.1 408 Request Timeout");
    assert!((19..=22).contains(&seconds), "{seconds} s");
    // A slow line that keeps up the rate is slow, and no more. These spaces are no JSON.
    let (status, seconds) = body(&rig, 50, 20 << 10).await;
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert!(seconds >= 49, "{seconds} s");
    // One that pauses for long after it came fast is given up too.
    let (status, seconds) = body(&rig, 1000, 10).await;
    assert_eq!(status, "HTTP/1.1 408 Request Timeout");
    assert!((19..=25).contains(&seconds), "{seconds} s");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_given_up() {
    let rig = Rig::new::<true>(1);
    let mut deaf = rig.connect();
    let request = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
    deaf.write_all(request).await.expect("open");
    // There is one place, which the next connection has when the first has lost it.
    let mut next = rig.connect();
    let start = Instant::now();
    assert_eq!(ask(&mut next, "GET / HTTP/1.1").await, "answered");
    assert_eq!(start.elapsed().as_secs(), 30);
    assert!(rest(&mut deaf).await.0.len() < LARGE);
}

#[tokio::test(start_paused = true)]
async fn strangers_keep_none_out_and_cut_none_with_the_token() {
    let rig = Rig::new::<false>(3);
    let mut known = rig.connect();
    assert_eq!(
        ask(&mut known, "GET / HTTP/1.1\r\ntoken: yes").await,
        "answered"
    );
    let mut strangers: Vec<_> = (0..600).map(|_| rig.connect()).collect();
    let mut late = rig.connect();
    let start = Instant::now();
    assert_eq!(
        ask(&mut late, "GET / HTTP/1.1\r\ntoken: yes").await,
        "answered"
    );
    assert_eq!(ask(&mut known, "GET / HTTP/1.1").await, "answered");
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    // The first were cut off in favour of the later ones.
    assert_eq!(rest(&mut strangers[0]).await, (String::new(), 0));
    // All that are left are known: one more waits until one of them goes.
    let mut more = rig.connect();
    assert_eq!(
        ask(&mut more, "GET / HTTP/1.1\r\ntoken: yes").await,
        "answered"
    );
    drop(late);
    let mut last = rig.connect();
    assert_eq!(ask(&mut last, "GET / HTTP/1.1").await, "answered");
    assert_eq!(ask(&mut known, "GET / HTTP/1.1").await, "answered");
}

#[tokio::test(start_paused = true)]
async fn at_the_socket_none_is_cut_off_for_another() {
    let rig = Rig::new::<true>(1);
    let mut first = rig.connect();
    let mut second = rig.connect();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(ask(&mut first, "GET / HTTP/1.1").await, "answered");
    let start = Instant::now();
    assert_eq!(ask(&mut second, "GET / HTTP/1.1").await, "answered");
    assert_eq!(
        start.elapsed().as_secs(),
        30,
        "the first was idle for so long"
    );
}
