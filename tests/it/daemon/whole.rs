//! A change of five hundred services is whole or has not happened, whenever the daemon is killed.
//!
//! `SAMPAN_KILLS=100` kills it as often, `SAMPAN_SEED=7` at the same moments again, as far as the
//! machine lets it. Where it fails, the data directory is kept.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use sampan_core::record::{self, Kind};
use sampan_store::{Sqlite, Store as _};
use serde::de::DeserializeOwned;

use super::{Daemon, times};
use crate::rig::{PATIENCE, guest, sampan};

const SERVICES: usize = 500;

/// What there is of the app.
#[derive(Clone, Debug, PartialEq)]
enum Now {
    Nothing,
    /// It goes, with all that it has.
    Doomed,
    /// All services, of this version.
    Is(u64),
}

fn spec(version: u64) -> String {
    let hello = guest("hello");
    let service = |number: usize| {
        // Some have pods, which come and go meanwhile.
        let replicas = usize::from(number.is_multiple_of(50));
        format!(
            "[service.s{number}]\ncomponent = '{hello}'\nreplicas = {replicas}\n\
             env = {{ V = '{version}' }}\n"
        )
    };
    (0..SERVICES).map(service).collect()
}

/// All objects of a kind, with their keys.
async fn all<T: DeserializeOwned>(store: &Sqlite, kind: Kind) -> Vec<(String, T)> {
    let found = store.list(kind.prefix()).await.expect("a store").entries;
    let read = |entry: sampan_store::Entry| {
        let object = serde_json::from_slice(&entry.value).expect("an object");
        (entry.key.to_string(), object)
    };
    found.into_iter().map(read).collect()
}

/// Reads what a daemon has left, and fails if that is half of something.
async fn look(data: &Path) -> Now {
    let store = Sqlite::open(&data.join("sampan.db")).expect("a whole store");
    let apps: Vec<(_, record::App)> = all(&store, Kind::App).await;
    let services: Vec<(_, record::Service)> = all(&store, Kind::Service).await;
    let revisions: Vec<(_, record::Revision)> = all(&store, Kind::Revision).await;
    let Some((_, app)) = apps.first() else {
        let left = (services.len(), revisions.len());
        assert_eq!(left, (0, 0), "services and revisions without an app");
        return Now::Nothing;
    };
    let staying = services.iter().map(|(_, service)| service);
    let staying: Vec<_> = staying.filter(|service| !service.spec.deleting).collect();
    if app.deleting {
        assert_eq!(staying.len(), 0, "half of it goes");
        return Now::Doomed;
    }
    assert_eq!((staying.len(), app.services.len()), (SERVICES, SERVICES));
    let version = |service: &&record::Service| {
        let key = record::Key::Revision(service.key.clone(), service.spec.revision).to_string();
        let found = revisions.binary_search_by(|(known, _)| known.as_str().cmp(&key));
        let (_, revision) = &revisions[found.expect("it is kept")];
        let version = &revision.template.grants.env["V"];
        version.parse::<u64>().expect("a number")
    };
    let versions: BTreeSet<_> = staying.iter().map(version).collect();
    assert_eq!(versions.len(), 1, "several versions at once: {versions:?}");
    Now::Is(*versions.first().expect("one"))
}

/// CPU time that a process has used.
fn cpu(process: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let of_task = |entry: std::io::Result<std::fs::DirEntry>| {
        // A thread may end meanwhile.
        let text = std::fs::read_to_string(entry.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of_task).sum())
}

/// Asks for a change, and leaves it under way.
fn begin(daemon: &Daemon, next: &Now) -> Child {
    let api = daemon.api();
    let mut command = match next {
        Now::Is(version) => sampan(&["apply", "-f", &daemon.spec(&spec(*version)), "--api", &api]),
        Now::Nothing | Now::Doomed => sampan(&["delete", "a", "--api", &api]),
    };
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet.stderr(Stdio::null()).spawn().expect("it starts")
}

/// Waits until the daemon has used so much CPU since `from`, or the change has been answered.
fn wait(daemon: &mut Daemon, change: &mut Child, from: Duration, budget: Duration) -> bool {
    let process = daemon.running().id();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = change.try_wait().expect("a child") {
            assert!(status.success(), "{status}");
            return true;
        }
        if cpu(process).saturating_sub(from) >= budget {
            return false;
        }
        assert!(Instant::now() < deadline, "it neither ends nor works");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_five_hundred_services_is_whole_after_a_kill() {
    let seed = times("SAMPAN_SEED", usize::from(fastrand::u16(..)));
    eprintln!("SAMPAN_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed as u64);
    let mut daemon = Daemon::start();
    daemon.directory.disable_cleanup(true);
    let data = daemon.directory.path().join("data");
    eprintln!("the data is in {}", data.display());
    daemon.running().address();
    // What a change of each sort costs, so that kills fall into it.
    let mut now = Now::Nothing;
    let mut whole = [Duration::from_secs(3); 2];
    let (mut before, mut after) = (0, 0);
    for kill in 1..=times("SAMPAN_KILLS", 3) as u64 {
        let next = match now {
            Now::Is(_) if chance.u8(0..2) == 0 => Now::Doomed,
            _ => Now::Is(kill),
        };
        let sort = usize::from(next == Now::Doomed);
        let from = cpu(daemon.running().id());
        let budget = whole[sort].mul_f64(chance.f64());
        let mut change = begin(&daemon, &next);
        let acknowledged = wait(&mut daemon, &mut change, from, budget);
        if acknowledged {
            whole[sort] = cpu(daemon.running().id()).saturating_sub(from);
        }
        daemon.running().signal(Signal::KILL);
        daemon.running.take();
        let answered = change.wait().expect("a child").success();
        let found = look(&data).await;
        let gone = next == Now::Doomed && found == Now::Nothing;
        assert!(
            found == next || gone || (found == now && !answered),
            "kill {kill}: {found:?} after a change from {now:?} to {next:?}"
        );
        match found == now {
            true => before += 1,
            false => after += 1,
        }
        daemon.launch();
        daemon.running().address();
        now = settled(&daemon, found);
    }
    eprintln!("{before} changes had not happened, {after} had");
    // What is there can be deleted, whatever it is.
    if now != Now::Nothing {
        daemon.must(&["delete", "a"]);
    }
    settled(&daemon, Now::Doomed);
    daemon.directory.disable_cleanup(false);
}

/// What the API says of it, once what goes has gone.
fn settled(daemon: &Daemon, found: Now) -> Now {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let count = |what: &str| daemon.json(&["get", what]).as_array().map_or(0, Vec::len);
        let (apps, services) = (count("apps"), count("services"));
        match (&found, apps, services) {
            (Now::Is(_), 1, SERVICES) => return found,
            (Now::Nothing | Now::Doomed, 0, 0) => return Now::Nothing,
            _ => assert!(
                Instant::now() < deadline,
                "{apps} apps, {services} services"
            ),
        }
    }
}
