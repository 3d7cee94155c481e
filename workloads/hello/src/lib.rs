//! The smallest WASI 0.2 web service: every request is answered with one line of text.
//!
//! It imports `wasi:http` and `wasi:io` and nothing else, so a pod of it needs no grant at all.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(_request: IncomingRequest, response_out: ResponseOutparam) {
        let headers = Fields::new();
        // It fails only for a malformed or forbidden header, and this one is neither. Unlike `set` it
        // takes no heap: a guest that never allocates never grows its memory, which is half of what
        // a fresh instance of it costs.
        let _ = headers.append("content-type", b"text/plain");
        let response = OutgoingResponse::new(headers);
        let body = response
            .body()
            .expect("the body is taken for the first time");
        // From here on the host may send the head: status and headers are settled.
        ResponseOutparam::set(response_out, Ok(response));

        let stream = body
            .write()
            .expect("the stream is taken for the first time");
        // A failed write means that the client has gone, and then nobody is left to tell.
        let _ = stream.blocking_write_and_flush(b"Hello from Sampan!\n");
        // A body can be finished only when its stream is gone.
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}
