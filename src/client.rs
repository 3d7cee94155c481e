//! The API as seen from another process.

mod error;
mod place;

use std::{
    collections::BTreeSet,
    io,
    ops::ControlFlow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sampan_core::view;
use serde::{Serialize, de::DeserializeOwned};

use place::Sent;

pub(crate) use {error::ClientError, place::Client};

/// The longest line of an answer.
const MAX_LINE_BYTES: usize = 4 << 20;
/// The largest answer that is one document.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A body of JSON.
fn json(body: &impl Serialize) -> (&'static str, Bytes) {
    let text = serde_json::to_vec(body).expect("what is asked is plain data");
    ("application/json", Bytes::from(text))
}

impl Client {
    /// One JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, target, None).await?;
        self.document(response).await
    }

    /// Asks for a change, and gets a JSON document.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let response = self.send(method, target, body.map(json)).await?;
        self.document(response).await
    }

    /// Asks for a change that has no answer.
    pub(crate) async fn tell(
        &self,
        method: Method,
        target: &str,
        body: &impl Serialize,
    ) -> Result<(), ClientError> {
        self.send(method, target, Some(json(body))).await.map(drop)
    }

    /// Whether there is something; its content is not asked for.
    pub(crate) async fn has(&self, target: &str) -> Result<bool, ClientError> {
        let response = self.exchange(Method::HEAD, target, None).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            // An answer to `HEAD` has no text that could say more.
            status => Err(self.broken(&format!("status {status}"))),
        }
    }

    /// Uploads bytes.
    pub(crate) async fn upload(&self, target: &str, bytes: Bytes) -> Result<(), ClientError> {
        let body = Some(("application/wasm", bytes));
        self.send(Method::PUT, target, body).await.map(drop)
    }

    /// Bytes of any sort.
    pub(crate) async fn fetch(&self, target: &str) -> Result<Bytes, ClientError> {
        let response = self.send(Method::GET, target, None).await?;
        self.bytes(response).await
    }

    /// Asks for something that has no answer.
    pub(crate) async fn ask(&self, method: Method, target: &str) -> Result<(), ClientError> {
        self.send(method, target, None).await.map(drop)
    }

    /// Bytes of any sort, each piece given to `piece` as it comes.
    pub(crate) async fn pieces<E>(
        &self,
        target: &str,
        mut piece: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, ClientError> {
        let mut body = self.send(Method::GET, target, None).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            if let Err(error) = piece(frame.data_ref().map_or(&[][..], |data| data)) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Uploads bytes that come a piece at a time.
    pub(crate) async fn upload_pieces(
        &self,
        target: &str,
        kind: &str,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ClientError> {
        let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data)));
        let body = Some((kind, BodyExt::boxed_unsync(body)));
        self.send_stream(Method::PUT, target, body).await.map(drop)
    }

    /// Deletes something.
    pub(crate) async fn remove(&self, target: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, target, None).await.map(drop)
    }

    /// A stream of lines, each given to `line` as it comes, until that is enough.
    pub(crate) async fn lines(
        &self,
        target: &str,
        mut line: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let mut body = self.send(Method::GET, target, None).await?.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                if line(&String::from_utf8_lossy(&rest[..end])).is_break() {
                    return Ok(());
                }
                rest.drain(..=end);
            }
            if rest.len() > MAX_LINE_BYTES {
                return Err(self.broken(&"a line has no end"));
            }
        }
        Ok(())
    }

    async fn document<T: DeserializeOwned>(
        &self,
        response: http::Response<Incoming>,
    ) -> Result<T, ClientError> {
        let bytes = self.bytes(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    async fn bytes(&self, response: http::Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES);
        let body = body.collect().await;
        let body = body.map_err(|error| self.broken(&error))?;
        Ok(body.to_bytes())
    }

    /// Asks, and sees to it that it was not refused.
    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<http::Response<Incoming>, ClientError> {
        let body = body.map(|(kind, bytes)| (kind, whole(bytes)));
        self.send_stream(method, target, body).await
    }

    /// The same with a body that comes a piece at a time.
    async fn send_stream(
        &self,
        method: Method,
        target: &str,
        body: Option<(&str, Sent)>,
    ) -> Result<http::Response<Incoming>, ClientError> {
        let response = self.exchange(method, target, body).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = self.bytes(response).await?;
        Err(match serde_json::from_slice::<view::Error>(&bytes) {
            Ok(error) => ClientError::Refused(Box::new(error)),
            Err(_) => self.broken(&format!("status {status}")),
        })
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Option<(&str, Sent)>,
    ) -> Result<http::Response<Incoming>, ClientError> {
        let mut sender = self.connect().await?;
        let mut request = http::Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.host());
        if let Some(token) = self.token() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some((kind, body)) => {
                request = request.header(header::CONTENT_TYPE, kind);
                body
            }
            None => whole(Bytes::new()),
        };
        let request = request.body(body);
        let request = request.map_err(|error| self.broken(&error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.broken(&error))?;
        if let Some(note) = response.headers().get("sampan-unanswered") {
            let note = String::from_utf8_lossy(note.as_bytes()).into_owned();
            UNANSWERED.lock().insert(note);
        }
        note_stale(response.headers());
        Ok(response)
    }
}

/// What answers have said of nodes that have not given theirs.
static UNANSWERED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Which nodes have not answered what was asked in this process so far, and why.
pub(crate) fn unanswered() -> BTreeSet<String> {
    std::mem::take(&mut UNANSWERED.lock())
}

/// Since when the store of the node is away, as its last answer said.
static STALE_SINCE: Mutex<Option<SystemTime>> = Mutex::new(None);

/// Since when the store of the node is away: what was shown may be from before.
pub(crate) fn stale_since() -> Option<SystemTime> {
    *STALE_SINCE.lock()
}

fn note_stale(headers: &http::HeaderMap) {
    let since = headers.get("sampan-stale-since");
    let since = since.and_then(|since| since.to_str().ok()?.parse().ok());
    let since = since.map(|since| SystemTime::UNIX_EPOCH + Duration::from_millis(since));
    *STALE_SINCE.lock() = since;
}

/// A body that is there.
fn whole(bytes: Bytes) -> Sent {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A text as part of a path or query: all but the unreserved characters of RFC 3986 is encoded.
pub(crate) fn quoted(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_target() {
        assert_eq!(quoted("web-1-0"), "web-1-0");
        assert_eq!(quoted("../a?b=c&d#e f"), "..%2Fa%3Fb%3Dc%26d%23e%20f");
    }
}
