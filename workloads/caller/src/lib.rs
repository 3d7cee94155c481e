//! Calls another service and passes its answer on (WASI 0.2).
//!
//! `GET /call?url=http://hello/` answers with the status, the `content-type` and the body of what the URL
//! answers, and with that status once more in `x-upstream-status`, which tells it from an answer of the
//! caller's own. If the call fails the answer is a 502 whose body is one line: the name of the
//! `error-code` of `wasi:http`, such as `HttpRequestDenied` where the spec does not allow the call.

use request_target::Target;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, IncomingResponse, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

/// The most that is moved at a time, in bytes.
const PIECE: u64 = 64 * 1024;

struct Caller;

wasip2::http::proxy::export!(Caller);

impl Guest for Caller {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let Some(target) = Target::parse(&request.path_with_query().unwrap_or_default()) else {
            return answer(response_out, 400, "bad request target\n");
        };
        if target.path != "/call" {
            return answer(response_out, 404, "not found\n");
        }
        let Some(outgoing) = target.value("url").and_then(get) else {
            return answer(
                response_out,
                400,
                "`url` is missing or not an http or https URL\n",
            );
        };
        match call(outgoing) {
            Ok(upstream) => pass_on(&upstream, response_out),
            Err(error) => answer(response_out, 502, &format!("{}\n", name(&error))),
        }
    }
}

/// A GET of `url`. Returns `None` if that is no URL that can be called.
fn get(url: &str) -> Option<OutgoingRequest> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let rest = rest.split('#').next().unwrap_or_default();
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

/// Sends the request and waits for the head of the answer.
fn call(request: OutgoingRequest) -> Result<IncomingResponse, ErrorCode> {
    let pending = outgoing_handler::handle(request, None)?;
    pending.subscribe().block();
    let response = pending.get().expect("the wait is over");
    response.expect("the response is taken for the first time")
}

fn pass_on(upstream: &IncomingResponse, response_out: ResponseOutparam) {
    let status = upstream.status();
    let headers = Fields::new();
    let _ = headers.set("content-type", &upstream.headers().get("content-type"));
    let _ = headers.set("x-upstream-status", &[status.to_string().into_bytes()]);
    let output = begin(response_out, status, headers);

    let input = upstream
        .consume()
        .expect("the body is taken for the first time");
    let source = input
        .stream()
        .expect("the stream is taken for the first time");
    let sink = output
        .write()
        .expect("the stream is taken for the first time");
    let end = loop {
        // The bytes go from stream to stream inside the host and never enter the memory of this guest.
        if let Err(end) = sink.blocking_splice(&source, PIECE) {
            break end;
        }
    };
    drop(sink);
    // If the answer broke off, `finish` is left out, and the host cuts this one off too.
    if let StreamError::Closed = end {
        let _ = OutgoingBody::finish(output, None);
    }
}

/// The name of an error without what comes with it: `ErrorCode::DnsError(…)` is `DnsError`.
fn name(error: &ErrorCode) -> String {
    let text = format!("{error:?}");
    let text = text.trim_start_matches("ErrorCode::");
    text.split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or(text)
        .to_owned()
}

/// Hands the head to the host and returns the body, still to be written.
fn begin(response_out: ResponseOutparam, status: u16, headers: Fields) -> OutgoingBody {
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response
        .body()
        .expect("the body is taken for the first time");
    ResponseOutparam::set(response_out, Ok(response));
    body
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
    let body = begin(response_out, status, headers);
    let stream = body
        .write()
        .expect("the stream is taken for the first time");
    // A failed write means that the client has gone, and then nobody is left to tell.
    let _ = stream.blocking_write_and_flush(text.as_bytes());
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
