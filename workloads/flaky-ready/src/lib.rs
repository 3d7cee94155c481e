//! Becomes ready and unready, healthy and unhealthy, by order or by the clock (WASI 0.2).
//!
//! It is meant for `isolation = "pod"`: what is switched, and the count, live as long as the instance.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | how many times this instance has been asked |
//! | `GET /ready` | 200 or 503: what was last switched, otherwise what the clock says |
//! | `GET /healthz` | 200 or 503: what was last switched, 200 before |
//! | `POST /ready/on`, `/ready/off`, `/live/on`, `/live/off` | 204, once it is switched |
//! | `POST /ready/clock` | 204, and the clock says again |
//!
//! With `PERIOD_MS=500` in its environment the clock says ready for half a second from the start of the
//! instance, unready for the next half second, and so on; without it, always ready.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use plain_http::{answer, variable};
use request_target::Target;
use wasip2::clocks::monotonic_clock::now;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, Method, ResponseOutparam};

/// What `READY` is: by the clock, or one of the two that are switched.
const CLOCK: u8 = 0;
const ON: u8 = 1;
const OFF: u8 = 2;

static STARTED_NS: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);
static READY: AtomicU8 = AtomicU8::new(CLOCK);
static LIVE: AtomicBool = AtomicBool::new(true);

struct FlakyReady;

wasip2::http::proxy::export!(FlakyReady);

/// Runs when the instance is made.
// SAFETY: no other function has this name, and its type is the one that the host calls.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    STARTED_NS.store(now(), Relaxed);
}

impl Guest for FlakyReady {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let Some(target) = Target::parse(&request.path_with_query().unwrap_or_default()) else {
            return answer(response_out, 400, "bad request target\n");
        };
        match (request.method(), target.path.as_str()) {
            (Method::Get, "/") => {
                let count = COUNT.fetch_add(1, Relaxed) + 1;
                return answer(response_out, 200, &format!("{count}\n"));
            }
            (Method::Get, "/ready") => return tell(response_out, ready()),
            (Method::Get, "/healthz") => return tell(response_out, LIVE.load(Relaxed)),
            (Method::Post, "/ready/on") => READY.store(ON, Relaxed),
            (Method::Post, "/ready/off") => READY.store(OFF, Relaxed),
            (Method::Post, "/ready/clock") => READY.store(CLOCK, Relaxed),
            (Method::Post, "/live/on") => LIVE.store(true, Relaxed),
            (Method::Post, "/live/off") => LIVE.store(false, Relaxed),
            _ => return answer(response_out, 404, "not found\n"),
        }
        answer(response_out, 204, "");
    }
}

fn ready() -> bool {
    let period_ms = variable("PERIOD_MS").and_then(|ms| ms.parse::<u64>().ok());
    match (READY.load(Relaxed), period_ms) {
        (CLOCK, Some(period_ms)) if period_ms > 0 => {
            let up_ms = (now() - STARTED_NS.load(Relaxed)) / 1_000_000;
            (up_ms / period_ms).is_multiple_of(2)
        }
        (switched, _) => switched != OFF,
    }
}

fn tell(response_out: ResponseOutparam, yes: bool) {
    let (status, text) = if yes { (200, "yes\n") } else { (503, "no\n") };
    answer(response_out, status, text);
}
