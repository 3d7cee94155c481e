//! A load that comes all at once, and goes.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    curve::{Curve, Point},
    times,
};
use crate::{
    daemon::Daemon,
    rig::{PATIENCE, get, guest, sampan},
};

/// Share of a core that each pod may use, and how much of that it should.
const LIMIT: f64 = 0.1;
const TARGET: f64 = 0.7;
const MAX: u32 = 8;
const WINDOW: Duration = Duration::from_secs(6);
/// Requests per second before and after the step.
const QUIET: f64 = 2.0;
/// Pods that the load of the step should call for; more or fewer if requests then cost more or
/// less than those that were tried before.
const AIM: f64 = 6.5;
/// What a request computes.
const TURNS: u64 = 4_000_000;

/// What the clients saw: when each request was sent, how long it took, whether it failed.
#[derive(Default)]
struct Seen {
    answers: Vec<(Instant, Duration)>,
    wrong: Vec<String>,
}

/// Sends requests at a steady rate, however long they take.
async fn send(at: SocketAddr, rate: f64, time: Duration, seen: &Arc<Mutex<Seen>>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    let end = Instant::now() + time;
    while Instant::now() < end {
        ticks.tick().await;
        let seen = Arc::clone(seen);
        clients.spawn(async move {
            let asked = Instant::now();
            let answer = get(at, "x", &format!("/work?turns={TURNS}")).await;
            let mut seen = seen.lock().expect("no panic");
            seen.answers.push((asked, asked.elapsed()));
            if answer.status != 200 {
                seen.wrong.push(format!("{answer:?}"));
            }
        });
    }
    clients
}

/// The service at every change, as a watch tells it.
struct Watched {
    child: Child,
    states: Arc<Mutex<Vec<(Instant, u32, u32)>>>,
}

impl Watched {
    fn start(daemon: &Daemon) -> Self {
        let api = daemon.api();
        let arguments = [
            "get", "services", "web", "--watch", "-o", "json", "--api", &api,
        ];
        let child = sampan(&arguments).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the program starts");
        let shown = std::io::BufReader::new(child.stdout.take().expect("piped"));
        let states = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&states);
        std::thread::spawn(move || {
            let shown = serde_json::Deserializer::from_reader(shown).into_iter::<Value>();
            for value in shown.map_while(Result::ok) {
                let at = Instant::now();
                let service = value.get(0).unwrap_or(&value);
                let number =
                    |key: &str| service[key].as_u64().and_then(|it| u32::try_from(it).ok());
                if let (Some(replicas), Some(ready)) = (number("replicas"), number("ready")) {
                    told.lock().expect("no panic").push((at, replicas, ready));
                }
            }
        });
        Self { child, states }
    }

    fn states(&self) -> Vec<(Instant, u32, u32)> {
        self.states.lock().expect("no panic").clone()
    }

    /// Waits for a state, and says when it came.
    async fn when(&self, what: &str, is: impl Fn(u32, u32) -> bool, after: Instant) -> Instant {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let states = self.states();
            let found = states
                .iter()
                .find(|(at, replicas, ready)| *at >= after && is(*replicas, *ready));
            if let Some((at, ..)) = found {
                return *at;
            }
            assert!(Instant::now() < deadline, "never {what}: {states:?}");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds that the pods which there are have used.
fn used(daemon: &Daemon) -> f64 {
    let pods = tokio::task::block_in_place(|| daemon.json(&["get", "pods"]));
    let pods = pods.as_array().expect("a list");
    let used = pods.iter().map(|pod| pod["usage"]["cpu_ms"].as_f64());
    used.flatten().sum::<f64>() / 1e3
}

/// CPU seconds that one request takes.
async fn cost(daemon: &Daemon, at: SocketAddr) -> f64 {
    const ASKED: u32 = 10;
    let before = used(daemon);
    for _ in 0..ASKED {
        let answer = get(at, "x", &format!("/work?turns={TURNS}")).await;
        assert_eq!(answer.status, 200);
    }
    (used(daemon) - before) / f64::from(ASKED)
}

fn answers(seen: &Mutex<Seen>) -> usize {
    seen.lock().expect("no panic").answers.len()
}

/// The pods that the formula calls for, within its tolerance.
fn wanted(rate: f64, cost: f64) -> u32 {
    let pods = rate * cost / LIMIT / TARGET / 1.1;
    (pods.ceil() as u32).clamp(2, MAX)
}

fn spec() -> String {
    let (component, window) = (guest("hostile"), WINDOW.as_secs());
    format!(
        "[service.web]\ncomponent = '{component}'\nroute = ['/']\n\
         [service.web.limits]\ncpu = '{}m'\n\
         [service.web.autoscale]\nmin = 1\nmax = {MAX}\ncpu = '{}%'\nstabilization = '{window}s'\n",
        LIMIT * 1e3,
        TARGET * 100.0
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_the_load_is_followed() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    daemon.apply(&spec());
    let cost = cost(&daemon, at).await;
    let rate = AIM * LIMIT * TARGET / cost;
    let watched = Watched::start(&daemon);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let began = Instant::now();
    let quiet = send(at, QUIET, Duration::from_secs(8), &seen).await;
    let single = watched.when(
        "one pod",
        |replicas, ready| (replicas, ready) == (1, 1),
        began,
    );
    single.await;
    let before = (used(&daemon), answers(&seen));
    let step = Instant::now();
    let long = Duration::from_secs(times("SAMPAN_SECONDS", 8) as u64);
    let busy = send(at, rate, long, &seen).await;
    let end = Instant::now();
    // All pods of the step are there still.
    let (used, answered) = (used(&daemon) - before.0, answers(&seen) - before.1);
    let cost = used / answered as f64;
    let wanted = wanted(rate, cost);
    let reached = watched
        .when("enough pods", |_, ready| ready >= wanted, step)
        .await;
    let after = send(at, QUIET, Duration::from_secs(3), &seen).await;
    for clients in [quiet, busy, after] {
        clients.join_all().await;
    }
    let settled = watched
        .when("one pod again", |replicas, _| replicas == 1, end)
        .await;
    let points = points(
        &seen.lock().expect("no panic"),
        &watched.states(),
        (began, step, end),
        rate,
    );
    let curve = Curve {
        points,
        step: (step - began).as_secs_f64(),
        end: (end - began).as_secs_f64(),
    };
    curve.write();
    eprintln!(
        "{:.1} ms a request, {rate:.0} a second: {wanted} pods after {:.2} s, 1 again {:.2} s after the end, {} answers",
        cost * 1e3,
        (reached - step).as_secs_f64(),
        (settled - end).as_secs_f64(),
        answers(&seen),
    );
    let seen = seen.lock().expect("no panic");
    assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
    let limit = Duration::from_secs(times("SAMPAN_STEP_SECONDS", 10) as u64);
    assert!(
        reached - step <= limit,
        "{:?}\n{:#?}",
        reached - step,
        daemon.events()
    );
    // The highest need of the window holds; it is looked at once a second.
    assert!(
        settled - end >= WINDOW - Duration::from_secs(1),
        "{:?}",
        settled - end
    );
}

/// The curve, second by second.
fn points(
    seen: &Seen,
    states: &[(Instant, u32, u32)],
    (began, step, end): (Instant, Instant, Instant),
    rate: f64,
) -> Vec<Point> {
    let last = seen
        .answers
        .iter()
        .map(|(asked, _)| *asked)
        .max()
        .unwrap_or(began);
    let seconds = (last - began).as_secs() + WINDOW.as_secs() + 2;
    let point = |second: u64| {
        let from = began + Duration::from_secs(second);
        let to = from + Duration::from_secs(1);
        let own = seen
            .answers
            .iter()
            .filter(|(asked, _)| (from..to).contains(asked));
        let mut took: Vec<_> = own.map(|(_, took)| *took).collect();
        took.sort();
        let state = states.iter().rev().find(|(at, ..)| *at < to);
        Point {
            second,
            load: if from >= step && to <= end {
                rate
            } else {
                took.len() as f64
            },
            replicas: state.map_or(1, |(_, replicas, _)| *replicas),
            ready: state.map_or(1, |(.., ready)| *ready),
            p99: took.get(took.len() * 99 / 100).copied(),
        }
    };
    (0..seconds).map(point).collect()
}
