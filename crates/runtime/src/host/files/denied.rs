//! What is said in a pod's log of a guest that wants to leave the directories it was lent, or to
//! change what it may only read.

use std::sync::Arc;

use futures::FutureExt as _;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::{
    FsPerms, OpenMode,
    filesystem::{Descriptor, Dir, WasiFilesystemCtx, WasiFilesystemCtxView},
    p2::bindings::filesystem::types::{
        DescriptorFlags, ErrorCode, HostDescriptor as _, OpenFlags, PathFlags,
    },
};

use super::Files;
use crate::logs::{Note, PodLog};

/// Whether a function of files reads or changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Reads,
    Changes,
}

/// How something is opened.
pub(super) fn way(open_flags: OpenFlags, flags: DescriptorFlags) -> Way {
    let changes = open_flags.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE)
        || flags.contains(DescriptorFlags::WRITE);
    match changes {
        true => Way::Changes,
        false => Way::Reads,
    }
}

/// What a guest asks for, so that it can be said why it does not get it.
pub(super) struct Asked {
    way: Way,
    /// What it has open, and the path that it names from there on; of a link also what it leads to.
    places: Vec<(Descriptor, Vec<String>)>,
    /// Whether one of it is a secret, or where secrets are.
    is_secret: bool,
    log: Arc<PodLog>,
    request: Option<Arc<str>>,
}

impl Files<'_> {
    /// A guest asks something of what it has open, or of these paths in it.
    pub(super) fn asked(&self, way: Way, file: &Resource<Descriptor>, paths: &[&str]) -> Asked {
        let asked = Asked {
            way,
            places: Vec::new(),
            is_secret: false,
            log: Arc::clone(self.log),
            request: self.request.get(),
        };
        asked.and(self, file, paths)
    }
}

impl Asked {
    /// It names more paths, in another directory.
    pub(super) fn and(
        mut self,
        files: &Files<'_>,
        file: &Resource<Descriptor>,
        paths: &[&str],
    ) -> Self {
        self.is_secret |= files.mounted_secrets(file).is_some();
        // A handle that is none is found out by the function itself.
        if let Ok(descriptor) = files.view.table.get(file) {
            let paths = paths.iter().map(|&path| path.to_owned()).collect();
            self.places.push((descriptor.clone(), paths));
        }
        self
    }

    /// Says in the log why the guest was told that it is not permitted, if a spec could permit it.
    /// It looks at the paths, and so may block its thread.
    pub(super) fn explain(self) {
        let is_read_only = |(it, _): &(Descriptor, _)| match it {
            Descriptor::File(file) => file.perms.write_not_permitted(),
            Descriptor::Dir(directory) => directory.perms.write_not_permitted(),
        };
        let mut paths = self.places.iter().flat_map(|(_, paths)| paths);
        if self.way == Way::Changes && self.is_secret {
            return self.note("a change of a secret, or of where secrets are; nothing allows it");
        }
        if self.way == Way::Changes && self.places.iter().any(is_read_only) {
            let what = paths.next().map_or_else(
                || "a change of a file".to_owned(),
                |path| format!("a change of `{path}`"),
            );
            return self.note(&format!(
                "{what} in a directory that is lent read-only; `access = \"read-write\"` in \
                 `allow.files` would allow it"
            ));
        }
        let mut paths = self.places.iter().flat_map(|(it, paths)| {
            let paths = paths.iter().enumerate();
            paths.map(move |(index, path)| (it, index, path))
        });
        match paths.find(|(it, _, path)| leads_out(it, path)) {
            Some((_, 0, path)) => self.note(&format!(
                "`{path}` leads out of the directory that is lent; `allow.files` with the directory \
                 where it leads would allow it"
            )),
            // Only a link has a second path, to which it leads.
            Some((_, _, path)) => self.note(&format!(
                "a link to `{path}`; nothing allows it: links in a directory that is lent are relative"
            )),
            None => {}
        }
    }

    fn note(&self, what: &str) {
        let request = self.request.clone();
        self.log
            .note(Note::Denial, request, || format!("denied: {what}"));
    }
}

/// Whether a path leads out of a directory: then not even looking is permitted, where the system
/// permits that of everything that can be found.
fn leads_out(descriptor: &Descriptor, path: &str) -> bool {
    let Descriptor::Dir(directory) = descriptor else {
        return false;
    };
    let Ok(same) = directory.dir.try_clone() else {
        return false;
    };
    let directory = Dir::new(same, FsPerms::ReadOnly, OpenMode::READ, true);
    let (mut ctx, mut table) = (WasiFilesystemCtx::default(), ResourceTable::new());
    let Ok(directory) = table.push(Descriptor::Dir(directory)) else {
        return false;
    };
    let mut view = WasiFilesystemCtxView {
        ctx: &mut ctx,
        table: &mut table,
    };
    let found = view.stat_at(directory, PathFlags::SYMLINK_FOLLOW, path.to_owned());
    let found = found.now_or_never();
    let found = found.expect("a directory that may block its thread never waits");
    found.is_err_and(|error| matches!(error.downcast(), Ok(ErrorCode::NotPermitted)))
}
