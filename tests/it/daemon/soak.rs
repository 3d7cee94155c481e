//! A daemon that is left running: mixed traffic, failures, clients that go away, and rollouts.
//! Resident memory, threads, descriptors and memory maps level off.
//!
//! `SAMPAN_SOAK_SECONDS` sets how long; from [`STRICT`] on the figures have limits. A table of all
//! samples is written to `soak.csv` in cargo's folder for what tests leave.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::{Daemon, times, variant};
use crate::rig::{PATIENCE, guest};

/// The shortest soak whose figures have limits: ten minutes to settle, and as long again.
const STRICT: Duration = Duration::from_secs(1200);
/// When memory is expected to have settled.
const SETTLED: Duration = Duration::from_secs(600);
/// Growth of resident memory from then to the end that is accepted.
const MAX_GROWTH: f64 = 0.05;
/// Time between two rollouts.
const ROLLOUT: Duration = Duration::from_secs(10);
/// The figures before and after are means over so long.
const WINDOW: Duration = Duration::from_secs(60);

/// One kind of request.
struct Kind {
    host: &'static str,
    method: &'static str,
    path: &'static str,
    body_bytes: usize,
    /// Requests a second.
    rate: f64,
    status: u16,
    /// Whether the client goes away when it has read the head.
    leaves: bool,
}

const fn kind(host: &'static str, path: &'static str, rate: f64, status: u16) -> Kind {
    Kind {
        host,
        method: "GET",
        path,
        body_bytes: 0,
        rate,
        status,
        leaves: false,
    }
}

fn kinds() -> Vec<Kind> {
    let stream = "/stream?ms=1000&parts=10";
    vec![
        kind("fresh", "/", 100.0, 200),
        kind("kept", "/", 50.0, 200),
        kind("shared", "/", 50.0, 200),
        kind("slow", "/?ms=50", 10.0, 200),
        kind("slow", stream, 2.0, 200),
        kind("ticks", "/ticks?n=20&ms=20", 5.0, 200),
        kind("caller", "/call?url=http://fresh/", 10.0, 200),
        kind("none", "/", 10.0, 404),
        kind("hostile", "/burn?ms=5", 5.0, 200),
        kind("hostile", "/trap", 1.0, 500),
        kind("hostile", "/memory", 0.2, 200),
        kind("hostile", "/spin", 0.1, 504),
        Kind {
            method: "POST",
            body_bytes: 100_000,
            ..kind("echo", "/", 10.0, 200)
        },
        Kind {
            leaves: true,
            ..kind("slow", stream, 2.0, 200)
        },
        Kind {
            leaves: true,
            ..kind("ticks", "/ticks?n=1000&ms=5", 2.0, 200)
        },
    ]
}

fn spec(hello: &Path) -> String {
    let service = |name: &str, component: &str, more: &str| {
        format!("[service.{name}]\ncomponent = '{component}'\nroute = ['{name}/']\n{more}\n")
    };
    let hello = hello.display().to_string();
    [
        service("fresh", &hello, "replicas = 3"),
        service("kept", &guest("counter"), "replicas = 3\nisolation = 'pod'"),
        service("shared", &guest("hello-p3"), "replicas = 2"),
        service("slow", &guest("slow"), "replicas = 2"),
        service("ticks", &guest("stream-p3"), "replicas = 2"),
        service("caller", &guest("caller"), "depends_on = ['fresh']"),
        service("echo", &guest("echo"), "replicas = 2"),
        service(
            "hostile",
            &guest("hostile"),
            "replicas = 2\nlimits = { request_cpu = '500ms' }",
        ),
    ]
    .concat()
}

#[derive(Default)]
struct Seen {
    sent: AtomicU64,
    wrong: Mutex<Vec<String>>,
    over: AtomicBool,
}

type Sender = http1::SendRequest<Full<Bytes>>;

async fn connect(at: SocketAddr) -> Sender {
    let stream = TcpStream::connect(at).await.expect("it accepts");
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("HTTP/1.1");
    // What becomes of it shows at the sender.
    tokio::spawn(async move { drop(connection.await) });
    sender
}

/// Sends one request and reads its answer: what was wrong with that, if anything.
async fn ask(sender: &mut Sender, kind: &Kind) -> Result<(), String> {
    let request = http::Request::builder()
        .method(kind.method)
        .uri(kind.path)
        .header("host", kind.host)
        .body(Full::new(Bytes::from(vec![b'x'; kind.body_bytes])))
        .expect("a good request");
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    let status = answer.status().as_u16();
    if status != kind.status {
        return Err(format!("{status}, not {}", kind.status));
    }
    if kind.leaves {
        return Ok(());
    }
    let body = answer.into_body().collect().await;
    body.map(drop).map_err(|error| format!("body: {error:?}"))
}

/// Sends requests of one kind at its rate. Every other one has a connection of its own.
async fn client(at: SocketAddr, kind: Kind, seen: Arc<Seen>) {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / kind.rate));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut kept: Option<Sender> = None;
    let mut number = 0_u64;
    while !seen.over.load(SeqCst) {
        ticks.tick().await;
        number += 1;
        let mut sender = match kept.take() {
            Some(sender) if number.is_multiple_of(2) && !sender.is_closed() => sender,
            _ => connect(at).await,
        };
        let outcome = ask(&mut sender, &kind).await;
        seen.sent.fetch_add(1, SeqCst);
        match outcome {
            Ok(()) if kind.leaves => {}
            Ok(()) => kept = Some(sender),
            Err(what) => {
                let mut wrong = seen.wrong.lock().expect("no panic");
                wrong.push(format!("{}{}: {what}", kind.host, kind.path));
            }
        }
    }
}

/// What the process holds.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: Duration,
    resident_kib: f64,
    threads: f64,
    descriptors: f64,
    maps: f64,
}

fn sample(pid: u32, at: Duration) -> Sample {
    let of = |name: &str| format!("/proc/{pid}/{name}");
    let status = fs::read_to_string(of("status")).expect("it runs");
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|it| it.parse().ok())
            .expect("a field of `status`")
    };
    let maps = fs::read_to_string(of("maps")).expect("it runs");
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let count = |number: usize| number as f64;
    Sample {
        at,
        resident_kib: field("VmRSS:"),
        threads: field("Threads:"),
        descriptors: count(fs::read_dir(of("fd")).expect("it runs").count()),
        maps: count(maps.lines().count()),
    }
}

/// The mean over the window that ends at this time.
fn mean(samples: &[Sample], end: Duration) -> Sample {
    let window = samples
        .iter()
        .filter(|it| it.at <= end && it.at + WINDOW > end);
    let (mut sum, mut number) = (Sample::default(), 0.0);
    for it in window {
        sum.resident_kib += it.resident_kib;
        sum.threads += it.threads;
        sum.descriptors += it.descriptors;
        sum.maps += it.maps;
        number += 1.0;
    }
    Sample {
        at: end,
        resident_kib: sum.resident_kib / number,
        threads: sum.threads / number,
        descriptors: sum.descriptors / number,
        maps: sum.maps / number,
    }
}

fn table(samples: &[Sample]) -> String {
    let mut text = "seconds,resident_kib,threads,descriptors,maps\n".to_owned();
    for it in samples {
        writeln!(
            text,
            "{},{},{},{},{}",
            it.at.as_secs(),
            it.resident_kib,
            it.threads,
            it.descriptors,
            it.maps
        )
        .expect("a string takes it");
    }
    text
}

fn judge(samples: &[Sample], length: Duration) {
    let (before, after) = (mean(samples, SETTLED), mean(samples, length));
    eprintln!("settled {before:?}\nat the end {after:?}");
    let growth = |of: fn(&Sample) -> f64| of(&after) / of(&before) - 1.0;
    let resident = growth(|it| it.resident_kib);
    assert!(resident <= MAX_GROWTH, "resident memory: {resident:+.3}");
    // The pool of threads that may block shrinks and grows with the load: it may be as large again
    // as it was in one of the first minutes.
    let minutes = 1..=(SETTLED.as_secs() / WINDOW.as_secs()) as u32;
    let had = minutes.map(|minute| mean(samples, WINDOW * minute).threads);
    let had = had.fold(0.0, f64::max);
    assert!(after.threads <= had * (1.0 + MAX_GROWTH), "threads: {had}");
    assert!(growth(|it| it.descriptors) <= MAX_GROWTH, "descriptors");
    assert!(growth(|it| it.maps) <= MAX_GROWTH, "maps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_daemon_holds_levels_off() {
    let length = Duration::from_secs(times("SAMPAN_SOAK_SECONDS", 5) as u64);
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    let versions = [1, 2].map(|number| variant("hello", number, daemon.directory.path()));
    tokio::task::block_in_place(|| daemon.apply(&spec(&versions[0])));
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for kind in kinds() {
        clients.spawn(client(at, kind, Arc::clone(&seen)));
    }

    let (began, mut samples) = (Instant::now(), Vec::new());
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let (mut rollouts, mut next) = (0_usize, Duration::from_secs(1));
    while began.elapsed() < length {
        ticks.tick().await;
        samples.push(sample(daemon.running().id(), began.elapsed()));
        if began.elapsed() >= next {
            rollouts += 1;
            next += ROLLOUT;
            let version = &versions[rollouts % 2];
            tokio::task::block_in_place(|| daemon.apply(&spec(version)));
        }
    }
    seen.over.store(true, SeqCst);
    let ended = tokio::time::timeout(PATIENCE, clients.join_all()).await;
    ended.expect("every answer comes");

    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.csv");
    fs::write(path, table(&samples)).expect("written");
    let wrong = seen.wrong.lock().expect("no panic");
    let sent = seen.sent.load(SeqCst);
    assert!(wrong.is_empty(), "of {sent} requests: {wrong:#?}");
    assert!(rollouts > 0, "it was rolled out");
    eprintln!("{sent} requests, {rollouts} rollouts in {length:?}");
    if length >= STRICT {
        judge(&samples, length);
    }
    let (status, talk) = daemon.running.take().expect("it runs").interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}
