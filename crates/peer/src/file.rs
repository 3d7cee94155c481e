//! Files of a node: whole or not there, and those with keys for this user alone.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// The most bytes of a file that is read here: a key or a certificate.
const MAX_BYTES: u64 = 64 << 10;
/// The mode of a file with a key.
const SECRET_MODE: u32 = 0o600;
/// The mode of a file that all users may read.
const PUBLIC_MODE: u32 = 0o644;

/// What is wrong with a file of a node.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Other users may read it.
    #[error(
        "others may read `{0}`, which has a key of this node: `chmod 600` keeps it to this user"
    )]
    Exposed(PathBuf),
    /// It is larger than anything that belongs there.
    #[error("`{path}` has more than {} KiB: it is not a file of this node", MAX_BYTES >> 10, path = .0.display())]
    TooLarge(PathBuf),
    /// It cannot be read or written.
    #[error("cannot {act} `{path}`")]
    Io {
        /// What was tried.
        act: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl FileError {
    /// Whether the file is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Writes a file that only this user may read, in the place of one that is there. After a crash
/// there is either the old one or the new one.
///
/// # Errors
///
/// What the system says against it.
pub fn write_secret_file(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, SECRET_MODE)
}

/// Writes a file that all users may read, as [`write_secret_file`] does.
///
/// # Errors
///
/// What the system says against it.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, PUBLIC_MODE)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Io {
        act: "write",
        path: path.to_owned(),
        source,
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let write = || -> io::Result<()> {
        // It is made for this user alone, and never has more rights than it will have.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(bytes)?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|failed| failed.error)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(failed)
}

/// Reads a file with a key, which no other user may be able to read.
///
/// # Errors
///
/// If others may read it, or what the system says.
pub fn read_secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, true)
}

/// Reads a file that all users may read.
pub(crate) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, false)
}

fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |source| FileError::Io {
        act: "read",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if secret && about.mode() & 0o077 != 0 {
        return Err(FileError::Exposed(path.to_owned()));
    }
    if about.len() > MAX_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    // Room for all of it: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize));
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}
