//! A daemon whose objects are in an etcd: it does what one with a file does, outlives the members of
//! etcd, and goes on while there is none.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use super::{Daemon, killed, load::Load, variant};
use crate::{
    members::{Cluster, Pace},
    rig::{PATIENCE, done, err, get, guest, out, sampan},
};

/// A daemon that is not started yet.
fn on(cluster: &Cluster) -> Daemon {
    let mut daemon = Daemon::new();
    daemon.more = vec!["--etcd".to_owned(), cluster.urls().join(",")];
    daemon
}

fn started(cluster: &Cluster) -> Daemon {
    let mut daemon = on(cluster);
    daemon.launch();
    daemon
}

fn spec(component: &str, more: &str) -> String {
    format!("[service.web]\ncomponent = '{component}'\nreplicas = 2\nroute = ['/']\n{more}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_goes_on_where_it_was() {
    let Some(cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    killed::goes_on(started(&cluster)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollouts_lose_no_request_while_members_are_killed() {
    let Some(mut cluster) = Cluster::start(3, Pace::Fast) else {
        return;
    };
    let mut daemon = started(&cluster);
    let at = daemon.running().address();
    let versions: Vec<String> = (1..=2)
        .map(|number| variant("hello", number, daemon.directory.path()))
        .map(|path| path.display().to_string())
        .collect();
    daemon.apply(&spec(&versions[0], ""));
    let load = Load::start(at, "/", 4);
    for round in 1..=3 {
        let victim = cluster.leader().expect("there is one");
        cluster.kill(victim);
        // An apply is tried again while there is no leader.
        let deadline = Instant::now() + PATIENCE;
        let path = daemon.spec(&spec(&versions[round % 2], ""));
        loop {
            let applied = daemon.ask(&["apply", "-f", &path, "--wait"]);
            if applied.status.success() {
                break;
            }
            assert!(Instant::now() < deadline, "{}", err(&applied));
        }
        cluster.restart(victim);
        cluster.wait();
    }
    load.end("while members of etcd were killed").await;
    assert_eq!(daemon.service("web")["available"], 2);
    let (status, said) = daemon.running.take().expect("it runs").interrupt();
    assert!(status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_goes_on_without_etcd_and_is_shown() {
    let Some(mut cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    let mut daemon = started(&cluster);
    let at = daemon.running().address();
    let hello = guest("hello");
    daemon.apply(&spec(&hello, ""));
    let before = daemon.json(&["get", "services"]);
    let load = Load::start(at, "/", 2);
    cluster.kill(0);
    daemon.running().line_with("etcd is away");
    let services = daemon.ask(&["get", "services", "-o", "json"]);
    assert!(services.status.success(), "{}", err(&services));
    let shown: serde_json::Value = serde_json::from_str(&out(&services)).expect("JSON");
    assert_eq!(shown, before);
    assert!(
        err(&services).contains("the store of the node is away"),
        "{}",
        err(&services)
    );
    let begun = Instant::now();
    let path = daemon.spec(&spec(&hello, "env = { A = '1' }\n"));
    let applied = daemon.ask(&["apply", "-f", &path]);
    let took = begun.elapsed();
    assert!(!applied.status.success());
    let said = err(&applied);
    assert!(said.contains("no member answers"), "{said}");
    assert!(said.contains("what runs goes on"), "{said}");
    // Two seconds, and what the program itself takes on a busy machine.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(get(at, "x", "/").await.status, 200);
    cluster.restart(0);
    daemon.running().line_with("etcd answers again");
    daemon.apply(&spec(&hello, "env = { A = '1' }\n"));
    assert_eq!(daemon.service("web")["revision"], 2);
    load.end("without etcd").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_do_not_reach_etcd() {
    let Some(cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    let mut daemon = started(&cluster);
    let at = daemon.running().address();
    let url = cluster.urls().remove(0);
    let port = url.rsplit(':').next().expect("a port").to_owned();
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{port}");
        daemon.apply(&format!(
            "[service.web]\ncomponent = '{}'\nroute = ['x/']\nallow.outbound = ['{url}']\n",
            guest("caller")
        ));
        let answer = get(at, "x", &format!("/call?url={url}/version")).await;
        let told = (answer.status, answer.body.as_str());
        assert_eq!(told, (502, "HttpRequestDenied\n"), "{url}");
        let log = daemon.must(&["logs", "web", "--json"]);
        let last = log.lines().rfind(|line| line.contains("denied: "));
        let own = |it: &str| it.contains("an address of this node itself");
        assert!(last.is_some_and(own), "{url}: {log}");
    }
}

#[test]
fn another_node_is_refused_and_its_directory_is_one_process() {
    let Some(cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    let mut daemon = started(&cluster);
    daemon.running().address();
    let twice = daemon.command().stdin(Stdio::null()).output();
    let said = err(&twice.expect("it starts"));
    assert!(said.contains("only one process can work with it"), "{said}");
    let other = on(&cluster).command().stdin(Stdio::null()).output();
    let other = other.expect("it starts");
    assert!(!other.status.success());
    let said = err(&other);
    assert!(
        said.contains("another node works with what is in etcd"),
        "{said}"
    );
}

#[test]
fn plain_text_to_other_machines_has_to_be_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().display().to_string();
    let url = "http://192.0.2.1:2379";
    let refused = done(&["serve", "--data", &data, "--etcd", url]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        err(&refused).contains("--etcd-insecure"),
        "{}",
        err(&refused)
    );
    // Allowed, it is tried.
    let mut tried = sampan(&["serve", "--data", &data, "--etcd", url, "--etcd-insecure"]);
    let mut tried = tried.stderr(Stdio::null()).spawn().expect("it starts");
    assert!(tried.try_wait().expect("a child").is_none());
    tried.kill().expect("ours");
    tried.wait().expect("it ends");
}
