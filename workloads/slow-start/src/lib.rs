//! Takes a while until it has started (WASI 0.2).
//!
//! It is meant for `isolation = "pod"`: the time counts from the start of the instance.
//!
//! | request | answer |
//! |---|---|
//! | `GET /started` | 503 for the first `START_MS` milliseconds, 200 from then on |
//! | `GET /` | 503 and then 200 in the same way, with how many milliseconds the instance is up |
//!
//! `START_MS` is in its environment, otherwise it is 1000. With `INIT_MS=200` the making of the instance
//! itself takes that long.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use plain_http::{answer, variable};
use request_target::Target;
use wasip2::clocks::monotonic_clock::{now, subscribe_duration};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

/// How long it takes if the environment does not say, in milliseconds.
const DEFAULT_START_MS: u64 = 1000;

static STARTED_NS: AtomicU64 = AtomicU64::new(0);

struct SlowStart;

wasip2::http::proxy::export!(SlowStart);

/// Runs when the instance is made.
// SAFETY: no other function has this name, and its type is the one that the host calls.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    STARTED_NS.store(now(), Relaxed);
    if let Some(ms) = number("INIT_MS") {
        subscribe_duration(ms.saturating_mul(1_000_000)).block();
    }
}

impl Guest for SlowStart {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let up_ms = (now() - STARTED_NS.load(Relaxed)) / 1_000_000;
        let started = up_ms >= number("START_MS").unwrap_or(DEFAULT_START_MS);
        let status = if started { 200 } else { 503 };
        match Target::parse(&request.path_with_query().unwrap_or_default()) {
            Some(target) if target.path == "/" => {
                answer(response_out, status, &format!("up for {up_ms} ms\n"));
            }
            Some(target) if target.path == "/started" => {
                let text = if started { "started\n" } else { "starting\n" };
                answer(response_out, status, text);
            }
            Some(_) => answer(response_out, 404, "not found\n"),
            None => answer(response_out, 400, "bad request target\n"),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    variable(name)?.parse().ok()
}
