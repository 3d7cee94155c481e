//! The files that are lent to guests.
//!
//! Everything that could block is done on threads that only the guests of one template use
//! ([`threads`]). Guests open plain files and directories: opening anything else can take for ever,
//! or do something.

mod codes;
mod denied;
mod held;
mod p2;
mod p3;
mod secrets;
mod streams_p2;
mod streams_p3;
mod threads;

use std::{collections::HashMap, fs::File, io, os::fd::OwnedFd, sync::Arc};

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::{
    FsPerms, OpenMode,
    filesystem::{Descriptor, Dir, WasiFilesystemCtxView},
};

use crate::{
    logs::{CurrentRequest, Note, PodLog},
    volumes::Volume,
};
use held::{Held, VolumeMount};
pub(crate) use secrets::SecretDirectory;
use threads::FileThreads;

/// What is behind handles that are not of directories of the host, by the handle in the table of an
/// instance: what it has open in volumes, and directories with secrets.
pub(crate) type Handles = HashMap<u32, Mounted>;

/// What is lent beside directories of the host.
#[derive(Clone)]
pub(crate) enum Mounted {
    Volume(Arc<VolumeMount>),
    Secrets(Arc<SecretDirectory>),
}

/// What a template lends its guests.
pub(crate) struct Lent {
    directories: Vec<(Dir, String, Option<Mounted>)>,
    threads: Arc<FileThreads>,
    /// How many an instance may hold open: each takes a descriptor of this process.
    max_open: usize,
}

impl Lent {
    pub(crate) fn new(max_open: usize) -> Self {
        Self {
            directories: Vec::new(),
            threads: FileThreads::new(),
            max_open,
        }
    }

    /// Lends a directory that was opened once: what is put in its place later is not what guests
    /// see.
    pub(crate) fn add(&mut self, directory: OwnedFd, guest: &str, access: FsPerms) {
        let directory = Dir::new(File::from(directory), access, mode(access), false);
        self.directories.push((directory, guest.to_owned(), None));
    }

    /// Lends a volume.
    pub(crate) fn add_volume(
        &mut self,
        volume: Arc<Volume>,
        guest: &str,
        access: FsPerms,
    ) -> io::Result<()> {
        let directory = Dir::new(volume.directory()?, access, mode(access), false);
        let blocking = volume.directory()?;
        let mount = Arc::new(VolumeMount::new(volume, blocking, access));
        self.directories
            .push((directory, guest.to_owned(), Some(Mounted::Volume(mount))));
        Ok(())
    }

    /// Lends a directory with secrets.
    pub(crate) fn add_secrets(&mut self, secrets: SecretDirectory, guest: &str) {
        let (directory, secrets) = (secrets.itself(), Arc::new(secrets));
        self.directories
            .push((directory, guest.to_owned(), Some(Mounted::Secrets(secrets))));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }
}

fn mode(access: FsPerms) -> OpenMode {
    match access {
        FsPerms::ReadOnly => OpenMode::READ,
        FsPerms::ReadWrite => OpenMode::READ | OpenMode::WRITE,
    }
}

/// The files of one instance.
pub(crate) struct Files<'a> {
    pub(crate) view: WasiFilesystemCtxView<'a>,
    pub(crate) handles: &'a mut Handles,
    pub(crate) lent: &'a Arc<Lent>,
    pub(crate) log: &'a Arc<PodLog>,
    pub(crate) request: &'a CurrentRequest,
}

/// Gives host functions the [`Files`] of their instance.
pub(crate) struct GuestFiles;

impl HasData for GuestFiles {
    type Data<'a> = Files<'a>;
}

impl Files<'_> {
    fn directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let lent = self.lent.directories.iter();
        lent.map(|(directory, name, mounted)| {
            let directory = self.view.table.push(Descriptor::Dir(directory.clone()))?;
            if let Some(mounted) = mounted {
                self.handles.insert(directory.rep(), mounted.clone());
            }
            Ok((directory, name.clone()))
        })
        .collect()
    }

    /// What is behind a handle, if it is in a volume.
    fn held(&self, file: &Resource<Descriptor>) -> wasmtime::Result<Option<Held>> {
        let Some(Mounted::Volume(mount)) = self.handles.get(&file.rep()) else {
            return Ok(None);
        };
        Ok(Some(Held {
            mount: Arc::clone(mount),
            descriptor: self.view.table.get(file)?.clone(),
            log: Arc::clone(self.log),
            request: self.request.get(),
        }))
    }

    /// The secrets that are in a directory, if it is one with secrets.
    fn secrets(&self, directory: &Resource<Descriptor>) -> Option<Arc<SecretDirectory>> {
        let is_directory = matches!(self.view.table.get(directory), Ok(Descriptor::Dir(_)));
        self.mounted_secrets(directory).filter(|_| is_directory)
    }

    /// The secrets that a handle is of: of the directory, or of one of them.
    fn mounted_secrets(&self, file: &Resource<Descriptor>) -> Option<Arc<SecretDirectory>> {
        match self.handles.get(&file.rep())? {
            Mounted::Secrets(secrets) => Some(Arc::clone(secrets)),
            Mounted::Volume(_) => None,
        }
    }

    /// Gives the guest a handle of what was opened in a directory with secrets.
    fn give(
        &mut self,
        opened: Descriptor,
        secrets: &Arc<SecretDirectory>,
    ) -> wasmtime::Result<Resource<Descriptor>> {
        let file = self.view.table.push(opened)?;
        let mounted = Mounted::Secrets(Arc::clone(secrets));
        self.handles.insert(file.rep(), mounted);
        Ok(file)
    }

    /// Gives the guest a handle of what was opened in a volume.
    fn hold(&mut self, opened: Descriptor, held: &Held) -> wasmtime::Result<Resource<Descriptor>> {
        let file = self.view.table.push(opened)?;
        let mounted = Mounted::Volume(Arc::clone(&held.mount));
        self.handles.insert(file.rep(), mounted);
        Ok(file)
    }

    /// Whether the instance may open no more files. Handles live in its table, so they are counted
    /// there: opening is a system call anyway, and the table is bounded.
    fn is_full(&mut self) -> bool {
        let open = self.view.table.iter_mut();
        open.filter(|it| it.is::<Descriptor>()).count() >= self.lent.max_open
    }

    /// Says that a guest wanted to open what is neither a file nor a directory.
    fn refuse(&self, path: &str, what: &str) {
        self.log.note(Note::Denial, self.request.get(), || {
            format!("denied: opening `{path}`, which is {what}; guests open files and directories")
        });
    }
}
