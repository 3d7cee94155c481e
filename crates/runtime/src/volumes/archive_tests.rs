//! Volumes that are written as archives and read from them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    time::{Duration, SystemTime},
};

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// The volume `data` of `shop`, made.
fn made_in(folder: &Path) -> (Volumes, PathBuf) {
    let volumes = Volumes::new(VolumesConfig {
        directory: folder.join("volumes"),
        disk_percent: 100,
    });
    let wanted = VolumeUse {
        app: name("shop"),
        name: name("data"),
        quota: ByteSize(1 << 30),
    };
    volumes.take(&wanted).expect("made");
    let path = folder.join("volumes/shop/data");
    (volumes, path)
}

fn exported(volumes: &Volumes) -> Vec<u8> {
    let mut archive = Vec::new();
    let written = volumes.export(&name("shop"), &name("data"), &mut archive);
    written.expect("written");
    archive
}

fn imported(volumes: &Volumes, quota: Option<u64>, archive: &[u8]) -> Result<(), VolumeError> {
    volumes.import(&name("shop"), &name("data"), quota, archive)
}

/// Everything below a directory: its mode, its time, and its content or where it leads.
fn content_of(root: &Path) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![PathBuf::new()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(root.join(&directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = directory.join(entry.file_name());
            let metadata = fs::symlink_metadata(entry.path()).expect("there");
            let bytes = match metadata.file_type() {
                it if it.is_dir() => {
                    ahead.push(path.clone());
                    Vec::new()
                }
                it if it.is_symlink() => {
                    let target = fs::read_link(entry.path()).expect("a link");
                    target.into_os_string().into_encoded_bytes()
                }
                _ => fs::read(entry.path()).expect("a file"),
            };
            let mode = metadata.mode() & 0o777;
            found.insert(path, (mode, metadata.mtime(), bytes));
        }
    }
    found
}

#[test]
fn what_is_written_is_read_as_it_was() {
    let (one, other) = (tempfile::tempdir(), tempfile::tempdir());
    let (one, other) = (one.expect("a folder"), other.expect("a folder"));
    let (volumes, root) = made_in(one.path());
    let long = "d".repeat(200);
    let deep = root.join(&long).join(&long).join(&long);
    fs::create_dir_all(&deep).expect("made");
    fs::create_dir(root.join("empty")).expect("made");
    let odd = [
        "a b",
        "-rf",
        "new\nline",
        "\u{1f6a2}",
        "back\\slash",
        "'\"$x",
        ".hidden",
        "...",
    ];
    for name in odd {
        fs::write(root.join(name), name).expect("written");
    }
    fs::write(deep.join(&long), "deep").expect("written");
    fs::write(root.join("nothing"), "").expect("written");
    let large: Vec<u8> = (0..5_000_001_u32).map(|it| (it % 251) as u8).collect();
    fs::write(root.join("large"), &large).expect("written");
    let holes = File::create(root.join("holes")).expect("made");
    holes.set_len(8 << 20).expect("longer");
    holes.write_all_at(b"x", 5 << 20).expect("written");
    symlink("../large", root.join("empty/link")).expect("made");
    let modes = [("nothing", 0o640), ("large", 0o755), ("empty", 0o711)];
    for (name, mode) in modes {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(root.join(name), mode).expect("ours");
    }
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for name in ["nothing", "empty"] {
        let file = File::open(root.join(name)).expect("there");
        file.set_modified(old).expect("ours");
    }
    let before = content_of(&root);
    let archive = exported(&volumes);
    let (copies, copy) = made_in(other.path());
    fs::write(copy.join("goes"), "with what was there").expect("written");
    imported(&copies, Some(64 << 20), &archive).expect("read");
    assert_eq!(content_of(&copy), before);
    // Holes stay holes, and the account is that of a quota.
    assert!(fs::metadata(copy.join("holes")).expect("there").blocks() < 4 << 10);
    let used = |volumes: &Volumes| volumes.used_bytes(&name("shop"), &name("data"));
    assert_eq!(
        used(&copies).expect("counted"),
        used(&volumes).expect("counted")
    );
    // To the block.
    let bytes = used(&volumes).expect("counted");
    imported(&copies, Some(bytes), &archive).expect("it fits");
    let error = imported(&copies, Some(bytes - 1), &archive).expect_err("too much");
    assert!(
        error.to_string().contains("`quota` of volume `data`"),
        "{error}"
    );
    assert_eq!(content_of(&copy), before);
    // Another program writes and reads the same.
    assert_eq!(exported(&copies).len(), archive.len());
}

/// An archive with one entry, as no careful program writes it.
fn archive(path: &str, kind: tar::EntryType, link: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().expect("its kind").name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    if let Some(link) = link {
        let field = &mut header.as_gnu_mut().expect("its kind").linkname;
        field[..link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, bytes).expect("written");
    archive.into_inner().expect("written")
}

#[test]
fn what_a_volume_cannot_have_changes_nothing() {
    use tar::EntryType as Kind;
    let folder = tempfile::tempdir().expect("a folder");
    let (volumes, root) = made_in(folder.path());
    fs::write(root.join("kept"), "as it was").expect("written");
    let good = exported(&volumes);
    let link = archive("dir", Kind::Symlink, Some("kept"), b"");
    let through = [
        &link[..link.len() - 1024],
        &archive("dir/x", Kind::Regular, None, b"x"),
    ]
    .concat();
    let twice = [&good[..good.len() - 1024], &good[..]].concat();
    let huge = {
        let mut header = tar::Header::new_gnu();
        header.set_path("huge").expect("short");
        header.set_size(1 << 50);
        header.set_mode(0o644);
        header.set_cksum();
        [&header.as_bytes()[..], &[0; 4096]].concat()
    };
    for (archive, told) in [
        (
            archive("../out", Kind::Regular, None, b"x"),
            "`../out` leads out of the volume",
        ),
        (
            archive("a/../../out", Kind::Regular, None, b"x"),
            "leads out of the volume",
        ),
        (
            archive("/etc/out", Kind::Regular, None, b"x"),
            "`/etc/out` leads out of the volume",
        ),
        (
            archive("l", Kind::Symlink, Some("/etc/passwd"), b""),
            "out of the volume",
        ),
        (
            archive("a/l", Kind::Symlink, Some("../../x"), b""),
            "out of the volume",
        ),
        (
            archive("h", Kind::Link, Some("kept"), b""),
            "`h` is a hard link",
        ),
        (archive("null", Kind::Char, None, b""), "`null` is a device"),
        (archive("pipe", Kind::Fifo, None, b""), "`pipe` is a pipe"),
        (through, "lies below something that is no directory"),
        (twice, "`kept` is in the archive twice"),
        (huge, "`quota` of volume `data`"),
        (good[..good.len() - 1024].to_vec(), "ends before its end"),
        (good[..700].to_vec(), ""),
        (b"no archive".to_vec(), ""),
        (Vec::new(), "ends before its end"),
    ] {
        let error = imported(&volumes, Some(1 << 20), &archive).expect_err(told);
        assert!(error.to_string().contains(told), "{told}: {error}");
        let kept = fs::read_to_string(root.join("kept"));
        assert_eq!(kept.expect("there"), "as it was", "{told}");
        let beside = fs::read_dir(root.parent().expect("a parent")).expect("a directory");
        assert_eq!(beside.count(), 1, "{told}");
    }
    assert!(!folder.path().join("out").exists() && !root.with_file_name("out").exists());
}

#[test]
fn a_volume_in_use_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (volumes, _) = made_in(folder.path());
    let archive = exported(&volumes);
    let wanted = VolumeUse {
        app: name("shop"),
        name: name("data"),
        quota: ByteSize(1 << 20),
    };
    let held = volumes.open(&wanted).expect("there");
    assert!(matches!(
        imported(&volumes, None, &archive),
        Err(VolumeError::Used(_))
    ));
    let refused = volumes.export(&name("shop"), &name("data"), &mut Vec::new());
    assert!(matches!(refused, Err(VolumeError::Used(_))));
    drop(held);
    // What a process that was killed has left behind is in no way.
    let left = folder.path().join("volumes/shop/.import-data");
    fs::create_dir(&left).expect("made");
    fs::write(left.join("half"), "half").expect("written");
    assert_eq!(volumes.list().expect("read").len(), 1);
    imported(&volumes, None, &archive).expect("read");
    fs::create_dir(&left).expect("made");
    volumes.remove(&name("shop")).expect("removed");
    assert!(!left.exists());
    let absent = volumes.export(&name("shop"), &name("data"), &mut Vec::new());
    assert!(matches!(absent, Err(VolumeError::Absent(_))));
}
