//! Waits for what only it could do: what the proof of a deadlock is tried on (WASI 0.2).
//!
//! A body is read by whoever gets its head. The guest that writes more than the host keeps for it, before
//! it hands out the head, waits for a reader that can come only once the wait is over.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /write-before-send?kib=4096` | writes that much of a request's body before it sends the request |
//! | `GET /poll-before-send?kib=4096` | the same, and waits for room with `poll` |
//! | `GET /write-before-set?kib=4096` | writes that much of its answer before it hands over the head |
//! | anything else | answers `ok` |
//!
//! With so few bytes that the host takes them at once, the first two answer, and the third ends as usual.

use plain_http::{answer, get};
use request_target::Target;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

/// How much is written if the query does not say, in KiB: more than a host keeps.
const DEFAULT_KIB: u64 = 4096;
/// The most that one call writes, in bytes.
const PIECE: usize = 4096;

struct DeadlockSelf;

wasip2::http::proxy::export!(DeadlockSelf);

impl Guest for DeadlockSelf {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let target = Target::parse(&request.path_with_query().unwrap_or_default());
        let kib = target
            .as_ref()
            .and_then(|target| target.number("kib", DEFAULT_KIB));
        let (Some(target), Some(kib)) = (target, kib) else {
            return answer(response_out, 400, "bad request target\n");
        };
        match target.path.as_str() {
            "/write-before-send" => {
                let written = write_before_send(kib, write_and_flush);
                answer(response_out, 200, &written);
            }
            "/poll-before-send" => {
                let written = write_before_send(kib, poll_and_write);
                answer(response_out, 200, &written);
            }
            "/write-before-set" => write_before_set(kib, response_out),
            _ => answer(response_out, 200, "ok\n"),
        }
    }
}

type Write = fn(&OutputStream, u64) -> Result<(), StreamError>;

#[inline(never)]
fn write_before_send(kib: u64, write: Write) -> String {
    let request = get("http://nobody/").expect("it is a URL");
    let body = request
        .body()
        .expect("the body is taken for the first time");
    let stream = body
        .write()
        .expect("the stream is taken for the first time");
    match write(&stream, kib) {
        Ok(()) => format!("wrote {kib} KiB to a request that is not sent\n"),
        Err(error) => format!("could not write: {error:?}\n"),
    }
}

#[inline(never)]
fn write_before_set(kib: u64, response_out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response
        .body()
        .expect("the body is taken for the first time");
    let stream = body
        .write()
        .expect("the stream is taken for the first time");
    // A failed write means that the client has gone, and then nobody is left to tell.
    let _ = write_and_flush(&stream, kib);
    drop(stream);
    ResponseOutparam::set(response_out, Ok(response));
    let _ = OutgoingBody::finish(body, None);
}

#[inline(never)]
fn write_and_flush(stream: &OutputStream, kib: u64) -> Result<(), StreamError> {
    let mut left = kib.saturating_mul(1024);
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        stream.blocking_write_and_flush(&[b'x'; PIECE][..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

#[inline(never)]
fn poll_and_write(stream: &OutputStream, kib: u64) -> Result<(), StreamError> {
    let mut left = kib.saturating_mul(1024);
    let writable = stream.subscribe();
    while left > 0 {
        writable.block();
        let room = stream.check_write()?.min(left);
        let piece = usize::try_from(room).unwrap_or(PIECE).min(PIECE);
        stream.write(&[b'x'; PIECE][..piece])?;
        left -= piece as u64;
    }
    Ok(())
}
