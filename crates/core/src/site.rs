//! Static files of a service: which there are, and which of them a request means.
//!
//! A manifest names each file by its path, with the digest of its content. What a request names is
//! looked up in there and nowhere else: no path of a client is ever one of a file system.

pub mod conditional;
mod encoding;
mod manifest;
#[cfg(test)]
mod tests;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

pub use encoding::Encoding;
pub use manifest::{
    MAX_FILE_BYTES, MAX_FILES, MAX_PATH_BYTES, MAX_SITE_BYTES, Manifest, ManifestError, SiteFile,
    is_served,
};

/// The file that stands for its directory.
const INDEX: &str = "index.html";

/// Pages that are answered with where there is no file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// The page of a single-page app, for paths that look like none of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// The page that comes with status 404.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_found: Option<String>,
}

/// What a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'m> {
    /// A file.
    File(Choice<'m>),
    /// A directory, whose path ends in a slash.
    Directory,
    /// Nothing that is there; perhaps there is a page that says so.
    Missing(Option<Choice<'m>>),
}

/// A file that answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'m> {
    /// What is sent.
    pub file: &'m SiteFile,
    /// Its content type, which is that of the file before it was compressed.
    pub content_type: &'m str,
    /// How it is compressed.
    pub encoding: Option<Encoding>,
    /// Whether another client might be sent it compressed in another way.
    pub varies: bool,
}

impl Manifest {
    /// What a request for this path means: the path as it was sent, without a query, and what the
    /// client says of encodings.
    pub fn find(&self, pages: &Pages, path: &str, accept_encoding: &str) -> Found<'_> {
        let Some(path) = decoded(path) else {
            return self.missing(pages, None, accept_encoding);
        };
        if path.is_empty() || path.ends_with('/') {
            return match self.choose(&format!("{path}{INDEX}"), accept_encoding) {
                Some(choice) => Found::File(choice),
                None => self.missing(pages, Some(&path), accept_encoding),
            };
        }
        match self.choose(&path, accept_encoding) {
            Some(choice) => Found::File(choice),
            None if self.files.contains_key(&format!("{path}/{INDEX}")) => Found::Directory,
            None => self.missing(pages, Some(&path), accept_encoding),
        }
    }

    fn missing(&self, pages: &Pages, path: Option<&str>, accept_encoding: &str) -> Found<'_> {
        let last = path.and_then(|path| path.rsplit('/').next());
        let is_page = last.is_some_and(|last| !last.contains('.'));
        let fallback = pages.fallback.as_deref().filter(|_| is_page);
        if let Some(choice) = fallback.and_then(|it| self.choose(it, accept_encoding)) {
            return Found::File(choice);
        }
        let page = pages.not_found.as_deref();
        Found::Missing(page.and_then(|it| self.choose(it, accept_encoding)))
    }

    /// A file, compressed if it is there so and the client takes it.
    fn choose(&self, path: &str, accept_encoding: &str) -> Option<Choice<'_>> {
        let plain = self.files.get(path)?;
        let compressed =
            |encoding: Encoding| self.files.get(&format!("{path}{}", encoding.suffix()));
        let there = Encoding::ALL.map(|encoding| (encoding, compressed(encoding)));
        let varies = there.iter().any(|(_, file)| file.is_some());
        let there = there
            .into_iter()
            .filter_map(|(encoding, file)| Some((encoding, file?)));
        let chosen = encoding::choose(accept_encoding, there);
        Some(Choice {
            file: chosen.map_or(plain, |(_, file)| file),
            content_type: &plain.content_type,
            encoding: chosen.map(|(encoding, _)| encoding),
            varies,
        })
    }
}

/// The path of a request as the paths of a manifest are written; nothing if none could be meant. A
/// slash that is escaped is none, and what goes up or stays where it is, is no name.
fn decoded(path: &str) -> Option<String> {
    let path = path.strip_prefix('/')?;
    let mut decoded = String::with_capacity(path.len());
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let segment = percent_decode_str(segment).decode_utf8().ok()?;
        let is_last = segments.peek().is_none();
        if segment.is_empty() {
            // Only the end may be empty: that is what makes it a directory.
            return is_last.then_some(decoded);
        }
        if !is_served(&segment) {
            return None;
        }
        decoded.push_str(&segment);
        if !is_last {
            decoded.push('/');
        }
    }
    Some(decoded)
}
