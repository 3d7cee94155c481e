//! Everything in a directory, however deep, with one open directory at a time.
//!
//! Guests can nest directories deeper than a path may be long, a process may have files open, or a
//! thread has stack for. So the way back is `..`, and what it leads to is checked.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Something that is in a directory.
pub(super) struct Entry<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
    /// The directory, from the one where the walk begins.
    pub(super) prefix: &'a Path,
    pub(super) stat: Stat,
}

/// A directory on the way to where the walk is.
struct Level {
    id: (u64, u64),
    /// Its name in the level before.
    name: CString,
    /// The directories in it that have not been entered.
    ahead: Vec<CString>,
}

/// Has `visit` see each entry, a directory before what is in it. No link is followed.
pub(super) fn walk(
    root: &File,
    visit: &mut dyn FnMut(Entry<'_>) -> io::Result<()>,
) -> io::Result<()> {
    tour(root, visit, &mut |_, _| Ok(()))
}

/// Removes everything in a directory.
pub(super) fn clear(root: &File) -> io::Result<()> {
    let mut file = |entry: Entry<'_>| match is_directory(&entry.stat) {
        true => Ok(()),
        false => Ok(unlinkat(entry.directory, entry.name, AtFlags::empty())?),
    };
    let mut directory = |above: BorrowedFd<'_>, name: &CStr| {
        unlinkat(above, name, AtFlags::REMOVEDIR).map_err(io::Error::from)
    };
    tour(root, &mut file, &mut directory)
}

/// Has `visit` see each entry, and `leave` each directory after what is in it, with the one that it
/// is in.
fn tour(
    root: &File,
    visit: &mut dyn FnMut(Entry<'_>) -> io::Result<()>,
    leave: &mut dyn FnMut(BorrowedFd<'_>, &CStr) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = openat(root, c".", DIRECTORY, Mode::empty())?;
    let mut prefix = PathBuf::new();
    let mut levels = vec![enter(&at, c"".to_owned(), &prefix, visit)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.ahead.pop() {
            at = openat(&at, &name, DIRECTORY, Mode::empty())?;
            prefix.push(OsStr::from_bytes(name.to_bytes()));
            levels.push(enter(&at, name, &prefix, visit)?);
            continue;
        }
        let left = levels.pop();
        let Some((left, above)) = left.zip(levels.last()) else {
            break;
        };
        at = openat(&at, c"..", DIRECTORY, Mode::empty())?;
        if id(&fstat(&at)?) != above.id {
            return Err(io::Error::other("a directory was moved while it was read"));
        }
        prefix.pop();
        leave(at.as_fd(), &left.name)?;
    }
    Ok(())
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn enter(
    directory: &OwnedFd,
    name: CString,
    prefix: &Path,
    visit: &mut dyn FnMut(Entry<'_>) -> io::Result<()>,
) -> io::Result<Level> {
    let mut ahead = Vec::new();
    let mut entries = Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let found = entry.file_name();
        if found == c"." || found == c".." {
            continue;
        }
        let stat = statat(directory, found, AtFlags::SYMLINK_NOFOLLOW)?;
        visit(Entry {
            directory: directory.as_fd(),
            name: found,
            prefix,
            stat,
        })?;
        if is_directory(&stat) {
            ahead.push(found.to_owned());
        }
    }
    let id = id(&fstat(directory)?);
    Ok(Level { id, name, ahead })
}
