//! Counts its requests in memory, and crashes on demand (WASI 0.2).
//!
//! With `isolation = "pod"` the count rises from request to request, in each replica on its own, until
//! a crash and the restart after it take it back to 1. With `isolation = "request"`, the default of a
//! WASI 0.2 service, every answer is 1: nothing passes from one request to the next.

use std::sync::atomic::{AtomicU64, Ordering};

use request_target::Target;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Counter;

wasip2::http::proxy::export!(Counter);

/// Lives as long as the instance.
static COUNT: AtomicU64 = AtomicU64::new(0);

impl Guest for Counter {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        match Target::parse(&request.path_with_query().unwrap_or_default()) {
            Some(target) if target.path == "/crash" => crash(),
            Some(target) if target.path == "/" => {
                let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
                answer(response_out, 200, &format!("{count}\n"));
            }
            Some(_) => answer(response_out, 404, "not found\n"),
            None => answer(response_out, 400, "bad request target\n"),
        }
    }
}

/// A panic is a trap here, before anything is answered. A function of its own, so that a backtrace names it.
#[inline(never)]
fn crash() -> ! {
    panic!("asked to crash")
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    // `set` fails only for a malformed or forbidden header, and this one is neither.
    let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response
        .body()
        .expect("the body is taken for the first time");
    ResponseOutparam::set(response_out, Ok(response));
    let stream = body
        .write()
        .expect("the stream is taken for the first time");
    // A failed write means that the client has gone, and then nobody is left to tell.
    let _ = stream.blocking_write_and_flush(text.as_bytes());
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
