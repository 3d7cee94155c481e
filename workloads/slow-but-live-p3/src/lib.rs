//! Waits for something that may still come: what must never be taken for a deadlock (WASI 0.3).
//!
//! | request | answer |
//! |---|---|
//! | `GET /timer?ms=1000` | one line, after that many milliseconds |
//! | `GET /socket?url=http://…` | how many bytes the URL answers, once it has answered them all |
//! | `POST /client` | how many bytes the request has, once the client has sent them all |
//! | `GET /flood?kib=65536` | that many KiB, as fast as the client reads them |
//! | `GET /both?ms=1000&url=http://…` | whether the time or the URL came first |
//!
//! If a call fails the answer is a 502 with the name of the `error-code` of `wasi:http`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use request_target::Target;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::wit_bindgen::rt::async_support::{StreamReader, StreamResult};
use wasip3::wit_bindgen::{StreamWriter, spawn_local};
use wasip3::{wit_future, wit_stream};

/// How long is waited if the query does not say, in milliseconds.
const DEFAULT_MS: u64 = 1000;
/// How much `/flood` sends if the query does not say, in KiB.
const DEFAULT_KIB: u64 = 64 << 10;
/// The most that is moved at a time, in bytes.
const PIECE: usize = 64 << 10;

struct SlowButLive;

wasip3::http::service::export!(SlowButLive);

impl Guest for SlowButLive {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = Target::parse(&request.get_path_with_query().unwrap_or_default());
        let numbers = target
            .as_ref()
            .and_then(|t| Some((t.number("ms", DEFAULT_MS)?, t.number("kib", DEFAULT_KIB)?)));
        let (Some(target), Some((ms, kib))) = (target, numbers) else {
            return Ok(text(400, "bad request target\n"));
        };
        let url = target.value("url").and_then(get);
        let told = match (target.path.as_str(), url) {
            ("/timer", _) => Ok(wait_for_timer(ms).await),
            ("/socket", Some(url)) => wait_for_socket(url).await,
            ("/client", _) => wait_for_client(request).await,
            ("/flood", _) => return Ok(begin(200, async move |body| flood(kib, body).await)),
            ("/both", Some(url)) => wait_for_both(ms, url).await,
            ("/socket" | "/both", None) => {
                return Ok(text(400, "`url` is missing or not a URL\n"));
            }
            _ => return Ok(text(404, "not found\n")),
        };
        Ok(match told {
            Ok(told) => text(200, &told),
            Err(error) => text(502, &format!("{}\n", name(&error))),
        })
    }
}

async fn wait_for_timer(ms: u64) -> String {
    wait_for(ms.saturating_mul(1_000_000)).await;
    format!("waited {ms} ms\n")
}

async fn wait_for_socket(url: Request) -> Result<String, ErrorCode> {
    let response = client::send(url).await?;
    // Dropped unused, the writer resolves to this default: the response has been handled.
    let (_, handled) = wit_future::new(|| Ok(()));
    let (body, end) = Response::consume_body(response, handled);
    let bytes = count(body).await;
    end.await?;
    Ok(format!("{bytes} bytes came\n"))
}

async fn wait_for_client(request: Request) -> Result<String, ErrorCode> {
    let (_, handled) = wit_future::new(|| Ok(()));
    let (body, end) = Request::consume_body(request, handled);
    let bytes = count(body).await;
    end.await?;
    Ok(format!("{bytes} bytes read\n"))
}

/// How many bytes come; whether they are all of them says what comes behind the body.
async fn count(mut body: StreamReader<u8>) -> usize {
    let mut bytes = 0;
    let mut buffer = Vec::with_capacity(PIECE);
    while let (StreamResult::Complete(count), read) = body.read(buffer).await {
        bytes += count;
        buffer = read;
        buffer.clear();
    }
    bytes
}

async fn flood(kib: u64, mut body: StreamWriter<u8>) {
    let mut left = kib;
    while left > 0 {
        let piece = left.min(PIECE as u64 >> 10);
        left -= piece;
        if !body
            .write_all(vec![b'x'; (piece as usize) << 10])
            .await
            .is_empty()
        {
            return; // the client has gone
        }
    }
}

async fn wait_for_both(ms: u64, url: Request) -> Result<String, ErrorCode> {
    let mut call = pin!(client::send(url));
    let mut timer = pin!(wait_for(ms.saturating_mul(1_000_000)));
    let first = poll_fn(|context| {
        if let Poll::Ready(answer) = call.as_mut().poll(context) {
            return Poll::Ready(Some(answer));
        }
        timer.as_mut().poll(context).map(|()| None)
    });
    match first.await {
        Some(answer) => Ok(format!(
            "the answer came first: {}\n",
            answer?.get_status_code()
        )),
        None => Ok("the time came first\n".to_owned()),
    }
}

/// A GET of `url`, not sent yet. Returns `None` if that is no `http` URL.
fn get(url: &str) -> Option<Request> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers, None);
    request.set_scheme(Some(&Scheme::Http)).ok()?;
    request.set_authority(Some(authority)).ok()?;
    let path = if path.is_empty() { "/" } else { path };
    request.set_path_with_query(Some(path)).ok()?;
    Some(request)
}

/// The name of an error without what comes with it: `ErrorCode::DnsError(…)` is `DnsError`.
fn name(error: &ErrorCode) -> String {
    let text = format!("{error:?}");
    let text = text.trim_start_matches("ErrorCode::");
    text.split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or(text)
        .to_owned()
}

fn text(status: u16, text: &str) -> Response {
    let bytes = text.as_bytes().to_vec();
    begin(status, async move |mut body| {
        body.write_all(bytes).await;
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
