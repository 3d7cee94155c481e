//! How much is in a volume.
//!
//! Each name in it (of a file, a directory or a link) takes a block, and what a file holds takes
//! whole blocks up to its end, once however many names the file has. So holes count too: to fill them
//! later takes nothing more.
//!
//! A file whose last name is gone stays on the disk while it is open, and so in the account: the
//! ledger knows the files that guests have open.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Weak},
};

use rustix::fs::FileType;

use super::walk::walk;

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// Open files among which those that were closed are looked for.
const MIN_PRUNED: usize = 64;

/// What a file with so many bytes holds, in whole blocks.
pub(crate) fn content(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// How much is in a volume.
#[derive(Default)]
pub(crate) struct Ledger {
    used: u64,
    /// Files that guests have opened.
    open: Vec<Weak<File>>,
    /// How many there are when those that were closed are next left out.
    prune_at: usize,
    /// Files without a name that are open, by inode.
    nameless: HashMap<u64, Nameless>,
}

struct Nameless {
    content: u64,
    holders: Vec<Weak<File>>,
}

impl Ledger {
    /// Counts what is in a directory.
    pub(super) fn count(directory: &File) -> io::Result<Self> {
        let mut ledger = Self::default();
        let mut linked = HashSet::new();
        walk(directory, &mut |entry| {
            ledger.used += BLOCK_BYTES;
            let found = entry.stat;
            let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
            if is_file && (found.st_nlink == 1 || linked.insert(found.st_ino)) {
                let bytes = u64::try_from(found.st_size).unwrap_or(0);
                ledger.used = ledger.used.saturating_add(content(bytes));
            }
            Ok(())
        })?;
        Ok(ledger)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used
    }

    /// A name is there that was not.
    pub(crate) fn named(&mut self) {
        self.used = self.used.saturating_add(BLOCK_BYTES);
    }

    /// A name is gone.
    pub(crate) fn unnamed(&mut self) {
        self.used = self.used.saturating_sub(BLOCK_BYTES);
    }

    /// A guest has opened a file.
    pub(crate) fn opened(&mut self, file: &Arc<File>) {
        if self.open.len() >= self.prune_at {
            self.open.retain(|file| file.strong_count() > 0);
            self.prune_at = MIN_PRUNED.max(2 * self.open.len());
        }
        self.open.push(Arc::downgrade(file));
    }

    /// A file has another size than before.
    pub(crate) fn resized(&mut self, inode: u64, nameless: bool, before: u64, after: u64) {
        let (before, after) = (content(before), content(after));
        self.used = self.used.saturating_sub(before).saturating_add(after);
        if nameless && let Some(file) = self.nameless.get_mut(&inode) {
            file.content = after;
        }
    }

    /// The last name of a file of this size is gone.
    pub(crate) fn removed(&mut self, bytes: u64) {
        self.settle();
        let open = self.open.iter();
        let held = open.filter_map(|weak| {
            let found = weak.upgrade()?.metadata().ok()?;
            let is_new = found.nlink() == 0 && !self.nameless.contains_key(&found.ino());
            is_new.then(|| (found.ino(), Weak::clone(weak)))
        });
        let held: Vec<_> = held.collect();
        if held.is_empty() {
            self.used = self.used.saturating_sub(content(bytes));
        }
        for (inode, holder) in held {
            let file = self.nameless.entry(inode).or_insert_with(|| Nameless {
                content: content(bytes),
                holders: Vec::new(),
            });
            file.holders.push(holder);
        }
    }

    /// Leaves out files without a name that have been closed.
    pub(crate) fn settle(&mut self) {
        let used = &mut self.used;
        self.nameless.retain(|_, file| {
            let is_open = file.holders.iter().any(|holder| holder.strong_count() > 0);
            if !is_open {
                *used = used.saturating_sub(file.content);
            }
            is_open
        });
    }
}
