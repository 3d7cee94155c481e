//! Static files of a directory: which there are, and what is in each.
//!
//! All of them are opened through the directory, so that no link leads out of it.

use std::{
    io::{self, Read as _},
    path::Path,
};

use cap_std::{
    ambient_authority,
    fs::{Dir, Metadata, OpenOptions, OpenOptionsExt as _},
};
use sampan_core::{
    digest::Digest,
    site::{MAX_FILE_BYTES, MAX_FILES, Manifest, SiteFile, is_served},
};

/// How deep directories may lie in one another: a link to one above is followed too.
const MAX_DEPTH: usize = 32;
/// The content type of what is not known.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// The static files of a directory.
pub(crate) struct Site {
    /// What there is.
    pub(crate) manifest: Manifest,
    directory: Dir,
}

/// Why the files of a directory cannot be served, with a remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SiteError {
    /// The directory cannot be opened.
    #[error("cannot open the directory")]
    Directory(#[source] io::Error),
    /// A file cannot be read.
    #[error("cannot read `{path}` in it")]
    File {
        /// Where in the directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The limits, or a name.
    #[error(transparent)]
    Manifest(#[from] sampan_core::site::ManifestError),
}

impl Site {
    /// Looks through a directory and reads all its files once.
    pub(crate) fn read(directory: &Path) -> Result<Self, SiteError> {
        let opened = Dir::open_ambient_dir(directory, ambient_authority());
        let directory = opened.map_err(SiteError::Directory)?;
        let mut manifest = Manifest::default();
        walk(&directory, "", 0, &mut manifest)?;
        manifest.check()?;
        Ok(Self {
            manifest,
            directory,
        })
    }

    /// The bytes of a file as they are now.
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, SiteError> {
        let read = read(&self.directory, path);
        read.map_err(|it| failed(path, it))
    }
}

fn failed(path: &str, source: io::Error) -> SiteError {
    let path = path.to_owned();
    let source = match source.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            source.kind(),
            "it is a link to nothing: remove it, or put there what it leads to",
        ),
        io::ErrorKind::PermissionDenied if source.raw_os_error().is_none() => io::Error::new(
            source.kind(),
            "it is a link that leads out of the directory: put a copy in its place",
        ),
        _ => source,
    };
    SiteError::File { path, source }
}

fn walk(
    directory: &Dir,
    below: &str,
    depth: usize,
    manifest: &mut Manifest,
) -> Result<(), SiteError> {
    if depth > MAX_DEPTH {
        let reason = format!("directories lie in one another more than {MAX_DEPTH} deep");
        return Err(failed(below, io::Error::other(reason)));
    }
    let here = if below.is_empty() { "." } else { below };
    let entries = directory.read_dir(here).map_err(|it| failed(here, it))?;
    for entry in entries {
        let name = entry.map_err(|it| failed(here, it))?.file_name();
        let Some(name) = name.to_str() else {
            let shown = format!("{below}/{}", name.to_string_lossy());
            return Err(failed(&shown, io::Error::other("its name is not UTF-8")));
        };
        if name.starts_with('.') && !is_served(name) {
            continue;
        }
        let path = match below {
            "" => name.to_owned(),
            below => format!("{below}/{name}"),
        };
        let metadata = directory.metadata(&path).map_err(|it| failed(&path, it))?;
        if metadata.is_dir() {
            walk(directory, &path, depth + 1, manifest)?;
            continue;
        }
        let bytes = read(directory, &path).map_err(|it| failed(&path, it))?;
        let file = SiteFile {
            digest: Digest::of(&bytes).to_hex(),
            bytes: bytes.len() as u64,
            content_type: content_type(&path),
        };
        manifest.files.insert(path, file);
        if manifest.files.len() > MAX_FILES {
            return Err(sampan_core::site::ManifestError::TooMany.into());
        }
    }
    Ok(())
}

/// Reads a file whole, as it was at one time.
fn read(directory: &Dir, path: &str) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    // To open what is no plain file may take for ever.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    options.read(true).custom_flags(nonblocking);
    let mut file = directory.open_with(path, &options)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(io::Error::other("it is not a plain file: remove it"));
    }
    let mut bytes = Vec::new();
    let limited = &mut file;
    limited.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(io::Error::other(limit));
    }
    let after = file.metadata()?;
    let state = |it: &Metadata| (it.len(), it.modified().ok());
    match state(&before) == state(&after) && after.len() == bytes.len() as u64 {
        true => Ok(bytes),
        false => Err(io::Error::other(
            "it was changed while it was read: try again",
        )),
    }
}

/// The content type by the end of the name.
fn content_type(path: &str) -> String {
    let guess = mime_guess::from_path(path).first_raw();
    match guess.unwrap_or(UNKNOWN_TYPE) {
        text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn place() -> tempfile::TempDir {
        let place = tempfile::tempdir().expect("a directory");
        let public = place.path().join("public");
        fs::create_dir_all(public.join("docs")).expect("made");
        fs::create_dir_all(public.join(".well-known")).expect("made");
        for (path, text) in [
            ("index.html", "<p>"),
            ("app.js", "1"),
            ("docs/a b.txt", "text"),
            (".env", "SECRET=1"),
            (".well-known/security.txt", "x"),
        ] {
            fs::write(public.join(path), text).expect("written");
        }
        fs::write(place.path().join("secret.txt"), "secret").expect("written");
        place
    }

    fn refused(place: &tempfile::TempDir) -> String {
        let read = Site::read(&place.path().join("public"));
        let error = read.err().expect("it cannot be served");
        let source = std::error::Error::source(&error);
        format!(
            "{error}: {}",
            source.map(ToString::to_string).unwrap_or_default()
        )
    }

    #[test]
    fn what_is_served_is_listed() {
        let place = place();
        let site = Site::read(&place.path().join("public")).expect("readable");
        let files: Vec<_> = site.manifest.files.keys().map(String::as_str).collect();
        let wanted = [
            ".well-known/security.txt",
            "app.js",
            "docs/a b.txt",
            "index.html",
        ];
        assert_eq!(files, wanted);
        let index = &site.manifest.files["index.html"];
        assert_eq!(index.content_type, "text/html; charset=utf-8");
        assert_eq!((index.bytes, index.digest.len()), (3, 64));
        assert_eq!(site.bytes("docs/a b.txt").expect("readable"), b"text");
        assert_eq!(content_type("x.wasm"), "application/wasm");
        assert_eq!(content_type("x"), UNKNOWN_TYPE);
    }

    #[test]
    fn a_link_is_followed_as_long_as_it_stays_inside() {
        for (target, link) in [
            ("index.html", "home.html"),
            ("../app.js", "docs/app.js"),
            ("docs", "d"),
        ] {
            let place = place();
            symlink(target, place.path().join("public").join(link)).expect("a link");
            let site = Site::read(&place.path().join("public")).expect("readable");
            assert!(
                site.manifest
                    .files
                    .keys()
                    .any(|path| path.starts_with(link))
            );
        }
        let outside = place();
        let secret = outside.path().join("secret.txt");
        for target in [
            Path::new("../secret.txt"),
            Path::new("docs/../../secret.txt"),
            Path::new("/etc/passwd"),
            Path::new(".."),
            Path::new("/"),
            &secret,
        ] {
            let place = place();
            symlink(target, place.path().join("public/link")).expect("a link");
            let told = refused(&place);
            assert!(told.contains("`link`"), "{told}");
            assert!(
                told.contains("leads out of the directory"),
                "{target:?}: {told}"
            );
        }
        let place = place();
        symlink("nothing", place.path().join("public/link")).expect("a link");
        assert!(refused(&place).contains("a link to nothing"));
        fs::remove_file(place.path().join("public/link")).expect("removed");
        symlink(".", place.path().join("public/link")).expect("a link");
        assert!(refused(&place).contains("more than 32 deep"));
    }

    #[test]
    fn what_is_no_plain_file_is_refused_at_once() {
        let place = place();
        let fifo = place.path().join("public/fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("made");
        assert!(refused(&place).contains("not a plain file"));
        fs::remove_file(fifo).expect("removed");
        fs::write(place.path().join("public/a\\b"), "").expect("written");
        assert!(refused(&place).contains("no path of a static file"));
        let gone = Site::read(&place.path().join("gone"));
        assert!(matches!(gone, Err(SiteError::Directory(_))));
    }

    /// What was read before cannot be another file by now: its digest says so.
    #[test]
    fn a_file_that_is_swapped_is_another() {
        let place = place();
        let public = place.path().join("public");
        let site = Site::read(&public).expect("readable");
        let listed = |site: &Site| site.manifest.files["app.js"].digest.clone();
        let before = listed(&site);
        fs::remove_file(public.join("app.js")).expect("removed");
        symlink("../secret.txt", public.join("app.js")).expect("a link");
        assert!(site.bytes("app.js").is_err());
        fs::remove_file(public.join("app.js")).expect("removed");
        fs::write(public.join("app.js"), "2").expect("written");
        let now = site.bytes("app.js").expect("readable");
        assert_ne!(Digest::of(&now).to_hex(), before);
    }
}
