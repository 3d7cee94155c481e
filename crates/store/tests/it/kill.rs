//! SIGKILL at random moments: what was acknowledged is there, and nothing is there by halves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use sampan_store::{Batch, Revision, Sqlite, Store, Transaction};

use crate::fixture::{child, commit, contents, get, number, random};

const STORE: &str = "SAMPAN_TEST_KILL";

/// Tasks that commit at the same time.
const TASKS: usize = 8;

/// Each tenth transaction of a task also writes so many keys.
const MANY: usize = 600;

/// The last number of each task.
type Numbers = BTreeMap<usize, u64>;

#[tokio::test]
async fn acknowledged_writes_survive_kills() {
    let mut random = random("kill");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut acknowledged = Numbers::new();
    let mut revision = Revision(0);
    for _ in 0..number("SAMPAN_KILLS", 20) {
        // Some die while they open the store, or make it.
        let lines = match random.u8(..4) {
            0 => 1,
            _ => random.usize(2..400),
        };
        run_until(&path, lines, &mut acknowledged);
        let store = Sqlite::open(&path).unwrap();
        revision = check(&store, &acknowledged, revision).await;
    }
    println!(
        "{} transactions in {revision} revisions",
        acknowledged.values().sum::<u64>()
    );
    assert!(revision > Revision(0));
}

/// Runs a child until it has said so many lines, and kills it. What it says until it is dead counts.
fn run_until(path: &Path, lines: usize, acknowledged: &mut Numbers) {
    let mut writer = child("kill::writer", STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(writer.stdout.take().unwrap()).lines();
    let said = said
        .map(Result::unwrap)
        .skip_while(|line| line != "opening");
    for (count, line) in said.enumerate() {
        if count + 1 == lines {
            writer.kill().unwrap();
        }
        // A line may be cut off.
        let Some((task, number)) = line.strip_suffix('.').and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        acknowledged.insert(task.parse().unwrap(), number.parse().unwrap());
    }
    let status = writer.wait().unwrap();
    assert_eq!(status.code(), None, "it ended by itself: {status}");
}

async fn check(store: &dyn Store, acknowledged: &Numbers, before: Revision) -> Revision {
    let (listing, history) = contents(store).await;
    assert!(listing.revision >= before);
    // Each transaction writes two keys, some of them many more, and there were no others.
    let revisions = history.iter().map(|batch| batch.revision.0);
    let first = history.first().map_or(0, |batch| batch.revision.0);
    assert!(revisions.eq(first..first + history.len() as u64), "a hole");
    let whole = |batch: &Batch| [2, 2 + MANY].contains(&batch.changes.len());
    assert!(history.iter().all(whole), "half a transaction");
    let mut sum = 0;
    for task in 0..TASKS {
        let Some(last) = store.get(&format!("/last/{task}")).await.unwrap() else {
            assert_eq!(acknowledged.get(&task), None, "task {task}");
            continue;
        };
        let number: u64 = str::from_utf8(&last.value).unwrap().parse().unwrap();
        let known = acknowledged.get(&task).copied().unwrap_or(0);
        assert!(
            number >= known,
            "task {task}: {number}, {known} acknowledged"
        );
        sum += number;
        let many = store.list(&format!("/many/{task}/")).await.unwrap().entries;
        assert!([0, MANY].contains(&many.len()), "{} keys", many.len());
        let at = many.first().map(|entry| entry.modified);
        assert!(many.iter().all(|entry| Some(entry.modified) == at));
        let numbers = store.list(&format!("/task/{task}/")).await.unwrap().entries;
        assert_eq!(numbers.len() as u64, number, "task {task} has a hole");
        for (entry, number) in numbers.iter().zip(1..) {
            assert_eq!(*entry.key, *key(task, number));
            assert_eq!(entry.value, value(number));
        }
        assert_eq!(numbers.last().unwrap().modified, last.modified);
    }
    assert_eq!(sum, listing.revision.0);
    listing.revision
}

fn key(task: usize, number: u64) -> String {
    format!("/task/{task}/{number:08}")
}

fn value(number: u64) -> Vec<u8> {
    vec![number.to_le_bytes()[0]; usize::try_from(number * 37 % 1500).unwrap()]
}

/// Not a test of its own: the process that is killed.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    println!("\nopening");
    std::io::stdout().flush().unwrap();
    let store = Arc::new(Sqlite::open(&PathBuf::from(path)).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| runtime.spawn(write(store.clone(), task)))
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}

/// Commits one number after another, and says so, for ever.
async fn write(store: Arc<Sqlite>, task: usize) {
    let last = format!("/last/{task}");
    let mut number = match store.get(&last).await.unwrap() {
        Some(entry) => str::from_utf8(&entry.value).unwrap().parse().unwrap(),
        None => 0,
    };
    loop {
        number += 1;
        let before = match number {
            1 => Revision(0),
            _ => get(&*store, &last).await.modified,
        };
        let mut transaction = Transaction::new()
            .compare(&*last, before)
            .absent(key(task, number))
            .put(key(task, number), value(number))
            .put(&*last, number.to_string());
        for other in (0..MANY).filter(|_| number % 10 == 0) {
            transaction = transaction.put(format!("/many/{task}/{other:04}"), value(number));
        }
        commit(&*store, transaction).await;
        println!("{task} {number}.");
    }
}
