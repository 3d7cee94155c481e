//! Components as files of this user.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use bytes::Bytes;
use sampan_core::digest::is_digest;

use super::{Content, ReadError, Stored, WriteError, digest};
use crate::file;

/// Ends the name of a file that is being written.
const PART: &str = "part";
/// Ends the name of a file whose digest was wrong when it was read.
const DAMAGED: &str = "damaged";

/// Makes the directory of the files, and removes what was left half written.
pub(super) fn open(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join("sha256");
    if !file::own_directory(&path)? {
        let reason = format!("others may write to `{}`", path.display());
        return Err(io::Error::other(reason));
    }
    for entry in fs::read_dir(&path)? {
        let entry = entry?.path();
        if entry.extension().is_some_and(|it| it == PART) {
            remove(&entry)?;
        }
    }
    Ok(path)
}

/// A file that is being written, removed when it is dropped before its end.
pub(super) struct Part {
    file: File,
    directory: PathBuf,
    path: PathBuf,
    name: String,
    whole: bool,
}

impl Part {
    pub(super) fn new(directory: &Path, name: &str) -> Result<Self, WriteError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = directory.join(format!("{name}.{process}-{number}.{PART}"));
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        Ok(Self {
            file: opened.map_err(|source| failed(&path, source))?,
            directory: directory.to_owned(),
            path,
            name: name.to_owned(),
            whole: false,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| failed(&self.path, source))
    }

    /// Gives the file its name, once it would outlive a power failure.
    pub(super) fn finish(mut self) -> Result<(), WriteError> {
        let finished = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, self.directory.join(&self.name)));
        finished.map_err(|source| failed(&self.path, source))?;
        self.whole = true;
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|source| failed(&self.directory, source))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.whole {
            // What stays is removed when the next process opens the directory.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn failed(path: &Path, source: io::Error) -> WriteError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            WriteError::Full(path.parent().unwrap_or(path).to_owned())
        }
        _ => WriteError::Io {
            path: path.to_owned(),
            source,
        },
    }
}

pub(super) fn read(directory: &Path, name: &str) -> Result<(Bytes, PathBuf), ReadError> {
    let path = directory.join(name);
    let bytes = match file::stored_component(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let aside = path.with_extension(DAMAGED);
            return Err(match aside.exists() {
                true => ReadError::Damaged(path),
                false => ReadError::Missing(name.to_owned()),
            });
        }
        Err(source) => return Err(ReadError::Io { path, source }),
    };
    if digest(&bytes) == name {
        return Ok((bytes.into(), path));
    }
    // Set aside, so that it counts as missing and is uploaded again.
    let aside = path.with_extension(DAMAGED);
    match fs::rename(&path, aside) {
        Ok(()) => Err(ReadError::Damaged(path)),
        Err(source) => Err(ReadError::Io { path, source }),
    }
}

/// Opens a file, and tells its length.
pub(super) fn open_file(directory: &Path, name: &str) -> Result<(Content, u64), ReadError> {
    let path = directory.join(name);
    let opened = File::open(&path).and_then(|file| {
        let length = file.metadata()?.len();
        Ok((Content::File(file), length))
    });
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Missing(name.to_owned()),
        _ => ReadError::Io { path, source },
    })
}

pub(super) fn list(directory: &Path) -> io::Result<Vec<Stored>> {
    let mut stored = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(digest) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if is_digest(&digest) {
            stored.push(Stored {
                digest,
                bytes: metadata.len(),
                age: metadata.modified()?.elapsed().unwrap_or_default(),
            });
        }
    }
    stored.sort_by(|a, b| a.digest.cmp(&b.digest));
    Ok(stored)
}

/// Whether a file is there; it counts as written now.
pub(super) fn renew(path: &Path) -> bool {
    let renewed = File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()));
    match renewed {
        Ok(()) => true,
        // It can be read all the same.
        Err(_) => path.is_file(),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{super::Artifacts, *};

    #[test]
    fn a_damaged_file_is_named_and_set_aside() {
        let home = tempfile::tempdir().expect("a directory");
        let artifacts = Artifacts::open(home.path()).expect("writable");
        let name = digest(b"component");
        let mut writer = artifacts.writer(&name).expect("good");
        writer.write(b"component").expect("writable");
        artifacts.finish(writer).expect("right");
        let path = home.path().join("sha256").join(&name);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&home.path().join("sha256")), 0o700);
        fs::write(&path, b"c0mponent").expect("writable");
        let error = artifacts.read(&name).expect_err("damaged").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("apply the spec again"), "{error}");
        assert!(!artifacts.has(&name), "it can be uploaded again");
        assert_eq!(artifacts.list().expect("readable"), []);
    }

    #[test]
    fn what_is_asked_for_is_young_again() {
        let home = tempfile::tempdir().expect("a directory");
        let artifacts = Artifacts::open(home.path()).expect("writable");
        let name = digest(b"component");
        let mut writer = artifacts.writer(&name).expect("good");
        writer.write(b"component").expect("writable");
        artifacts.finish(writer).expect("right");
        let file = File::options()
            .write(true)
            .open(home.path().join("sha256").join(&name));
        let file = file.expect("there");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("ours");
        let age = || artifacts.list().expect("readable")[0].age.as_secs();
        assert!(age() > 1_000_000);
        assert!(artifacts.renew(&name));
        assert!(age() < 3600);
    }

    #[test]
    fn what_was_left_half_written_is_removed() {
        let home = tempfile::tempdir().expect("a directory");
        let artifacts = Artifacts::open(home.path()).expect("writable");
        let writer = artifacts.writer(&digest(b"")).expect("good");
        let parts = || {
            fs::read_dir(home.path().join("sha256"))
                .expect("there")
                .count()
        };
        assert_eq!(parts(), 1);
        drop(writer);
        assert_eq!(parts(), 0);
        fs::write(home.path().join("sha256/00.7-1.part"), b"x").expect("writable");
        Artifacts::open(home.path()).expect("writable");
        assert_eq!(parts(), 0);
    }
}
