//! A data directory of an earlier release is opened and carried over.
//!
//! `format-1/` was written by the commit 2bd0b9e, whose objects have no version: `serve` with
//! `apply --wait` of two specs, of the first once more with another variable, and SIGTERM. What
//! `events --json` said then is in `events.jsonl`.

use std::{fs, path::Path};

use sampan_store::{Sqlite, Store as _};
use serde_json::Value;

use super::Daemon;
use crate::rig::{get, repository};

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("writable");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("writable")),
        }
    }
}

fn names(objects: &Value, field: &str) -> Vec<String> {
    let objects = objects.as_array().expect("a list").iter();
    objects
        .map(|it| it[field].as_str().expect("a name").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_the_first_format_is_carried_over() {
    let first = repository("tests/it/daemon/format-1");
    let mut daemon = Daemon::new();
    copy(&first, Path::new(&daemon.place("data")));
    let told: Vec<Value> = fs::read_to_string(first.join("events.jsonl"))
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for run in 1..=2 {
        daemon.launch();
        let at = daemon.running().address();
        daemon.must(&["rollout", "status", "web", "--app", "shop"]);
        daemon.must(&["rollout", "status", "page", "--app", "blog"]);
        for host in ["shop.localhost", "blog.localhost"] {
            assert_eq!(get(at, host, "/").await.status, 200, "{host}");
        }
        let apps = daemon.json(&["get", "apps"]);
        assert_eq!(names(&apps, "name"), ["blog", "shop"]);
        let web = daemon.json(&["get", "services", "web", "--app", "shop"]);
        assert_eq!(
            names(&daemon.json(&["get", "jobs"]), "phase"),
            ["Completed"]
        );
        assert!(web.to_string().contains("\"revision\":2"), "{web:#}");
        let revisions = daemon.json(&["get", "revisions", "web", "--app", "shop"]);
        assert_eq!(revisions.as_array().map(Vec::len), Some(2), "{revisions:#}");
        let events = daemon.events();
        assert_eq!(events[..told.len()], told, "run {run}");
        let numbers = events.iter().map(|event| event["seq"].as_u64());
        assert!(numbers.eq((1..=events.len() as u64).map(Some)), "run {run}");
        assert!(events.len() > told.len(), "there are new ones");
        let (status, talk) = daemon.running.take().expect("it runs").interrupt();
        assert_eq!(status.code(), Some(0), "{talk}");
    }
    let store = Sqlite::open(Path::new(&daemon.place("data/sampan.db"))).expect("a store");
    let format = store.get("/format").await.expect("a read").expect("there");
    assert_eq!(format.value, r#"{"version":3}"#);
    let events = store.list("/events/").await.expect("a list").entries;
    assert_eq!(events, [], "they are in the log of the node");
}
