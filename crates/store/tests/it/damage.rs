//! Damaged, foreign and outdated files: refused and left as they are, never begun anew in silence.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use sampan_store::{Batch, Listing, OpenError, Revision, Sqlite, Store, Transaction};
use tempfile::TempDir;

use crate::fixture::{commit, contents, number, put, random};

/// The files of a store, as they were at a moment.
#[derive(Clone)]
struct Files {
    store: Vec<u8>,
    wal: Option<Vec<u8>>,
    lock: Option<Vec<u8>>,
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    format!("{}{ending}", path.display()).into()
}

impl Files {
    fn read(path: &Path) -> Self {
        Self {
            store: fs::read(path).unwrap(),
            wal: fs::read(beside(path, "-wal")).ok(),
            lock: fs::read(beside(path, ".lock")).ok(),
        }
    }

    fn write(&self, path: &Path) {
        fs::write(path, &self.store).unwrap();
        for (file, ending) in [(&self.wal, "-wal"), (&self.lock, ".lock")] {
            match file {
                Some(bytes) => fs::write(beside(path, ending), bytes).unwrap(),
                None => {
                    let _ = fs::remove_file(beside(path, ending));
                }
            }
        }
    }
}

struct Sample {
    folder: TempDir,
    contents: (Listing, Vec<Batch>),
    /// As a kill leaves it.
    killed: Files,
    /// As an end leaves it.
    ended: Files,
}

impl Sample {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("original");
        let store = Sqlite::open(&path).unwrap();
        for number in 0..60 {
            let value = vec![b'a' + number % 26; usize::from(number) * 30];
            let transaction = Transaction::new()
                .put(format!("/services/{number}"), value)
                .put(format!("/pods/{number}"), "ready")
                .delete(format!("/pods/{}", number.wrapping_sub(9)));
            commit(&store, transaction).await;
            // Not at the end: a compaction that is lost only brings history back.
            if number == 50 {
                store.compact(Revision(20)).await.unwrap();
            }
        }
        let contents = contents(&store).await;
        let killed = Files::read(&path);
        drop(store);
        let ended = Files::read(&path);
        assert!(killed.wal.as_ref().unwrap().len() > ended.wal.as_ref().map_or(0, Vec::len));
        Self {
            folder,
            contents,
            killed,
            ended,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Opens the files: an error that leaves them as they are, or everything is there.
    async fn open(&self, files: &Files) -> Result<(), OpenError> {
        let path = self.path();
        files.write(&path);
        match Sqlite::open(&path) {
            Ok(store) => {
                let found = contents(&store).await;
                assert_eq!(found.0, self.contents.0);
                assert_eq!(found.1, self.contents.1);
                Ok(())
            }
            Err(error) => {
                let after = Files::read(&path);
                assert!(after.store == files.store, "written to after {error}");
                let bytes = |wal: &Option<Vec<u8>>| wal.clone().unwrap_or_default();
                assert!(
                    bytes(&after.wal) == bytes(&files.wal),
                    "written to the log after {error}"
                );
                assert!(
                    error.to_string().contains(path.to_str().unwrap()),
                    "{error}"
                );
                Err(error)
            }
        }
    }
}

#[tokio::test]
async fn whole_files_open() {
    let sample = Sample::new().await;
    sample.open(&sample.killed).await.unwrap();
    sample.open(&sample.ended).await.unwrap();
    // Without the lock file, which another machine does not have.
    let mut copy = sample.ended.clone();
    copy.lock = None;
    copy.wal = None;
    sample.open(&copy).await.unwrap();
}

#[tokio::test]
async fn a_flipped_byte_is_found_or_does_no_harm() {
    let sample = Sample::new().await;
    let mut random = random("flip");
    let mut refused = 0;
    let flips = number("SAMPAN_FLIPS", 100);
    for flip in 0..flips {
        let mut files = match flip % 2 {
            0 => sample.ended.clone(),
            _ => sample.killed.clone(),
        };
        let bytes = match &mut files.wal {
            Some(wal) if flip % 2 == 1 && random.bool() => wal,
            _ => &mut files.store,
        };
        let place = random.usize(..bytes.len());
        bytes[place] ^= random.u8(1..);
        refused += u64::from(sample.open(&files).await.is_err());
    }
    println!("{refused} of {flips} refused");
    assert!(refused > flips / 4, "only {refused} of {flips} refused");
}

#[tokio::test]
async fn a_file_that_is_cut_off_is_found() {
    let sample = Sample::new().await;
    let mut random = random("truncate");
    for _ in 0..50 {
        let mut files = sample.ended.clone();
        files.store.truncate(random.usize(..files.store.len()));
        sample.open(&files).await.expect_err("a part of a store");
        let mut files = sample.killed.clone();
        let wal = files.wal.as_mut().unwrap();
        wal.truncate(random.usize(..wal.len()));
        // All that is missing may be the rest of the file that is not in use.
        if let Err(error) = sample.open(&files).await {
            let behind = matches!(error, OpenError::Behind { .. } | OpenError::Damaged(..));
            assert!(behind, "{error}");
        }
    }
}

#[tokio::test]
async fn an_empty_file_is_not_a_new_store() {
    let sample = Sample::new().await;
    for mut files in [sample.ended.clone(), sample.killed.clone()] {
        files.store.clear();
        let error = sample.open(&files).await.unwrap_err().to_string();
        let path = sample.path().display().to_string();
        assert_eq!(
            error,
            format!(
                "the store `{path}` is damaged: it is empty; put a copy in its place and remove \
                 `{path}-wal` and `{path}.lock`, or move all three away to begin anew"
            )
        );
    }
}

#[tokio::test]
async fn a_log_without_its_store_is_not_a_new_store() {
    let sample = Sample::new().await;
    let path = sample.path();
    sample.killed.write(&path);
    fs::remove_file(&path).unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Damaged(..)), "{error}");
    assert!(!path.exists());
    assert_eq!(fs::read(beside(&path, "-wal")).ok(), sample.killed.wal);
    // What the message says helps.
    for ending in ["-wal", ".lock"] {
        fs::rename(beside(&path, ending), beside(&path, ".away")).unwrap();
    }
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(store.revision().await, Ok(Revision(0)));
}

#[tokio::test]
async fn a_store_that_is_gone_with_its_log_is_not_a_new_one() {
    let sample = Sample::new().await;
    let path = sample.path();
    sample.killed.write(&path);
    for ending in ["", "-wal"] {
        fs::remove_file(beside(&path, ending)).unwrap();
    }
    let error = Sqlite::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Missing(..)), "{error}");
    assert!(!path.exists());
    // Both remedies help.
    sample.killed.write(&path);
    drop(Sqlite::open(&path).unwrap());
    for ending in ["", ".lock"] {
        fs::remove_file(beside(&path, ending)).unwrap();
    }
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(store.revision().await, Ok(Revision(0)));
}

#[tokio::test]
async fn what_is_not_a_store_is_refused() {
    let sample = Sample::new().await;
    let mut random = random("garbage");
    let garbage = (0..10_000).map(|_| random.u8(..)).collect();
    for store in [
        garbage,
        b"x".to_vec(),
        vec![0; 8192],
        b"[package]\n".repeat(999),
    ] {
        let files = Files {
            store,
            wal: None,
            lock: None,
        };
        let error = sample.open(&files).await.unwrap_err();
        assert!(matches!(error, OpenError::Foreign(..)), "{error}");
    }
}

/// Makes a database with a statement, and opens it as a store.
async fn open_after(sample: &Sample, start: Option<&Files>, statement: &str) -> OpenError {
    let path = sample.folder.path().join("made");
    let _ = fs::remove_file(&path);
    if let Some(files) = start {
        files.write(&path);
    }
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(statement).unwrap();
    connection.close().unwrap();
    let mut files = Files::read(&path);
    files.lock = None;
    sample.open(&files).await.expect_err(statement)
}

#[tokio::test]
async fn databases_of_others_and_of_the_future_are_refused() {
    let sample = Sample::new().await;
    let error = open_after(&sample, None, "CREATE TABLE t (a)").await;
    assert!(matches!(error, OpenError::Foreign(..)), "{error}");
    let error = open_after(&sample, Some(&sample.ended), "PRAGMA user_version = 3").await;
    let path = sample.path().display().to_string();
    assert_eq!(
        error.to_string(),
        format!(
            "the store `{path}` has schema version `3`, and this sampan knows those up to `2`: \
             use the newer sampan that wrote it"
        )
    );
}

#[tokio::test]
async fn a_store_of_the_first_version_is_carried_over() {
    let sample = Sample::new().await;
    let path = sample.path();
    sample.ended.write(&path);
    let connection = Connection::open(&path).unwrap();
    let first = "DROP TABLE sessions; PRAGMA user_version = 1; VACUUM";
    connection.execute_batch(first).unwrap();
    connection.close().unwrap();
    for _ in 0..2 {
        let store = Sqlite::open(&path).unwrap();
        assert_eq!(contents(&store).await, sample.contents);
    }
    let store = Sqlite::open(&path).unwrap();
    let session = store.open_session(Duration::from_secs(10)).await.unwrap();
    commit(&store, Transaction::new().put_in(session.id(), "/a", "1")).await;
    drop(store);
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(
        store.list("").await.unwrap().entries,
        sample.contents.0.entries
    );
}

#[tokio::test]
async fn rows_that_somebody_else_has_changed_are_found() {
    let sample = Sample::new().await;
    for statement in [
        "UPDATE entries SET value = x'00' WHERE key = '/services/9'",
        "UPDATE entries SET key = '/services/x' WHERE key = '/services/9'",
        "UPDATE entries SET created = created + 1 WHERE key = '/services/9'",
        "DELETE FROM entries WHERE key = '/services/9'",
        "INSERT INTO entries SELECT '/x', value, created, modified, sum FROM entries LIMIT 1",
        "DELETE FROM entries",
        "DELETE FROM log WHERE revision = 30",
        "DELETE FROM log WHERE revision = 60",
        "DELETE FROM log WHERE revision = 21",
        "DELETE FROM log",
        "UPDATE log SET changes = x'00' WHERE revision = 30",
        "UPDATE log SET revision = 61 WHERE revision = 60",
        "UPDATE meta SET revision = 61",
        "UPDATE meta SET compacted = 0",
        "INSERT INTO sessions VALUES ('/services/9')",
        "INSERT INTO sessions VALUES ('/missing')",
        "DELETE FROM meta",
        "INSERT INTO meta SELECT * FROM meta",
        "CREATE TABLE t (a)",
        "DROP TABLE log",
        "CREATE INDEX i ON entries (created)",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 0",
    ] {
        let error = open_after(&sample, Some(&sample.ended), statement).await;
        assert!(
            matches!(error, OpenError::Damaged(..)),
            "{statement}: {error}"
        );
    }
}

#[tokio::test]
async fn an_older_copy_is_not_taken_for_the_present() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Sqlite::open(&path).unwrap();
    put(&store, "/a", "1").await;
    drop(store);
    let older = fs::read(&path).unwrap();
    let store = Sqlite::open(&path).unwrap();
    put(&store, "/a", "2").await;
    put(&store, "/a", "3").await;
    drop(store);
    let newer = fs::read(&path).unwrap();
    fs::write(&path, &older).unwrap();
    let error = Sqlite::open(&path).unwrap_err();
    let name = path.display();
    assert_eq!(
        error.to_string(),
        format!(
            "the store `{name}` ends at revision `1`, but revision `3` has been acknowledged: put \
             a newer copy of it and of `{name}-wal` in its place, or remove `{name}.lock` to go \
             on from revision `1`"
        )
    );
    assert_eq!(fs::read(&path).unwrap(), older);
    // Either way out works.
    fs::write(&path, &newer).unwrap();
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(store.revision().await, Ok(Revision(3)));
    drop(store);
    fs::write(&path, &older).unwrap();
    fs::remove_file(beside(&path, ".lock")).unwrap();
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(put(&store, "/a", "2").await, Revision(2));
}
