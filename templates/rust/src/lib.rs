//! A web service: one `handle` for every request.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Service;

wasip2::http::proxy::export!(Service);

impl Guest for Service {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        // Printed lines are the log of the pod: `sampan logs`.
        println!("asked for {path}");
        let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
        answer(response_out, 200, &format!("{greeting} from Rust at {path}\n"));
    }
}

/// Answers with a text.
fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.append("content-type", b"text/plain; charset=utf-8");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("a good status");
    let body = response.body().expect("taken for the first time");
    // From here on the host may send the head.
    ResponseOutparam::set(response_out, Ok(response));
    let stream = body.write().expect("taken for the first time");
    for piece in text.as_bytes().chunks(4096) {
        if stream.blocking_write_and_flush(piece).is_err() {
            // The client has gone.
            return;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
