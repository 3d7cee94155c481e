//! Keeps the memory of every request, until its limit ends it (WASI 0.2).
//!
//! It is meant for `isolation = "pod"`: with a fresh instance for each request nothing adds up.
//!
//! | request | answer |
//! |---|---|
//! | `GET /?kib=1024` | how many KiB it holds, after that many more, each page of them written to |
//! | `GET /held` | how many KiB it holds |
//!
//! When there is no more to be had it panics.

use std::sync::Mutex;

use plain_http::answer;
use request_target::Target;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

/// How much a request takes if the query does not say, in KiB.
const DEFAULT_KIB: u64 = 1024;

/// What has been taken and is never given back.
static HELD: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

struct Leaky;

wasip2::http::proxy::export!(Leaky);

impl Guest for Leaky {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let target = Target::parse(&request.path_with_query().unwrap_or_default());
        let kib = target
            .as_ref()
            .and_then(|target| target.number("kib", DEFAULT_KIB));
        let (Some(target), Some(kib)) = (target, kib) else {
            return answer(response_out, 400, "bad request target\n");
        };
        match target.path.as_str() {
            "/" => leak(kib),
            "/held" => {}
            _ => return answer(response_out, 404, "not found\n"),
        }
        let held = HELD.lock().expect("a panic ends the instance");
        let bytes: usize = held.iter().map(Vec::len).sum();
        answer(response_out, 200, &format!("{} KiB\n", bytes / 1024));
    }
}

/// Writes to all of it, because memory that is only reserved costs the host nothing.
#[inline(never)]
fn leak(kib: u64) {
    let bytes = usize::try_from(kib.saturating_mul(1024)).unwrap_or(usize::MAX);
    let mut block = Vec::new();
    if block.try_reserve_exact(bytes).is_err() {
        out_of_memory();
    }
    block.resize(bytes, 1);
    HELD.lock().expect("a panic ends the instance").push(block);
}

#[inline(never)]
fn out_of_memory() -> ! {
    panic!("no more memory to leak")
}
