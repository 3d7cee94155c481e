//! What pods have printed outlives them, their app and the daemon.

use std::{fs, net::SocketAddr, time::Instant};

use serde_json::Value;

use super::Daemon;
use crate::rig::{PATIENCE, Running, err, get, guest};

fn spec() -> String {
    format!(
        "[service.web]\ncomponent = {:?}\nroute = ['/']\nisolation = 'pod'\n",
        guest("env-and-files")
    )
}

/// Has the one pod print a line.
async fn print(at: SocketAddr, text: &str) {
    let answer = get(at, "x", &format!("/print?text={text}")).await;
    assert_eq!(answer.status, 204);
}

/// Where its gateway answers.
fn address(daemon: &Daemon) -> SocketAddr {
    let nodes = daemon.json(&["get", "nodes"]);
    let address = nodes[0]["http"].as_str().expect("an address");
    address.parse().expect("an address")
}

/// Waits until this is on disk.
fn kept(daemon: &Daemon, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    let is_in = |name: &str| {
        let file = fs::read(daemon.place(name)).unwrap_or_default();
        file.windows(text.len()).any(|it| it == text.as_bytes())
    };
    while !is_in("data/logs.db-wal") && !is_in("data/logs.db") {
        assert!(Instant::now() < deadline, "`{text}` is not kept");
        std::thread::yield_now();
    }
}

/// The texts of what guests have printed, of what a verb shows.
fn texts(daemon: &Daemon, arguments: &[&str]) -> Vec<String> {
    let with: Vec<_> = ["logs", "--json"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    let lines = daemon.must(&with);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let lines = lines.filter(|line: &Value| line["stream"] != "host");
    lines
        .map(|line| line["text"].as_str().expect("text").to_owned())
        .collect()
}

/// Each line, which is on standard output and on standard error.
fn twice(texts: &[&str]) -> Vec<String> {
    let both = |it: &&str| [(*it).to_owned(), (*it).to_owned()];
    texts.iter().flat_map(both).collect()
}

#[tokio::test]
async fn lines_outlive_the_daemon_the_pod_and_the_app() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    daemon.apply(&spec());
    let at = address(&daemon);
    for text in ["before-1", "before-2"] {
        print(at, text).await;
    }
    let refused = daemon.ask(&["logs", "web", "--previous"]);
    assert!(err(&refused).contains("no pod of `web` has been restarted"));
    kept(&daemon, "before-2");
    daemon.running().signal(rustix::process::Signal::KILL);
    daemon.running.take();
    daemon.launch();
    print(daemon.running().address(), "after").await;
    asked_for(&daemon);
    // The daemon ends, and then the app goes.
    let (status, talk) = daemon.running.take().expect("it runs").interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    daemon.launch();
    daemon.running().address();
    daemon.must(&["delete", "a", "--wait"]);
    let all = twice(&["before-1", "before-2", "after"]);
    for name in ["web", "web-1-0", "service/web"] {
        assert_eq!(texts(&daemon, &[name]), all);
    }
    let unknown = err(&daemon.ask(&["logs", "wbe"]));
    let there = "there are `web` and their pods";
    assert!(unknown.contains(there), "{unknown}");
    // Another of the same name begins a run of its own. The one before has printed nothing, so it
    // is none.
    daemon.apply(&spec());
    assert_eq!(texts(&daemon, &["web", "--previous"]), twice(&["after"]));
    followed(&daemon).await;
}

/// The lines of two runs, in all ways of asking.
fn asked_for(daemon: &Daemon) {
    let before = twice(&["before-1", "before-2"]);
    let last = ["before-2", "after", "after"].map(str::to_owned).to_vec();
    for (arguments, wanted) in [
        (&["web"][..], [before.clone(), twice(&["after"])].concat()),
        (&["web-1-0", "--tail", "3"], last.clone()),
        (&["web", "--grep", "re-[0-9]$"], before.clone()),
        (&["web", "--grep", "-2|aft", "--tail", "3"], last),
        (&["web", "--previous"], before.clone()),
        (&["web", "--since", "1h", "--grep", "before"], before),
    ] {
        assert_eq!(texts(daemon, arguments), wanted, "{arguments:?}");
    }
    let stamped = ["logs", "pod/web-1-0", "--timestamps", "--tail", "1"];
    let stamped = daemon.must(&stamped);
    let words: Vec<_> = stamped.split_whitespace().collect();
    assert!(
        words[0] == "web-1-0" && words[2].starts_with("20"),
        "{stamped}"
    );
    assert!(
        words[3] == "stderr" && words.last() == Some(&"after"),
        "{stamped}"
    );
}

/// What is on disk and what comes next follow one another.
async fn followed(daemon: &Daemon) {
    let api = daemon.api();
    let follower = daemon.program(&["logs", "-f", "web", "--api", &api, "--tail", "1"]);
    let mut follower = Running::start(follower);
    follower.line_with("after");
    print(address(daemon), "again").await;
    follower.line_with("again");
}

#[tokio::test]
async fn a_flood_takes_so_much_of_the_disk_and_hides_no_other_pod() {
    let mut daemon = Daemon::start_with("[logs]\nbytes = '1MiB'\npod = '128KiB'\n");
    let at = daemon.running().address();
    let flood = format!(
        "[service.flood]\ncomponent = {:?}\nroute = ['flood.test/']\n",
        guest("hostile")
    );
    daemon.apply(&format!("{}{flood}", spec()));
    print(at, "quiet").await;
    for _ in 0..20 {
        get(at, "flood.test", "/log?lines=1000").await;
    }
    print(at, "the-end").await;
    kept(&daemon, "the-end");
    let (status, talk) = daemon.running.take().expect("it runs").interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    let bytes = fs::metadata(daemon.place("data/logs.db"))
        .expect("a file")
        .len();
    assert!(bytes < 4 << 20, "{bytes}");
    daemon.launch();
    daemon.running().address();
    assert_eq!(
        texts(&daemon, &["web"]),
        ["quiet", "quiet", "the-end", "the-end"]
    );
    let lines = texts(&daemon, &["flood"]);
    assert!(lines.len() > 10);
    // What a guest prints is not obeyed, whenever it is read.
    let shown = daemon.must(&["logs", "flood"]);
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown}");
}
