//! Says how it is through the exports of `sampan:pod`, as it is told to (WASI 0.3).
//!
//! Its exports are async functions: while one of them waits, the instance answers requests.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | `ok` |
//! | `GET /calls` | how often each export was called, as in `ready 3`, one a line |
//! | `POST /ready/off` | 204, once the export fails; `on`, `hang`, `spin` and `crash` are the other ways |
//! | `POST /started/…`, `/live/…`, `/pre-stop/…` | the same with the other exports |
//!
//! `READY=off` and the like in its environment say how it begins; otherwise all is on. Each export waits
//! for `WAIT_MS` milliseconds before it answers, if the environment says so.

use health_switches::{
    Mode, Part, asked, calls, crash_when_asked, reason, spin_when_asked, switch_by_environment,
    switch_by_path,
};
use request_target::Target;
use wasip3::cli::environment::get_environment;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

/// The bindings for `wit/world.wit`.
mod bindings {
    wasip3::wit_bindgen::generate!({
        path: "wit",
        generate_all,
        runtime_path: "wasip3::wit_bindgen::rt",
    });
}

struct Health;

wasip3::http::service::export!(Health);
bindings::export!(Health with_types_in bindings);

/// Runs when the instance is made.
// SAFETY: no other function has this name, and its type is the one that the host calls.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    switch_by_environment(get_environment());
}

impl bindings::exports::sampan::pod::health::Guest for Health {
    async fn started() -> Result<(), String> {
        act(Part::Started).await
    }

    async fn ready() -> Result<(), String> {
        act(Part::Ready).await
    }

    async fn live() -> Result<(), String> {
        act(Part::Live).await
    }
}

impl bindings::exports::sampan::pod::lifecycle::Guest for Health {
    async fn pre_stop() -> Result<(), String> {
        act(Part::PreStop).await
    }
}

impl Guest for Health {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = Target::parse(&request.get_path_with_query().unwrap_or_default());
        let path = target.map_or(String::new(), |target| target.path);
        Ok(match (request.get_method(), path.as_str()) {
            (Method::Get, "/") => text(200, "ok\n".to_owned()),
            (Method::Get, "/calls") => text(200, calls()),
            (Method::Post, path) if switch_by_path(path) => text(204, String::new()),
            _ => text(404, "not found\n".to_owned()),
        })
    }
}

async fn act(part: Part) -> Result<(), String> {
    let wait = get_environment().into_iter().find(|(k, _)| k == "WAIT_MS");
    if let Some(ms) = wait.and_then(|(_, ms)| ms.parse::<u64>().ok()) {
        wait_for(ms.saturating_mul(1_000_000)).await;
    }
    match asked(part) {
        Mode::On => Ok(()),
        Mode::Off => Err(reason(part)),
        Mode::Hang => loop {
            wait_for(u64::MAX).await;
        },
        Mode::Spin => spin_when_asked(),
        Mode::Crash => crash_when_asked(),
    }
}

fn text(status: u16, text: String) -> Response {
    let headers = Fields::new();
    // `set` fails only for a malformed or forbidden header, and this one is neither.
    let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
    let (mut body, body_reader) = wit_stream::new();
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(body_reader), no_trailers);
    let _ = response.set_status_code(status);
    // The host reads the body only after it has the response, so the writing goes on beside it.
    wit_bindgen::spawn_local(async move {
        body.write_all(text.into_bytes()).await;
    });
    response
}
