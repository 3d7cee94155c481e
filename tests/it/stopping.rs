//! How programs end: what asks them to, what they still answer, and with which exit code.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use tokio::{net::TcpStream, sync::Notify, task::JoinSet};

use crate::rig::{Running, directory, done, err, guest, sampan};

/// Clients that ask one request after the other on one connection each.
const CLIENTS: usize = 8;
const STREAMS: usize = 5;
/// Requests that wait for the only pod when the signal comes.
const CROWD: usize = 80;
/// Answers that each client has had before the signal comes.
const WARM: usize = 20;

/// The parts of a spec: one service that answers at once, one whose only pod takes one request at a
/// time, and one that streams.
fn services() -> String {
    format!(
        "[service.hello]\ncomponent = {hello:?}\nroute = ['hello.test/']\n\
         [service.busy]\ncomponent = {slow:?}\nisolation = 'pod'\nroute = ['busy.test/']\n\
         [service.busy.limits]\nqueue = 1000\nqueue_timeout = '60s'\n\
         [service.stream]\ncomponent = {slow:?}\nroute = ['stream.test/']\n",
        hello = guest("hello"),
        slow = guest("slow"),
    )
}

/// `up` with all services. They are ready.
fn up() -> (Running, SocketAddr, tempfile::TempDir) {
    let text = format!("app = 'a'\n{}", services());
    let place = directory(&[("sampan.toml", text.as_bytes())]);
    let spec = place.path().join("sampan.toml").display().to_string();
    let api = place.path().join("api.sock").display().to_string();
    let arguments = ["up", "-f", &spec, "--http", "127.0.0.1:0", "--api", &api];
    let mut running = Running::start(with_signals(OBEYED, &arguments));
    running.line_with("is up");
    let address = running.address();
    (running, address, place)
}

/// The program as `env` starts it with this word about signals, however the tests were started: under
/// `nohup` they and what they start would ignore a hangup, in the background of a script SIGQUIT.
fn with_signals(word: &str, arguments: &[&str]) -> Command {
    let plain = sampan(arguments);
    let mut command = Command::new("env");
    command
        .arg(word)
        .arg(plain.get_program())
        .args(plain.get_args())
        .envs(
            plain
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    command
}

/// Signals as a terminal's shell leaves them.
const OBEYED: &str = "--default-signal=HUP,QUIT";
/// What `nohup` does.
const IGNORED: &str = "--ignore-signal=HUP";

/// `serve` with all services. They are ready.
fn serve() -> (Running, SocketAddr, tempfile::TempDir) {
    let text = format!("app = 'a'\n{}", services());
    let place = directory(&[("sampan.toml", text.as_bytes())]);
    let at = |name: &str| place.path().join(name).display().to_string();
    let (data, api) = (at("data"), at("api.sock"));
    let arguments = [
        "serve",
        "--data",
        &data,
        "--api",
        &api,
        "--http",
        "127.0.0.1:0",
    ];
    let mut running = Running::start(with_signals(OBEYED, &arguments));
    let address = running.address();
    let spec = at("sampan.toml");
    let applied = done(&["apply", "-f", &spec, "--wait", "--api", &api]);
    assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
    (running, address, place)
}

fn request(host: &str, path: &str) -> http::Request<Empty<Bytes>> {
    let uri = format!("http://{host}{path}");
    let request = http::Request::get(uri).header("host", host);
    request.body(Empty::new()).expect("a good request")
}

async fn connect(address: SocketAddr) -> TokioIo<TcpStream> {
    TokioIo::new(TcpStream::connect(address).await.expect("it accepts"))
}

/// How many answers all clients have had, and a word when that is enough.
#[derive(Default)]
struct Warmth {
    answers: AtomicUsize,
    enough: Notify,
}

impl Warmth {
    fn answered(&self) {
        if self.answers.fetch_add(1, Ordering::Relaxed) + 1 == (CLIENTS + 1) * WARM {
            self.enough.notify_one();
        }
    }
}

/// Asks on one connection until an answer says that it is the last. Every answer has to be good.
async fn keep_asking(address: SocketAddr, warmth: Arc<Warmth>) {
    let (mut sender, connection) = conn::http1::handshake(connect(address).await)
        .await
        .expect("HTTP/1.1");
    tokio::spawn(connection);
    let mut ask = async || {
        sender.ready().await?;
        let response = sender.send_request(request("hello.test", "/")).await?;
        let (head, body) = response.into_parts();
        Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
    };
    for number in 0.. {
        let asked = ask().await;
        let (head, body) = asked.unwrap_or_else(|error| panic!("answer {number}: {error:?}"));
        assert_eq!(
            (head.status.as_u16(), &body[..]),
            (200, &b"Hello from Sampan!\n"[..])
        );
        warmth.answered();
        if head
            .headers
            .get("connection")
            .is_some_and(|it| it == "close")
        {
            return;
        }
    }
}

/// The same over HTTP/2, until a request cannot be sent any more. One that was sent is answered.
async fn keep_asking_h2(address: SocketAddr, warmth: Arc<Warmth>) {
    let io = connect(address).await;
    let handshake = conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    while sender.ready().await.is_ok() {
        let asked = match sender.send_request(request("hello.test", "/")).await {
            Ok(response) => response,
            // The connection ended before it was sent.
            Err(error) if error.is_canceled() => return,
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(asked.status(), 200);
        let body = asked.into_body().collect().await.expect("a whole body");
        assert_eq!(body.to_bytes(), "Hello from Sampan!\n");
        warmth.answered();
    }
}

/// Sends one request on a connection of its own, which is under way when this returns. Yields its
/// body to its end.
async fn begin(
    address: SocketAddr,
    host: &'static str,
    path: &'static str,
) -> impl Future<Output = String> {
    let (mut sender, connection) = conn::http1::handshake(connect(address).await)
        .await
        .expect("HTTP/1.1");
    let (sent, is_sent) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection);
        // The connection writes what it is given in its first turn.
        let _ = futures::poll!(connection.as_mut());
        let _ = sent.send(());
        connection.await
    });
    let answer = sender.send_request(request(host, path));
    is_sent.await.expect("the connection is driven");
    async move {
        let response = answer
            .await
            .unwrap_or_else(|error| panic!("{host}: {error:?}"));
        assert_eq!(response.status(), 200, "{host}");
        let body = response.into_body().collect().await;
        let body = body.unwrap_or_else(|error| panic!("{host}: {error:?}"));
        String::from_utf8(body.to_bytes().to_vec()).expect("text")
    }
}

/// Nothing that was sent before a signal is lost, nor anything that is sent after it on a connection
/// that has not been told.
async fn loses_nothing(start: fn() -> (Running, SocketAddr, tempfile::TempDir), signal: Signal) {
    let (running, address, _place) = tokio::task::block_in_place(start);
    let warmth = Arc::<Warmth>::default();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(keep_asking(address, Arc::clone(&warmth)));
    }
    clients.spawn(keep_asking_h2(address, Arc::clone(&warmth)));
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(begin(address, "stream.test", "/stream?ms=1500&parts=5").await);
    }
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(begin(address, "busy.test", "/?ms=5").await);
    }
    warmth.enough.notified().await;
    running.signal(signal);
    let streams = futures::future::join_all(streams);
    let crowd = futures::future::join_all(crowd);
    let (streams, crowd) = tokio::join!(streams, crowd);
    for body in streams {
        assert!(body.ends_with("part 5 of 5\n"), "{body:?}");
    }
    for body in crowd {
        assert_eq!(body, "waited 5 ms\n");
    }
    clients.join_all().await;
    let (status, talk) = tokio::task::block_in_place(|| running.wait());
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_loses_nothing_of_up() {
    loses_nothing(up, Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_loses_nothing_of_up() {
    loses_nothing(up, Signal::HUP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_loses_nothing_of_serve() {
    loses_nothing(serve, Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_loses_nothing_of_serve() {
    loses_nothing(serve, Signal::HUP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigquit_loses_nothing_of_run() {
    let slow = guest("slow");
    let arguments = ["run", &slow, "--addr", "127.0.0.1:0"];
    let mut running = Running::start(with_signals(OBEYED, &arguments));
    let address = tokio::task::block_in_place(|| running.address());
    let stream = begin(address, "any.test", "/stream?ms=1000&parts=5").await;
    // Its head is here once the guest runs.
    let waited = begin(address, "any.test", "/?ms=100").await;
    running.signal(Signal::QUIT);
    let (stream, waited) = tokio::join!(stream, waited);
    assert!(stream.ends_with("part 5 of 5\n"), "{stream:?}");
    assert_eq!(waited, "waited 100 ms\n");
    let (status, talk) = tokio::task::block_in_place(|| running.wait());
    assert_eq!(status.code(), Some(0), "{talk}");
}

/// What `nohup` does: a terminal that goes is none of its business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_started_with_nohup_outlives_its_terminal() {
    let text = format!("app = 'a'\n{}", services());
    let place = directory(&[("sampan.toml", text.as_bytes())]);
    let mut command = with_signals(IGNORED, &["up", "--http", "127.0.0.1:0"]);
    command
        .env("XDG_RUNTIME_DIR", place.path())
        .current_dir(place.path());
    let mut running = Running::start(command);
    let address = tokio::task::block_in_place(|| {
        running.line_with("is up");
        running.address()
    });
    running.signal(Signal::HUP);
    // Signals of one process are taken in one after the other.
    for _ in 0..3 {
        let answer = begin(address, "hello.test", "/").await.await;
        assert_eq!(answer, "Hello from Sampan!\n");
    }
    let (status, talk) = tokio::task::block_in_place(|| running.interrupt());
    assert_eq!(status.code(), Some(0), "{talk}");
    assert_eq!(talk.matches("draining").count(), 1, "{talk}");
}

/// A hangup that a terminal and its shell both send does not count as a word to hurry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_hangup_does_not_cut_what_is_in_flight() {
    let (mut running, address, _place) = tokio::task::block_in_place(up);
    let stream = begin(address, "stream.test", "/stream?ms=1000&parts=5").await;
    running.signal(Signal::HUP);
    tokio::task::block_in_place(|| running.line_with("draining"));
    running.signal(Signal::HUP);
    assert!(stream.await.ends_with("part 5 of 5\n"));
    let (status, talk) = tokio::task::block_in_place(|| running.wait());
    assert_eq!(status.code(), Some(0), "{talk}");
}

/// The pods go last, and that they have is in the events of the next run.
#[test]
fn what_happened_last_is_kept() {
    let (running, _, place) = serve();
    running.signal(Signal::TERM);
    let (status, talk) = running.wait();
    assert_eq!(status.code(), Some(0), "{talk}");
    let at = |name: &str| place.path().join(name).display().to_string();
    let (data, api) = (at("data"), at("api.sock"));
    let mut again = Running::start(sampan(&[
        "serve",
        "--data",
        &data,
        "--api",
        &api,
        "--http",
        "127.0.0.1:0",
    ]));
    again.address();
    let events = done(&["events", "--api", &api]);
    let events = String::from_utf8(events.stdout).expect("text");
    for pod in ["hello-1-0", "busy-1-0", "stream-1-0"] {
        let mut of = events.lines().filter(|line| line.contains(pod));
        assert!(of.any(|line| line.contains("topped")), "{pod}: {events}");
    }
    let (status, talk) = again.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[test]
fn an_app_of_jobs_ends_when_they_have() {
    let ends = |jobs: &str| {
        let jobs = jobs.replace("COMMAND", &format!("component = {:?}", guest("command")));
        let text = format!("app = 'a'\n{jobs}");
        let place = directory(&[("sampan.toml", text.as_bytes())]);
        let spec = place.path().join("sampan.toml").display().to_string();
        let output = done(&["up", "-f", &spec, "--http", "127.0.0.1:0"]);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), printed, err(&output))
    };
    let one = "[job.one]\nCOMMAND\nargs = ['args', 'first']\n";
    let two = "[job.two]\nCOMMAND\nargs = ['args', 'second']\ndepends_on = ['one']\n";
    let bad = "[job.bad]\nCOMMAND\nargs = ['exit', '1']\n";
    let (code, printed, talk) = ends(one);
    assert_eq!(code, Some(0), "{talk}");
    assert!(printed.contains("first"), "{printed}");
    let (code, printed, talk) = ends(&format!("{one}{two}"));
    assert_eq!(code, Some(0), "{talk}");
    assert!(printed.contains("second"), "{printed}");
    // One that fails is no reason to cut the others short.
    let (code, printed, talk) = ends(&format!("{bad}{one}{two}"));
    assert_eq!(code, Some(1), "{talk}");
    assert!(printed.contains("second"), "{printed}");
    let after = bad.replace("[job.bad]", "[job.after]") + "depends_on = ['bad']\n";
    let (code, _, talk) = ends(&format!("{bad}{after}"));
    assert_eq!(code, Some(1), "{talk}");
    assert!(talk.contains("job `bad` has failed"), "{talk}");
}
