//! The shop's pages that are made for each request (WASI 0.2).
//!
//! | request | answer |
//! |---|---|
//! | `GET /orders/NUMBER` | the page of an order, from what `http://api/` says of it |
//! | `GET /orders/slow?ms=1000` | a page that took this long to make |
//!
//! `CURRENCY` in its environment is what prices are in.

use plain_http::{get, name, read, send, variable};
use request_target::Target;
use serde_json::Value;
use shop_http::answer;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

struct Web;

wasip2::http::proxy::export!(Web);

impl Guest for Web {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let Some(target) = Target::parse(&request.path_with_query().unwrap_or_default()) else {
            return answer(response_out, 400, TEXT, "bad request target\n");
        };
        let made = match target.path.strip_prefix("/orders/") {
            Some("slow") => slow(&target),
            Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => order(number),
            _ => Err((404, "there is no such page".to_owned())),
        };
        match made {
            Ok(page) => answer(response_out, 200, HTML, &page),
            Err((status, problem)) => answer(response_out, status, TEXT, &format!("{problem}\n")),
        }
    }
}

/// The page of an order, or a status and what is wrong.
fn order(number: &str) -> Result<String, (u16, String)> {
    let request = get(&format!("http://api/api/orders/{number}")).expect("it is a URL");
    let response = send(request).map_err(|error| (502, format!("api: {}", name(&error))))?;
    let status = response.status();
    let body = response.consume().expect("the body is taken once");
    let body = read(&body).ok_or_else(|| (502, "api: its answer broke off".to_owned()))?;
    let order: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status != 200 {
        let problem = order["error"].as_str().unwrap_or("api failed");
        return Err((if status == 404 { 404 } else { 502 }, problem.to_owned()));
    }
    let product = escaped(order["product"]["name"].as_str().unwrap_or_default());
    let state = escaped(order["state"].as_str().unwrap_or_default());
    let quantity = order["quantity"].as_u64().unwrap_or_default();
    let cents = order["product"]["cents"].as_u64().unwrap_or_default() * quantity;
    let currency = escaped(&variable("CURRENCY").unwrap_or_default());
    let price = format!("{}.{:02} {currency}", cents / 100, cents % 100);
    Ok(page(
        &format!("Order {number}"),
        &format!("<p>{quantity} × {product}: {price}</p>\n<p id=\"state\">{state}</p>"),
    ))
}

fn slow(target: &Target) -> Result<String, (u16, String)> {
    let ms = target.number("ms", 1000).filter(|ms| *ms <= 10_000);
    let ms = ms.ok_or((400, "`ms` is no number up to 10000".to_owned()))?;
    subscribe_duration(ms * 1_000_000).block();
    Ok(page("A slow page", &format!("<p>It took {ms} ms.</p>")))
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"/boat.svg\">\n<link rel=\"stylesheet\" href=\"/shop.css\">\n<main>\n<h1>{title}</h1>\n{body}\n\
         <p><a href=\"/\">Back to the shop</a></p>\n</main>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
