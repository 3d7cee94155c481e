//! The account of a volume is that of a fresh count, whatever a guest does.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::VolumeUse,
    quantity::ByteSize,
};
use tempfile::TempDir;

use super::*;
use crate::{
    logs::Ring,
    meter::PodMeter,
    volumes::{Volumes, VolumesConfig, content},
};

const QUOTA: u64 = 64 * BLOCK_BYTES;

/// To read and to write.
fn both() -> DescriptorFlags {
    DescriptorFlags::READ | DescriptorFlags::WRITE
}

struct Rig {
    folder: TempDir,
    root: Held,
    ring: Arc<Ring>,
    /// Another mount of the same volume, that may only be read.
    readable: Held,
    /// Another volume.
    other: Held,
}

fn rig() -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let ring: Arc<Ring> = Arc::default();
    let service = ServiceKey::parse("shop/web").expect("a key");
    let meter = Arc::new(PodMeter::new(None));
    let log = PodLog::new(
        &ring,
        PodName::new(&service, 1, 0),
        &meter,
        1 << 20,
        &Arc::default(),
    );
    let volumes = Volumes::new(VolumesConfig::at(folder.path().to_owned()));
    let held = |name: &str, access| {
        let wanted = VolumeUse {
            app: Name::parse("shop").expect("a name"),
            name: Name::parse(name).expect("a name"),
            quota: ByteSize(QUOTA),
        };
        let volume = volumes.open(&wanted).expect("a volume");
        let handle = || volume.directory().expect("a handle");
        let mode = OpenMode::READ | OpenMode::WRITE;
        let directory = Dir::new(handle(), access, mode, false);
        let mount = VolumeMount::new(Arc::clone(&volume), handle(), access);
        Held {
            mount: Arc::new(mount),
            descriptor: Descriptor::Dir(directory),
            log: Arc::clone(&log),
            request: None,
        }
    };
    Rig {
        root: held("data", FsPerms::ReadWrite),
        readable: held("data", FsPerms::ReadOnly),
        other: held("other", FsPerms::ReadWrite),
        ring,
        folder,
    }
}

impl Rig {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("shop/data")
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Result<Held, ErrorCode> {
        let none = PathFlags::empty();
        let opened = self.root.open_at(none, path.to_owned(), flags, both())?;
        Ok(Held {
            descriptor: opened.expect("a file"),
            ..self.root.clone()
        })
    }

    fn put(&self, path: &str, bytes: usize) -> Result<(), ErrorCode> {
        let file = self.open(path, OpenFlags::CREATE | OpenFlags::TRUNCATE)?;
        let mut written = 0;
        while written < bytes {
            written += file.write(vec![1; bytes - written], written as u64)? as usize;
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.root.volume().used_bytes().expect("counted")
    }

    /// What a fresh count gives.
    fn counted(&self) -> u64 {
        fn sum(directory: &Path, seen: &mut Vec<u64>) -> u64 {
            let mut all = 0;
            for entry in std::fs::read_dir(directory).expect("a directory") {
                let entry = entry.expect("an entry");
                let found = entry.metadata().expect("there");
                all += BLOCK_BYTES;
                if found.is_dir() {
                    all += sum(&entry.path(), seen);
                } else if found.is_file() && !seen.contains(&found.ino()) {
                    seen.push(found.ino());
                    all += content(found.len());
                }
            }
            all
        }
        sum(&self.path(), &mut Vec::new())
    }

    fn check(&self, what: &str) {
        assert_eq!(self.used(), self.counted(), "{what}");
        assert!(self.used() <= QUOTA, "{what}");
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

#[test]
fn each_function_keeps_the_account() {
    let rig = rig();
    let root = &rig.root;
    let none = PathFlags::empty();
    rig.put("a", 10_000).expect("room");
    assert_eq!(rig.used(), 4 * BLOCK_BYTES);
    rig.put("a", 5000).expect("room");
    assert_eq!(rig.used(), 3 * BLOCK_BYTES, "truncated and written again");
    let linked = root.link_at(none, text("a"), root, text("b"));
    linked.expect("room");
    assert_eq!(rig.used(), 4 * BLOCK_BYTES, "a second name");
    root.rename_at(text("a"), root, text("b"))
        .expect("the same");
    assert_eq!(rig.used(), 4 * BLOCK_BYTES, "both names stay");
    root.unlink_file_at(text("a")).expect("there");
    assert_eq!(rig.used(), 3 * BLOCK_BYTES, "the first name is gone");
    rig.put("c", 3 * 4096).expect("room");
    root.rename_at(text("b"), root, text("c")).expect("there");
    assert_eq!(rig.used(), 3 * BLOCK_BYTES, "renamed over another");
    root.symlink_at(text("c"), text("link")).expect("room");
    root.create_directory_at(text("dir")).expect("room");
    rig.check("a link and a directory");
    root.rename_at(text("c"), root, text("dir/c"))
        .expect("there");
    rig.check("moved");
    let full = root.remove_directory_at(text("dir"));
    assert_eq!(full, Err(ErrorCode::NotEmpty));
    root.unlink_file_at(text("dir/c")).expect("there");
    root.unlink_file_at(text("link")).expect("there");
    root.remove_directory_at(text("dir")).expect("empty");
    assert_eq!(rig.used(), 0);
    rig.check("all gone");
    let failed = root.unlink_file_at(text("nothing"));
    assert_eq!(failed, Err(ErrorCode::NoEntry));
    rig.check("nothing");
}

#[test]
fn what_is_beyond_the_quota_is_refused_and_said() {
    let rig = rig();
    rig.put("a", 62 * 4096).expect("room");
    rig.put("b", 0).expect("room for its name");
    assert_eq!(rig.used(), QUOTA);
    let (root, none) = (&rig.root, PathFlags::empty());
    let no_space = Err(ErrorCode::InsufficientSpace);
    assert_eq!(root.create_directory_at(text("dir")), no_space);
    assert_eq!(root.symlink_at(text("a"), text("link")), no_space);
    assert_eq!(root.link_at(none, text("a"), root, text("c")), no_space);
    assert_eq!(rig.put("c", 0), no_space);
    assert_eq!(rig.put("b", 1), no_space);
    // What is there already is said first, and what takes nothing is done.
    assert_eq!(root.create_directory_at(text("a")), Err(ErrorCode::Exist));
    root.rename_at(text("b"), root, text("d")).expect("there");
    rig.check("full");
    root.unlink_file_at(text("a")).expect("there");
    rig.put("b", 4096).expect("room again");
    let said = rig.ring.read(0, usize::MAX).lines;
    let told =
        "no space left: volume `data` may have 256KiB; `quota` in `[volume.data]` allows more";
    assert!(said.iter().any(|line| line.text == told), "{said:?}");
}

#[test]
fn a_mount_to_read_changes_nothing() {
    let rig = rig();
    rig.put("a", 10).expect("room");
    let readable = &rig.readable;
    let none = PathFlags::empty();
    let refused = Err(ErrorCode::NotPermitted);
    assert_eq!(readable.unlink_file_at(text("a")), refused);
    assert_eq!(readable.create_directory_at(text("b")), refused);
    assert_eq!(readable.rename_at(text("a"), readable, text("b")), refused);
    let link = rig.root.link_at(none, text("a"), readable, text("b"));
    assert_eq!(link, refused);
    let made = readable.open_at(none, text("b"), OpenFlags::CREATE, both());
    assert_eq!(made.err(), Some(ErrorCode::NotPermitted));
    rig.check("nothing was done");
}

#[test]
fn nothing_goes_from_one_volume_to_another_by_its_name() {
    let rig = rig();
    assert_eq!(beside(None, None), Ok(()));
    assert_eq!(beside(Some(&rig.root), Some(&rig.readable)), Ok(()));
    let apart = Err(ErrorCode::CrossDevice);
    assert_eq!(beside(Some(&rig.root), Some(&rig.other)), apart);
    assert_eq!(beside(Some(&rig.root), None), apart);
    assert_eq!(beside(None, Some(&rig.root)), apart);
    // Nor out of it in any other way.
    std::os::unix::fs::symlink("../other", rig.path().join("out")).expect("made");
    for path in ["../other/x", "/etc/x", "out/x", "a/../../other/x"] {
        assert!(rig.open(path, OpenFlags::CREATE).is_err(), "{path}");
        assert!(rig.root.create_directory_at(text(path)).is_err(), "{path}");
        let into = rig.root.symlink_at(text("x"), text(path));
        assert!(into.is_err(), "{path}");
    }
}

/// Files that are removed or replaced while they are open count until they are closed.
#[test]
fn what_is_open_stays_in_the_account() {
    let rig = rig();
    rig.put("a", 20 * 4096).expect("room");
    rig.put("b", 20 * 4096).expect("room");
    let held = rig.open("a", OpenFlags::empty()).expect("there");
    rig.root.unlink_file_at(text("a")).expect("there");
    assert_eq!(rig.used(), 41 * BLOCK_BYTES);
    assert_eq!(rig.put("c", 40 * 4096), Err(ErrorCode::InsufficientSpace));
    drop(held);
    rig.put("c", 40 * 4096).expect("room again");
    rig.check("closed");
}

#[test]
fn random_changes_keep_the_account() {
    let seed = std::env::var("SAMPAN_SEED").ok();
    let seed = seed.and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SAMPAN_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let rig = rig();
    let root = &rig.root;
    let names = ["a", "b", "dir", "dir/a", "dir/b", "link", "link/a"];
    let (mut done, mut refused) = (0, 0);
    for step in 0..3000 {
        let mut name = || text(names[random.usize(..names.len())]);
        let (one, two) = (name(), name());
        let bytes = random.usize(..20_000);
        let what = format!("{step}: {one} {two} {bytes}");
        let result = match random.u8(..10) {
            0..=2 => rig.put(&one, bytes),
            3 => root.unlink_file_at(one),
            4 => root.rename_at(one, root, two),
            5 => root.link_at(PathFlags::empty(), one, root, two),
            6 => root.symlink_at(one, two),
            7 => root.create_directory_at(one),
            8 => root.remove_directory_at(one),
            _ => rig.open(&one, OpenFlags::empty()).and_then(|file| {
                let at = random.u64(..400_000);
                match random.bool() {
                    true => file.set_size(at),
                    false => file.write(vec![2; bytes], at).map(drop),
                }
            }),
        };
        match result {
            Ok(()) => done += 1,
            Err(ErrorCode::InsufficientSpace) => refused += 1,
            Err(_) => {}
        }
        rig.check(&what);
    }
    assert!(done > 300 && refused > 10, "{done} done, {refused} refused");
}
