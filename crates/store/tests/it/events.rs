//! SIGKILL at random moments: what was appended to an event log is there.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sampan_store::{EventLog, LoggedEvent};

use crate::fixture::{child, number, random};

const LOG: &str = "SAMPAN_TEST_EVENTS";

fn event(seq: u64) -> LoggedEvent {
    LoggedEvent {
        seq,
        time_ms: seq,
        app: "shop".to_owned(),
        object: "service/web".to_owned(),
        reason: "Ready".to_owned(),
        message: "x".repeat(usize::try_from(seq % 300).unwrap()),
    }
}

#[test]
fn appended_events_survive_kills() {
    let mut random = random("events");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut appended = 0;
    for _ in 0..number("SAMPAN_KILLS", 10) {
        appended = appended.max(run_until(&path, random.usize(1..200)));
        let log = EventLog::open(&path).unwrap();
        let last = log.last().unwrap();
        assert!(
            last >= appended,
            "{appended} were appended, {last} are there"
        );
        let kept = log.read(0, u64::MAX).unwrap();
        assert!(kept.into_iter().eq((1..=last).map(event)));
    }
    assert!(appended > 0);
}

/// Runs a child until it has said so many lines, and kills it. The last number that it has said.
fn run_until(path: &Path, lines: usize) -> u64 {
    let mut writer = child("events::writer", LOG, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut last = 0;
    // A line may be cut off.
    let numbers = said.filter_map(|line| line.unwrap().strip_suffix('.')?.parse().ok());
    for (count, number) in numbers.enumerate() {
        last = number;
        if count + 1 == lines {
            writer.kill().unwrap();
        }
    }
    writer.wait().unwrap();
    last
}

/// Not a test of its own: the process that is killed.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(LOG) else {
        return;
    };
    let log = EventLog::open(&PathBuf::from(path)).unwrap();
    println!();
    for seq in log.last().unwrap() + 1.. {
        log.append(&[event(seq)]).unwrap();
        println!("{seq}.");
        std::io::stdout().flush().unwrap();
    }
}
