//! Clients that never pause.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

/// What clients have seen.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) answered: AtomicU64,
    /// What went wrong, the first few times.
    pub(super) wrong: Mutex<Vec<String>>,
    pub(super) failed: AtomicU64,
    /// The revisions that answered, each time it was another one than before.
    pub(super) revisions: Mutex<Vec<String>>,
    over: AtomicBool,
}

const MAX_SAID: usize = 10;

impl Seen {
    fn fail(&self, what: String) {
        self.failed.fetch_add(1, SeqCst);
        let mut wrong = self.wrong.lock().expect("no panic");
        if wrong.len() < MAX_SAID {
            wrong.push(what);
        }
    }

    fn answer(&self, revision: Option<&str>) {
        self.answered.fetch_add(1, SeqCst);
        if let Some(revision) = revision {
            let mut revisions = self.revisions.lock().expect("no panic");
            if revisions.last().is_none_or(|last| last != revision) {
                revisions.push(revision.to_owned());
            }
        }
    }
}

/// Clients at work.
pub(super) struct Load {
    pub(super) seen: Arc<Seen>,
    clients: JoinSet<()>,
}

impl Load {
    /// Every other client makes a connection for each request, the rest keep theirs.
    pub(super) fn start(address: SocketAddr, path: &'static str, clients: usize) -> Self {
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let seen = Arc::clone(&seen);
            let keep = number % 2 == 0;
            tasks.spawn(async move { client(address, path, keep, &seen).await });
        }
        Self {
            seen,
            clients: tasks,
        }
    }

    /// Waits for the answers that are under way, then stops. Says how many there were; none may
    /// have been wrong.
    pub(super) async fn end(self, what: &str) -> u64 {
        self.seen.over.store(true, SeqCst);
        self.clients.join_all().await;
        let failed = self.seen.failed.load(SeqCst);
        let answered = self.seen.answered.load(SeqCst);
        let wrong = self.seen.wrong.lock().expect("no panic");
        assert_eq!(failed, 0, "{what}: of {answered} requests: {wrong:#?}");
        assert!(answered > 0, "{what}: no request was sent");
        answered
    }
}

type Sender = SendRequest<Empty<Bytes>>;

async fn connect(address: SocketAddr) -> Result<Sender, String> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| format!("connect: {error}"))?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| format!("handshake: {error}"))?;
    // What becomes of it shows at the sender.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn client(address: SocketAddr, path: &str, keep: bool, seen: &Seen) {
    let mut kept: Option<Sender> = None;
    while !seen.over.load(SeqCst) {
        let sender = match kept.take() {
            Some(sender) => Ok(sender),
            None => connect(address).await,
        };
        match sender {
            Ok(sender) => match ask(sender, path, seen).await {
                Ok(sender) => kept = Some(sender).filter(|_| keep),
                Err(what) => seen.fail(what),
            },
            Err(what) => seen.fail(what),
        }
    }
}

async fn ask(mut sender: Sender, path: &str, seen: &Seen) -> Result<Sender, String> {
    let request = http::Request::get(path)
        .header("host", "x")
        .body(Empty::new())
        .expect("a good request");
    let answer = sender.send_request(request).await;
    let (head, body) = answer.map_err(|error| format!("{error:?}"))?.into_parts();
    let body = body.collect().await;
    let body = body.map_err(|error| format!("body: {error:?}"))?.to_bytes();
    if head.status != 200 {
        return Err(format!(
            "{}: {}",
            head.status,
            String::from_utf8_lossy(&body)
        ));
    }
    let revision = head.headers.get("sampan-revision");
    seen.answer(revision.and_then(|it| it.to_str().ok()));
    Ok(sender)
}
