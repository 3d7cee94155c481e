//! What guests are killed for, and what they are not killed for, under load.
//!
//! `SAMPAN_SECONDS` and `SAMPAN_KILLS` make the tests longer than a regular run is.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::rig::{Running, done, get, guest, out, sampan, send};

fn number(variable: &str, default: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// An app with a control socket of its own.
struct App {
    running: Running,
    at: SocketAddr,
    socket: String,
    _directory: tempfile::TempDir,
}

impl App {
    fn up(spec: &str) -> Self {
        let directory = crate::rig::directory(&[]);
        let place = |name: &str| directory.path().join(name).display().to_string();
        let (path, socket) = (place("sampan.toml"), place("api.sock"));
        let mut text = format!("app = 'a'\n{spec}");
        for piece in spec.split('\'').filter(|piece| piece.ends_with(".wasm")) {
            let name = piece.trim_end_matches(".wasm");
            text = text.replace(&format!("'{piece}'"), &format!("'{}'", guest(name)));
        }
        std::fs::write(&path, text).expect("a file");
        let arguments = ["up", "-f", &path, "--http", "127.0.0.1:0", "--api", &socket];
        let mut running = Running::start(sampan(&arguments));
        let at = running.address();
        Self {
            running,
            at,
            socket,
            _directory: directory,
        }
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = done(&[arguments, &["--api", &self.socket]].concat());
        assert!(output.status.success(), "{output:?}");
        out(&output)
    }

    fn pod(&self, name: &str) -> Value {
        let text = self.ask(&["describe", &format!("pod/{name}"), "--json"]);
        serde_json::from_str(&text).expect("JSON")
    }

    /// Looks again and again whether a pod under load was started again.
    fn no_restarts_until(&self, end: Instant) {
        while Instant::now() < end {
            let text = self.ask(&["get", "pods", "-o", "json"]);
            let pods: Value = serde_json::from_str(&text).expect("JSON");
            for pod in pods.as_array().expect("a list") {
                let is_loaded = pod["service"] != "hung";
                assert!(!is_loaded || pod["restarts"] == 0, "{pod:#}");
            }
        }
    }

    fn events(&self) -> String {
        self.ask(&["events"])
    }
}

/// Requests without pause from so many clients until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(at: SocketAddr, host: &'static str, path: &'static str, clients: usize) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut set = JoinSet::new();
        for _ in 0..clients {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            set.spawn(async move {
                while !stop.load(SeqCst) {
                    let response = get(at, host, path).await;
                    assert_eq!(response.status, 200, "{host}{path}: {response:?}");
                    answered.fetch_add(1, SeqCst);
                }
            });
        }
        Self {
            stop,
            answered,
            clients: set,
        }
    }

    async fn stop(mut self) -> usize {
        self.stop.store(true, SeqCst);
        while let Some(client) = self.clients.join_next().await {
            client.expect("every request is answered");
        }
        self.answered.load(SeqCst)
    }
}

/// The first time in a text after this.
fn time_after(text: &str, label: &str) -> Duration {
    let rest = text
        .split(label)
        .nth(1)
        .unwrap_or_else(|| panic!("no {label}: {text}"));
    let mut words = rest.split_whitespace();
    let number: f64 = words
        .next()
        .and_then(|it| it.parse().ok())
        .expect("a number");
    Duration::from_secs_f64(match words.next() {
        Some("µs") => number / 1e6,
        Some("ms") => number / 1e3,
        _ => number,
    })
}

/// From the budget being spent to the kill, beside four services that serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spinning_guest_is_killed_soon_after_its_budget() {
    let app = App::up(
        "[service.spin]\ncomponent = 'slow.wasm'\nroute = ['spin/']\n\
         limits = { request_cpu = '200ms' }\nrestart = { initial = '10ms', max = '20ms' }\n\
         [service.a]\ncomponent = 'hello.wasm'\nroute = ['a/']\n\
         [service.b]\ncomponent = 'hello.wasm'\nroute = ['b/']\nisolation = 'pod'\n\
         [service.c]\ncomponent = 'hello-p3.wasm'\nroute = ['c/']\n\
         [service.d]\ncomponent = 'counter.wasm'\nroute = ['d/']\n",
    );
    let loads: Vec<_> = ["a", "b", "c", "d"]
        .map(|host| Load::start(app.at, host, "/", 1))
        .into();
    let mut late = Vec::new();
    for _ in 0..number("SAMPAN_KILLS", 10) {
        assert_eq!(get(app.at, "spin", "/spin").await.status, 504);
        let pod = app.pod("spin-1-0");
        let ends = pod["terminations"].as_array().expect("a list");
        // Too many such requests are the end of the pod, too.
        let mut spins = ends.iter().rev();
        let last = spins.find(|end| end["verdict"] == "Spinning");
        let last = last.expect("an end");
        let text = last["explanation"].as_str().expect("text");
        late.push(time_after(text, "; stopped "));
    }
    for load in loads {
        assert!(load.stop().await > 0);
    }
    judge(late);
}

#[expect(
    clippy::print_stdout,
    reason = "a run that asks for more kills is for the figure"
)]
fn judge(mut late: Vec<Duration>) {
    late.sort();
    let (median, p99) = (
        late[late.len() / 2],
        late[(late.len() * 99).div_ceil(100) - 1],
    );
    println!(
        "{} kills, p50 {median:?}, p99 {p99:?} after the budget",
        late.len()
    );
    // Of a few, the worst is a matter of what else the machine does.
    let judged = if late.len() < 100 { median } else { p99 };
    assert!(judged <= Duration::from_millis(20), "{late:?}");
}

/// A server that takes connections and never says anything.
async fn silent() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address
}

/// Sends a body one byte at a time, or reads an answer that slowly, until `end`. The gateway puts up
/// with that for a while only: then comes the next client.
async fn slow_clients(at: SocketAddr, host: &str, path: &str, is_writer: bool, end: Instant) {
    while Instant::now() < end {
        slow_client(at, host, path, is_writer, end).await;
    }
}

async fn slow_client(at: SocketAddr, host: &str, path: &str, is_writer: bool, end: Instant) {
    let mut stream = TcpStream::connect(at).await.expect("it accepts");
    let method = if is_writer { "POST" } else { "GET" };
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000\r\n\r\n");
    let head = if is_writer {
        head
    } else {
        head.replace("content-length: 1000000\r\n", "")
    };
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while Instant::now() < end {
        tick.tick().await;
        let is_cut = match is_writer {
            true => stream.write_all(b"x").await.is_err(),
            false => stream.read_u8().await.is_err(),
        };
        if is_cut {
            return;
        }
    }
}

/// Asks for what is never answered before `end`, except that no request waits for a silent server for
/// ever.
async fn ask_until(at: SocketAddr, host: &str, path: &str, end: Instant) {
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        let Ok(answer) = tokio::time::timeout(rest, get(at, host, path)).await else {
            return;
        };
        let is_silence = answer.status == 502 && answer.body.contains("ReadTimeout");
        assert!(is_silence, "{host}{path}: {answer:?}");
    }
}

/// Guests that wait for timers, silent servers and slow clients, guests that call each other, and
/// load: no deadlock is there, and none is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_something_alive_is_left_alone() {
    let server = silent().await;
    let app = App::up(&format!(
        "[service.p2]\ncomponent = 'slow-but-live.wasm'\nroute = ['p2/']\n\
         allow = {{ outbound = ['http://{server}'] }}\nlimits = {{ request_timeout = '0s' }}\n\
         [service.p2-pod]\ncomponent = 'slow-but-live.wasm'\nroute = ['p2-pod/']\nreplicas = 4\n\
         isolation = 'pod'\nlimits = {{ request_timeout = '0s' }}\n\
         [service.p3]\ncomponent = 'slow-but-live-p3.wasm'\nroute = ['p3/']\n\
         allow = {{ outbound = ['http://{server}'] }}\nlimits = {{ request_timeout = '0s' }}\n\
         [service.front]\ncomponent = 'chain.wasm'\nroute = ['front/']\nconcurrency = 4\n\
         env = {{ NAME = 'front', NEXT = 'http://back/' }}\nallow = {{ services = ['back'] }}\n\
         limits = {{ request_timeout = '0s' }}\n\
         [service.back]\ncomponent = 'chain.wasm'\nisolation = 'pod'\nreplicas = 2\n\
         env = {{ NAME = 'back', NEXT = 'http://end/' }}\nallow = {{ services = ['end'] }}\n\
         limits = {{ request_timeout = '0s' }}\n\
         [service.end]\ncomponent = 'slow.wasm'\nconcurrency = 2\n\
         limits = {{ request_timeout = '0s' }}\n\
         [service.hello]\ncomponent = 'hello.wasm'\nroute = ['hello/']\n",
    ));
    let end = Instant::now() + Duration::from_secs(number("SAMPAN_SECONDS", 4));
    let mut slow = JoinSet::new();
    let at = app.at;
    for host in ["p2", "p3"] {
        for path in [
            format!("/socket?url=http://{server}/"),
            format!("/both?ms=3600000&url=http://{server}/"),
            "/timer?ms=3600000".to_owned(),
        ] {
            slow.spawn(async move { ask_until(at, host, &path, end).await });
        }
        slow.spawn(slow_clients(at, host, "/client", true, end));
        slow.spawn(slow_clients(at, host, "/flood?kib=65536", false, end));
    }
    slow.spawn(slow_clients(at, "p2-pod", "/client", true, end));
    slow.spawn(slow_clients(at, "p2-pod", "/flood?kib=65536", false, end));
    let loads = [
        Load::start(at, "p2", "/timer?ms=20", 4),
        Load::start(at, "p2-pod", "/timer?ms=20", 2),
        Load::start(at, "p3", "/timer?ms=20", 4),
        Load::start(at, "front", "/?hops=2&ms=5", 12),
        Load::start(at, "hello", "/", 2),
    ];
    while let Some(one) = slow.join_next().await {
        one.expect("it was left alone");
    }
    for load in loads {
        assert!(load.stop().await > 0);
    }
    let events = app.events();
    for verdict in ["Deadlocked", "Spinning", "Failed", "Killing"] {
        assert!(!events.contains(verdict), "{events}");
    }
}

/// Every processor is taken by requests that are in order, for a while, with liveness probes that
/// need a processor themselves: no pod is restarted for that. One that really hangs is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saturated_machine_is_no_reason_to_restart_and_a_hang_is() {
    let app = App::up(
        "[service.burn]\ncomponent = 'hostile.wasm'\nroute = ['burn/']\nreplicas = 2\n\
         limits = { request_timeout = '0s' }\n\
         liveness = { http = '/burn?ms=30', period = '300ms', timeout = '100ms', failures = 2 }\n\
         [service.kept]\ncomponent = 'hostile.wasm'\nroute = ['kept/']\nisolation = 'pod'\n\
         replicas = 2\nlimits = { request_timeout = '0s' }\n\
         liveness = { http = '/burn?ms=5', period = '500ms', timeout = '1s', failures = 3 }\n\
         [service.hung]\ncomponent = 'health.wasm'\nroute = ['hung/']\nisolation = 'pod'\n\
         liveness = { export = true, period = '300ms', timeout = '300ms', failures = 2 }\n",
    );
    let at = app.at;
    let loads = [
        Load::start(at, "burn", "/burn?ms=30", 16),
        Load::start(at, "kept", "/burn?ms=10", 4),
    ];
    let half = Duration::from_secs(number("SAMPAN_SECONDS", 4)) / 2;
    app.no_restarts_until(Instant::now() + half);
    assert_eq!(send(at, "POST", "hung", "/live/hang", "").await.status, 204);
    let mut running = app;
    running
        .running
        .line_with("hung-1-0 killed: liveness probe failed 2 times in a row");
    running.running.line_with("hung-1-0 ready");
    running.no_restarts_until(Instant::now() + half);
    for load in loads {
        assert!(load.stop().await > 0);
    }
    let mut starved = 0;
    for pod in ["burn-1-0", "burn-1-1", "kept-1-0", "kept-1-1"] {
        let pod = running.pod(pod);
        assert_eq!(pod["restarts"], 0, "{pod:#}");
        starved += pod["starved_probes"].as_u64().expect("a number");
    }
    assert!(starved > 0, "every probe found a processor");
    let hung = running.pod("hung-1-0");
    assert_eq!(hung["restarts"], 1, "{hung:#}");
    let text = hung["terminations"][0]["explanation"]
        .as_str()
        .expect("text");
    assert!(
        text.contains("Unhealthy: liveness probe failed 2 times"),
        "{text}"
    );
    assert!(text.contains("waiting"), "{text}");
}

/// A guest that leaks is stopped at its limit and started again, and meanwhile the other answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_ends_at_its_limit_and_the_service_goes_on() {
    let app = App::up(
        "[service.leaky]\ncomponent = 'leaky.wasm'\nroute = ['/']\nisolation = 'pod'\n\
         replicas = 2\nlimits = { memory = '8MiB' }\ndebug_headers = true\n",
    );
    let (mut good, mut bad) = (0, 0);
    while bad < 4 {
        let response = get(app.at, "x", "/?kib=1024").await;
        match response.status {
            200 => good += 1,
            500 => bad += 1,
            status => panic!("{status}: {response:?}"),
        }
        // Each request finds a pod that is ready.
        assert_eq!(get(app.at, "x", "/held").await.status, 200);
    }
    assert!(good >= 10, "{good}");
    let pods = ["leaky-1-0", "leaky-1-1"].map(|pod| app.pod(pod));
    let restarts = pods.iter().filter_map(|pod| pod["restarts"].as_u64());
    assert!(restarts.sum::<u64>() >= 2, "{pods:#?}");
    for pod in &pods {
        let ends = pod["terminations"].as_array().expect("a list");
        assert!(
            ends.iter().all(|end| end["verdict"] == "OutOfMemory"),
            "{pod:#}"
        );
        let peak = pod["usage"]["memory_peak_bytes"]
            .as_u64()
            .expect("a number");
        assert!(peak <= 8 << 20, "{pod:#}");
    }
}

#[tokio::test]
async fn what_is_asked_of_what_runs_is_answered_in_words_and_in_json() {
    let app =
        App::up("[service.c]\ncomponent = 'counter.wasm'\nroute = ['/']\nisolation = 'pod'\n");
    assert_eq!(get(app.at, "x", "/crash").await.status, 500);
    let pods: Value = serde_json::from_str(&app.ask(&["get", "pods", "-o", "json"])).expect("JSON");
    assert_eq!(pods[0]["name"], "c-1-0");
    assert!(app.ask(&["get", "pods"]).contains("c-1-0"));
    let text = app.ask(&["describe", "pod/c-1-0"]);
    for wanted in [
        "service     c",
        "Trapped: the guest trapped",
        "backtrace",
        "counter",
    ] {
        assert!(text.contains(wanted), "no `{wanted}` in {text}");
    }
    assert!(app.events().contains("pod/c-1-0"));
    for (arguments, code, wanted) in [
        (
            vec!["describe", "pod/x", "--api", &app.socket],
            1,
            "there is no pod `x`",
        ),
        (
            vec!["describe", "job/x", "--api", &app.socket],
            1,
            "there is no job `x`",
        ),
        (
            vec!["get", "pods", "--api", "/nowhere/a.sock"],
            3,
            "cannot reach `/nowhere/a.sock`",
        ),
    ] {
        let output = done(&arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said = crate::rig::err(&output);
        assert!(said.contains(wanted), "{said}");
    }
}
