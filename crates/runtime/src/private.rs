//! Directories that are for the user alone who runs the program.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

/// Makes a directory readable by its owner alone, and creates it if missing. Whether it belongs to
/// this user: in one of another user nothing is changed.
pub(crate) fn open(directory: &Path) -> io::Result<bool> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)?;
    let metadata = fs::metadata(directory)?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    if is_own && metadata.mode() & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    Ok(is_own)
}
