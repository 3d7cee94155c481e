//! Answers a request with a text of any content type (WASI 0.2).

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};

/// Answers with `text`.
pub fn answer(response_out: ResponseOutparam, status: u16, content_type: &str, text: &str) {
    let headers = Fields::new();
    // `set` fails only for a malformed or forbidden header, and this one is neither.
    let _ = headers.set("content-type", &[content_type.as_bytes().to_vec()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(response_out, Ok(response));
    let stream = body.write().expect("the stream is taken once");
    // This call takes no more than 4 KiB. A client that has gone away needs no answer.
    let _ = text
        .as_bytes()
        .chunks(4096)
        .try_for_each(|piece| stream.blocking_write_and_flush(piece));
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
