//! Volumes: directories that the node keeps for apps, below one of its own as `APP/NAME`.
//!
//! Every directory on the way is opened without following links. A volume is opened by one process
//! at a time, which is what makes its account exact, and is counted when it is first changed or asked
//! for its size.

mod archive;
mod ledger;
mod walk;

use std::{
    collections::{HashMap, HashSet},
    fs::{DirBuilder, File},
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags},
    io::{Errno, ReadWriteFlags, pwritev2},
};
use sampan_core::{
    locks::{self, FileId, told},
    name::Name,
    object::VolumeUse,
    quantity::ByteSize,
};

pub use archive::ArchiveError;

pub(crate) use ledger::{BLOCK_BYTES, Ledger, content};

/// How full the disk of a volume may be, in percent, before the volume takes no more.
const DISK_FULL_PERCENT: u8 = 90;

/// What the name of a directory begins with into which an archive is read: no name of a volume does.
const IMPORT: &str = ".import-";

/// What only this user may look into.
const PRIVATE: Mode = Mode::RWXU;
const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Where a node keeps its volumes.
#[derive(Clone, Debug)]
pub struct VolumesConfig {
    /// The directory, which is made at the first use of a volume.
    pub directory: PathBuf,
    /// How full its disk may be before volumes take no more.
    pub disk_percent: u8,
}

impl VolumesConfig {
    /// Volumes in this directory.
    pub fn at(directory: PathBuf) -> Self {
        Self {
            directory,
            disk_percent: DISK_FULL_PERCENT,
        }
    }
}

/// Why a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is no place for volumes.
    #[error("there is no place for volumes: `XDG_STATE_HOME` or `HOME` names one")]
    NoPlace,
    /// Another process has it.
    #[error(
        "{} uses the volume `{}`; one node at a time does: end that one first",
        told(*.1), .0.display()
    )]
    Busy(PathBuf, Option<u32>),
    /// An archive is not taken, or the volume cannot be written as one.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is no such volume.
    #[error("there is no volume `{0}` with anything in it")]
    Absent(Name),
    /// A pod may use it.
    #[error("the volume `{0}` is in use")]
    Used(Name),
    /// Its directory cannot be opened or made.
    #[error("cannot use the directory `{}` of the volume", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The volumes of a node.
pub struct Volumes {
    config: VolumesConfig,
    open: Mutex<HashMap<(Name, Name), Arc<Volume>>>,
    /// Those that are written or read as a whole.
    moving: Mutex<HashSet<(Name, Name)>>,
}

/// A volume that no guest uses, as long as this is there.
struct Moving<'a> {
    volumes: &'a Volumes,
    key: (Name, Name),
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.volumes.moving.lock().remove(&self.key);
    }
}

impl Volumes {
    pub(crate) fn new(config: VolumesConfig) -> Self {
        Self {
            config,
            open: Mutex::default(),
            moving: Mutex::default(),
        }
    }

    /// Opens a volume, which is made if it is missing. It has this quota from now on.
    pub(crate) fn open(&self, wanted: &VolumeUse) -> Result<Arc<Volume>, VolumeError> {
        let key = (wanted.app.clone(), wanted.name.clone());
        let mut open = self.open.lock();
        if let Some(volume) = open.get(&key) {
            volume.quota.store(wanted.quota.0, Ordering::Relaxed);
            return Ok(Arc::clone(volume));
        }
        if self.moving.lock().contains(&key) {
            return Err(VolumeError::Used(wanted.name.clone()));
        }
        // Those that only this map has are in use no more.
        open.retain(|_, volume| Arc::strong_count(volume) > 1);
        let below = [wanted.app.as_str(), wanted.name.as_str()];
        let path = self.config.directory.join(below[0]).join(below[1]);
        let directory = made(&self.config.directory, below).map_err(|source| {
            let path = path.clone();
            VolumeError::Directory { path, source }
        })?;
        lock(&directory, &path)?;
        let volume = Arc::new(Volume {
            name: wanted.name.clone(),
            directory: File::from(directory),
            quota: AtomicU64::new(wanted.quota.0),
            disk_percent: self.config.disk_percent,
            ledger: Mutex::default(),
        });
        open.insert(key, Arc::clone(&volume));
        Ok(volume)
    }

    /// Has a volume to itself: no guest uses it, and none can.
    fn moving(&self, app: &Name, name: &Name) -> Result<Moving<'_>, VolumeError> {
        let key = (app.clone(), name.clone());
        let mut open = self.open.lock();
        let is_idle = open.get(&key).is_none_or(|it| Arc::strong_count(it) == 1);
        if !is_idle || !self.moving.lock().insert(key.clone()) {
            return Err(VolumeError::Used(name.clone()));
        }
        open.remove(&key);
        Ok(Moving { volumes: self, key })
    }

    /// Writes a volume as a tar archive. No guest may use it meanwhile.
    pub fn export(&self, app: &Name, name: &Name, out: impl Write) -> Result<(), VolumeError> {
        let _moving = self.moving(app, name)?;
        let root = match found(&self.config.directory, [app.as_str(), name.as_str()]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::Absent(name.clone()));
            }
            found => File::from(found.map_err(ArchiveError::from)?),
        };
        lock(
            &root,
            &self.config.directory.join(app.as_str()).join(name.as_str()),
        )?;
        archive::write(&root, out).map_err(ArchiveError::from)?;
        Ok(())
    }

    /// Puts what is in a tar archive in the place of what is in a volume, if that is no more than
    /// its quota: whole or not at all. No guest may use it meanwhile.
    pub fn import(
        &self,
        app: &Name,
        name: &Name,
        quota: Option<u64>,
        input: impl Read,
    ) -> Result<(), VolumeError> {
        let _moving = self.moving(app, name)?;
        let failed = |error: io::Error| VolumeError::from(ArchiveError::from(error));
        let below = [app.as_str(), name.as_str()];
        let path = self.config.directory.join(below[0]).join(below[1]);
        let before = File::from(made(&self.config.directory, below).map_err(failed)?);
        lock(&before, &path)?;
        let above = self.config.directory.join(below[0]);
        let above = rustix::fs::open(&above, DIRECTORY, Mode::empty());
        let above = File::from(above.map_err(|errno| failed(errno.into()))?);
        let beside = format!("{IMPORT}{name}");
        remove_import(&above, &beside).map_err(failed)?;
        let read = || -> Result<(), ArchiveError> {
            rustix::fs::mkdirat(&above, &beside, PRIVATE)?;
            let root = rustix::fs::openat(&above, &beside, DIRECTORY, Mode::empty())?;
            let told = quota.map(|quota| {
                format!(
                    "the archive has more than {}, which is the `quota` of volume `{name}`",
                    ByteSize(quota)
                )
            });
            let room = archive::Room {
                bytes: quota.unwrap_or(u64::MAX),
                told: told.unwrap_or_default(),
                disk: &|| self.takes_more(&root, name),
            };
            archive::read(&root, input, room)?;
            // Whole on the disk before it is in the place of what was there.
            rustix::fs::syncfs(&root)?;
            let (from, to) = (beside.as_str(), name.as_str());
            rustix::fs::renameat_with(&above, from, &above, to, RenameFlags::EXCHANGE)?;
            above.sync_all()?;
            Ok(())
        };
        let read = read();
        // What is left of the one or the other.
        let cleared = remove_import(&above, &beside);
        read?;
        cleared.map_err(failed)
    }

    fn takes_more(&self, root: &OwnedFd, name: &Name) -> Result<(), ArchiveError> {
        let disk = rustix::fs::fstatvfs(root)?;
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        let percent = self.config.disk_percent;
        match is_full(used, disk.f_bavail, percent) {
            false => Ok(()),
            true => Err(ArchiveError::Refused(format!(
                "the disk of volume `{name}` is {percent} % full, and volumes take no more then"
            ))),
        }
    }

    /// Removes what imports have left that were cut off by the end of the process.
    fn clear_imports(&self, app: &Name) -> io::Result<()> {
        let above = self.config.directory.join(app.as_str());
        let entries = match std::fs::read_dir(&above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let directory = File::open(&above)?;
        for entry in entries {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.starts_with(IMPORT)) {
                remove_import(&directory, name)?;
            }
        }
        Ok(())
    }

    /// Has a volume for this process from now on.
    pub fn take(&self, wanted: &VolumeUse) -> Result<(), VolumeError> {
        self.open(wanted).map(drop)
    }

    /// Lets go of the volumes of an app, but for those that are in use. Says whether that is all.
    pub fn release(&self, app: &Name) -> bool {
        let mut open = self.open.lock();
        open.retain(|(of, _), volume| of != app || Arc::strong_count(volume) > 1);
        !open.keys().any(|(of, _)| of == app)
    }

    /// The volumes that are there: their apps and their names.
    pub fn list(&self) -> io::Result<Vec<(Name, Name)>> {
        let mut volumes = Vec::new();
        for app in names(&self.config.directory)? {
            let own = names(&self.config.directory.join(app.as_str()))?;
            volumes.extend(own.into_iter().map(|name| (app.clone(), name)));
        }
        Ok(volumes)
    }

    /// What is in a volume, counted as for its quota. It reads all its directories, unless guests
    /// have changed it.
    pub fn used_bytes(&self, app: &Name, name: &Name) -> io::Result<u64> {
        let open = self.open.lock().get(&(app.clone(), name.clone())).cloned();
        match open {
            Some(volume) => volume.used_bytes(),
            None => {
                let found = found(&self.config.directory, [app.as_str(), name.as_str()])?;
                Ok(Ledger::count(&File::from(found))?.used_bytes())
            }
        }
    }

    /// Removes all volumes of an app, unless a guest may use one of them. Gives back their names.
    pub fn remove(&self, app: &Name) -> Result<Vec<Name>, VolumeError> {
        let directory = self.config.directory.join(app.as_str());
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| VolumeError::Directory { path, source }
        };
        let mut open = self.open.lock();
        open.retain(|_, volume| Arc::strong_count(volume) > 1);
        let names = names(&directory).map_err(failed(&directory))?;
        let moving = self.moving.lock();
        let mut used = open.keys().chain(&*moving);
        if let Some((_, used)) = used.find(|(of, _)| of == app) {
            return Err(VolumeError::Used(used.clone()));
        }
        for name in &names {
            let path = directory.join(name.as_str());
            let found = found(&self.config.directory, [app.as_str(), name.as_str()]);
            let found = File::from(found.map_err(failed(&path))?);
            lock(&found, &path)?;
            walk::clear(&found).map_err(failed(&path))?;
            std::fs::remove_dir(&path).map_err(failed(&path))?;
        }
        self.clear_imports(app).map_err(failed(&directory))?;
        match std::fs::remove_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&directory)(error)),
            _ => Ok(names),
        }
    }
}

/// Removes a directory with everything in it, if it is there.
fn remove_import(above: &File, name: &str) -> io::Result<()> {
    match rustix::fs::openat(above, name, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
        Ok(found) => {
            walk::clear(&File::from(found))?;
            Ok(rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR)?)
        }
    }
}

/// Keeps other processes out of a volume as long as the file is open.
fn lock(directory: &impl AsFd, path: &Path) -> Result<(), VolumeError> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(VolumeError::Busy(path.to_owned(), holder(directory))),
        Err(errno) => Err(VolumeError::Directory {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// The process that has locked a directory, if it can be found out.
fn holder(directory: &impl AsFd) -> Option<u32> {
    let stat = rustix::fs::fstat(directory).ok()?;
    let device = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let inode = stat.st_ino;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks::holder(&locks, FileId { device, inode })
}

/// Opens a directory two levels below another.
fn found(root: &Path, below: [&str; 2]) -> io::Result<OwnedFd> {
    let mut directory = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    for part in below {
        directory = rustix::fs::openat(&directory, part, DIRECTORY, Mode::empty())?;
    }
    Ok(directory)
}

/// What is in a directory, which need not be there.
fn names(directory: &Path) -> io::Result<Vec<Name>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(|name| Name::parse(name).ok()));
    }
    names.sort();
    Ok(names)
}

/// Opens a directory two levels below another, all of which are made if they are missing.
fn made(root: &Path, below: [&str; 2]) -> io::Result<OwnedFd> {
    DirBuilder::new().mode(0o700).recursive(true).create(root)?;
    let mut directory = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    for part in below {
        match rustix::fs::mkdirat(&directory, part, PRIVATE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        directory = rustix::fs::openat(&directory, part, DIRECTORY, Mode::empty())?;
    }
    Ok(directory)
}

/// Why a volume takes no more.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It would be more than its quota.
    Quota,
    /// Its disk is too full.
    Disk,
    /// The system says so.
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Quota | Refused::Disk => Errno::NOSPC.into(),
            Refused::Io(error) => error,
        }
    }
}

/// A directory that the node keeps for an app, and what is in it. All that changes how much that is
/// holds the lock of its ledger meanwhile, so it is for threads that may block.
pub(crate) struct Volume {
    name: Name,
    directory: File,
    /// In bytes.
    quota: AtomicU64,
    disk_percent: u8,
    /// `None` until it has been counted.
    ledger: Mutex<Option<Ledger>>,
}

impl Volume {
    /// Another handle of its directory.
    pub(crate) fn directory(&self) -> io::Result<File> {
        self.directory.try_clone()
    }

    /// What a guest is told in its log whom the volume refuses something.
    pub(crate) fn explain(&self, refused: &Refused) -> Option<String> {
        let name = &self.name;
        match refused {
            Refused::Quota => {
                let quota = ByteSize(self.quota.load(Ordering::Relaxed));
                Some(format!(
                    "no space left: volume `{name}` may have {quota}; `quota` in \
                     `[volume.{name}]` allows more"
                ))
            }
            Refused::Disk => Some(format!(
                "no space left: the disk of volume `{name}` is {} % full, and volumes take no more \
                 then; remove something from the disk",
                self.disk_percent
            )),
            Refused::Io(_) => None,
        }
    }

    /// What is in it, counted as for its quota.
    pub(crate) fn used_bytes(&self) -> io::Result<u64> {
        Ok(self.ledger()?.used_bytes())
    }

    /// The ledger, with everything in it counted. Nothing changes the volume while it is held.
    pub(crate) fn ledger(&self) -> io::Result<Counted<'_>> {
        let mut ledger = self.ledger.lock();
        if ledger.is_none() {
            *ledger = Some(Ledger::count(&self.directory)?);
        }
        Ok(MutexGuard::map(ledger, |ledger| {
            ledger.as_mut().expect("counted just now")
        }))
    }

    /// Whether there is room for so many bytes more.
    pub(crate) fn room(&self, ledger: &mut Ledger, bytes: u64) -> Result<(), Refused> {
        self.disk()?;
        match self.free(ledger, bytes) >= bytes {
            true => Ok(()),
            false => Err(Refused::Quota),
        }
    }

    /// Bytes that are free, if they are fewer than wanted: exactly.
    fn free(&self, ledger: &mut Ledger, wanted: u64) -> u64 {
        let free = |ledger: &Ledger| {
            let quota = self.quota.load(Ordering::Relaxed);
            quota.saturating_sub(ledger.used_bytes()) / BLOCK_BYTES * BLOCK_BYTES
        };
        if free(ledger) < wanted {
            ledger.settle();
        }
        free(ledger)
    }

    fn disk(&self) -> Result<(), Refused> {
        let disk = rustix::fs::fstatvfs(&self.directory).map_err(io::Error::from)?;
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        match is_full(used, disk.f_bavail, self.disk_percent) {
            true => Err(Refused::Disk),
            false => Ok(()),
        }
    }

    /// Writes as much as there is room for: at an offset, or at the end of the file.
    pub(crate) fn write(
        &self,
        file: &File,
        bytes: &[u8],
        offset: Option<u64>,
    ) -> Result<usize, Refused> {
        let mut ledger = self.ledger()?;
        self.disk()?;
        let before = file.metadata()?.len();
        let start = offset.unwrap_or(before);
        let wanted = content(start.saturating_add(bytes.len() as u64));
        let had = content(before);
        let free = self.free(&mut ledger, wanted.saturating_sub(had));
        let room = had.saturating_add(free).saturating_sub(start);
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if fits == 0 && !bytes.is_empty() {
            return Err(Refused::Quota);
        }
        let bytes = &bytes[..fits];
        let written = uninterrupted(|| match offset {
            Some(offset) => file.write_at(bytes, offset),
            None => {
                let bytes = [IoSlice::new(bytes)];
                Ok(pwritev2(file, &bytes, 0, ReadWriteFlags::APPEND)?)
            }
        });
        let after = file.metadata()?;
        ledger.resized(after.ino(), after.nlink() == 0, before, after.len());
        Ok(written?)
    }

    /// Cuts a file off, or makes it longer.
    pub(crate) fn set_size(&self, file: &File, bytes: u64) -> Result<(), Refused> {
        let mut ledger = self.ledger()?;
        let before = file.metadata()?.len();
        if bytes > before {
            let more = content(bytes).saturating_sub(content(before));
            self.room(&mut ledger, more)?;
        }
        let set = uninterrupted(|| file.set_len(bytes));
        let after = file.metadata()?;
        ledger.resized(after.ino(), after.nlink() == 0, before, after.len());
        Ok(set?)
    }
}

/// A volume's ledger that is locked.
pub(crate) type Counted<'a> = parking_lot::MappedMutexGuard<'a, Ledger>;

/// Whether so many percent of a disk are used, as `df` counts: what only the system's own user may
/// use is not there.
fn is_full(used: u64, available: u64, percent: u8) -> bool {
    let all = u128::from(used) + u128::from(available);
    u128::from(used) * 100 >= all * u128::from(percent)
}

/// Reads or writes, again if a signal came in between.
pub(crate) fn uninterrupted<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod tests;
