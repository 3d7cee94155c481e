//! Takes its time, burns CPU, dies or hangs: what timeouts, draining and the watchdog are tried on (WASI 0.2).
//!
//! | request | answer |
//! |---|---|
//! | `GET /?ms=200` | one line, after that many milliseconds |
//! | `GET /stream?ms=2000&parts=10` | the head at once, then that many lines spread evenly over the time |
//! | `GET /spin` | none: it computes for ever |
//! | `GET /die-after-head` | the head and one line, then a trap |
//! | `GET /hang-after-head` | the head, then nothing, and never an end |

use request_target::Target;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

/// How long `/` takes if the query does not say, in milliseconds.
const DEFAULT_MS: u64 = 200;
/// How long `/stream` takes if the query does not say, in milliseconds.
const DEFAULT_STREAM_MS: u64 = 2000;
/// How many lines `/stream` sends if the query does not say.
const DEFAULT_PARTS: u64 = 10;

struct Slow;

wasip2::http::proxy::export!(Slow);

impl Guest for Slow {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let Some(target) = Target::parse(&request.path_with_query().unwrap_or_default()) else {
            return answer(response_out, 400, "bad request target\n");
        };
        match target.path.as_str() {
            "/" => wait(&target, response_out),
            "/stream" => stream(&target, response_out),
            "/spin" => spin(),
            "/die-after-head" => die_after_head(response_out),
            "/hang-after-head" => hang_after_head(response_out),
            _ => answer(response_out, 404, "not found\n"),
        }
    }
}

fn wait(target: &Target, response_out: ResponseOutparam) {
    let Some(ms) = target.number("ms", DEFAULT_MS) else {
        return answer(response_out, 400, "`ms` is not a number\n");
    };
    sleep(ms.saturating_mul(1_000_000));
    answer(response_out, 200, &format!("waited {ms} ms\n"));
}

fn stream(target: &Target, response_out: ResponseOutparam) {
    let ms = target.number("ms", DEFAULT_STREAM_MS);
    let parts = target
        .number("parts", DEFAULT_PARTS)
        .filter(|parts| *parts > 0);
    let (Some(ms), Some(parts)) = (ms, parts) else {
        return answer(response_out, 400, "`ms` or `parts` is not a number\n");
    };
    let body = begin(response_out, 200);
    let stream = body
        .write()
        .expect("the stream is taken for the first time");
    for part in 1..=parts {
        sleep(ms.saturating_mul(1_000_000) / parts);
        if send(&stream, &format!("part {part} of {parts}\n")).is_err() {
            return; // the client has gone
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// Never returns and never calls the host, so only the host's own clock can end it.
#[inline(never)]
fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        // Keeps the compiler from seeing that nothing comes of it.
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

#[inline(never)]
fn die_after_head(response_out: ResponseOutparam) {
    let body = begin(response_out, 200);
    let stream = body
        .write()
        .expect("the stream is taken for the first time");
    let _ = send(&stream, "these are the last words\n");
    std::process::abort()
}

fn hang_after_head(response_out: ResponseOutparam) {
    let _body = begin(response_out, 200);
    loop {
        sleep(u64::MAX);
    }
}

fn sleep(nanoseconds: u64) {
    subscribe_duration(nanoseconds).block();
}

/// Hands the head to the host and returns the body, still to be written.
fn begin(response_out: ResponseOutparam, status: u16) -> OutgoingBody {
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

/// Sends a line and waits until the host has taken it.
fn send(stream: &OutputStream, line: &str) -> Result<(), StreamError> {
    stream.blocking_write_and_flush(line.as_bytes())
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let body = begin(response_out, status);
    let stream = body
        .write()
        .expect("the stream is taken for the first time");
    // A failed write means that the client has gone, and then nobody is left to tell.
    let _ = send(&stream, text);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
