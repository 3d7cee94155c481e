//! A disk that is really full, and one that is read-only, where a mount namespace can be had.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sampan_store::{OpenError, Revision, Sqlite, Store, StoreError, Transaction, WatchError};

use crate::fixture::{child, commit, contents, next, put};

const MOUNT: &str = "SAMPAN_TEST_FULL";

/// Mounts 4 MiB of memory at the first argument, and runs the rest.
const SCRIPT: &str = "mount -t tmpfs -o size=4m none \"$0\" && exec \"$@\"";

#[test]
fn a_full_disk_stops_writes_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", SCRIPT]).arg(folder.path());
        command.args(arguments);
        command
    };
    let possible = unshare(&["true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("nothing can be mounted here: `sqlite::tests` has a full disk without a mount");
        return;
    }
    let on_disk = child("full::on_disk", MOUNT, folder.path());
    let mut command = unshare(&[]);
    command.arg(on_disk.get_program()).args(on_disk.get_args());
    command.envs(
        on_disk
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
}

/// Not a test of its own: runs where the small disk is.
#[tokio::test]
async fn on_disk() {
    let Some(folder) = std::env::var_os(MOUNT).map(PathBuf::from) else {
        return;
    };
    let path = folder.join("store");
    let ballast = folder.join("ballast");
    fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let store = Sqlite::open(&path).unwrap();
    put(&store, "/small", "1").await;
    let mut count = 0;
    let error = loop {
        let large = Transaction::new().put(format!("/large/{count}"), vec![7; 40_000]);
        match store.commit(large).await {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    println!("{count} fit: {error}");
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(count > 5);
    let before = contents(&store).await;
    let revision = before.0.revision;
    assert_eq!(revision, Revision(count + 1));
    let mut watch = store.watch("", revision).await.unwrap();
    for _ in 0..20 {
        let large = Transaction::new().put("/large", vec![7; 40_000]);
        let full = store.commit(large).await;
        assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    }
    assert_eq!(contents(&store).await, before);
    fs::remove_file(&ballast).unwrap();
    let large = Transaction::new().put("/large", vec![7; 40_000]);
    let written = commit(&store, large).await;
    assert_eq!(written, Revision(revision.0 + 1));
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, batch.changes.len()), (written, 1));
    let before = contents(&store).await;
    drop(store);
    assert_eq!(watch.next().await, Err(WatchError::Closed));
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(contents(&store).await, before);
    drop(store);

    let mut remount = Command::new("mount");
    remount.args(["-o", "remount,ro"]).arg(&folder);
    assert!(remount.status().unwrap().success());
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Access(..)), "{error}");
}
