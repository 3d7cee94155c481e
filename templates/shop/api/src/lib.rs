//! The shop's API: JSON for the pages in `public/`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/products` | what is for sale, each with its `stock` |
//! | `POST /api/orders` with `{"product": "boat", "quantity": 1}` | 201 and the order; 409 if there are not so many left |
//! | `GET /api/orders` | the newest orders, the last one first |

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Value, json};
use shop_records::{Error, Queue, Shop, said};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

/// The most of one product in one order.
const MAX_QUANTITY: u32 = 10;
/// How many orders a list has.
const NEWEST: u64 = 20;
/// The largest body of a request, in bytes.
const MAX_BODY: usize = 4096;

struct Api;

wasip2::http::proxy::export!(Api);

/// The body of a `POST /api/orders`.
#[derive(Deserialize)]
struct Wanted {
    product: String,
    quantity: u32,
}

/// A status and a body.
type Answer = (u16, Value);

impl Guest for Api {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let (status, body) = respond(&request).unwrap_or_else(|error| {
            // Printed lines are the log of the pod: `sampan logs api`.
            eprintln!("{}", said(&error));
            failed(503, "the shop's store cannot be used")
        });
        answer(response_out, status, &format!("{body}\n"));
    }
}

fn respond(request: &IncomingRequest) -> Result<Answer, Error> {
    let target = request.path_with_query().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    match (request.method(), path) {
        (Method::Get, "/api/products") => products(),
        (Method::Get, "/api/orders") => Ok((200, json!(Shop::open()?.newest(NEWEST)?))),
        (Method::Post, "/api/orders") => place(request),
        (_, "/api/products" | "/api/orders") => Ok(failed(405, "no such method here")),
        _ => Ok(failed(404, "there is nothing here")),
    }
}

fn products() -> Result<Answer, Error> {
    let shop = Shop::open()?;
    let mut list = Vec::new();
    for product in shop.products()? {
        let mut shown = json!(product);
        shown["stock"] = json!(shop.stock(&product)?);
        list.push(shown);
    }
    Ok((200, json!(list)))
}

fn place(request: &IncomingRequest) -> Result<Answer, Error> {
    let Some(body) = read(request) else {
        return Ok(failed(400, "the body broke off, or is too long"));
    };
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return Ok(failed(400, &error.to_string())),
    };
    if !(1..=MAX_QUANTITY).contains(&wanted.quantity) {
        let problem = format!("`quantity` is not 1 to {MAX_QUANTITY}");
        return Ok(failed(400, &problem));
    }
    let shop = Shop::open()?;
    let mut products = shop.products()?.into_iter();
    let Some(product) = products.find(|product| product.id == wanted.product) else {
        return Ok(failed(400, "there is no such product"));
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    match shop.place(&Queue::open()?, product, wanted.quantity, now)? {
        Some(order) => {
            println!("order {} of {}", order.number, order.product.id);
            Ok((201, json!(order)))
        }
        None => Ok(failed(409, "there are not so many left")),
    }
}

fn failed(status: u16, problem: &str) -> Answer {
    (status, json!({ "error": problem }))
}

/// The body of a request; `None` if it breaks off or is too long.
fn read(request: &IncomingRequest) -> Option<Vec<u8>> {
    let body = request.consume().expect("taken for the first time");
    let stream = body.stream().expect("taken for the first time");
    let mut bytes = Vec::new();
    while bytes.len() <= MAX_BODY {
        match stream.blocking_read(MAX_BODY as u64) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => return Some(bytes),
            Err(StreamError::LastOperationFailed(_)) => return None,
        }
    }
    None
}

/// Answers with JSON.
fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.append("content-type", b"application/json");
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
