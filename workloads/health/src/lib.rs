//! Says how it is through the exports of `sampan:pod`, as it is told to (WASI 0.2).
//!
//! It is meant for `isolation = "pod"`: what is switched lives as long as the instance.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | `ok` |
//! | `GET /calls` | how often each export was called, as in `ready 3`, one a line |
//! | `POST /ready/off` | 204, once the export fails; `on`, `hang`, `spin` and `crash` are the other ways |
//! | `POST /started/…`, `/live/…`, `/pre-stop/…` | the same with the other exports |
//!
//! `READY=off` and the like in its environment say how it begins; otherwise all is on. `pre-stop` says on
//! stdout that it was called, and takes `PRE_STOP_MS` milliseconds.

use health_switches::{
    Mode, Part, asked, calls, crash_when_asked, reason, spin_when_asked, switch_by_environment,
    switch_by_path,
};
use plain_http::{answer, variable};
use request_target::Target;
use wasip2::cli::environment::get_environment;
use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, Method, ResponseOutparam};

/// The bindings for `wit/world.wit`.
mod bindings {
    wit_bindgen::generate!({ path: "wit", generate_all });
}

struct Health;

wasip2::http::proxy::export!(Health);
bindings::export!(Health with_types_in bindings);

/// Runs when the instance is made.
// SAFETY: no other function has this name, and its type is the one that the host calls.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    switch_by_environment(get_environment());
}

impl bindings::exports::sampan::pod::health::Guest for Health {
    fn started() -> Result<(), String> {
        act(Part::Started)
    }

    fn ready() -> Result<(), String> {
        act(Part::Ready)
    }

    fn live() -> Result<(), String> {
        act(Part::Live)
    }
}

impl bindings::exports::sampan::pod::lifecycle::Guest for Health {
    fn pre_stop() -> Result<(), String> {
        let _ = get_stdout().blocking_write_and_flush(b"pre-stop was called\n");
        if let Some(ms) = variable("PRE_STOP_MS").and_then(|ms| ms.parse::<u64>().ok()) {
            subscribe_duration(ms.saturating_mul(1_000_000)).block();
        }
        act(Part::PreStop)
    }
}

impl Guest for Health {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let target = Target::parse(&request.path_with_query().unwrap_or_default());
        let path = target.map_or(String::new(), |target| target.path);
        match (request.method(), path.as_str()) {
            (Method::Get, "/") => answer(response_out, 200, "ok\n"),
            (Method::Get, "/calls") => answer(response_out, 200, &calls()),
            (Method::Post, path) if switch_by_path(path) => answer(response_out, 204, ""),
            _ => answer(response_out, 404, "not found\n"),
        }
    }
}

fn act(part: Part) -> Result<(), String> {
    match asked(part) {
        Mode::On => Ok(()),
        Mode::Off => Err(reason(part)),
        Mode::Hang => hang_when_asked(),
        Mode::Spin => spin_when_asked(),
        Mode::Crash => crash_when_asked(),
    }
}

#[inline(never)]
fn hang_when_asked() -> ! {
    loop {
        subscribe_duration(u64::MAX).block();
    }
}
