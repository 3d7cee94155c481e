//! The socket of the API: one file that only this user may open.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net,
    },
    path::{Path, PathBuf},
};

use crate::file;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Another process answers there.
    #[error("another process answers at `{0}`")]
    Taken(PathBuf),
    /// It cannot be made.
    #[error("cannot make the socket `{path}`")]
    Io {
        /// The path of the socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Creates the directory if missing, and refuses one that another user owns: that user could put
/// another socket in the place of ours.
fn own(directory: &Path) -> io::Result<()> {
    match file::own_directory(directory)? {
        true => Ok(()),
        false => Err(io::Error::other("others may write to its directory")),
    }
}

/// Removes a socket at which no process listens, and nothing else.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::other("something that is no socket is there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A socket, removed when this is dropped.
pub(crate) struct Socket {
    listener: net::UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket, in place of one at which no process listens.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        if net::UnixStream::connect(path).is_ok() {
            return Err(BindError::Taken(path.to_owned()));
        }
        let made = || {
            match path.parent() {
                Some(directory) if directory != Path::new("") => own(directory)?,
                _ => {}
            }
            remove(path)?;
            let listener = net::UnixListener::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let path = path.to_owned();
        match made() {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(BindError::Io { path, source }),
        }
    }

    /// What accepts its connections.
    pub(crate) fn listener(&self) -> io::Result<net::UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have been removed by hand.
        let _ = fs::remove_file(&self.path);
    }
}
