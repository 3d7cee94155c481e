//! The control side at its limits, and requests and other apps beside it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{net::UnixStream, task::JoinSet};

use super::Daemon;
use crate::{
    hostile::components,
    rig::{guest, latencies},
};

/// What requests take beside all of it at most, on a machine that has nothing else to do.
const P99: Duration = Duration::from_millis(20);
/// The same of an apply of another app.
const APPLY: Duration = Duration::from_millis(500);
/// So often it is measured before it has failed.
const ROUNDS: usize = 6;
/// How long a measurement takes.
const ROUND: Duration = Duration::from_secs(3);
/// Plans at once.
const PLANS: usize = 4;
/// Apps whose component takes the compiler long, until it has used up its memory.
const BOMBS: u8 = 2;
/// How much longer everything may take than alone, where that is more: the machine may be busy.
const SLOWER: u32 = 4;
/// Services of the largest spec.
const SERVICES: usize = 5000;
/// So many services, and pods of each, that a list of all pods is long.
const MANY: [usize; 2] = [50, 1000];

/// Asks at the socket.
async fn ask(socket: &str, method: &str, path: &str, body: Bytes) -> (u16, Bytes) {
    let stream = UnixStream::connect(socket).await.expect("it accepts");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(body));
    let answer = sender.send_request(request.expect("a good request")).await;
    let (head, body) = answer.expect("an answer").into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    drop(sender);
    let _ = connection.await;
    (head.status.as_u16(), body)
}

/// What is sent to plan the largest spec: as many services as there may be, in a body as long as it
/// may be.
fn largest(digest: &str) -> Bytes {
    let names = (0..SERVICES).map(|number| format!("s{number:04}"));
    let service =
        |name: String| format!("[service.{name}]\ncomponent='a'\nenv={{A='{:40}'}}\n", "");
    let spec = format!(
        "app='big'\n{}",
        names.clone().map(service).collect::<String>()
    );
    let components = names.map(|name| (name, json!(digest)));
    let components = components.collect::<serde_json::Map<_, _>>();
    let body = json!({ "spec": spec, "base": "/", "components": components });
    let body = Bytes::from(body.to_string());
    assert!((700 << 10..1 << 20).contains(&body.len()), "{}", body.len());
    body
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Uploads a component, and says what its digest is.
async fn upload(socket: &str, component: Vec<u8>) -> String {
    let digest = Sha256::digest(&component);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("/v1/artifacts/{digest}");
    let (status, _) = ask(socket, "PUT", &path, component.into()).await;
    assert_eq!(status, 201);
    digest
}

/// Applies an app of one service, and says the status and the time it took.
async fn apply(socket: &str, app: &str, digest: &str, round: usize) -> (u16, Duration) {
    let spec =
        format!("app='{app}'\n[service.web]\ncomponent='web.wasm'\nenv={{ROUND='{round}'}}\n");
    let body = json!({ "spec": spec, "base": "/", "components": { "web": digest } });
    let start = Instant::now();
    let (path, body) = (format!("/v1/apps/{app}"), body.to_string());
    let (status, _) = ask(socket, "PUT", &path, body.into()).await;
    (status, start.elapsed())
}

/// Services of [`MANY`] pods.
fn many(component: &str) -> String {
    let [services, pods] = MANY;
    let service =
        |number| format!("[service.s{number}]\ncomponent = '{component}'\nreplicas = {pods}\n");
    (0..services).map(service).collect()
}

async fn list(socket: &str) -> Bytes {
    let (status, pods) = ask(socket, "GET", "/v1/pods", Bytes::new()).await;
    assert_eq!(status, 200);
    pods
}

/// How many pods of a list are ready.
fn ready(pods: &[u8]) -> usize {
    let pods: Vec<serde_json::Value> = serde_json::from_slice(pods).expect("a list");
    pods.iter().filter(|pod| pod["ready"] == true).count()
}

/// Plans of the largest spec, lists of all pods and compile bombs, over and over, until it is
/// dropped.
struct Work {
    tasks: JoinSet<()>,
    plans: Arc<AtomicUsize>,
    lists: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Work {
    async fn start(socket: &str, digest: &str) -> Self {
        let [plans, lists, refused] = [(); 3].map(|()| Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..PLANS {
            let (socket, body, plans) = (socket.to_owned(), largest(digest), Arc::clone(&plans));
            tasks.spawn(async move {
                loop {
                    let planned = ask(&socket, "POST", "/v1/apps/big/plan", body.clone()).await;
                    let said = String::from_utf8_lossy(&planned.1[..planned.1.len().min(500)]);
                    // However large, it is good; whether there may be so much of it is another
                    // question, to which a plan has to come first.
                    assert!([200, 422].contains(&planned.0), "{}: {said}", planned.0);
                    plans.fetch_add(1, SeqCst);
                }
            });
        }
        let (reader, counted) = (socket.to_owned(), Arc::clone(&lists));
        tasks.spawn(async move {
            // Shorter than what has been read once it may not become.
            let length = list(&reader).await.len();
            loop {
                assert!(list(&reader).await.len() > length / 2, "all pods");
                counted.fetch_add(1, SeqCst);
            }
        });
        for number in 0..BOMBS {
            let mut bomb = components::bomb();
            bomb.extend([0, 3, 1, b'v', number]);
            let (socket, refused) = (socket.to_owned(), Arc::clone(&refused));
            let digest = upload(&socket, bomb).await;
            tasks.spawn(async move {
                loop {
                    let (status, _) = apply(&socket, &format!("bomb-{number}"), &digest, 0).await;
                    assert_eq!(status, 422);
                    refused.fetch_add(1, SeqCst);
                }
            });
        }
        Self {
            tasks,
            plans,
            lists,
            refused,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_long_lists_and_compile_bombs_keep_no_request_and_no_other_app_waiting() {
    let mut daemon = Daemon::start();
    let (at, socket) = (daemon.running().address(), daemon.api());
    let hello = guest("hello");
    daemon.apply(&format!(
        "[service.web]\ncomponent = '{hello}'\nroute = ['hello.test/']\n{}",
        many(&hello)
    ));
    assert!(ready(&list(&socket).await) > MANY.iter().product());
    let hello = std::fs::read(hello).expect("a guest");
    let digest = upload(&socket, hello).await;
    let quiet = p99(latencies(at, ROUND, None).await);
    let (status, quiet_apply) = apply(&socket, "other", &digest, ROUNDS).await;
    assert_eq!(status, 200);
    let (most, most_apply) = (P99.max(SLOWER * quiet), APPLY.max(SLOWER * quiet_apply));

    let mut work = Work::start(&socket, &digest).await;
    let mut figures = Vec::new();
    for round in 0..ROUNDS {
        let asked = latencies(at, ROUND, None);
        let (times, (status, applied)) =
            tokio::join!(asked, apply(&socket, "other", &digest, round));
        assert_eq!(status, 200);
        figures.push((p99(times), applied));
        let good = figures[round].0 < most && figures[round].1 < most_apply;
        if good && work.plans.load(SeqCst) >= PLANS && work.lists.load(SeqCst) > 0 {
            break;
        }
    }
    let (plans, lists) = (work.plans.load(SeqCst), work.lists.load(SeqCst));
    let refused = work.refused.load(SeqCst);
    eprintln!(
        "hello's p99 and the apply of another app: {quiet:?} and {quiet_apply:?} alone, {figures:?} \
         beside {plans} plans, {lists} lists and {refused} bombs"
    );
    assert!(work.tasks.try_join_next().is_none(), "all of it goes on");
    let (p99, applied) = figures[figures.len() - 1];
    assert!(
        p99 < most && applied < most_apply && plans > 0 && lists > 0,
        "hello's p99, and the apply of another app: {figures:?}, {plans} plans, {lists} lists"
    );
}
