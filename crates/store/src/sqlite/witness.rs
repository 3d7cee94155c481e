//! The file `x.lock`: who holds the lock on it has the store to himself, and it bears witness to
//! what has been acknowledged.
//!
//! SQLite takes the damaged end of its write-ahead log for a transaction that a crash cut off, and
//! so can lose acknowledged ones without noticing. The witness notices: the revision is written
//! down here before it is acknowledged. It is not made durable, and needs not: when the machine
//! stops it may be an older one, which claims less. A compaction that is lost only brings history
//! back, and is not noted.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::record::numbers_sum;
use crate::value::Revision;

/// What the witness says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Testimony {
    /// Which store it is about.
    pub(super) id: u64,
    /// A revision that has been acknowledged, or was about to be.
    pub(super) revision: Revision,
}

/// The lock, as long as it is held.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
}

impl Witness {
    /// Takes the lock; `None` if another process has it. The lock ends with the process.
    pub(super) fn lock(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// What was noted last; `None` if there is nothing, or nothing legible.
    pub(super) fn read(&self) -> io::Result<Option<Testimony>> {
        let mut text = String::new();
        // It is less than a line; a file that is not ours may be anything.
        match (&self.file).take(256).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(error) => return Err(error),
        }
        let testimony = parse(&text);
        if testimony.is_none() && !text.is_empty() {
            tracing::warn!("the lock file of the store is illegible, and is begun anew");
        }
        Ok(testimony)
    }

    /// Notes what is about to be acknowledged.
    pub(super) fn note(&self, testimony: Testimony) -> io::Result<()> {
        self.file.write_all_at(line(testimony).as_bytes(), 0)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // Closing the file does not end the lock while a child that is being started has it, too:
        // it closes its files only when its program begins.
        let _ = self.file.unlock();
    }
}

/// Always as long, so that it is replaced whole.
fn line(Testimony { id, revision }: Testimony) -> String {
    let sum = numbers_sum(&[id, revision.0]);
    format!("{id:016x} {:020} {sum:08x}\n", revision.0)
}

fn parse(text: &str) -> Option<Testimony> {
    let (id, rest) = text.lines().next()?.split_once(' ')?;
    let (revision, _) = rest.split_once(' ')?;
    let testimony = Testimony {
        id: u64::from_str_radix(id, 16).ok()?,
        revision: Revision(revision.parse().ok()?),
    };
    text.starts_with(&line(testimony)).then_some(testimony)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_testimony_is_read_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.lock");
        let witness = Witness::lock(&path).expect("a file").expect("the lock");
        assert_eq!(witness.read().expect("a file"), None);
        let mut testimony = Testimony {
            id: u64::MAX,
            revision: Revision(0),
        };
        for revision in [9, u64::MAX, 10] {
            testimony.revision = Revision(revision);
            witness.note(testimony).expect("a file");
        }
        assert!(Witness::lock(&path).expect("a file").is_none());
        drop(witness);
        let witness = Witness::lock(&path).expect("a file").expect("the lock");
        assert_eq!(witness.read().expect("a file"), Some(testimony));

        let good = line(testimony);
        for place in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[place] ^= 1;
            let bad = String::from_utf8(bad).expect("ASCII");
            assert_eq!(parse(&bad), None, "{bad:?}");
        }
    }
}
