//! What changes a volume: wasmtime's own functions, with the volume's account kept around them.
//!
//! Each runs as a whole on a thread for files, under the lock of the volume's ledger, so that a guest
//! that goes away in the middle leaves an account that is right. The functions are those of WASI 0.2
//! for both versions.

use std::{fs::File as OsFile, io, sync::Arc};

use futures::FutureExt as _;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::{
    FsPerms, OpenMode,
    filesystem::{Descriptor, Dir, WasiFilesystemCtx, WasiFilesystemCtxView},
    p2::{
        FsResult,
        bindings::filesystem::types::{
            DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, HostDescriptor as _,
            OpenFlags, PathFlags,
        },
    },
};

use super::codes::{OTHER, other};
use crate::{
    logs::{Note, PodLog},
    volumes::{BLOCK_BYTES, Ledger, Refused, Volume},
};

/// A volume at a place of a guest.
pub(crate) struct VolumeMount {
    volume: Arc<Volume>,
    /// A directory whose functions block the thread that calls them.
    blocking: Dir,
}

impl VolumeMount {
    pub(super) fn new(volume: Arc<Volume>, directory: OsFile, access: FsPerms) -> Self {
        let blocking = Dir::new(directory, access, OpenMode::READ, true);
        Self { volume, blocking }
    }
}

/// Something in a volume that a guest has open.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) mount: Arc<VolumeMount>,
    pub(super) descriptor: Descriptor,
    pub(super) log: Arc<PodLog>,
    pub(super) request: Option<Arc<str>>,
}

/// Why something is not done.
enum Failure {
    Refused(Refused),
    Code(ErrorCode),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Refused(Refused::Io(error))
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

/// What was opened, or what it is that is not opened.
pub(super) type Opened = Result<Descriptor, &'static str>;

impl Held {
    fn volume(&self) -> &Volume {
        &self.mount.volume
    }

    /// Whether the other one is in the same volume.
    fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount.volume, &other.mount.volume)
    }

    /// Says in the log what the volume refuses.
    fn tell(&self, refused: &Refused) {
        if let Some(text) = self.volume().explain(refused) {
            let request = self.request.clone();
            self.log.note(Note::Denial, request, || text);
        }
    }

    fn end<R>(&self, result: Result<R, Failure>) -> Result<R, ErrorCode> {
        result.map_err(|failure| match failure {
            Failure::Code(code) => code,
            Failure::Refused(refused) => {
                self.tell(&refused);
                io::Error::from(refused).into()
            }
        })
    }

    /// The file, if the guest may write to it.
    pub(super) fn writable(&self) -> Result<&OsFile, ErrorCode> {
        match &self.descriptor {
            Descriptor::Dir(_) => Err(ErrorCode::BadDescriptor),
            Descriptor::File(file) if file.perms.write_not_permitted() => {
                Err(ErrorCode::NotPermitted)
            }
            Descriptor::File(file) => Ok(&file.file),
        }
    }

    fn directory(&self) -> Result<Dir, ErrorCode> {
        match &self.descriptor {
            Descriptor::File(_) => Err(ErrorCode::NotDirectory),
            Descriptor::Dir(own) => {
                let mut directory = self.mount.blocking.clone();
                directory.dir = Arc::clone(&own.dir);
                directory.perms = own.perms;
                directory.open_mode = own.open_mode;
                Ok(directory)
            }
        }
    }

    /// Does something with the directory that never waits.
    fn at_once<R>(
        &self,
        work: impl AsyncFnOnce(&mut WasiFilesystemCtxView<'_>, Resource<Descriptor>) -> FsResult<R>,
    ) -> Result<R, ErrorCode> {
        let (mut ctx, mut table) = (WasiFilesystemCtx::default(), ResourceTable::new());
        let directory = Descriptor::Dir(self.directory()?);
        let directory = table.push(directory).map_err(|_| ErrorCode::Io)?;
        let mut view = WasiFilesystemCtxView {
            ctx: &mut ctx,
            table: &mut table,
        };
        let done = work(&mut view, directory).now_or_never();
        let done = done.expect("a directory that may block its thread never waits");
        done.map_err(|error| error.downcast().unwrap_or(ErrorCode::Io))
    }

    fn stat_at(&self, flags: PathFlags, path: &str) -> Option<DescriptorStat> {
        let path = path.to_owned();
        let found = self.at_once(async move |view, it| view.stat_at(it, flags, path).await);
        found.ok()
    }

    /// Changes the volume, if the guest may.
    fn change<R>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<R, Failure>,
    ) -> Result<R, ErrorCode> {
        if self.directory()?.perms.write_not_permitted() {
            return Err(ErrorCode::NotPermitted);
        }
        let done = self.volume().ledger().map_err(Failure::from);
        self.end(done.and_then(|mut ledger| work(&mut ledger)))
    }

    /// Does what gives something a name.
    fn name(
        &self,
        path: &str,
        work: impl FnOnce() -> Result<(), ErrorCode>,
    ) -> Result<(), ErrorCode> {
        self.change(|ledger| {
            // Where there is something already, that is what is said.
            if self.stat_at(PathFlags::empty(), path).is_none() {
                self.volume().room(ledger, BLOCK_BYTES)?;
            }
            work()?;
            ledger.named();
            Ok(())
        })
    }

    pub(super) fn create_directory_at(&self, path: String) -> Result<(), ErrorCode> {
        let name = path.clone();
        self.name(&name, || {
            self.at_once(async move |view, it| view.create_directory_at(it, path).await)
        })
    }

    pub(super) fn symlink_at(&self, target: String, path: String) -> Result<(), ErrorCode> {
        let name = path.clone();
        self.name(&name, || {
            self.at_once(async move |view, it| view.symlink_at(it, target, path).await)
        })
    }

    pub(super) fn link_at(
        &self,
        flags: PathFlags,
        path: String,
        to: &Self,
        to_path: String,
    ) -> Result<(), ErrorCode> {
        let (to_directory, name) = (Descriptor::Dir(to.directory()?), to_path.clone());
        to.name(&name, || {
            self.at_once(async move |view, it| {
                let to = view.table.push(to_directory)?;
                view.link_at(it, flags, path, to, to_path).await
            })
        })
    }

    pub(super) fn remove_directory_at(&self, path: String) -> Result<(), ErrorCode> {
        self.change(|ledger| {
            self.at_once(async move |view, it| view.remove_directory_at(it, path).await)?;
            ledger.unnamed();
            Ok(())
        })
    }

    pub(super) fn unlink_file_at(&self, path: String) -> Result<(), ErrorCode> {
        self.change(|ledger| {
            let found = self.stat_at(PathFlags::empty(), &path);
            self.at_once(async move |view, it| view.unlink_file_at(it, path).await)?;
            forget(ledger, found.as_ref());
            Ok(())
        })
    }

    pub(super) fn rename_at(
        &self,
        path: String,
        to: &Self,
        to_path: String,
    ) -> Result<(), ErrorCode> {
        let to_directory = Descriptor::Dir(to.directory()?);
        self.change(|ledger| {
            let is_same = self.identity(&path) == to.identity(&to_path);
            let replaced = to.stat_at(PathFlags::empty(), &to_path);
            self.at_once(async move |view, it| {
                let to = view.table.push(to_directory)?;
                view.rename_at(it, path, to, to_path).await
            })?;
            // Two names of one file both stay.
            if !is_same && replaced.is_some() {
                forget(ledger, replaced.as_ref());
            }
            Ok(())
        })
    }

    /// What tells a file from all others.
    fn identity(&self, path: &str) -> Option<(u64, u64)> {
        let (flags, path) = (PathFlags::empty(), path.to_owned());
        let hash = self.at_once(async move |view, it| view.metadata_hash_at(it, flags, path).await);
        hash.ok().map(|hash| (hash.lower, hash.upper))
    }

    /// Looks first and afterwards, as for other directories.
    pub(super) fn open_at(
        &self,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> Result<Opened, ErrorCode> {
        let may_write = !self.directory()?.perms.write_not_permitted();
        let opened = self.volume().ledger().map_err(Failure::from);
        let opened = opened.and_then(|mut ledger| {
            let found = self.stat_at(path_flags, &path);
            if let Some(what) = found.as_ref().and_then(|found| other(found.type_)) {
                return Ok(Err(what));
            }
            let makes = may_write && open_flags.contains(OpenFlags::CREATE) && found.is_none();
            if makes {
                self.volume().room(&mut ledger, BLOCK_BYTES)?;
            }
            let opened = self.at_once(async move |view, it| {
                let opened = view.open_at(it, path_flags, path, open_flags, flags);
                let opened = opened.await?;
                Ok(view.table.delete(opened)?)
            })?;
            if makes {
                ledger.named();
            }
            if let Descriptor::File(file) = &opened {
                let metadata = file.file.metadata()?;
                if !metadata.is_file() {
                    return Ok(Err(OTHER));
                }
                ledger.opened(&file.file);
                if open_flags.contains(OpenFlags::TRUNCATE) {
                    let before = found.map_or(0, |found| found.size);
                    ledger.resized(0, false, before, metadata.len());
                }
            }
            Ok(Ok(opened))
        });
        self.end(opened)
    }

    pub(super) fn set_size(&self, size: u64) -> Result<(), ErrorCode> {
        let set = self.volume().set_size(self.writable()?, size);
        self.end(set.map_err(Failure::from))
    }

    pub(super) fn write(&self, bytes: Vec<u8>, offset: u64) -> Result<u64, ErrorCode> {
        let file = self.writable()?;
        let written = self.volume().write(file, &bytes, Some(offset));
        self.end(written.map(|it| it as u64).map_err(Failure::from))
    }

    /// Writes as much as there is room for: at an offset, or at the end of the file.
    pub(super) fn put(&self, bytes: &[u8], offset: Option<u64>) -> io::Result<usize> {
        let Descriptor::File(file) = &self.descriptor else {
            return Err(rustix::io::Errno::BADF.into());
        };
        let written = self.volume().write(&file.file, bytes, offset);
        written.map_err(|refused| {
            self.tell(&refused);
            refused.into()
        })
    }
}

/// Whether two handles are of one volume, or of none. Nothing goes from one to another by its name.
pub(super) fn beside(one: Option<&Held>, other: Option<&Held>) -> Result<(), ErrorCode> {
    match (one, other) {
        (None, None) => Ok(()),
        (Some(one), Some(other)) if one.is_beside(other) => Ok(()),
        (Some(_), _) | (_, Some(_)) => Err(ErrorCode::CrossDevice),
    }
}

/// A name is gone, and what it named if that was its last.
fn forget(ledger: &mut Ledger, found: Option<&DescriptorStat>) {
    ledger.unnamed();
    if let Some(found) = found
        && found.type_ == DescriptorType::RegularFile
        && found.link_count == 1
    {
        ledger.removed(found.size);
    }
}

#[cfg(test)]
mod tests;
