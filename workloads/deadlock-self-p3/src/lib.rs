//! Waits for what only it could do: what the proof of a deadlock is tried on (WASI 0.3).
//!
//! | request | what it does |
//! |---|---|
//! | `GET /read-own-stream` | reads a stream whose only writer it holds |
//! | `GET /await-own-future` | awaits a future whose only writer it holds |
//! | `GET /empty-set` | waits on a set in which nothing is |
//! | `GET /body-before-send` | writes a request's body before it sends the request |
//! | `GET /trailers-before-send` | writes a request's trailers before it sends the request |
//! | anything else | answers `ok` |
//!
//! Each of them waits before it answers. `/empty-set` waits within a call of the host, so that the instance
//! answers nothing else either; during the others it does.

use request_target::Target;
use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

struct DeadlockSelf;

wasip3::http::service::export!(DeadlockSelf);

impl Guest for DeadlockSelf {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = Target::parse(&request.get_path_with_query().unwrap_or_default());
        let path = target.map_or(String::new(), |target| target.path);
        match path.as_str() {
            "/read-own-stream" => read_own_stream().await,
            "/await-own-future" => await_own_future().await,
            "/empty-set" => wait_on_empty_set(),
            "/body-before-send" => body_before_send().await?,
            "/trailers-before-send" => trailers_before_send().await?,
            _ => {}
        }
        Ok(ok())
    }
}

async fn read_own_stream() {
    let (writer, mut reader) = wit_stream::new::<u8>();
    let _ = reader.read(Vec::with_capacity(1)).await;
    drop(writer);
}

async fn await_own_future() {
    let (writer, reader) = wit_future::new(|| Ok(None));
    let _: Result<Option<Fields>, ErrorCode> = reader.await;
    drop(writer);
}

/// Waits with a call of its own, because the bindings refuse a wait without anything to wait for.
#[inline(never)]
fn wait_on_empty_set() {
    let mut event = [0; 2];
    // SAFETY: both are built-ins of the Component Model with these very parameters. The set is new and
    // never dropped, and the host writes at most two words to where it is told, which live until then.
    unsafe { waitable_set_wait(waitable_set_new(), &mut event) };
}

#[link(wasm_import_module = "$root")]
unsafe extern "C" {
    #[link_name = "[waitable-set-new]"]
    fn waitable_set_new() -> u32;
    #[link_name = "[waitable-set-wait]"]
    fn waitable_set_wait(set: u32, event: &mut [u32; 2]) -> u32;
}

async fn body_before_send() -> Result<(), ErrorCode> {
    let (mut body, body_reader) = wit_stream::new();
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), Some(body_reader), no_trailers, None);
    body.write_all(b"nobody reads this yet\n".to_vec()).await;
    drop(body);
    send(request).await
}

async fn trailers_before_send() -> Result<(), ErrorCode> {
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers_reader, None);
    let _ = trailers.write(Ok(None)).await;
    send(request).await
}

async fn send(request: Request) -> Result<(), ErrorCode> {
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some("nobody"));
    client::send(request).await.map(drop)
}

fn ok() -> Response {
    let headers = Fields::new();
    // `set` fails only for a malformed or forbidden header, and this one is neither.
    let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
    let (mut body, body_reader) = wit_stream::new();
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(body_reader), no_trailers);
    // The host reads the body only after it has the response, so the writing goes on beside it.
    wit_bindgen::spawn_local(async move {
        body.write_all(b"ok\n".to_vec()).await;
    });
    response
}
