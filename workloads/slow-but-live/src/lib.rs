//! Waits for something that may still come: what must never be taken for a deadlock (WASI 0.2).
//!
//! | request | answer |
//! |---|---|
//! | `GET /timer?ms=1000` | one line, after that many milliseconds |
//! | `GET /socket?url=http://…` | how many bytes the URL answers, once it has answered them all |
//! | `POST /client` | how many bytes the request has, once the client has sent them all |
//! | `GET /flood?kib=65536` | that many KiB, as fast as the client reads them |
//! | `GET /both?ms=1000&url=http://…` | whether the time or the URL came first |
//!
//! If a call fails the answer is a 502 with the name of the `error-code` of `wasi:http`.

use plain_http::{answer, begin, get, head, name, send};
use request_target::Target;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, ResponseOutparam,
};
use wasip2::io::poll::poll;
use wasip2::io::streams::StreamError;

/// How long is waited if the query does not say, in milliseconds.
const DEFAULT_MS: u64 = 1000;
/// How much `/flood` sends if the query does not say, in KiB.
const DEFAULT_KIB: u64 = 64 << 10;
/// The most that is read at a time, in bytes.
const PIECE: u64 = 64 << 10;
/// What `/flood` sends at a time: a KiB.
const BLOCK: [u8; 1024] = [b'x'; 1024];

struct SlowButLive;

wasip2::http::proxy::export!(SlowButLive);

impl Guest for SlowButLive {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let target = Target::parse(&request.path_with_query().unwrap_or_default());
        let numbers = target
            .as_ref()
            .and_then(|t| Some((t.number("ms", DEFAULT_MS)?, t.number("kib", DEFAULT_KIB)?)));
        let (Some(target), Some((ms, kib))) = (target, numbers) else {
            return answer(response_out, 400, "bad request target\n");
        };
        let url = target.value("url").and_then(get);
        let told = match (target.path.as_str(), url) {
            ("/timer", _) => Ok(wait_for_timer(ms)),
            ("/socket", Some(url)) => wait_for_socket(url),
            ("/client", _) => wait_for_client(&request),
            ("/flood", _) => return flood(kib, response_out),
            ("/both", Some(url)) => wait_for_both(ms, url),
            ("/socket" | "/both", None) => {
                return answer(response_out, 400, "`url` is missing or not a URL\n");
            }
            _ => return answer(response_out, 404, "not found\n"),
        };
        match told {
            Ok(told) => answer(response_out, 200, &told),
            Err(error) => answer(response_out, 502, &format!("{}\n", name(&error))),
        }
    }
}

#[inline(never)]
fn wait_for_timer(ms: u64) -> String {
    subscribe_duration(ms.saturating_mul(1_000_000)).block();
    format!("waited {ms} ms\n")
}

#[inline(never)]
fn wait_for_socket(url: OutgoingRequest) -> Result<String, ErrorCode> {
    let response = send(url)?;
    let body = response
        .consume()
        .expect("the body is taken for the first time");
    let bytes = count(&body).ok_or(ErrorCode::HttpResponseIncomplete)?;
    Ok(format!("{bytes} bytes came\n"))
}

#[inline(never)]
fn wait_for_client(request: &IncomingRequest) -> Result<String, ErrorCode> {
    let body = request
        .consume()
        .expect("the body is taken for the first time");
    let bytes = count(&body).ok_or(ErrorCode::ConnectionTerminated)?;
    Ok(format!("{bytes} bytes read\n"))
}

/// The length of a body, read to its end, or `None` if it breaks off before.
fn count(body: &IncomingBody) -> Option<u64> {
    let stream = body
        .stream()
        .expect("the stream is taken for the first time");
    let mut bytes = 0;
    loop {
        match stream.blocking_read(PIECE) {
            Ok(piece) => bytes += piece.len() as u64,
            Err(StreamError::Closed) => return Some(bytes),
            Err(StreamError::LastOperationFailed(_)) => return None,
        }
    }
}

#[inline(never)]
fn flood(kib: u64, response_out: ResponseOutparam) {
    let body = begin(response_out, 200);
    let stream = body
        .write()
        .expect("the stream is taken for the first time");
    for _ in 0..kib {
        if stream.blocking_write_and_flush(&BLOCK).is_err() {
            return; // the client has gone
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

#[inline(never)]
fn wait_for_both(ms: u64, url: OutgoingRequest) -> Result<String, ErrorCode> {
    let pending = outgoing_handler::handle(url, None)?;
    let (call, timer) = (
        pending.subscribe(),
        subscribe_duration(ms.saturating_mul(1_000_000)),
    );
    if !poll(&[&call, &timer]).contains(&0) {
        return Ok("the time came first\n".to_owned());
    }
    let status = head(&pending)?.status();
    Ok(format!("the answer came first: {status}\n"))
}
