//! Sends the request body back while it still arrives, trailers included (WASI 0.2).
//!
//! | request | answer |
//! |---|---|
//! | `GET /headers` | the request headers, one `name: value` a line, sorted |
//! | anything else | the body of the request, with its `content-type`, and its trailers |
//!
//! At most 64 KiB of a body are in memory at a time, however long it is: a slow reader slows the
//! sender down.

use std::io::Write;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
    Trailers,
};

/// The most that is read before it is passed on, in bytes.
const PIECE: u64 = 64 * 1024;

struct Echo;

wasip2::http::proxy::export!(Echo);

impl Guest for Echo {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        if path.split('?').next() == Some("/headers") {
            list_headers(&request.headers(), response_out);
        } else {
            echo(request, response_out);
        }
    }
}

fn echo(request: IncomingRequest, response_out: ResponseOutparam) {
    let headers = Fields::new();
    // HTTP/1.1 sends trailers only if the header `trailer` has announced them.
    for name in ["content-type", "trailer"] {
        let _ = headers.set(name, &request.headers().get(name));
    }
    let output = begin(headers, response_out);
    let input = request
        .consume()
        .expect("the body is taken for the first time");
    // Without `finish` the host cuts the answer off, so that the client knows it is not whole.
    if copy(&input, &output).is_ok()
        && let Ok(trailers) = trailers_of(input)
    {
        let _ = OutgoingBody::finish(output, trailers);
    }
}

/// Copies piece by piece until the request body ends. Fails if either side goes away before.
fn copy(input: &IncomingBody, output: &OutgoingBody) -> std::io::Result<()> {
    use wasip2::io::streams::StreamError;

    let source = input
        .stream()
        .expect("the stream is taken for the first time");
    let mut sink = output
        .write()
        .expect("the stream is taken for the first time");
    loop {
        match source.blocking_read(PIECE) {
            Ok(piece) => {
                sink.write_all(&piece)?;
                // Each piece leaves before the next is read.
                sink.blocking_flush().map_err(std::io::Error::other)?;
            }
            Err(StreamError::Closed) => return Ok(()),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(std::io::Error::other(error));
            }
        }
    }
}

/// Waits for the trailers behind the body. Fails if the request broke off.
fn trailers_of(body: IncomingBody) -> Result<Option<Trailers>, ()> {
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    trailers
        .get()
        .and_then(Result::ok)
        .and_then(Result::ok)
        .ok_or(())
}

fn list_headers(headers: &Fields, response_out: ResponseOutparam) {
    let mut lines: Vec<Vec<u8>> = headers
        .entries()
        .into_iter()
        .map(|(name, value)| [name.as_bytes(), b": ", &value, b"\n"].concat())
        .collect();
    lines.sort();

    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
    let output = begin(headers, response_out);
    let mut stream = output
        .write()
        .expect("the stream is taken for the first time");
    // A failed write means that the client has gone, and then nobody is left to tell.
    let _ = stream.write_all(&lines.concat());
    drop(stream);
    let _ = OutgoingBody::finish(output, None);
}

/// Hands the head of a 200 to the host and returns the body, still to be written.
fn begin(headers: Fields, response_out: ResponseOutparam) -> OutgoingBody {
    let response = OutgoingResponse::new(headers);
    let body = response
        .body()
        .expect("the body is taken for the first time");
    ResponseOutparam::set(response_out, Ok(response));
    body
}
