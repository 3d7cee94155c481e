//! The shop's API (WASI 0.2).
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/products` | what is for sale, each with its `stock` |
//! | `POST /api/orders` with `{"product": "boat", "quantity": 1}` | 201 and the order; 409 if there are not so many left |
//! | `GET /api/orders` | the newest orders, the last one first |
//! | `GET /api/orders/NUMBER` | one order |
//! | `POST /api/crash` | none: it panics, to show how that is told |
//!
//! Bodies are JSON. An error is `{"error": "what is wrong"}`.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Value, json};
use shop_records::{Error, Product, Queue, Shop, said};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, Method, ResponseOutparam};

/// The most of one product in one order.
const MAX_QUANTITY: u32 = 10;
/// How many orders a list has.
const NEWEST: u64 = 20;

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
            eprintln!("{}", said(&error));
            failed(503, "the shop's store cannot be used")
        });
        shop_http::answer(
            response_out,
            status,
            "application/json",
            &format!("{body}\n"),
        );
    }
}

fn respond(request: &IncomingRequest) -> Result<Answer, Error> {
    let target = request.path_with_query().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method(), &parts[..]) {
        (Method::Get, ["api", "products"]) => products(),
        (Method::Get, ["api", "orders"]) => Ok((200, json!(Shop::open()?.newest(NEWEST)?))),
        (Method::Get, ["api", "orders", number]) => order(number),
        (Method::Post, ["api", "orders"]) => place(request),
        (Method::Post, ["api", "crash"]) => panic!("asked to crash"),
        (_, ["api", "products" | "orders" | "crash"]) => Ok(failed(405, "no such method here")),
        _ => Ok(failed(404, "there is nothing here")),
    }
}

fn products() -> Result<Answer, Error> {
    let shop = Shop::open()?;
    let mut list = Vec::new();
    for product in shop.products()? {
        let Product { id, name, cents } = &product;
        list.push(
            json!({ "id": id, "name": name, "cents": cents, "stock": shop.stock(&product)? }),
        );
    }
    Ok((200, json!(list)))
}

fn order(number: &str) -> Result<Answer, Error> {
    let found = match number.parse() {
        Ok(number) => Shop::open()?.order(number)?,
        Err(_) => None,
    };
    Ok(found.map_or_else(
        || failed(404, "there is no such order"),
        |order| (200, json!(order)),
    ))
}

fn place(request: &IncomingRequest) -> Result<Answer, Error> {
    let body = request.consume().expect("the body is taken once");
    let Some(body) = plain_http::read(&body) else {
        return Ok(failed(400, "the body broke off"));
    };
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return Ok(failed(400, &error.to_string())),
    };
    if !(1..=MAX_QUANTITY).contains(&wanted.quantity) {
        return Ok(failed(
            400,
            &format!("`quantity` is not 1 to {MAX_QUANTITY}"),
        ));
    }
    let shop = Shop::open()?;
    let mut products = shop.products()?.into_iter();
    let Some(product) = products.find(|product| product.id == wanted.product) else {
        return Ok(failed(400, "there is no such product"));
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let placed = shop.place(&Queue::open()?, product, wanted.quantity, now)?;
    let Some(order) = placed else {
        return Ok(failed(409, "there are not so many left"));
    };
    println!(
        "order {}: {} × {}",
        order.number, order.quantity, order.product.id
    );
    Ok((201, json!(order)))
}

fn failed(status: u16, problem: &str) -> Answer {
    (status, json!({ "error": problem }))
}
