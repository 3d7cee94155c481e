//! The smallest WASI 0.3 web service: every request is answered with one line of text.
//!
//! In WASI 0.3 the handler is an async function that returns its response. While one request waits, the
//! same instance can serve others, which is why Sampan keeps such an instance for the life of its pod.

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

struct Hello;

wasip3::http::service::export!(Hello);

impl Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let headers = Fields::new();
        // `set` fails only for a malformed or forbidden header, and this one is neither.
        let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
        let (mut body, body_reader) = wit_stream::new();
        // Dropped unused, the writer resolves the trailers to this default: none.
        let (_, no_trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(headers, Some(body_reader), no_trailers);

        // The host reads the body only after it has the response, so the writing goes on beside it.
        wit_bindgen::spawn_local(async move {
            body.write_all(b"Hello from Sampan!\n".to_vec()).await;
        });
        Ok(response)
    }
}
