//! The files that are lent to guests.
//!
//! Everything that could block is done on threads that only the guests of one template use
//! ([`threads`]). Guests open plain files and directories: opening anything else can take for ever,
//! or do something.

mod p2;
mod p3;
mod streams_p2;
mod streams_p3;
mod threads;

use std::{fs::File, os::fd::OwnedFd, sync::Arc};

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::{
    FsPerms, OpenMode,
    filesystem::{Descriptor, Dir, WasiFilesystemCtxView},
};

use crate::logs::{CurrentRequest, Note, PodLog};
use threads::FileThreads;

/// What a template lends its guests.
pub(crate) struct Lent {
    directories: Vec<(Dir, String)>,
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
        let mode = match access {
            FsPerms::ReadOnly => OpenMode::READ,
            FsPerms::ReadWrite => OpenMode::READ | OpenMode::WRITE,
        };
        let directory = Dir::new(File::from(directory), access, mode, false);
        self.directories.push((directory, guest.to_owned()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }
}

/// The files of one instance.
pub(crate) struct Files<'a> {
    pub(crate) view: WasiFilesystemCtxView<'a>,
    pub(crate) lent: &'a Arc<Lent>,
    pub(crate) log: &'a PodLog,
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
        lent.map(|(directory, name)| {
            let directory = self.view.table.push(Descriptor::Dir(directory.clone()))?;
            Ok((directory, name.clone()))
        })
        .collect()
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

/// What is neither a file nor a directory.
const DEVICE: &str = "a device";
const OTHER: &str = "a FIFO or a socket";
