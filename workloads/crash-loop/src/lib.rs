//! Crashes when its settings say so: what restarts and their growing delays are tried on (WASI 0.2).
//!
//! Each crash is a panic in a function that is named for it, with a line on stderr before.
//!
//! | environment | when it crashes |
//! |---|---|
//! | `CRASH=start` | when the instance is made |
//! | `CRASH=request` | at its first request, whatever its path |
//! | `AFTER_MS=5000` | at the first request that comes so long after the instance was made |
//! | none of these | only when it is asked to |
//!
//! | request | answer |
//! |---|---|
//! | `GET /crash` | none: it crashes |
//! | anything else | `ok` |

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use plain_http::{answer, variable};
use request_target::Target;
use wasip2::cli::stderr::get_stderr;
use wasip2::clocks::monotonic_clock::now;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

static STARTED_NS: AtomicU64 = AtomicU64::new(0);

struct CrashLoop;

wasip2::http::proxy::export!(CrashLoop);

/// Runs when the instance is made.
// SAFETY: no other function has this name, and its type is the one that the host calls.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    STARTED_NS.store(now(), Relaxed);
    if variable("CRASH").as_deref() == Some("start") {
        crash_at_start();
    }
}

impl Guest for CrashLoop {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        if variable("CRASH").as_deref() == Some("request") {
            crash_at_first_request();
        }
        let after_ms = variable("AFTER_MS").and_then(|ms| ms.parse::<u64>().ok());
        let up_ms = (now() - STARTED_NS.load(Relaxed)) / 1_000_000;
        if after_ms.is_some_and(|after_ms| up_ms >= after_ms) {
            crash_after_a_while();
        }
        match Target::parse(&request.path_with_query().unwrap_or_default()) {
            Some(target) if target.path == "/crash" => crash_as_asked(),
            _ => answer(response_out, 200, "ok\n"),
        }
    }
}

#[inline(never)]
fn crash_at_start() -> ! {
    last_words("crashing at the start");
    panic!("crashed at the start")
}

#[inline(never)]
fn crash_at_first_request() -> ! {
    last_words("crashing at the first request");
    panic!("crashed at the first request")
}

#[inline(never)]
fn crash_after_a_while() -> ! {
    last_words("crashing after AFTER_MS");
    panic!("crashed after AFTER_MS")
}

#[inline(never)]
fn crash_as_asked() -> ! {
    last_words("crashing as asked");
    panic!("crashed as asked")
}

/// Says what a panic cannot say here: `std` has no stderr without WASI 0.1.
fn last_words(text: &str) {
    let _ = get_stderr().blocking_write_and_flush(format!("{text}\n").as_bytes());
}
