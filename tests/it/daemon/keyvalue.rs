//! What guests keep in key-value stores: none of it is lost, and none of it is another app's.
//!
//! `SAMPAN_INCREMENTS` and `SAMPAN_KILLS` make the tests as long as one likes.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use super::{Daemon, load::Load, times};
use crate::rig::{PATIENCE, err, get, guest, out, sampan};

/// A service whose path `/` counts in a store.
fn spec(replicas: u32, allow: &str) -> String {
    let visits = guest("visits");
    format!(
        "[service.web]\ncomponent = '{visits}'\nreplicas = {replicas}\nroute = ['x/']\n\
         allow.keyvalue = [{allow}]\n"
    )
}

/// The number that one more request is.
async fn count(at: SocketAddr) -> u64 {
    let answer = get(at, "x", "/").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.trim().parse().expect("a number")
}

/// Waits until the clients have got so many answers.
async fn answered(load: &Load, answers: u64) {
    let answered = async {
        while load.seen.answered.load(SeqCst) < answers {
            tokio::task::yield_now().await;
        }
    };
    let limit = PATIENCE * u32::try_from(1 + answers / 10_000).expect("not for ever");
    let told = tokio::time::timeout(limit, answered).await;
    told.expect("it answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_from_eight_pods_lose_none() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    daemon.apply(&spec(8, "'visits'"));
    let load = Load::start(at, "/", 16);
    answered(&load, times("SAMPAN_INCREMENTS", 2_000) as u64).await;
    let counted = load.end("counting").await;
    assert_eq!(count(at).await, counted + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_has_lost_nothing_that_was_acknowledged() {
    const CLIENTS: u64 = 4;
    let mut daemon = Daemon::start();
    let mut at = daemon.running().address();
    daemon.apply(&spec(2, "'visits'"));
    let mut before = count(at).await;
    for kill in 1..=times("SAMPAN_KILLS", 5) {
        let load = Load::start(at, "/", CLIENTS as usize);
        // Whatever it is doing after so many answers. What is in flight then may have been counted.
        answered(&load, (kill as u64 * 37) % 160).await;
        let seen = Arc::clone(&load.seen);
        daemon.running().signal(rustix::process::Signal::KILL);
        daemon.running.take();
        drop(load);
        let acknowledged = before + seen.answered.load(SeqCst);
        daemon.launch();
        at = daemon.running().address();
        let after = count(at).await;
        let most = acknowledged + CLIENTS + 1;
        assert!(
            (acknowledged + 1..=most).contains(&after),
            "kill {kill}: `{acknowledged}` were acknowledged, and the next one is `{after}`"
        );
        before = after;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_its_apps_own_and_one_that_is_not_granted_is_denied() {
    let mut daemon = Daemon::start_with("[keyvalue]\nvalue = '1KiB'\nkeys = 3\n");
    let at = daemon.running().address();
    daemon.apply(&spec(1, "'visits'"));
    assert_eq!(count(at).await, 1);
    // Another app, with a store of the same name.
    let other = spec(1, "'visits'").replace("'x/'", "'y/'");
    let path = daemon.place("other.toml");
    std::fs::write(&path, format!("app = 'b'\n{other}")).expect("written");
    daemon.must(&["apply", "-f", &path, "--wait"]);
    let answer = get(at, "y", "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "1\n"));
    assert_eq!(count(at).await, 2);
    // The limits of the node.
    let answer = get(at, "x", "/set?key=k&bytes=1025").await;
    let told = "the value has 1025 bytes, and may have 1024\n";
    assert_eq!((answer.status, answer.body.as_str()), (500, told));
    let answer = get(at, "x", "/fill?keys=3").await;
    let told = "the store `visits` has 3 keys, and may have no more\n";
    assert_eq!((answer.status, answer.body.as_str()), (500, told));
    assert_eq!(get(at, "x", "/list").await.body, "visits\n");
    // A new revision, which may no longer.
    daemon.apply(&spec(1, "'carts'"));
    assert_eq!(get(at, "x", "/").await.status, 403);
    let log = daemon.must(&["logs", "web", "--app", "a", "--json"]);
    let told = r#"`allow.keyvalue = [\"visits\"]` would allow it"#;
    assert!(log.contains(told), "{log}");
    // What is kept outlives pods, revisions and the daemon.
    daemon.apply(&spec(1, "'visits', 'carts'"));
    let (status, talk) = daemon.running.take().expect("it runs").interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    daemon.launch();
    let at = daemon.running().address();
    assert_eq!(count(at).await, 3);
}

/// Runs a verb against a daemon with bytes on its standard input.
fn piped(daemon: &Daemon, arguments: &[&str], input: &[u8]) -> std::process::Output {
    use std::{io::Write as _, process::Stdio};
    let api = daemon.api();
    let mut command = sampan(arguments);
    command.args(["--api", &api]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_read_and_change_what_guests_keep() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    daemon.apply(&spec(1, "'visits'"));
    assert_eq!(count(at).await, 1);
    assert_eq!(daemon.must(&["kv", "get", "a/visits", "visits"]), "1");
    daemon.must(&["kv", "put", "a/visits", "visits", "41"]);
    assert_eq!(count(at).await, 42);
    // Any bytes, and any key.
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let key = "a key/of ä?&=#\n";
    let put = piped(&daemon, &["kv", "put", "a/visits", key], &bytes);
    assert_eq!(put.status.code(), Some(0), "{}", err(&put));
    let got = daemon.ask(&["kv", "get", "a/visits", key]);
    assert!(got.status.success() && got.stdout == bytes);
    let json: serde_json::Value =
        serde_json::from_str(&daemon.must(&["kv", "list", "a/visits", "--json"])).expect("JSON");
    assert_eq!(json, serde_json::json!([key, "visits"]));
    let value = daemon.must(&["kv", "get", "a/visits", "visits", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&value).expect("JSON");
    assert_eq!(value, serde_json::json!({ "key": "visits", "value": "42" }));
    daemon.must(&["kv", "delete", "a/visits", key]);
    assert_eq!(daemon.must(&["kv", "list", "a/visits"]), "visits\n");
    let stores: serde_json::Value =
        serde_json::from_str(&daemon.must(&["kv", "list", "a", "--json"])).expect("JSON");
    assert_eq!(
        stores,
        serde_json::json!([{ "name": "visits", "keys": 1, "bytes": 8 }])
    );
    // What is not there, and what is too much.
    for (arguments, told) in [
        (&["kv", "get", "a/visits", "none"][..], "no key `none`"),
        (&["kv", "delete", "a/visits", "none"], "no key `none`"),
        (&["kv", "list", "a/none"], "no key-value store `none`"),
        (&["kv", "get", "b/visits", "visits"], "no key `visits`"),
        (&["kv", "put", "b/visits", "k", "v"], "there is no app `b`"),
        (&["kv", "get", "visits", "k"], "write it as `APP/STORE`"),
    ] {
        let refused = daemon.ask(arguments);
        assert_ne!(refused.status.code(), Some(0), "{arguments:?}");
        assert!(err(&refused).contains(told), "{}", err(&refused));
    }
    let large = piped(
        &daemon,
        &["kv", "put", "a/visits", "k"],
        &vec![0; (1 << 20) + 1],
    );
    assert!(
        err(&large).contains("and may have 1048576"),
        "{}",
        err(&large)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_app_leaves_its_stores_unless_they_are_to_go() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    daemon.apply(&spec(1, "'visits'"));
    assert_eq!(count(at).await, 1);
    let deleted = daemon.ask(&["delete", "a", "--wait"]);
    assert!(deleted.status.success(), "{}", err(&deleted));
    let told = "store visits is kept; `sampan delete a --volumes` removes it";
    assert!(out(&deleted).contains(told), "{}", out(&deleted));
    daemon.apply(&spec(1, "'visits'"));
    assert_eq!(count(at).await, 2, "it goes on where it was");
    let deleted = daemon.ask(&["delete", "a", "--volumes"]);
    assert!(deleted.status.success(), "{}", err(&deleted));
    assert!(
        out(&deleted).contains("store visits is removed"),
        "{}",
        out(&deleted)
    );
    let keyvalue = std::path::Path::new(&daemon.place("data")).join("keyvalue");
    assert_eq!(std::fs::read_dir(keyvalue).expect("a directory").count(), 0);
    daemon.apply(&spec(1, "'visits'"));
    assert_eq!(count(at).await, 1);
    daemon.must(&["delete", "a", "--wait"]);
    // Of an app that is gone, too.
    let deleted = daemon.ask(&["delete", "a", "--volumes"]);
    assert!(deleted.status.success(), "{}", err(&deleted));
    assert_eq!(daemon.must(&["kv", "list", "a", "--json"]), "[]\n");
}
