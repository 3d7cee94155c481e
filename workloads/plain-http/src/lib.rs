//! Answers with text and calls a URL: what several guests need and none of them is about (WASI 0.2).

use wasip2::cli::environment::get_environment;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, OutgoingBody,
    OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

/// The most that is read at a time, in bytes.
const PIECE: u64 = 64 * 1024;

/// Hands the head to the host and returns the body, still to be written.
pub fn begin(response_out: ResponseOutparam, status: u16) -> OutgoingBody {
    let headers = Fields::new();
    // `set` fails only for a malformed or forbidden header, and this one is neither.
    let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response
        .body()
        .expect("the body is taken for the first time");
    ResponseOutparam::set(response_out, Ok(response));
    body
}

/// Answers with `text`.
pub fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let body = begin(response_out, status);
    let stream = body
        .write()
        .expect("the stream is taken for the first time");
    // This call takes no more than 4 KiB. A failed write means that the client has gone, and then
    // nobody is left to tell.
    let _ = text
        .as_bytes()
        .chunks(4096)
        .try_for_each(|piece| stream.blocking_write_and_flush(piece));
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// A GET of `url`, not sent yet. Returns `None` if that is no `http` or `https` URL.
pub fn get(url: &str) -> Option<OutgoingRequest> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&scheme)).ok()?;
    request.set_authority(Some(authority)).ok()?;
    request.set_path_with_query(Some(&path)).ok()?;
    Some(request)
}

/// Sends a request without a body and waits for the head of the answer.
pub fn send(request: OutgoingRequest) -> Result<IncomingResponse, ErrorCode> {
    let pending = outgoing_handler::handle(request, None)?;
    pending.subscribe().block();
    head(&pending)
}

/// The head of an answer that has come.
pub fn head(pending: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    let response = pending.get().expect("the wait is over");
    response.expect("the response is taken for the first time")
}

/// Reads a body to its end. Returns `None` if it breaks off before.
pub fn read(body: &IncomingBody) -> Option<Vec<u8>> {
    let stream = body
        .stream()
        .expect("the stream is taken for the first time");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(PIECE) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => return Some(bytes),
            Err(StreamError::LastOperationFailed(_)) => return None,
        }
    }
}

/// The name of an error without what comes with it: `ErrorCode::DnsError(…)` is `DnsError`.
pub fn name(error: &ErrorCode) -> String {
    let text = format!("{error:?}");
    let text = text.trim_start_matches("ErrorCode::");
    text.split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or(text)
        .to_owned()
}

/// The value of a variable of the environment.
pub fn variable(name: &str) -> Option<String> {
    let mut environment = get_environment().into_iter();
    environment.find(|(key, _)| key == name).map(|(_, v)| v)
}
