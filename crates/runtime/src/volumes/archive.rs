//! A volume as a tar archive, which is written and read a piece at a time.
//!
//! Plain files, directories and links that stay inside are in it, with their names, permissions and
//! times to the second. A file of several names is in it once for each.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read, Seek as _, SeekFrom, Write},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, openat,
        readlinkat, symlinkat, utimensat,
    },
    io::Errno,
};
use tar::{Archive, Builder, EntryType, Header};

use super::{
    ledger::{BLOCK_BYTES, content},
    walk::{Entry, walk},
};

/// A directory that is none by a link.
const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// What only this user may look into.
const PRIVATE: Mode = Mode::RWXU;
/// Bytes that are read and written at once.
const PIECE_BYTES: usize = 256 << 10;
/// What ends an archive: two blocks of nothing.
const END_BYTES: u64 = 1024;
/// What the node itself needs to give a file to guests.
const OWN: Mode = Mode::RUSR.union(Mode::WUSR);
/// The permissions that are kept.
const PERMISSIONS: u32 = 0o777;

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// There is something in it that a volume cannot have, or its end is missing.
    #[error("{0}")]
    Refused(String),
    /// It cannot be read, or its content not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for ArchiveError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Writes everything in a directory.
pub(super) fn write(root: &File, out: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(out);
    walk(root, &mut |entry| append(&mut archive, &entry))?;
    archive.into_inner()?.flush()
}

fn append(archive: &mut Builder<impl Write>, entry: &Entry<'_>) -> io::Result<()> {
    let path = entry.prefix.join(OsStr::from_bytes(entry.name.to_bytes()));
    let mut header = Header::new_gnu();
    header.set_mode(entry.stat.st_mode & PERMISSIONS);
    header.set_mtime(u64::try_from(entry.stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    match FileType::from_raw_mode(entry.stat.st_mode) {
        FileType::Directory => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, path, io::empty())
        }
        FileType::Symlink => {
            header.set_entry_type(EntryType::Symlink);
            let target = readlinkat(entry.directory, entry.name, Vec::new())?;
            archive.append_link(&mut header, path, OsStr::from_bytes(target.to_bytes()))
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(openat(entry.directory, entry.name, flags, Mode::empty())?);
            let bytes = file.metadata()?.len();
            header.set_entry_type(EntryType::Regular);
            header.set_size(bytes);
            archive.append_data(&mut header, path, file.take(bytes))
        }
        // No guest can make any.
        _ => Ok(()),
    }
}

/// What may be written.
pub(super) struct Room<'a> {
    /// Bytes in blocks, as for a quota.
    pub(super) bytes: u64,
    /// How that is said to people.
    pub(super) told: String,
    /// Whether the disk takes more.
    pub(super) disk: &'a dyn Fn() -> Result<(), ArchiveError>,
}

impl Room<'_> {
    fn take(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        (self.disk)()?;
        match self.bytes.checked_sub(bytes) {
            Some(rest) => {
                self.bytes = rest;
                Ok(())
            }
            None => Err(ArchiveError::Refused(self.told.clone())),
        }
    }
}

/// Reads an archive into a directory that is empty.
pub(super) fn read(
    root: &OwnedFd,
    input: impl Read,
    mut room: Room<'_>,
) -> Result<(), ArchiveError> {
    let mut input = Ending { input, zeros: 0 };
    let mut archive = Archive::new(&mut input);
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let parts = parts(&path)?;
        let Some((name, above)) = parts.split_last() else {
            continue;
        };
        let shown = path.display().to_string();
        let header = entry.header();
        let mode = Mode::from_raw_mode(header.mode().map_err(unreadable)? & PERMISSIONS);
        let times = times(header.mtime().map_err(unreadable)?);
        let kind = header.entry_type();
        let directory = entered(root, above, &mut room, &shown)?;
        match kind {
            EntryType::Directory => {
                made(&directory, name, &mut room)?;
                directories.push((parts, mode, times));
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = Path::new(OsStr::from_bytes(&target)).to_owned();
                inside(above.len(), &target, &shown)?;
                room.take(BLOCK_BYTES)?;
                let made = symlinkat(&target, &directory, name);
                made.map_err(|errno| twice(errno, &shown))?;
                utimensat(&directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryType::Regular | EntryType::Continuous => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                room.take(BLOCK_BYTES.saturating_add(content(entry.size())))?;
                let file = openat(&directory, name, flags, PRIVATE);
                let file = File::from(file.map_err(|errno| twice(errno, &shown))?);
                fill(&file, &mut entry, &room)?;
                fchmod(&file, mode | OWN)?;
                futimens(&file, &times)?;
            }
            other => {
                return Err(ArchiveError::Refused(format!(
                    "`{shown}` is {}: a volume has plain files, directories and symbolic links",
                    named(other)
                )));
            }
        }
    }
    io::copy(&mut input, &mut io::sink())?;
    if input.zeros < END_BYTES {
        let told = "the archive ends before its end, or is none: it has to be a tar file";
        return Err(ArchiveError::Refused(told.to_owned()));
    }
    // What was made in a directory has changed its time, and might need more than its permissions.
    for (parts, mode, times) in directories.into_iter().rev() {
        let directory = found(root, &parts)?;
        fchmod(&directory, mode | PRIVATE)?;
        futimens(&directory, &times)?;
    }
    Ok(())
}

fn unreadable(error: io::Error) -> ArchiveError {
    let told = format!("the archive is cut off, or none: it has to be a tar file ({error})");
    ArchiveError::Refused(told)
}

fn times(seconds: u64) -> Timestamps {
    let at = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}

/// The names of a path, which may not leave the directory.
fn parts(path: &Path) -> Result<Vec<CString>, ArchiveError> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => {
                let name = CString::new(name.to_owned().into_vec());
                parts.extend(name.ok());
            }
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(ArchiveError::Refused(format!(
                    "`{}` leads out of the volume: names begin in it, and have no `..`",
                    path.display()
                )));
            }
        }
    }
    Ok(parts)
}

/// A link that by its names leads out is refused. One that does by way of another link is made, as a
/// guest could make it, and is of no use: no path of a guest leaves what it was lent.
fn inside(depth: usize, target: &Path, shown: &str) -> Result<(), ArchiveError> {
    let mut depth = Some(depth);
    for part in target.components() {
        depth = match part {
            Component::CurDir => depth,
            Component::Normal(_) => depth.map(|depth| depth + 1),
            Component::ParentDir => depth.and_then(|depth| depth.checked_sub(1)),
            Component::RootDir | Component::Prefix(_) => None,
        };
    }
    match depth {
        Some(_) if !target.as_os_str().is_empty() => Ok(()),
        _ => Err(ArchiveError::Refused(format!(
            "`{shown}` is a link to `{}`, out of the volume",
            target.display()
        ))),
    }
}

fn twice(errno: Errno, shown: &str) -> ArchiveError {
    match errno {
        Errno::EXIST => ArchiveError::Refused(format!("`{shown}` is in the archive twice")),
        errno => errno.into(),
    }
}

fn named(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        EntryType::GNUSparse => "a file with holes in the way of GNU tar",
        _ => "of a kind that is not known",
    }
}

/// Makes a directory, unless it is there.
fn made(above: &OwnedFd, name: &CStr, room: &mut Room<'_>) -> Result<(), ArchiveError> {
    match mkdirat(above, name, PRIVATE) {
        Ok(()) => room.take(BLOCK_BYTES),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory, made with all on the way if missing. No link is followed.
fn entered(
    root: &OwnedFd,
    parts: &[CString],
    room: &mut Room<'_>,
    shown: &str,
) -> Result<OwnedFd, ArchiveError> {
    let mut at = openat(root, c".", DIRECTORY, Mode::empty())?;
    for part in parts {
        made(&at, part, room)?;
        at = match openat(&at, part, DIRECTORY, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let told = format!("`{shown}` lies below something that is no directory");
                return Err(ArchiveError::Refused(told));
            }
            Err(errno) => return Err(errno.into()),
        };
    }
    Ok(at)
}

fn found(root: &OwnedFd, parts: &[CString]) -> Result<OwnedFd, ArchiveError> {
    let mut at = openat(root, c".", DIRECTORY, Mode::empty())?;
    for part in parts {
        at = openat(&at, part, DIRECTORY, Mode::empty())?;
    }
    Ok(at)
}

/// Writes a file. Where it has nothing but zeros it gets holes.
fn fill(mut file: &File, input: &mut impl Read, room: &Room<'_>) -> Result<(), ArchiveError> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let read = read_whole(input, &mut piece).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        (room.disk)()?;
        match piece[..read].iter().all(|byte| *byte == 0) {
            true => drop(file.seek(SeekFrom::Current(i64::try_from(read).unwrap_or(0)))?),
            false => file.write_all(&piece[..read])?,
        }
        bytes += read as u64;
    }
    file.set_len(bytes)?;
    Ok(())
}

fn read_whole(input: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match input.read(&mut piece[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Knows how many zeros came last.
struct Ending<R> {
    input: R,
    zeros: u64,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let last = buffer[..read].iter().rev().take_while(|byte| **byte == 0);
        let zeros = last.count();
        self.zeros = match zeros == read {
            true => self.zeros + zeros as u64,
            false => zeros as u64,
        };
        Ok(read)
    }
}
