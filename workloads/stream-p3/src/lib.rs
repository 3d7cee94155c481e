//! Streams in and out, and counts, with WASI 0.3.
//!
//! | request | answer |
//! |---|---|
//! | `POST /echo` | the body of the request while it arrives, with its `content-type` and its trailers |
//! | `POST /forward?url=http://b/echo` | what the URL answers to the body, which is passed on while it arrives |
//! | `GET /ticks?n=5&ms=50` | that many lines with that many milliseconds between them |
//! | `GET /count` | how many times it has been asked for, by the memory of this instance |
//! | `GET /die-after-head` | the head and one line, then a trap |

use std::sync::atomic::{AtomicU64, Ordering};

use request_target::Target;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::exports::http::handler::Guest;
use wasip3::http::client::send;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::wit_bindgen::rt::async_support::{StreamReader, StreamResult};
use wasip3::wit_bindgen::{StreamWriter, spawn_local};
use wasip3::{wit_future, wit_stream};

/// The most that is read before it is passed on, in bytes.
const PIECE: usize = 64 * 1024;
/// How many lines `/ticks` sends if the query does not say.
const DEFAULT_TICKS: u64 = 5;
/// How long `/ticks` waits between lines if the query does not say, in milliseconds.
const DEFAULT_TICK_MS: u64 = 50;

struct Stream;

wasip3::http::service::export!(Stream);

/// Lives as long as the instance.
static COUNT: AtomicU64 = AtomicU64::new(0);

impl Guest for Stream {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let Some(target) = Target::parse(&request.get_path_with_query().unwrap_or_default()) else {
            return Ok(text(400, "bad request target\n".to_owned()));
        };
        Ok(match (request.get_method(), target.path.as_str()) {
            (Method::Post, "/echo") => echo(request),
            (Method::Post, "/forward") => {
                return forward(request, target.value("url").unwrap_or_default()).await;
            }
            (Method::Get, "/ticks") => ticks(&target),
            (Method::Get, "/count") => {
                let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
                text(200, format!("{count}\n"))
            }
            (Method::Get, "/die-after-head") => begin(200, die),
            (_, "/echo" | "/forward" | "/ticks" | "/count" | "/die-after-head") => {
                text(405, "method not allowed\n".to_owned())
            }
            _ => text(404, "not found\n".to_owned()),
        })
    }
}

fn echo(request: Request) -> Response {
    let headers = Fields::new();
    // HTTP/1.1 sends trailers only if the header `trailer` has announced them.
    for name in ["content-type", "trailer"] {
        let _ = headers.set(name, &request.get_headers().get(name));
    }
    // Dropped unused, the writer resolves to this default: the request has been handled.
    let (_, handled) = wit_future::new(|| Ok(()));
    let (input, trailers) = Request::consume_body(request, handled);
    let (output, body) = wit_stream::new();
    // The future of the request's trailers becomes that of the answer's. If the request breaks off it
    // resolves to an error, and the host cuts the answer off, so that the client knows it is not whole.
    let (response, _sent) = Response::new(headers, Some(body), trailers);
    spawn_local(copy(input, output));
    response
}

/// Passes a request on. Both bodies go from host to host: none of their bytes is in this guest.
async fn forward(request: Request, url: &str) -> Result<Response, ErrorCode> {
    let (authority, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (_, handled) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, handled);
    let (outgoing, _sent) = Request::new(Fields::new(), Some(body), trailers, None);
    let set = outgoing
        .set_method(&Method::Post)
        .and_then(|()| outgoing.set_scheme(Some(&Scheme::Http)))
        .and_then(|()| outgoing.set_authority(Some(authority)))
        .and_then(|()| outgoing.set_path_with_query(Some(&format!("/{path}"))));
    set.map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let answer = send(outgoing).await?;
    let (_, handled) = wit_future::new(|| Ok(()));
    let (body, trailers) = Response::consume_body(answer, handled);
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    Ok(response)
}

/// Copies piece by piece until either side goes away: a slow reader slows the sender down.
async fn copy(mut input: StreamReader<u8>, mut output: StreamWriter<u8>) {
    let mut buffer = Vec::with_capacity(PIECE);
    while let (StreamResult::Complete(_), piece) = input.read(buffer).await {
        // What comes back is what was not taken: nothing, unless the client has gone.
        buffer = output.write_all(piece).await;
        if !buffer.is_empty() {
            return;
        }
    }
}

fn ticks(target: &Target) -> Response {
    let (Some(n), Some(ms)) = (
        target.number("n", DEFAULT_TICKS),
        target.number("ms", DEFAULT_TICK_MS),
    ) else {
        return text(400, "`n` or `ms` is not a number\n".to_owned());
    };
    begin(200, async move |mut body| {
        for tick in 1..=n {
            if tick > 1 {
                wait_for(ms.saturating_mul(1_000_000)).await;
            }
            if !body
                .write_all(format!("tick {tick}\n").into_bytes())
                .await
                .is_empty()
            {
                return; // the client has gone
            }
        }
    })
}

async fn die(mut body: StreamWriter<u8>) {
    body.write_all(b"these are the last words\n".to_vec()).await;
    std::process::abort()
}

fn text(status: u16, text: String) -> Response {
    begin(status, async move |mut body| {
        body.write_all(text.into_bytes()).await;
    })
}

/// A plain text response whose body `write` writes. The host reads the body only after it has the
/// response, so the writing goes on beside it.
fn begin(status: u16, write: impl AsyncFnOnce(StreamWriter<u8>) + 'static) -> Response {
    let headers = Fields::new();
    // `set` fails only for a malformed or forbidden header, and this one is neither.
    let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
    let (body, body_reader) = wit_stream::new();
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(body_reader), no_trailers);
    let _ = response.set_status_code(status);
    spawn_local(async move { write(body).await });
    response
}
