//! `limits.cpu` as users meet it: two busy services have what they may have, and a third one does
//! not notice.
//!
//! `SAMPAN_SECONDS=10` measures for that long, with narrower bounds.

#![allow(
    clippy::print_stderr,
    reason = "figures that are printed with `--nocapture`"
)]

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::rig::{Running, directory, done, get, guest, latencies, out, sampan};

/// How long is measured unless the environment says otherwise.
const USUAL_SECONDS: u64 = 2;
/// From this length on the bounds are narrow.
const FULL_SECONDS: u64 = 10;
/// Requests that each busy service has at once: with `isolation = "pod"` one is worked on and the
/// others wait.
const AT_ONCE: usize = 4;
/// Between two requests to the third service.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest that its slowest hundredth may take.
const QUICK: Duration = Duration::from_millis(20);
/// Measurements in which all may be as it should. Other programs on the machine take CPU away.
const TRIES: usize = 5;
/// The part of the machine's time that is left over at least, if there are no other programs.
const LEFT_OVER: f64 = 0.25;
/// How long it takes at most until both pods are throttled, where processors are left for them.
const UNTIL_THROTTLED: Duration = Duration::from_secs(10);

/// The busy services, which differ in what runs their guests.
const BUSY: [(&str, &str); 2] = [("fresh", "request"), ("kept", "pod")];

fn spec() -> String {
    let mut text = format!(
        "app = 'a'\n[service.hello]\ncomponent = '{}'\nroute = ['hello.test/']\n",
        guest("hello")
    );
    for (name, isolation) in BUSY {
        text += &format!(
            "[service.{name}]\ncomponent = '{}'\nisolation = '{isolation}'\n\
             route = ['{name}.test/']\n\
             [service.{name}.limits]\ncpu = '500m'\nrequest_cpu = '30s'\n",
            guest("hostile")
        );
    }
    text
}

/// What was seen.
struct Figures {
    /// CPU of each busy pod, in parts of a core.
    shares: Vec<f64>,
    /// The part of the time in which each of them was throttled.
    throttled: Vec<f64>,
    /// The third service's slowest hundredth.
    p99: Duration,
    asked: usize,
    /// The part of the machine's time in which a processor had nothing to do.
    idle: f64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_busy_services_have_half_a_core_each_and_a_third_is_as_quick_as_ever() {
    let files = directory(&[("sampan.toml", spec().as_bytes())]);
    let place = |name: &str| files.path().join(name).display().to_string();
    let (spec, api) = (place("sampan.toml"), files.path().join("api.sock"));
    let api_text = api.display().to_string();
    let http = "127.0.0.1:0";
    let mut running = Running::start(sampan(&[
        "up", "-f", &spec, "--http", http, "--api", &api_text,
    ]));
    let at = running.address();
    let seconds = std::env::var("SAMPAN_SECONDS").ok();
    let seconds = seconds.and_then(|it| it.parse().ok());
    let seconds = seconds.unwrap_or(USUAL_SECONDS);
    let bounds = match seconds {
        FULL_SECONDS.. => 0.45..=0.55,
        _ => 0.40..=0.60,
    };
    let over = AtomicBool::new(false);
    let measured = async {
        let mut seen = Vec::new();
        for _ in 0..TRIES {
            let figures = measure(at, &api, Duration::from_secs(seconds)).await;
            // However busy the machine is, no pod has more than the share.
            let most = *bounds.end();
            let is_kept = figures.shares.iter().all(|it| *it <= most);
            assert!(is_kept, "{}", figures.text());
            let is_good = is_good(&figures, &bounds);
            seen.push(figures);
            if is_good {
                break;
            }
        }
        over.store(true, Relaxed);
        seen
    };
    let clients = BUSY.iter().flat_map(|(name, _)| {
        let over = &over;
        (0..AT_ONCE).map(move |_| keep_busy(at, name, over))
    });
    let (seen, _) = tokio::join!(measured, futures::future::join_all(clients));
    let described = out(&done(&["describe", "pod/fresh-1-0", "--api", &api_text]));
    assert!(described.contains("by `limits.cpu`"), "{described}");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    for figures in &seen {
        eprintln!("{seconds} s: {}", figures.text());
    }
    // The processors went to other processes.
    let is_busy = |figures: &Figures| figures.idle < LEFT_OVER;
    let some_good = seen.iter().any(|it| is_good(it, &bounds));
    assert!(some_good || seen.iter().all(is_busy), "not as it should be");
}

impl Figures {
    fn text(&self) -> String {
        let percent = |parts: &[f64]| {
            let texts = parts.iter().map(|part| format!("{:.1} %", part * 100.0));
            texts.collect::<Vec<_>>().join(" and ")
        };
        format!(
            "cores {}, throttled {}, p99 of {} requests {:?}, idle {}",
            percent(&self.shares),
            percent(&self.throttled),
            self.asked,
            self.p99,
            percent(&[self.idle]),
        )
    }
}

fn is_good(figures: &Figures, bounds: &RangeInclusive<f64>) -> bool {
    figures.shares.iter().all(|it| bounds.contains(it))
        && figures.throttled.iter().all(|it| *it > 0.0)
        && figures.p99 < QUICK
}

/// Sends one request after the other that computes.
async fn keep_busy(at: SocketAddr, service: &str, over: &AtomicBool) {
    while !over.load(Relaxed) {
        let response = get(at, &format!("{service}.test"), "/burn?ms=500").await;
        assert_eq!(response.status, 200, "{service}: {response:?}");
    }
}

async fn measure(at: SocketAddr, api: &Path, time: Duration) -> Figures {
    // Until both are throttled: what they used before is not what they use.
    let deadline = Instant::now() + UNTIL_THROTTLED;
    let (idle_at_first, all_at_first) = processors();
    let (mut begin, mut before) = (Instant::now(), usage(api).await);
    while before.iter().any(|(_, throttled)| *throttled == 0.0) {
        if Instant::now() >= deadline {
            let (idle, all) = processors();
            let idle = (idle - idle_at_first) / (all - all_at_first);
            // Where the processors go to other processes, a pod does not come by its share.
            assert!(idle < LEFT_OVER, "not throttled: {before:?}, idle {idle}");
            break;
        }
        (begin, before) = (Instant::now(), usage(api).await);
    }
    let (idle_before, all_before) = processors();
    let mut times = latencies(at, time, Some(PAUSE)).await;
    let (ran, after) = (begin.elapsed().as_secs_f64() * 1e3, usage(api).await);
    let (idle, all) = processors();
    times.sort_unstable();
    let each = || before.iter().zip(&after);
    Figures {
        shares: each().map(|(old, new)| (new.0 - old.0) / ran).collect(),
        throttled: each().map(|(old, new)| (new.1 - old.1) / ran).collect(),
        p99: times[times.len() * 99 / 100],
        asked: times.len(),
        idle: (idle - idle_before) / (all - all_before),
    }
}

/// The time in which processors had nothing to do, and all of their time, as Linux counts it.
fn processors() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/stat").expect("readable");
    let first = text.lines().next().expect("a line");
    let times = first.split_whitespace().skip(1).map(|it| it.parse::<f64>());
    let times: Vec<_> = times.map(|it| it.expect("a number")).collect();
    // `idle` and `iowait`; the last two are in others already.
    (times[3] + times[4], times[..8].iter().sum())
}

/// The CPU that each busy pod has used and the time in which it was throttled, in milliseconds.
async fn usage(api: &Path) -> Vec<(f64, f64)> {
    let stream = UnixStream::connect(api).await.expect("it listens");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let request = http::Request::get("/v1/pods").header("host", "localhost");
    let request = request.body(Empty::<&[u8]>::new()).expect("a good request");
    let response = sender.send_request(request).await.expect("a response");
    let body = response.into_body().collect().await.expect("a whole body");
    drop(sender);
    // It ends with its last handle.
    let _ = connection.await;
    let found: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
    let pods = found.as_array().expect("a list");
    let of = |service: &str| {
        let pod = pods.iter().find(|pod| pod["service"] == service);
        let usage = &pod.unwrap_or_else(|| panic!("no pod of {service}: {pods:?}"))["usage"];
        let number = |name: &str| usage[name].as_f64().expect("a number");
        (number("cpu_ms"), number("throttled_ms"))
    };
    BUSY.iter().map(|(service, _)| of(service)).collect()
}
