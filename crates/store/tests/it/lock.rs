//! Who may open a store, and what stands beside it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use sampan_store::{OpenError, Revision, Sqlite, Store};

use crate::fixture::{child, contents, put};

const STORE: &str = "SAMPAN_TEST_LOCK";

#[tokio::test]
async fn only_one_opens_a_store_and_all_is_there_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Sqlite::open(&path).unwrap();
    put(&store, "/a", "1").await;
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let error = Sqlite::open(name).unwrap_err();
        assert!(matches!(error, OpenError::InUse(..)), "{error}");
        let wanted = format!(
            "the store `{}` is in use, and only one process can have it open",
            path.canonicalize().unwrap().display()
        );
        assert_eq!(error.to_string(), wanted);
    }
    // The refused ones have not taken anything away.
    put(&store, "/a", "2").await;
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.path().display());
        }
    }
    let before = contents(&store).await;
    drop(store);
    let store = Sqlite::open(&link).unwrap();
    assert_eq!(contents(&store).await, before);
    assert_eq!(put(&store, "/a", "3").await, Revision(3));
}

#[test]
fn another_process_keeps_it_until_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut holder = child("lock::holder", STORE, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "open"));
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::InUse(..)), "{error}");
    // SQLite's own lock holds as well, against processes that do not know the lock file.
    fs::remove_file(path.with_extension("lock")).unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::InUse(..)), "{error}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    Sqlite::open(&path).unwrap();
}

/// Not a test of its own: the other process.
#[test]
fn holder() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let _store = Sqlite::open(&PathBuf::from(path)).unwrap();
    println!("\nopen");
    std::io::stdout().flush().unwrap();
    // Until it is killed.
    let _ = std::io::stdin().read(&mut [0]);
}

#[tokio::test]
async fn what_an_ended_creation_left_is_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fs::write(path.with_extension("new"), "half").unwrap();
    fs::write(path.with_extension("new-journal"), "half").unwrap();
    fs::write(path.with_extension("lock"), "").unwrap();
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(store.revision().await, Ok(Revision(0)));
    assert!(!path.with_extension("new").exists());
}

#[test]
fn a_folder_that_is_missing_or_in_the_way_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/store");
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Access(..)), "{error}");
    assert!(error.to_string().contains("missing/store"), "{error}");
    let error = Sqlite::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Foreign(..)), "{error}");
}
