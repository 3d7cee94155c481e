//! The order in which the services and jobs of an app stop, and what becomes of those that depend on
//! one that fails.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::rig::{PATIENCE, Running, directory, done, err, get, guest, out, sampan};

/// Five services, each of which depends on the one before, and a worker on the last: the order of
/// their names is the wrong way around.
fn chain() -> String {
    let hello = guest("hello");
    let services = ["a", "b", "c", "d", "e"];
    let one = |(number, name): (usize, &&str)| {
        let on = number.checked_sub(1).map(|before| services[before]);
        let on = on.map_or(String::new(), |on| format!("depends_on = ['{on}']\n"));
        format!("[service.{name}]\ncomponent = {hello:?}\n{on}")
    };
    let services: String = services.iter().enumerate().map(one).collect();
    format!("app = 'a'\n{services}{}", worker("work", "e"))
}

/// A worker that needs a moment to end, and depends on `on`.
fn worker(name: &str, on: &str) -> String {
    format!(
        "[service.{name}]\ncomponent = {:?}\nargs = ['tick']\nenv = {{ TICK_MS = '200' }}\n\
         depends_on = ['{on}']\n",
        guest("worker")
    )
}

/// A service that calls another one, which takes its time to answer.
fn pair(how: &str) -> String {
    format!(
        "app = 'a'\n[service.front]\ncomponent = {:?}\nroute = ['front.test/']\n{how}\n\
         [service.back]\ncomponent = {:?}\nroute = ['back.test/']\n",
        guest("caller"),
        guest("slow")
    )
}

/// What of `front` makes a request that takes so many milliseconds in `back`.
fn through(millis: u32) -> String {
    format!("/call?url=http://back.internal/?ms={millis}")
}

/// `up` or `serve` with one app, which is up.
struct App {
    running: Running,
    /// Its spec and its socket, until it has ended.
    _place: tempfile::TempDir,
    api: String,
}

impl App {
    fn up(text: &str) -> Self {
        let (place, spec, api) = Self::at(text);
        let up = ["up", "-f", &spec, "--http", "127.0.0.1:0", "--api", &api];
        let mut running = Running::start(sampan(&up));
        running.line_with("is up");
        Self {
            running,
            _place: place,
            api,
        }
    }

    /// A node that has the app, which is as its spec says.
    fn serve(text: &str) -> Self {
        let (app, spec) = Self::node(text);
        app.must(&["apply", "-f", &spec, "--wait"]);
        app
    }

    /// A node, and the path of the spec that it is going to get.
    fn node(text: &str) -> (Self, String) {
        let (place, spec, api) = Self::at(text);
        let data = place.path().join("data").display().to_string();
        let serve = [
            "serve",
            "--data",
            &data,
            "--http",
            "127.0.0.1:0",
            "--api",
            &api,
        ];
        let mut running = Running::start(sampan(&serve));
        running.line_with("the API is at");
        let app = Self {
            running,
            _place: place,
            api,
        };
        (app, spec)
    }

    fn at(text: &str) -> (tempfile::TempDir, String, String) {
        let place = directory(&[("sampan.toml", text.as_bytes())]);
        let at = |name: &str| place.path().join(name).display().to_string();
        let (spec, api) = (at("sampan.toml"), at("api.sock"));
        (place, spec, api)
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = done(&[arguments, &["--api", &self.api]].concat());
        let code = output.status.code();
        assert_eq!(code, Some(0), "{arguments:?}: {}", err(&output));
        out(&output)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.must(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    /// Waits until this holds of what `get` of these arguments shows.
    fn until(&self, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.json(arguments);
            if holds(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{found}");
        }
    }
}

/// Where in the text these first occur, each of which must.
fn places(text: &str, wanted: &[&str]) -> Vec<usize> {
    let place = |it: &&str| {
        text.find(it)
            .unwrap_or_else(|| panic!("no `{it}` in {text}"))
    };
    wanted.iter().map(place).collect()
}

fn assert_in_order(text: &str, wanted: &[&str]) {
    assert!(places(text, wanted).is_sorted(), "{wanted:?}: {text}");
}

const CHAIN: [&str; 6] = [
    "work-1-0 stopped",
    "e-1-0 stopped",
    "d-1-0 stopped",
    "c-1-0 stopped",
    "b-1-0 stopped",
    "a-1-0 stopped",
];

#[test]
fn ctrl_c_stops_an_app_from_the_outside_in() {
    let app = App::up(&chain());
    let (status, talk) = app.running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    assert_in_order(&talk, &CHAIN);
}

#[test]
fn so_does_the_end_of_a_node() {
    let app = App::serve(&chain());
    app.running.signal(Signal::TERM);
    let (status, talk) = app.running.wait();
    assert_eq!(status.code(), Some(0), "{talk}");
    assert_in_order(&talk, &CHAIN);
}

#[test]
fn so_does_its_deletion() {
    let app = App::serve(&chain());
    app.must(&["delete", "a", "--wait"]);
    let (status, talk) = app.running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    assert_in_order(&talk, &CHAIN);
}

/// A job that runs goes before what it uses, and after what waits for it.
#[test]
fn jobs_stop_in_order_too() {
    let job = |name: &str, on: &str| {
        format!(
            "[job.{name}]\ncomponent = {:?}\nargs = ['tick']\ndepends_on = ['{on}']\n",
            guest("worker")
        )
    };
    let text = |job: &str| {
        let base = format!("[service.base]\ncomponent = {:?}\n", guest("hello"));
        let after = worker("after", "base").replace("['base']", "{ long = 'started' }");
        format!("app = 'a'\n{base}{job}{after}")
    };
    let order = [
        "after-1-0 stopped",
        "stopped, because the node stops",
        "base-1-0 stopped",
    ];
    for ends_by_signal in [true, false] {
        let (mut app, spec) = App::node(&text(&job("long", "base")));
        app.must(&["apply", "-f", &spec]);
        app.running.line_with("tick 1");
        let ready = |found: &Value| found["ready"] == 1;
        app.until(&["get", "services", "after"], ready);
        if ends_by_signal {
            app.running.signal(Signal::TERM);
            let (status, talk) = app.running.wait();
            assert_eq!(status.code(), Some(0), "{talk}");
            assert_in_order(&talk, &order);
        } else {
            app.must(&["delete", "a", "--wait"]);
            let (status, talk) = app.running.interrupt();
            assert_eq!(status.code(), Some(0), "{talk}");
            let order = [order[0], "stopped: it is being deleted", order[2]];
            assert_in_order(&talk, &order);
        }
    }
}

/// A request that is under way through two services is answered, whichever way the app ends, and
/// whether the one waits for the other at its start or may only call it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_through_two_services_is_answered_while_they_stop() {
    let ways = ["depends_on = ['back']", "allow.services = ['back']"];
    for how in ways {
        let mut app = tokio::task::block_in_place(|| App::up(&pair(how)));
        let at = app.running.address();
        let asked = tokio::spawn(async move { get(at, "front.test", &through(1500)).await });
        tokio::task::block_in_place(|| app.until(&["get", "pods"], in_flight));
        app.running.signal(Signal::INT);
        let answer = asked.await.expect("no panic");
        assert_eq!(
            (answer.status, &*answer.body),
            (200, "waited 1500 ms\n"),
            "{how}"
        );
        let (status, talk) = tokio::task::block_in_place(|| app.running.wait());
        assert_eq!(status.code(), Some(0), "{talk}");
        assert_in_order(&talk, &["front-1-0 stopped", "back-1-0 stopped"]);
    }
    for how in ways {
        let mut app = tokio::task::block_in_place(|| App::serve(&pair(how)));
        let at = app.running.address();
        let asked = tokio::spawn(async move { get(at, "front.test", &through(3000)).await });
        tokio::task::block_in_place(|| app.until(&["get", "pods"], in_flight));
        app.must(&["delete", "a"]);
        let back = app.until(&["get", "services", "back"], |found| {
            found["phase"] == "Deleting" && found["reason"].is_string()
        });
        let reason = back["reason"].as_str().expect("text");
        assert_eq!(reason, "waits for `front` to stop before it", "{how}");
        // From outside it takes nothing more.
        assert_eq!(get(at, "back.test", "/?ms=1").await.status, 404);
        let answer = asked.await.expect("no panic");
        assert_eq!(
            (answer.status, &*answer.body),
            (200, "waited 3000 ms\n"),
            "{how}"
        );
        // It may be gone by now.
        done(&["delete", "a", "--wait", "--api", &app.api]);
        let (status, talk) = tokio::task::block_in_place(|| app.running.interrupt());
        assert_eq!(status.code(), Some(0), "{talk}");
        assert_in_order(&talk, &["front-1-0 stopped", "back-1-0 stopped"]);
    }
}

/// Whether a pod of `back` has a request in flight: it has an instance for each, and else none.
fn in_flight(pods: &Value) -> bool {
    let mut pods = pods.as_array().expect("a list").iter();
    pods.any(|pod| pod["service"] == "back" && pod["usage"]["memory_bytes"] != 0)
}

/// The end of the chain is not `drain` times its length, and a second Ctrl-C waits for nothing.
#[test]
fn all_stop_within_one_drain_and_a_second_ctrl_c_at_once() {
    let stubborn = |name: &str, on: &str, drain: &str| {
        let on = on
            .is_empty()
            .then(String::new)
            .unwrap_or(format!("depends_on = ['{on}']\n"));
        format!(
            "[service.{name}]\ncomponent = {:?}\nargs = ['tick']\n{on}\
             env = {{ TICK_MS = '50', STUBBORN = '1' }}\nrollout.drain = '{drain}'\n",
            guest("worker")
        )
    };
    let chain = |drain: &str| {
        [
            "app = 'a'\n".to_owned(),
            stubborn("a", "", drain),
            stubborn("b", "a", drain),
            stubborn("c", "b", drain),
        ]
        .concat()
    };
    let app = App::up(&chain("2s"));
    let begun = Instant::now();
    let (status, talk) = app.running.interrupt();
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0), "{talk}");
    assert!(took >= Duration::from_secs(2), "{took:?}: {talk}");
    // Of the one deadline nothing is left for those that have waited for the first.
    for (pod, drained) in [("c-1-0", "2s"), ("b-1-0", "0s"), ("a-1-0", "0s")] {
        let stopped = format!("{pod} stopped: it had not ended by itself after {drained}");
        assert!(talk.contains(&stopped), "{pod}: {talk}");
    }
    let mut app = App::up(&chain("600s"));
    app.running.signal(Signal::INT);
    app.running.line_with("draining");
    let (status, talk) = app.running.interrupt();
    assert_eq!(status.code(), Some(1), "{talk}");
}

/// As with Compose and Kubernetes, a dependency is about the start: what has started stays up when
/// what it depends on goes down, and is not started again with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dependency_that_crashes_leaves_what_has_started_up() {
    let text = format!(
        "app = 'a'\n[service.back]\ncomponent = {:?}\nisolation = 'pod'\nroute = ['back.test/']\n\
         restart = {{ initial = '600s', max = '600s' }}\n\
         [service.front]\ncomponent = {:?}\nroute = ['front.test/']\ndepends_on = {{ back = 'ready' }}\n",
        guest("counter"),
        guest("hello")
    );
    let mut app = tokio::task::block_in_place(|| App::serve(&text));
    let at = app.running.address();
    assert_eq!(get(at, "back.test", "/crash").await.status, 500);
    app.until(&["get", "pods"], |pods| {
        let mut pods = pods.as_array().expect("a list").iter();
        pods.any(|pod| pod["service"] == "back" && pod["phase"] == "BackOff")
    });
    let front = get(at, "front.test", "/").await;
    assert_eq!((front.status, &*front.body), (200, "Hello from Sampan!\n"));
    let front = app.json(&["get", "services", "front"]);
    assert_eq!(
        (&front["ready"], &front["phase"]),
        (&1.into(), &"Complete".into())
    );
    let pods = app.json(&["get", "pods"]);
    let pods = pods.as_array().expect("a list");
    let front = pods
        .iter()
        .find(|pod| pod["service"] == "front")
        .expect("a pod");
    assert_eq!(front["restarts"], 0);
    let (status, talk) = tokio::task::block_in_place(|| app.running.interrupt());
    assert_eq!(status.code(), Some(0), "{talk}");
    assert_in_order(&talk, &["front-1-0 stopped", "back-1-0 stopped"]);
}

#[test]
fn a_circle_is_refused_with_its_place_and_a_remedy() {
    let hello = guest("hello");
    let text = format!(
        "[service.a]\ncomponent = {hello:?}\ndepends_on = ['c']\n\
         [service.b]\ncomponent = {hello:?}\ndepends_on = ['a']\n\
         [service.c]\ncomponent = {hello:?}\ndepends_on = ['b']\n"
    );
    let app = App::serve(&format!("app = 'a'\n[service.a]\ncomponent = {hello:?}\n"));
    let place = directory(&[("sampan.toml", format!("app = 'a'\n{text}").as_bytes())]);
    let spec = place.path().join("sampan.toml").display().to_string();
    for verb in [
        &["validate", "-f", &spec][..],
        &["up", "-f", &spec],
        &["apply", "-f", &spec, "--api", &app.api],
        &["plan", "-f", &spec, "--api", &app.api],
    ] {
        let refused = done(verb);
        let said = err(&refused);
        assert_eq!(refused.status.code(), Some(2), "{verb:?}: {said}");
        for wanted in [
            "a circle of dependencies: `a -> c -> b -> a`",
            "sampan.toml:4:15",
            "remove one of them: each waits for the next, so none would start",
        ] {
            assert!(said.contains(wanted), "{verb:?}: no `{wanted}` in {said}");
        }
    }
}

#[test]
fn what_waits_for_a_job_that_fails_never_starts_and_up_says_why() {
    for (job, why) in [
        ("args = ['exit', '1']\nretries = 1\n", "exit code 1"),
        ("args = ['cat', 'none']\n", "exit code 1"),
    ] {
        let text = format!(
            "app = 'a'\n[job.migrate]\ncomponent = {:?}\n{job}\
             [service.web]\ncomponent = {:?}\ndepends_on = ['migrate']\n\
             [service.front]\ncomponent = {:?}\ndepends_on = ['web']\n",
            guest("command"),
            guest("hello"),
            guest("hello")
        );
        let place = directory(&[("sampan.toml", text.as_bytes())]);
        let spec = place.path().join("sampan.toml").display().to_string();
        let output = done(&["up", "-f", &spec, "--http", "127.0.0.1:0"]);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("failed: {why}")), "{said}");
        assert!(
            said.contains("waits for job `migrate` to complete"),
            "{said}"
        );
        for pod in ["web-1-0", "front-1-0"] {
            assert!(!said.contains(pod), "{said}");
        }
    }
}
