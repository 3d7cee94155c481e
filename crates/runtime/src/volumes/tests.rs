//! The account of a volume: exact, whatever is done to what is in it.

use std::{fs, os::unix::fs::PermissionsExt as _, thread};

use super::*;

fn volumes(folder: &Path) -> Volumes {
    Volumes::new(VolumesConfig::at(folder.join("volumes")))
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn wanted(quota: u64) -> VolumeUse {
    VolumeUse {
        app: name("shop"),
        name: name("data"),
        quota: ByteSize(quota),
    }
}

fn file(folder: &Path, name: &str) -> Arc<File> {
    let path = folder.join("volumes/shop/data").join(name);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).open(path);
    Arc::new(file.expect("a file"))
}

#[test]
fn a_disk_is_full_from_a_percentage_on() {
    for (used, available, full) in [
        (89, 11, false),
        (90, 10, true),
        (100, 0, true),
        (0, 9, false),
    ] {
        assert_eq!(is_full(used, available, 90), full, "{used} {available}");
    }
}

#[test]
fn a_volume_is_private_and_no_link() {
    let folder = tempfile::tempdir().expect("a folder");
    let volumes = volumes(folder.path());
    volumes.open(&wanted(1 << 20)).expect("made");
    for part in ["volumes", "volumes/shop", "volumes/shop/data"] {
        let found = fs::metadata(folder.path().join(part)).expect("there");
        assert_eq!(found.permissions().mode() & 0o777, 0o700, "{part}");
    }
    let link = folder.path().join("volumes/shop/link");
    std::os::unix::fs::symlink("/tmp", link).expect("made");
    let mut other = wanted(1 << 20);
    other.name = name("link");
    let error = volumes.open(&other).err().expect("a link");
    assert!(matches!(error, VolumeError::Directory { .. }), "{error}");
}

#[test]
fn one_process_at_a_time_has_a_volume() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, other) = (volumes(folder.path()), volumes(folder.path()));
    let held = one.open(&wanted(1 << 20)).expect("made");
    let again = one.open(&wanted(1 << 20)).expect("the same");
    assert!(Arc::ptr_eq(&held, &again));
    let busy = other.open(&wanted(1 << 20)).err().expect("busy");
    assert!(matches!(busy, VolumeError::Busy(..)), "{busy}");
    drop((held, again, one));
    other.open(&wanted(1 << 20)).expect("free");
}

#[test]
fn ten_writers_fill_a_volume_to_the_block() {
    let folder = tempfile::tempdir().expect("a folder");
    let volume = volumes(folder.path()).open(&wanted(100 * BLOCK_BYTES));
    let volume = volume.expect("made");
    let files: Vec<_> = (0..10)
        .map(|n| file(folder.path(), &n.to_string()))
        .collect();
    // The names are counted with what is there at first.
    assert_eq!(volume.used_bytes().expect("counted"), 10 * BLOCK_BYTES);
    thread::scope(|scope| {
        for file in &files {
            scope.spawn(|| {
                loop {
                    match volume.write(file, &[7; 1000], None) {
                        Ok(written) => assert!(written > 0),
                        Err(Refused::Quota) => return,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    let lengths = files.iter().map(|it| it.metadata().expect("there").len());
    let blocks: u64 = lengths.map(content).sum();
    assert_eq!(blocks, 90 * BLOCK_BYTES);
    assert_eq!(volume.used_bytes().expect("counted"), 100 * BLOCK_BYTES);
    // What is within its blocks can be written still, and what is cut off is free again.
    let length = |file: &&Arc<File>| file.metadata().expect("there").len();
    let first = files.iter().max_by_key(length).expect("ten");
    assert_eq!(volume.write(first, b"again", Some(0)).expect("room"), 5);
    volume.set_size(first, 0).expect("cut off");
    let free = 100 * BLOCK_BYTES - volume.used_bytes().expect("counted");
    assert!(free > 0);
    volume.set_size(first, free).expect("room");
    let refused = volume.set_size(first, free + 1);
    assert!(matches!(refused, Err(Refused::Quota)), "{refused:?}");
}

#[test]
fn holes_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let volume = volumes(folder.path()).open(&wanted(10 * BLOCK_BYTES));
    let volume = volume.expect("made");
    let file = file(folder.path(), "sparse");
    let at = 8 * BLOCK_BYTES;
    assert_eq!(volume.write(&file, b"end", Some(at)).expect("room"), 3);
    assert_eq!(volume.used_bytes().expect("counted"), 10 * BLOCK_BYTES);
    assert_eq!(volume.write(&file, b"hole", Some(0)).expect("room"), 4);
    for beyond in [9 * BLOCK_BYTES, 1 << 40, u64::MAX - 3] {
        let refused = volume.write(&file, b"beyond", Some(beyond));
        assert!(matches!(refused, Err(Refused::Quota)), "{refused:?}");
    }
    // What fits of it is written.
    let written = volume.write(&file, &[1; 100], Some(9 * BLOCK_BYTES - 30));
    assert_eq!(written.expect("room"), 30);
    assert_eq!(volume.used_bytes().expect("counted"), 10 * BLOCK_BYTES);
}

#[test]
fn what_is_removed_counts_until_it_is_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let volume = volumes(folder.path()).open(&wanted(10 * BLOCK_BYTES));
    let volume = volume.expect("made");
    let gone = file(folder.path(), "gone");
    volume.write(&gone, &[1; 3 * 4096], Some(0)).expect("room");
    assert_eq!(volume.used_bytes().expect("counted"), 4 * BLOCK_BYTES);
    fs::remove_file(folder.path().join("volumes/shop/data/gone")).expect("there");
    let mut ledger = volume.ledger().expect("counted");
    ledger.opened(&gone);
    ledger.unnamed();
    ledger.removed(3 * 4096);
    drop(ledger);
    assert_eq!(volume.used_bytes().expect("counted"), 3 * BLOCK_BYTES);
    // It grows still, and so does the account.
    volume.write(&gone, &[1; 100_000], None).expect("room");
    assert_eq!(volume.used_bytes().expect("counted"), 10 * BLOCK_BYTES);
    let other = file(folder.path(), "other");
    volume.ledger().expect("counted").named();
    let refused = volume.write(&other, b"x", None);
    assert!(matches!(refused, Err(Refused::Quota)), "{refused:?}");
    drop(gone);
    volume.write(&other, b"x", None).expect("room again");
    assert_eq!(volume.used_bytes().expect("counted"), 2 * BLOCK_BYTES);
}

#[test]
fn a_full_disk_takes_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let volumes = Volumes::new(VolumesConfig {
        directory: folder.path().join("volumes"),
        disk_percent: 0,
    });
    let volume = volumes.open(&wanted(1 << 20)).expect("made");
    let file = file(folder.path(), "file");
    let refused = volume.write(&file, b"x", None);
    assert!(matches!(refused, Err(Refused::Disk)), "{refused:?}");
    volume.set_size(&file, 0).expect("that takes nothing");
    let told = volume.explain(&Refused::Disk).expect("a text");
    assert!(
        told.contains("the disk of volume `data` is 0 % full"),
        "{told}"
    );
}

#[test]
fn volumes_are_listed_and_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let volumes = volumes(folder.path());
    let app = name("shop");
    assert_eq!(volumes.list().expect("nothing"), []);
    assert_eq!(volumes.remove(&app).expect("nothing"), []);
    let volume = volumes.open(&wanted(1 << 20)).expect("made");
    let file = file(folder.path(), "file");
    volume.write(&file, b"x", None).expect("room");
    let listed = [(app.clone(), name("data"))];
    assert_eq!(volumes.list().expect("one"), listed);
    let used = || volumes.used_bytes(&app, &name("data")).expect("counted");
    assert_eq!(used(), 2 * BLOCK_BYTES);
    let refused = volumes.remove(&app);
    assert!(matches!(&refused, Err(VolumeError::Used(_))), "{refused:?}");
    drop(volume);
    let below = folder.path().join("volumes/shop/data/a/b/c");
    fs::create_dir_all(&below).expect("made");
    std::os::unix::fs::symlink(folder.path(), below.join("out")).expect("made");
    fs::write(folder.path().join("kept"), "").expect("made");
    assert_eq!(volumes.remove(&app).expect("removed"), [name("data")]);
    assert!(!folder.path().join("volumes/shop").exists());
    assert!(folder.path().join("kept").exists());
    assert_eq!(volumes.list().expect("nothing"), []);
}

/// Deeper than a path may be long, than files may be open, and than a thread has stack for.
#[test]
fn what_is_deep_is_counted_and_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let volumes = volumes(folder.path());
    let volume = volumes.open(&wanted(1 << 30)).expect("made");
    let mut at = OwnedFd::from(volume.directory().expect("a handle"));
    const DEPTH: u64 = 5000;
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&at, "deep", PRIVATE).expect("made");
        at = rustix::fs::openat(&at, "deep", DIRECTORY, Mode::empty()).expect("there");
    }
    assert_eq!(volume.used_bytes().expect("counted"), DEPTH * BLOCK_BYTES);
    drop((at, volume));
    assert_eq!(
        volumes.remove(&name("shop")).expect("removed"),
        [name("data")]
    );
}
