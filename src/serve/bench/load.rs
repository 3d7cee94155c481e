//! HTTP load from this process: connections that are kept and ask for the next answer as soon as
//! they have one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::sketch::Sketch;

/// When something was asked: before, during and after what is measured.
pub(super) const PHASES: usize = 3;
/// How long a connection that failed waits before the next.
const PAUSE: Duration = Duration::from_millis(5);
/// Reasons of failed requests that are kept for people.
const MAX_REASONS: usize = 5;

/// What the answers were.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// How long the good ones took, by when they were asked for.
    pub(super) latencies: [Sketch; PHASES],
    /// Requests that were sent, or could not be because there was no connection.
    pub(super) sent: u64,
    /// Requests that were answered with another status than 2xx, or not at all.
    pub(super) failed: u64,
    /// Why, of the first of them.
    pub(super) reasons: Vec<String>,
}

impl Answers {
    fn fail(&mut self, reason: String) {
        self.failed += 1;
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason);
        }
    }

    fn absorb(&mut self, other: Self) {
        for (own, its) in self.latencies.iter_mut().zip(&other.latencies) {
            own.absorb(its);
        }
        self.sent += other.sent;
        self.failed += other.failed;
        let room = MAX_REASONS - self.reasons.len();
        self.reasons.extend(other.reasons.into_iter().take(room));
    }
}

#[derive(Default)]
struct Shared {
    phase: AtomicUsize,
    stop: AtomicBool,
}

/// Load that goes on.
pub(super) struct Load {
    shared: Arc<Shared>,
    connections: JoinSet<Answers>,
}

impl Load {
    /// Puts this many connections' load on the server.
    pub(super) fn start(address: SocketAddr, connections: u32) -> Self {
        let shared = Arc::<Shared>::default();
        let mut all = JoinSet::new();
        for _ in 0..connections {
            all.spawn(connection(address, Arc::clone(&shared)));
        }
        Self {
            shared,
            connections: all,
        }
    }

    /// What is asked from now on belongs to this phase.
    pub(super) fn enter(&self, phase: usize) {
        self.shared.phase.store(phase.min(PHASES - 1), Relaxed);
    }

    /// Ends it after the answers to come, and says what they all were.
    pub(super) async fn end(self) -> Answers {
        self.shared.stop.store(true, Relaxed);
        let mut all = Answers::default();
        for answers in self.connections.join_all().await {
            all.absorb(answers);
        }
        all
    }
}

async fn connection(address: SocketAddr, shared: Arc<Shared>) -> Answers {
    let mut answers = Answers::default();
    while !shared.stop.load(Relaxed) {
        match connect(address).await {
            Ok(sender) => ask(sender, &shared, &mut answers).await,
            Err(reason) => {
                answers.sent += 1;
                answers.fail(reason);
            }
        }
        if !shared.stop.load(Relaxed) {
            tokio::time::sleep(PAUSE).await;
        }
    }
    answers
}

type Sender = SendRequest<Empty<Bytes>>;

pub(super) async fn connect(address: SocketAddr) -> Result<Sender, String> {
    let no = |error: &dyn std::error::Error| format!("no connection: {error}");
    let stream = TcpStream::connect(address).await.map_err(|it| no(&it))?;
    stream.set_nodelay(true).map_err(|it| no(&it))?;
    let shaken = handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|it| no(&it))?;
    // It ends with its sender; what becomes of a request is told where that was sent.
    tokio::spawn(connection);
    Ok(sender)
}

/// Asks one thing after the other, until the connection is closed.
async fn ask(mut sender: Sender, shared: &Shared, answers: &mut Answers) {
    while !shared.stop.load(Relaxed) {
        // One that the server has closed between two requests has lost none.
        if sender.ready().await.is_err() {
            return;
        }
        let (phase, start) = (shared.phase.load(Relaxed), Instant::now());
        answers.sent += 1;
        match exchange(&mut sender).await {
            Ok((status, _)) if status.is_success() => {
                answers.latencies[phase].record(start.elapsed());
            }
            Ok((status, _)) => answers.fail(format!("status {status}")),
            Err(reason) => {
                answers.fail(reason);
                return;
            }
        }
    }
}

/// One answer, read to its end: its status and the revision that gave it.
pub(super) async fn exchange(
    sender: &mut Sender,
) -> Result<(http::StatusCode, Option<u64>), String> {
    let request = http::Request::get("/").header(http::header::HOST, "bench.localhost");
    let request = request.body(Empty::new()).map_err(|it| it.to_string())?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| format!("no answer: {error}"))?;
    let (head, body) = response.into_parts();
    let broken = |error: hyper::Error| format!("the answer broke off: {error}");
    body.collect().await.map_err(broken)?;
    let revision = head.headers.get("sampan-revision");
    let revision = revision.and_then(|it| it.to_str().ok()?.parse().ok());
    Ok((head.status, revision))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn what_is_not_a_whole_good_answer_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let load = Load::start(address, 1);
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let answers = [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
        ];
        for answer in answers {
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).await.expect("a request") > 0);
            stream.write_all(answer.as_bytes()).await.expect("it reads");
            load.enter(1);
        }
        load.shared.stop.store(true, Relaxed);
        drop((stream, listener));
        let answers = load.end().await;
        assert_eq!((answers.sent, answers.failed), (3, 2), "{answers:?}");
        let reasons = &answers.reasons;
        assert_eq!(reasons[0], "status 503 Service Unavailable");
        assert!(
            reasons[1].starts_with("the answer broke off"),
            "{reasons:?}"
        );
        let counts = answers.latencies.each_ref().map(Sketch::count);
        assert_eq!(counts, [1, 0, 0]);
    }
}
