//! Guests that wait for each other for ever, with no time limit anywhere: what proves it, how soon,
//! and what becomes of the others.

use std::{net::SocketAddr, time::Duration};

use crate::rig::{Running, get, guest, repository, sampan};

/// How soon after its last member has blocked a deadlock must be proven.
const LIMIT: Duration = Duration::from_millis(100);
/// Deadlocks of each kind; `SAMPAN_DEADLOCKS` sets another number.
const TRIES: usize = 20;

fn up(spec: &str) -> Running {
    let spec = repository(spec).display().to_string();
    Running::start(sampan(&["up", "-f", &spec, "--http", "127.0.0.1:0"]))
}

fn tries() -> usize {
    let tries = std::env::var("SAMPAN_DEADLOCKS").ok();
    tries.and_then(|it| it.parse().ok()).unwrap_or(TRIES)
}

/// How long the last one to block had been blocked when the deadlock was proven.
fn delay(report: &str) -> Duration {
    let times = report.split("since ").skip(1).map(|rest| {
        let number = rest.split(' ').next().unwrap_or_default();
        number.parse().unwrap_or_else(|_| panic!("{report}"))
    });
    Duration::from_millis(times.min().unwrap_or_else(|| panic!("{report}")))
}

/// All but one in a hundred must be in time: the machine may be busy.
#[expect(
    clippy::print_stdout,
    reason = "a run that asks for more tries is for the figures"
)]
fn judge(kind: &str, mut delays: Vec<Duration>) {
    delays.sort();
    let p99 = delays[(delays.len() * 99).div_ceil(100) - 1];
    let median = delays[delays.len() / 2];
    println!(
        "{kind}: {} deadlocks, p50 {median:?}, p99 {p99:?}",
        delays.len()
    );
    assert!(p99 <= LIMIT, "{kind}: {delays:?}");
}

/// Each member with its request and what it waits for, in any order.
fn assert_names(report: &str, members: &[(&str, &str)]) {
    for (pod, wait) in members {
        let named = report.split("; ").any(|part| {
            part.contains(&format!("`{pod}` (GET /")) && part.contains(&format!("for {wait}"))
        });
        assert!(named, "no {pod} that waits for {wait} in: {report}");
    }
}

async fn ask(at: SocketAddr, host: &'static str, path: &'static str) -> (u16, String) {
    let response = get(at, host, path).await;
    (response.status, response.body)
}

#[tokio::test]
async fn two_that_call_each_other() {
    let mut running = up("workloads/deadlock/pair.toml");
    let at = running.address();
    assert_eq!(ask(at, "a.localhost", "/?hops=1").await.0, 200);
    let mut delays = Vec::new();
    for _ in 0..tries() {
        // The call back fails, and its caller answers that.
        let answer = ask(at, "a.localhost", "/").await;
        assert_eq!(answer, (508, "a <- b: LoopDetected\n".to_owned()));
        let report = running.line_with("proven deadlock: ");
        assert_names(
            &report,
            &[
                ("a-1-0", "the answer of `b`"),
                ("b-1-0", "the answer of `a`"),
            ],
        );
        delays.push(delay(&report));
    }
    judge("pair", delays);
    assert_eq!(ask(at, "a.localhost", "/?hops=1").await.0, 200);
    assert!(running.interrupt().0.success());
}

#[tokio::test]
async fn three_in_a_ring() {
    let mut running = up("workloads/deadlock/triple.toml");
    let at = running.address();
    let mut delays = Vec::new();
    for _ in 0..tries() {
        const PATH: &str = "/?hops=1&ms=50";
        let (a, b, c) = tokio::join!(
            ask(at, "a.localhost", PATH),
            ask(at, "b.localhost", PATH),
            ask(at, "c.localhost", PATH),
        );
        let mut statuses = [a.0, b.0, c.0];
        statuses.sort_unstable();
        // One fails, and the two others go on.
        assert_eq!(statuses, [200, 200, 508], "{a:?} {b:?} {c:?}");
        let report = running.line_with("proven deadlock: ");
        assert_names(
            &report,
            &[
                ("a-1-0", "the answer of `b`"),
                ("b-1-0", "the answer of `c`"),
                ("c-1-0", "the answer of `a`"),
            ],
        );
        delays.push(delay(&report));
    }
    judge("triple", delays);
    assert!(running.interrupt().0.success());
}

#[tokio::test]
async fn callers_that_hold_the_slots_their_callee_needs() {
    let mut running = up("workloads/deadlock/starvation.toml");
    let at = running.address();
    let mut delays = Vec::new();
    for _ in 0..tries() {
        const PATH: &str = "/?hops=2&ms=50";
        let one = ask(at, "front.localhost", PATH);
        let two = ask(at, "front.localhost", PATH);
        let (one, two) = tokio::join!(one, two);
        let mut statuses = [one.0, two.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 508], "{one:?} {two:?}");
        let report = running.line_with("proven deadlock: ");
        assert_names(
            &report,
            &[
                ("front-1-0", "the answer of `back`"),
                ("back-1-0", "the answer of `front`"),
            ],
        );
        assert_eq!(report.matches("waits in").count(), 4, "{report}");
        delays.push(delay(&report));
    }
    judge("starvation", delays);
    assert!(running.interrupt().0.success());
}

/// Waits that only the guest itself could end, of both versions of WASI.
#[tokio::test]
async fn one_that_waits_for_itself() {
    let directory = crate::rig::directory(&[]);
    let spec = directory.path().join("sampan.toml");
    let text = format!(
        "app = 'self'\n\
         [service.p2]\ncomponent = '{}'\nroute = ['p2.test/']\n\
         allow = {{ outbound = ['http://example.com'] }}\nlimits = {{ request_timeout = '0s' }}\n\
         [service.p3]\ncomponent = '{}'\nroute = ['p3.test/']\nisolation = 'request'\n\
         limits = {{ request_timeout = '0s' }}\n",
        guest("deadlock-self"),
        guest("deadlock-self-p3")
    );
    std::fs::write(&spec, text).expect("a file");
    let spec = spec.display().to_string();
    let mut running = Running::start(sampan(&["up", "-f", &spec, "--http", "127.0.0.1:0"]));
    let at = running.address();
    let shapes = [
        ("p2.test", "/write-before-send", "the request body"),
        ("p2.test", "/poll-before-send", "the request body"),
        ("p2.test", "/write-before-set", "the response body"),
        ("p3.test", "/read-own-stream", "only it could do"),
        ("p3.test", "/await-own-future", "only it could do"),
        ("p3.test", "/body-before-send", "only it could do"),
        ("p3.test", "/trailers-before-send", "only it could do"),
        ("p3.test", "/empty-set", "only it could do"),
    ];
    let mut delays = Vec::new();
    for _ in 0..tries().div_ceil(4) {
        for (host, path, wait) in shapes {
            let answer = ask(at, host, path).await;
            assert_eq!(answer.0, 508, "{path}: {answer:?}");
            let report = running.line_with("proven deadlock: ");
            assert!(report.contains(path) && report.contains(wait), "{report}");
            delays.push(delay(&report));
            assert_eq!(ask(at, host, "/").await, (200, "ok\n".to_owned()));
        }
    }
    judge("self", delays);
    assert!(running.interrupt().0.success());
}
