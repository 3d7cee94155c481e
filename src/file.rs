//! Reads user-supplied files up to a size limit.

pub(crate) mod site;

use std::{
    borrow::Cow,
    fs::{DirBuilder, File},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

use sampan_core::spec::Found;
pub(crate) use sampan_runtime::admission::inspect::MAX_COMPONENT_BYTES;
use sampan_runtime::admission::{adapt, inspect::Inspection};

/// The largest spec or env file.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// Reads a component, or a core module of which one is made. A pipe or a device is read to its end
/// too, but not for ever.
pub(crate) fn component(path: &Path) -> io::Result<Vec<u8>> {
    adapted(bounded(File::open(path)?, MAX_COMPONENT_BYTES)?)
}

/// Like [`component`], for a path that a spec names. It is read whole as it was at one time: a build
/// may write it meanwhile.
pub(crate) fn spec_component(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = plain(path)?;
    let state = |file: &File| {
        let found = file.metadata()?;
        io::Result::Ok((found.size(), found.mtime(), found.mtime_nsec()))
    };
    let before = state(&file)?;
    let bytes = bounded(&mut file, MAX_COMPONENT_BYTES)?;
    if state(&file)? != before {
        return Err(io::Error::other("it was changed while it was read"));
    }
    adapted(bytes)
}

/// What the component at a path that a spec names is as a service.
pub(crate) fn kind(path: &Path) -> io::Result<Found> {
    let bytes = spec_component(path)?;
    let inspected = Inspection::of(&bytes).map_err(io::Error::other)?;
    Ok(inspected.found())
}

/// Reads a component as it is. It has to be a plain file, because opening anything else may take
/// for ever.
pub(crate) fn stored_component(path: &Path) -> io::Result<Vec<u8>> {
    bounded(plain(path)?, MAX_COMPONENT_BYTES)
}

fn plain(path: &Path) -> io::Result<File> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::Error::other("it is not a plain file"));
    }
    File::open(path)
}

fn adapted(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    match adapt::component(&bytes).map_err(io::Error::other)? {
        Cow::Owned(component) => Ok(component),
        Cow::Borrowed(_) => Ok(bytes),
    }
}

/// Reads at most so many bytes of a file, into memory that is taken at once: no part of them is left
/// where they grew.
pub(crate) fn beginning(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(max);
    File::open(path)?.take(max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a spec or an env file.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    let bytes = bounded(File::open(path)?, MAX_TEXT_BYTES)?;
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        io::Error::other(format!("it is not UTF-8 text, from line {line} on"))
    })
}

fn bounded(file: impl io::Read, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than there may be tells a file that is too large from one that just fits.
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        let limit = format!("it is larger than {} MiB", max >> 20);
        return Err(io::Error::other(limit));
    }
    Ok(bytes)
}

/// Creates a directory of this user, if missing. Says whether it [is safe](is_safe).
pub(crate) fn own_directory(directory: &Path) -> io::Result<bool> {
    let made = DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory);
    made?;
    is_safe(directory)
}

/// Whether no other user can put a file of their own in the place of ours in this directory.
pub(crate) fn is_safe(directory: &Path) -> std::io::Result<bool> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let found = std::fs::metadata(directory)?;
    let (mode, owner) = (found.mode(), found.uid());
    let ours = owner == rustix::process::getuid().as_raw() || owner == 0;
    Ok(ours && (mode & WRITABLE_BY_OTHERS == 0 || mode & STICKY != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_refused() {
        let endless = Path::new("/dev/zero");
        let refused = |error: io::Error| error.to_string();
        assert_eq!(
            component(endless).map_err(refused),
            Err("it is larger than 64 MiB".to_owned())
        );
        assert_eq!(
            text(endless).map_err(refused),
            Err("it is larger than 4 MiB".to_owned())
        );
        assert_eq!(
            spec_component(endless).map_err(refused),
            Err("it is not a plain file".to_owned())
        );
    }

    #[test]
    fn the_line_that_is_no_text_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sampan.toml");
        std::fs::write(&path, b"app = 'a'\n# caf\xe9\n").expect("writable");
        let error = text(&path).expect_err("not UTF-8");
        assert_eq!(error.to_string(), "it is not UTF-8 text, from line 2 on");
    }
}
