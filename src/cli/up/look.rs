//! What tells one state of a file from another without reading it.

use std::{
    fs::{self, Metadata},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use sampan_core::site::MAX_FILES;

/// How deep directories are looked at.
const MAX_DEPTH: usize = 32;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Look {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of the last change of the file or of what the system knows of it: unlike the one
    /// above, no program can set it back.
    changed: (i64, i64),
}

impl Look {
    /// The file at the end of the path, if there is one. A directory is as all that is in it, as far
    /// as that is not too much: of more than could be served only the first is looked at.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let mut look = Self::of(&found);
        if found.is_dir() {
            let mut left = MAX_FILES;
            look.add(path, 0, &mut left);
        }
        Some(look)
    }

    fn add(&mut self, directory: &Path, depth: usize, left: &mut usize) {
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        let mut entries: Vec<_> = entries.flatten().map(|it| it.path()).collect();
        entries.sort();
        for path in entries {
            let Some(next) = left.checked_sub(1) else {
                return;
            };
            *left = next;
            let Ok(found) = fs::metadata(&path) else {
                continue;
            };
            self.mix(&path, &Self::of(&found));
            if found.is_dir() && depth < MAX_DEPTH {
                self.add(&path, depth + 1, left);
            }
        }
    }

    /// Makes it another look for each other file that is in the directory.
    fn mix(&mut self, path: &Path, other: &Self) {
        let mut hasher = DefaultHasher::new();
        (self.inode, path, other).hash(&mut hasher);
        self.inode = hasher.finish();
    }

    pub(super) fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}
