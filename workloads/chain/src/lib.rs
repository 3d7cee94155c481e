//! Calls the next service and passes its answer on, so that a few of it make a chain or a ring (WASI 0.2).
//!
//! Its environment says who it is and whom it calls: `NAME=a`, `NEXT=http://b/`. It answers any path.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | `a <- ` and the answer of `NEXT`, with its status; without `NEXT` `end` |
//! | `GET /?hops=2` | the same, with at most that many calls behind one another; with 0 its name |
//! | `GET /?ms=100` | the same, each service waits for that many milliseconds before it calls |
//!
//! If the call fails the answer is its name and the name of the `error-code` of `wasi:http`, as in
//! `a: LoopDetected`, with 508 for this one and 502 for all others.

use plain_http::{answer, get, name, read, send, variable};
use request_target::Target;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{ErrorCode, IncomingRequest, ResponseOutparam};

struct Chain;

wasip2::http::proxy::export!(Chain);

impl Guest for Chain {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let target = Target::parse(&request.path_with_query().unwrap_or_default());
        let Some((hops, ms)) = target.as_ref().and_then(bounds) else {
            return answer(response_out, 400, "`hops` or `ms` is not a number\n");
        };
        let (status, text) = reply(hops, ms);
        answer(response_out, status, &format!("{text}\n"));
    }
}

/// How many calls there may be, if there is a bound, and how long to wait before each.
fn bounds(target: &Target) -> Option<(Option<u64>, u64)> {
    let hops = match target.value("hops") {
        Some(hops) => Some(hops.parse().ok()?),
        None => None,
    };
    Some((hops, target.number("ms", 0)?))
}

fn reply(hops: Option<u64>, ms: u64) -> (u16, String) {
    let own = variable("NAME").unwrap_or_else(|| "chain".to_owned());
    let Some(next) = variable("NEXT") else {
        return (200, "end".to_owned());
    };
    if hops == Some(0) {
        return (200, own);
    }
    if ms > 0 {
        subscribe_duration(ms.saturating_mul(1_000_000)).block();
    }
    let hops = hops.map_or(String::new(), |hops| format!("&hops={}", hops - 1));
    match call_next(&format!("{next}?ms={ms}{hops}")) {
        Ok((status, text)) => (status, format!("{own} <- {text}")),
        Err(error @ ErrorCode::LoopDetected) => (508, format!("{own}: {}", name(&error))),
        Err(error) => (502, format!("{own}: {}", name(&error))),
    }
}

/// The status and the text that `url` answers. A function of its own, so that a backtrace names it.
#[inline(never)]
fn call_next(url: &str) -> Result<(u16, String), ErrorCode> {
    let request = get(url).ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let response = send(request)?;
    let status = response.status();
    let body = response
        .consume()
        .expect("the body is taken for the first time");
    let bytes = read(&body).ok_or(ErrorCode::HttpResponseIncomplete)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok((status, text.trim_end().to_owned()))
}
