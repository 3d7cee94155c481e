//! Components and static files by their digest: what is applied is kept here, and pods are made from
//! it.
//!
//! A component is in the file `DIR/sha256/HEX`. It is written under another name and renamed when
//! it is whole and its digest is right, so that a file under its digest is never a part of one. It
//! is checked again when it is read.

mod component;
mod directory;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::Bytes;
use parking_lot::Mutex;
use sampan_core::digest::{Digest, is_digest};
use sha2::{Digest as _, Sha256};

use crate::file::MAX_COMPONENT_BYTES;
pub(crate) use component::{Content, ReadError, Stored, WriteError, digest};

/// Components by their digest.
pub(crate) enum Artifacts {
    /// As files below this directory.
    Directory(PathBuf),
    /// As long as the process lives.
    Memory(Mutex<BTreeMap<String, Kept>>),
}

/// A component in memory.
pub(crate) struct Kept {
    bytes: Bytes,
    path: PathBuf,
    since: SystemTime,
}

impl Artifacts {
    /// Components as files below `directory`, which is created if missing. What an earlier process
    /// left half written is removed.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        directory::open(directory).map(Self::Directory)
    }

    /// Components in memory.
    pub(crate) fn memory() -> Self {
        Self::Memory(Mutex::default())
    }

    /// Keeps a component in memory that was read from a file of the user's, and tells its digest.
    /// Components on disk are only taken over the API.
    pub(crate) fn keep(&self, digest: String, bytes: Bytes, path: PathBuf) {
        if let Self::Memory(kept) = self {
            let since = SystemTime::now();
            let component = Kept { bytes, path, since };
            kept.lock().insert(digest, component);
        }
    }

    /// Begins to write a component. What is given to the writer is only kept when it has this
    /// digest in the end.
    pub(crate) fn writer(&self, digest: &str) -> Result<Writer, WriteError> {
        if !is_digest(digest) {
            return Err(WriteError::NotADigest(digest.to_owned()));
        }
        let sink = match self {
            Self::Directory(path) => Sink::File(directory::Part::new(path, digest)?),
            Self::Memory(_) => Sink::Memory(Vec::new()),
        };
        Ok(Writer {
            sink,
            digest: digest.to_owned(),
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Ends what [`Self::writer`] began. It may take as long as the disk takes.
    pub(crate) fn finish(&self, writer: Writer) -> Result<(), WriteError> {
        let found = Digest::from(writer.hash).to_hex();
        if found != writer.digest {
            return Err(WriteError::Wrong {
                named: writer.digest,
                found,
            });
        }
        match (writer.sink, self) {
            (Sink::File(part), _) => part.finish(),
            // The file that it came from says more than its digest.
            (Sink::Memory(_), Self::Memory(_)) if self.renew(&writer.digest) => Ok(()),
            (Sink::Memory(bytes), Self::Memory(_)) => {
                let name = PathBuf::from(format!("sha256:{}", writer.digest));
                self.keep(writer.digest, bytes.into(), name);
                Ok(())
            }
            (Sink::Memory(_), Self::Directory(_)) => Ok(()),
        }
    }

    /// Whether a component is there. Whether its file is whole is only seen when it is read.
    #[cfg(test)]
    pub(crate) fn has(&self, digest: &str) -> bool {
        match self {
            Self::Directory(path) => is_digest(digest) && path.join(digest).is_file(),
            Self::Memory(kept) => kept.lock().contains_key(digest),
        }
    }

    /// Whether a component is there, which then is as young as if it had just been written: a
    /// client that is about to refer to it does not lose it to the sweep of unused components.
    /// Whether its file is whole is only seen when it is read.
    pub(crate) fn renew(&self, digest: &str) -> bool {
        match self {
            Self::Directory(path) => is_digest(digest) && directory::renew(&path.join(digest)),
            Self::Memory(kept) => {
                let mut kept = kept.lock();
                let found = kept.get_mut(digest);
                found.map(|kept| kept.since = SystemTime::now()).is_some()
            }
        }
    }

    /// A component, and a file that it is in or came from. It may take as long as the disk takes.
    pub(crate) fn read(&self, digest: &str) -> Result<(Bytes, PathBuf), ReadError> {
        let found = match self {
            Self::Directory(path) if is_digest(digest) => return directory::read(path, digest),
            Self::Directory(_) => None,
            Self::Memory(kept) => {
                let kept = kept.lock();
                let found = kept.get(digest);
                found.map(|kept| (kept.bytes.clone(), kept.path.clone()))
            }
        };
        found.ok_or_else(|| ReadError::Missing(digest.to_owned()))
    }

    /// What is there, to be read in pieces, and how many bytes it has. Whether they are what was
    /// written is not checked here.
    pub(crate) fn content(&self, digest: &str) -> Result<(Content, u64), ReadError> {
        let found = match self {
            Self::Directory(path) if is_digest(digest) => {
                return directory::open_file(path, digest);
            }
            Self::Directory(_) => None,
            Self::Memory(kept) => {
                let kept = kept.lock();
                let found = kept.get(digest);
                found.map(|kept| kept.bytes.clone())
            }
        };
        let bytes = found.ok_or_else(|| ReadError::Missing(digest.to_owned()))?;
        let length = bytes.len() as u64;
        Ok((Content::Bytes(bytes), length))
    }

    /// All components, in the order of their digests.
    pub(crate) fn list(&self) -> io::Result<Vec<Stored>> {
        match self {
            Self::Directory(path) => directory::list(path),
            Self::Memory(kept) => {
                let kept = kept.lock();
                let stored = kept.iter().map(|(digest, kept)| Stored {
                    digest: digest.clone(),
                    bytes: kept.bytes.len() as u64,
                    age: kept.since.elapsed().unwrap_or_default(),
                });
                Ok(stored.collect())
            }
        }
    }

    /// Removes a component, if it is there.
    pub(crate) fn remove(&self, digest: &str) -> io::Result<()> {
        match self {
            Self::Directory(path) if is_digest(digest) => directory::remove(&path.join(digest)),
            Self::Directory(_) => Ok(()),
            Self::Memory(kept) => {
                kept.lock().remove(digest);
                Ok(())
            }
        }
    }
}

/// A component that is being written. When it is dropped, nothing is left of it.
pub(crate) struct Writer {
    sink: Sink,
    digest: String,
    hash: Sha256,
    bytes: usize,
}

enum Sink {
    File(directory::Part),
    Memory(Vec<u8>),
}

impl Writer {
    /// Adds bytes. It may take as long as the disk takes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.bytes += bytes.len();
        if self.bytes > MAX_COMPONENT_BYTES {
            return Err(WriteError::TooLarge);
        }
        self.hash.update(bytes);
        match &mut self.sink {
            Sink::File(part) => part.write(bytes),
            Sink::Memory(all) => {
                all.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn put(artifacts: &Artifacts, digest: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let mut writer = artifacts.writer(digest)?;
        for part in bytes.chunks(3) {
            writer.write(part)?;
        }
        artifacts.finish(writer)
    }

    fn both() -> (tempfile::TempDir, [Artifacts; 2]) {
        let directory = tempfile::tempdir().expect("a directory");
        let on_disk = Artifacts::open(&directory.path().join("deep/artifacts")).expect("writable");
        (directory, [on_disk, Artifacts::memory()])
    }

    #[test]
    fn what_was_written_is_read_until_it_is_removed() {
        let (_directory, both) = both();
        for artifacts in both {
            let digest = digest(b"component");
            assert!(!artifacts.has(&digest));
            assert!(matches!(
                artifacts.read(&digest),
                Err(ReadError::Missing(_))
            ));
            for _ in 0..2 {
                put(&artifacts, &digest, b"component").expect("taken");
            }
            assert!(artifacts.has(&digest));
            let (bytes, _) = artifacts.read(&digest).expect("there");
            assert_eq!(&bytes[..], b"component");
            let listed = artifacts.list().expect("readable");
            assert_eq!((listed.len(), listed[0].bytes), (1, 9));
            assert_eq!(listed[0].digest, digest);
            assert!(listed[0].age < Duration::from_secs(3600));
            assert!(artifacts.renew(&digest));
            for _ in 0..2 {
                artifacts.remove(&digest).expect("removable");
            }
            assert!(!artifacts.has(&digest) && !artifacts.renew(&digest));
        }
    }

    #[test]
    fn an_upload_does_not_hide_where_a_component_came_from() {
        let artifacts = Artifacts::memory();
        let path = PathBuf::from("dist/web.wasm");
        let digest = digest(b"component");
        let bytes = Bytes::from_static(b"component");
        artifacts.keep(digest.clone(), bytes, path.clone());
        put(&artifacts, &digest, b"component").expect("taken");
        assert_eq!(artifacts.read(&digest).expect("there").1, path);
    }

    #[test]
    fn a_wrong_digest_leaves_nothing_behind() {
        let (directory, both) = both();
        for artifacts in both {
            let named = digest(b"another");
            let error = put(&artifacts, &named, b"component").expect_err("wrong");
            let found = digest(b"component");
            let text = format!("the component has the digest `{found}`, not `{named}`");
            assert_eq!(error.to_string(), text);
            for bad in ["", "../../etc/passwd", &"A".repeat(64), &"0".repeat(63)] {
                assert!(matches!(
                    artifacts.writer(bad),
                    Err(WriteError::NotADigest(_))
                ));
                assert!(!artifacts.has(bad));
                assert!(artifacts.read(bad).is_err());
                artifacts.remove(bad).expect("nothing to do");
            }
            assert_eq!(artifacts.list().expect("readable"), []);
        }
        let kept = directory.path().join("deep/artifacts/sha256");
        assert_eq!(std::fs::read_dir(kept).expect("readable").count(), 0);
    }

    #[test]
    fn what_is_too_large_is_refused_on_the_way() {
        let (_directory, both) = both();
        for artifacts in both {
            let mut writer = artifacts.writer(&digest(b"")).expect("good");
            let part = vec![0; MAX_COMPONENT_BYTES / 4];
            for _ in 0..4 {
                writer.write(&part).expect("fits");
            }
            let error = writer.write(&[0]).expect_err("one too many");
            assert_eq!(error.to_string(), "the component is larger than 64 MiB");
        }
    }
}
