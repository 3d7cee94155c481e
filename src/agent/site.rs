//! Static files: what the pods of a service without a component answer with.

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use sampan_core::{
    fault::Fault,
    site::{
        Choice, Found, Manifest, Pages, SiteFile,
        conditional::{Conditions, IfRange, Send, Version, send},
    },
};
use sampan_gateway::{Body, BodyError, UpstreamError};
use sampan_runtime::off_thread;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::handle::one_line;
use crate::artifacts::{Artifacts, Content, ReadError};

/// Requests that a pod answers at once.
pub(super) const CAPACITY: u32 = 512;
/// Files of a node that are open at once, because they are too large to be read whole.
pub(super) const MAX_OPEN_FILES: usize = 256;
/// A file up to this size is read whole, and closed before a byte of it is sent.
const WHOLE_BYTES: u64 = 256 << 10;
/// What is read of a larger one at a time.
const PIECE_BYTES: u64 = 64 << 10;
/// Digits of a file's digest that are its entity tag.
const TAG_DIGITS: usize = 32;

/// The static files of a revision.
pub(crate) struct Site {
    manifest: Manifest,
    pages: Pages,
    artifacts: Arc<Artifacts>,
    /// Limits how many files are open.
    open: Arc<Semaphore>,
    /// Since when they are served here, in seconds since the beginning of 1970: what a client has from
    /// later than that is one of these versions.
    since: u64,
}

/// Seconds since the beginning of 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// Why files cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSite {
    /// Something is not to be had.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The manifest is none.
    #[error(transparent)]
    Manifest(#[from] sampan_core::site::ManifestError),
    /// A page that the spec names is not among the files.
    #[error("there is no file `{page}` in `static`, which `{key}` names")]
    Page {
        /// The key of the spec.
        key: &'static str,
        /// What it names.
        page: String,
    },
    /// A file has another size.
    #[error("the static file `{0}` is damaged; apply the spec again to upload it")]
    Damaged(String),
}

impl Site {
    /// The files of a manifest, all of which must be there. It may take as long as the disk takes.
    pub(super) fn load(
        digest: &str,
        pages: &Pages,
        artifacts: &Arc<Artifacts>,
        open: &Arc<Semaphore>,
    ) -> Result<Self, NoSite> {
        let (bytes, _) = artifacts.read(digest)?;
        let manifest = Manifest::parse(&bytes)?;
        let named = [
            ("fallback", &pages.fallback),
            ("not_found", &pages.not_found),
        ];
        for (key, page) in named {
            if let Some(page) = page.as_ref().filter(|it| !manifest.files.contains_key(*it)) {
                let page = page.clone();
                return Err(NoSite::Page { key, page });
            }
        }
        for (path, file) in &manifest.files {
            // It is about to be referred to: the sweep of what is not used leaves it.
            if !artifacts.renew(&file.digest) {
                return Err(ReadError::Missing(file.digest.clone()).into());
            }
            let (_, bytes) = artifacts.content(&file.digest)?;
            if bytes != file.bytes {
                return Err(NoSite::Damaged(path.clone()));
            }
        }
        Ok(Self {
            manifest,
            pages: pages.clone(),
            artifacts: Arc::clone(artifacts),
            open: Arc::clone(open),
            since: now(),
        })
    }

    /// Answers a request.
    pub(super) async fn answer(
        &self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, UpstreamError> {
        let (head, _) = request.into_parts();
        let is_head = head.method == Method::HEAD;
        if !is_head && head.method != Method::GET {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n", false);
            let allow = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allow);
            return Ok(response);
        }
        let accepts = field(&head.headers, header::ACCEPT_ENCODING);
        let found = self
            .manifest
            .find(&self.pages, head.uri.path(), accepts.unwrap_or_default());
        match found {
            Found::File(choice) => {
                let sent = conditions(&head.headers);
                let tag = tag(choice.file);
                let version = Version {
                    tag: &tag,
                    modified: self.since,
                    bytes: choice.file.bytes,
                };
                let part = send(&sent, version, now());
                self.file(choice, &tag, part, is_head).await
            }
            Found::Directory => Ok(redirect(&head.uri, is_head)),
            Found::Missing(None) => Ok(text(StatusCode::NOT_FOUND, "not found\n", is_head)),
            Found::Missing(Some(choice)) => {
                let mut response = http::Response::new(self.body(choice.file, is_head).await?);
                *response.status_mut() = StatusCode::NOT_FOUND;
                let headers = response.headers_mut();
                describe(choice, headers);
                insert(headers, header::CONTENT_TYPE, choice.content_type);
                headers.insert(header::CONTENT_LENGTH, choice.file.bytes.into());
                Ok(response)
            }
        }
    }

    async fn file(
        &self,
        choice: Choice<'_>,
        tag: &str,
        part: Send,
        is_head: bool,
    ) -> Result<http::Response<Body>, UpstreamError> {
        let file = choice.file;
        let mut headers = HeaderMap::new();
        describe(choice, &mut headers);
        insert(&mut headers, header::ETAG, tag);
        insert(&mut headers, header::ACCEPT_RANGES, "bytes");
        let modified = UNIX_EPOCH + Duration::from_secs(self.since);
        insert(
            &mut headers,
            header::LAST_MODIFIED,
            &httpdate::fmt_http_date(modified),
        );
        insert(&mut headers, header::CONTENT_TYPE, choice.content_type);
        let (status, body, bytes) = match part {
            Send::Whole => (StatusCode::OK, self.body(file, is_head).await?, file.bytes),
            Send::Part(range) => {
                let shown = content_range(&range, file.bytes);
                insert(&mut headers, header::CONTENT_RANGE, &shown);
                let bytes = range.end - range.start;
                let body = match is_head {
                    true => empty(),
                    false => piece(&self.content(file).await?, range),
                };
                (StatusCode::PARTIAL_CONTENT, body, bytes)
            }
            Send::Parts(ranges) => {
                let boundary = &file.digest[..TAG_DIGITS];
                let shown = format!("multipart/byteranges; boundary={boundary}");
                insert(&mut headers, header::CONTENT_TYPE, &shown);
                let parts = Parts::new(&ranges, choice, boundary);
                let bytes = parts.bytes;
                let body = match is_head {
                    true => empty(),
                    false => parts.body(&self.content(file).await?),
                };
                (StatusCode::PARTIAL_CONTENT, body, bytes)
            }
            Send::NotModified | Send::PreconditionFailed | Send::Unsatisfiable => {
                headers.remove(header::CONTENT_TYPE);
                headers.remove(header::CONTENT_ENCODING);
                let status = match part {
                    Send::NotModified => StatusCode::NOT_MODIFIED,
                    Send::Unsatisfiable => {
                        let all = format!("bytes */{}", file.bytes);
                        insert(&mut headers, header::CONTENT_RANGE, &all);
                        StatusCode::RANGE_NOT_SATISFIABLE
                    }
                    _ => StatusCode::PRECONDITION_FAILED,
                };
                (status, empty(), 0)
            }
        };
        if status != StatusCode::NOT_MODIFIED {
            headers.insert(header::CONTENT_LENGTH, bytes.into());
        }
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    async fn body(&self, file: &SiteFile, is_head: bool) -> Result<Body, UpstreamError> {
        match is_head {
            true => Ok(empty()),
            false => Ok(piece(&self.content(file).await?, 0..file.bytes)),
        }
    }

    /// Opens a file, or reads it if it is small.
    async fn content(&self, file: &SiteFile) -> Result<Arc<Opened>, UpstreamError> {
        let permit = match file.bytes > WHOLE_BYTES {
            true => Arc::clone(&self.open).acquire_owned().await.ok(),
            false => None,
        };
        let (artifacts, digest, bytes) =
            (Arc::clone(&self.artifacts), file.digest.clone(), file.bytes);
        let opened = off_thread(move || open(&artifacts, &digest, bytes, permit)).await;
        opened.map(Arc::new).map_err(|error| {
            let reason = one_line(&error);
            tracing::warn!(
                digest = file.digest,
                reason,
                "a static file cannot be served"
            );
            UpstreamError::new(Fault::Host)
        })
    }
}

/// The bytes of a file, or the file while it is sent.
enum Opened {
    Bytes(Bytes),
    File {
        file: File,
        _permit: OwnedSemaphorePermit,
    },
}

fn open(
    artifacts: &Artifacts,
    digest: &str,
    bytes: u64,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<Opened, NoSite> {
    let (content, found) = artifacts.content(digest)?;
    if found != bytes {
        return Err(NoSite::Damaged(digest.to_owned()));
    }
    Ok(match content {
        Content::Bytes(bytes) => Opened::Bytes(bytes),
        Content::File(file) => match permit {
            Some(_permit) => Opened::File { file, _permit },
            None => {
                let read = read_at(&file, 0..bytes);
                Opened::Bytes(read.map_err(|_| NoSite::Damaged(digest.to_owned()))?)
            }
        },
    })
}

fn read_at(file: &File, range: Range<u64>) -> std::io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

type Pieces =
    std::pin::Pin<Box<dyn stream::Stream<Item = Result<Bytes, BodyError>> + std::marker::Send>>;

/// The bytes of a range, of which a file gives one piece at a time.
fn pieces(opened: &Arc<Opened>, range: Range<u64>) -> Pieces {
    if let Opened::Bytes(bytes) = &**opened {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.slice(place(range.start)..place(range.end));
        return stream::once(std::future::ready(Ok(bytes))).boxed();
    }
    let state = (Arc::clone(opened), range);
    stream::try_unfold(state, |(opened, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + PIECE_BYTES);
        let (held, wanted) = (Arc::clone(&opened), range.start..end);
        let read = off_thread(move || match &*held {
            Opened::File { file, .. } => read_at(file, wanted),
            Opened::Bytes(_) => Ok(Bytes::new()),
        });
        // It was as long as it should be when it was opened.
        let read = read.await.map_err(|_| BodyError::Upstream(Fault::Host))?;
        Ok(Some((read, (opened, end..range.end))))
    })
    .boxed()
}

fn piece(opened: &Arc<Opened>, range: Range<u64>) -> Body {
    match &**opened {
        Opened::Bytes(bytes) if range == (0..bytes.len() as u64) => whole(bytes.clone()),
        _ => StreamBody::new(pieces(opened, range).map_ok(Frame::data)).boxed_unsync(),
    }
}

/// A message of several ranges ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#section-14.6)).
struct Parts {
    parts: Vec<(Bytes, Range<u64>)>,
    end: Bytes,
    bytes: u64,
}

impl Parts {
    /// The boundary is of the file's own digest, which no file can have been made to contain.
    fn new(ranges: &[Range<u64>], choice: Choice<'_>, boundary: &str) -> Self {
        let part = |range: &Range<u64>| {
            let shown = content_range(range, choice.file.bytes);
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {shown}\r\n\r\n",
                choice.content_type
            );
            (Bytes::from(head), range.clone())
        };
        let parts: Vec<_> = ranges.iter().map(part).collect();
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        let of_part =
            |(head, range): &(Bytes, Range<u64>)| head.len() as u64 + range.end - range.start;
        let bytes = parts.iter().map(of_part).sum::<u64>() + end.len() as u64;
        Self { parts, end, bytes }
    }

    fn body(self, opened: &Arc<Opened>) -> Body {
        let one = |bytes: Bytes| stream::once(std::future::ready(Ok(bytes)));
        let opened = Arc::clone(opened);
        let parts = stream::iter(self.parts);
        let parts = parts.flat_map(move |(head, range)| one(head).chain(pieces(&opened, range)));
        let all = parts.chain(one(self.end));
        StreamBody::new(all.map_ok(Frame::data)).boxed_unsync()
    }
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn content_range(range: &Range<u64>, all: u64) -> String {
    format!("bytes {}-{}/{all}", range.start, range.end - 1)
}

/// The entity tag: the same bytes have the same one, whatever they are called.
fn tag(file: &SiteFile) -> String {
    format!("\"{}\"", &file.digest[..TAG_DIGITS])
}

/// A value of a manifest or of a number, which has been checked.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What holds of a file whatever of it is sent.
fn describe(choice: Choice<'_>, headers: &mut HeaderMap) {
    // A client asks again before it uses what it has, which costs a 304: so a rollout is seen at once.
    insert(headers, header::CACHE_CONTROL, "no-cache");
    insert(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if choice.varies {
        insert(headers, header::VARY, "accept-encoding");
    }
    if let Some(encoding) = choice.encoding {
        insert(headers, header::CONTENT_ENCODING, encoding.name());
    }
}

fn text(status: StatusCode, text: &'static str, is_head: bool) -> http::Response<Body> {
    let body = match is_head {
        true => empty(),
        false => whole(Bytes::from_static(text.as_bytes())),
    };
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    insert(headers, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    headers.insert(header::CONTENT_LENGTH, text.len().into());
    response
}

/// To the directory, where relative links in its index lead where they should.
fn redirect(uri: &http::Uri, is_head: bool) -> http::Response<Body> {
    let query = uri.query().map(|query| format!("?{query}"));
    let location = format!("{}/{}", uri.path(), query.unwrap_or_default());
    let mut response = text(
        StatusCode::PERMANENT_REDIRECT,
        "see the directory\n",
        is_head,
    );
    insert(response.headers_mut(), header::LOCATION, &location);
    response
}

fn field(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn conditions(headers: &HeaderMap) -> Conditions<'_> {
    let seconds = |text: &str| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
    };
    let date = |name| field(headers, name).and_then(seconds);
    let if_range = headers.get(header::IF_RANGE).map(|value| {
        let text = value.to_str().unwrap_or_default().trim();
        match text.starts_with('"') || text.starts_with("W/") {
            true => IfRange::Tag(text),
            false => seconds(text).map_or(IfRange::Unreadable, IfRange::Date),
        }
    });
    Conditions {
        if_match: field(headers, header::IF_MATCH),
        if_none_match: field(headers, header::IF_NONE_MATCH),
        if_unmodified_since: date(header::IF_UNMODIFIED_SINCE),
        if_modified_since: date(header::IF_MODIFIED_SINCE),
        if_range,
        range: field(headers, header::RANGE),
    }
}
