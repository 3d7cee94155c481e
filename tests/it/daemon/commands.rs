//! Services that run a command: workers, in the words of those who come from Compose.

use serde_json::Value;

use super::{Daemon, variant};
use crate::rig::{PATIENCE, err, get, guest};

/// A worker with these lines more.
fn worker(args: &str, more: &str) -> String {
    let component = guest("worker");
    format!("[service.pick]\ncomponent = '{component}'\nargs = [{args}]\n{more}\n")
}

/// Looks at something again and again until it is as it should be.
fn until<T: std::fmt::Debug>(look: impl Fn() -> T, good: impl Fn(&T) -> bool) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let found = look();
        if good(&found) {
            return found;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "it is still {found:?}"
        );
    }
}

fn pods(daemon: &Daemon) -> Vec<Value> {
    let pods = daemon.json(&["get", "pods"]);
    pods.as_array().expect("a list").clone()
}

fn names(daemon: &Daemon) -> Vec<String> {
    let name = |pod: &Value| pod["name"].as_str().expect("text").to_owned();
    pods(daemon).iter().map(name).collect()
}

#[test]
fn a_worker_takes_from_a_queue_and_is_scaled_replaced_and_stopped() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    let more = "env = { TICK_MS = '5' }\nreadiness = { export = true, period = '10ms' }\n\
                allow.keyvalue = ['queue']\nrollout.drain = '30s'\n";
    daemon.apply(&worker("", more));
    let service = daemon.service("pick");
    assert_eq!(
        (&service["kind"], &service["ready"]),
        (&"command".into(), &1.into())
    );
    assert!(daemon.must(&["get", "services"]).contains("command"));
    assert!(
        daemon
            .must(&["describe", "service", "pick"])
            .contains("kind        command")
    );
    daemon.must(&["kv", "put", "a/queue", "todo/one", "x"]);
    let logs = || daemon.must(&["logs", "pick"]);
    until(logs, |it| it.contains("done one"));
    assert_eq!(daemon.must(&["kv", "get", "a/queue", "done/one"]), "x");

    daemon.must(&["scale", "pick=3"]);
    until(|| daemon.service("pick")["ready"].clone(), |it| *it == 3);
    let told = daemon.events();
    let scaled = told.iter().filter(|event| event["reason"] == "Scaled");
    let scaled: Vec<_> = scaled.map(|event| &event["message"]).collect();
    assert_eq!(scaled, ["from 1 to 3 pods"]);

    // Another version takes the place of the old one, which ends its round.
    let before = names(&daemon);
    let component = variant("worker", 2, daemon.directory.path());
    let second = worker("", more).replace(&guest("worker"), &component.display().to_string());
    daemon.apply(&format!("{second}replicas = 3\n"));
    let after = until(|| names(&daemon), |it| it.len() == 3);
    assert!(
        after.iter().all(|name| !before.contains(name)),
        "{before:?} {after:?}"
    );
    let told = daemon.events();
    let ended = |event: &&Value| event["message"] == "stopped: it ended by itself while draining";
    assert_eq!(told.iter().filter(ended).count(), 3, "{told:#?}");
    daemon.must(&["rollout", "undo", "pick"]);
    daemon.must(&["rollout", "status", "pick"]);
    assert_eq!(daemon.service("pick")["revision"], 1);

    daemon.must(&["delete", "a", "--wait"]);
    assert_eq!(pods(&daemon).len(), 0);
}

#[test]
fn a_worker_that_ends_is_started_again_with_back_off_and_its_code_is_told() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    for (code, told) in [
        ("1", "failed: Exited: the command ended with exit code 1"),
        ("0", "ended by itself, with exit code 0"),
    ] {
        let more = "env = { TICK_MS = '1' }\nrestart = { initial = '10ms', max = '20ms' }\n";
        let path = daemon.spec(&worker(&format!("'exit', '{code}'"), more));
        daemon.must(&["apply", "-f", &path]);
        let restarts = |pods: &Vec<Value>| {
            let again = |pod: &Value| pod["restarts"].as_u64() >= Some(3);
            pods.len() == 1 && again(&pods[0]) && pods[0]["phase"] == "CrashLoopBackOff"
        };
        let pods = until(|| pods(&daemon), restarts);
        let name = pods[0]["name"].as_str().expect("text");
        let described = daemon.must(&["describe", "pod", name]);
        let reason = format!("Exited: the command ended with exit code {code}");
        assert!(described.contains(&reason), "{described}");
        let events = daemon.events();
        assert!(events.iter().any(|it| it["message"] == told), "{events:#?}");
        daemon.must(&["delete", "a", "--wait"]);
    }
    // Once is enough for one that is not to be started again.
    let more = "env = { TICK_MS = '1' }\nrestart.policy = 'on-failure'\n";
    let path = daemon.spec(&worker("'exit', '0'", more));
    daemon.must(&["apply", "-f", &path]);
    let ended = until(
        || pods(&daemon),
        |it| it.len() == 1 && it[0]["phase"] == "Stopped",
    );
    assert_eq!(ended[0]["restarts"], 0);
    assert_eq!(ended[0]["reason"], "it ended by itself, with exit code 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_calls_what_it_may_and_is_called_by_nothing() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    let (hello, caller) = (guest("hello"), guest("caller"));
    let env = "env = { TICK_MS = '5' }\n";
    let web = format!("[service.web]\ncomponent = '{hello}'\n");
    daemon.apply(&format!(
        "{}{web}[service.front]\ncomponent = '{caller}'\nroute = ['x/']\ndepends_on = ['pick']\n",
        worker(
            "'call', 'http://web/'",
            &format!("{env}depends_on = ['web']\n")
        )
    ));
    let logs = |name| daemon.must(&["logs", name]);
    until(|| logs("pick"), |it| it.contains("status 200"));
    let answer = get(at, "x", "/call?url=http://pick/").await;
    assert_eq!(
        (answer.status, answer.body.trim()),
        (502, "HttpRequestDenied")
    );
    let said = err(&daemon.ask(&["logs", "front"]));
    let told =
        "refused: call of `pick`, which runs a command (`wasi:cli/run`) and answers no requests";
    assert!(said.contains(told), "{said}");

    // Without the grant, what would allow it is said.
    daemon.apply(&format!("{}{web}", worker("'call', 'http://web/'", env)));
    let said = until(
        || err(&daemon.ask(&["logs", "pick"])),
        |it| it.contains("denied"),
    );
    assert!(
        said.contains("`allow.services = [\"web\"]` would allow it"),
        "{said}"
    );
}

#[test]
fn a_worker_that_computes_has_its_share_and_goes_when_it_is_to() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    let more = "env = { TICK_MS = '1' }\nlimits = { cpu = '100m', request_cpu = '1ms' }\n\
                rollout.drain = '100ms'\n\
                autoscale = { min = 1, max = 2, cpu = '50%', stabilization = '1s' }\n";
    daemon.apply(&worker("'spin'", more));
    let throttled = |pods: &Vec<Value>| {
        let usage = |pod: &Value| pod["usage"]["throttled_ms"].as_f64() > Some(100.0);
        // It uses all that it may, which is more than half of that: so there are two.
        pods.len() == 2 && pods.iter().all(usage)
    };
    let pods = until(|| pods(&daemon), throttled);
    assert!(pods.iter().all(|pod| pod["restarts"] == 0), "{pods:#?}");
    // It hears nothing, and one that hears may go on: both have the time that `drain` gives them.
    let stubborn = "env = { TICK_MS = '1', STUBBORN = '1' }\nrollout.drain = '100ms'\n";
    daemon.apply(&worker("'tick'", stubborn));
    daemon.must(&["delete", "a", "--wait"]);
    let told = daemon.events();
    let cut = "stopped: it had not ended by itself after 100ms";
    assert!(told.iter().any(|it| it["message"] == cut), "{told:#?}");
}

#[test]
fn what_is_about_requests_is_refused_where_it_stands() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    let path = daemon.spec(&worker(
        "'tick'",
        "route = ['/']\nreadiness = { http = '/' }\n",
    ));
    let refused = daemon.ask(&["apply", "-f", &path]);
    assert_ne!(refused.status.code(), Some(0));
    let said = err(&refused);
    for part in [
        "sampan.toml:5:9",
        "`route` is about requests, and the component answers none",
        "sampan.toml:6:13",
        "write `export = true` and export `sampan:pod/health`",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(daemon.json(&["get", "services"]), Value::Array(Vec::new()));
}
