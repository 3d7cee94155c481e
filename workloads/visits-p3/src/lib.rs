//! Keeps counts and texts in the key-value store `visits` of its app (WASI 0.3).
//!
//! | request | answer |
//! |---|---|
//! | `/` | how many times this path was asked for, of all pods of the app and for ever |
//! | `/fill?keys=1000` | `ok`, once so many keys `key-0` … are set at once |
//! | `/clear?keys=1000` | how many of them were there, once they are deleted at once |
//! | `/list` | all keys, one a line |
//!
//! There is no `wasi:keyvalue` of WASI 0.3 yet, so it imports that of 0.2, in the first draft: while a
//! request waits for the store, so does the instance.

use request_target::Target;
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

/// The bindings for `wit/world.wit`.
mod bindings {
    wasip3::wit_bindgen::generate!({
        path: "wit",
        generate_all,
        runtime_path: "wasip3::wit_bindgen::rt",
    });
}

use bindings::wasi::keyvalue::atomics::increment;
use bindings::wasi::keyvalue::batch::{delete_many, get_many, set_many};
use bindings::wasi::keyvalue::store::{self, Bucket, Error};

struct Visits;

wasip3::http::service::export!(Visits);

impl Guest for Visits {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let Some(target) = Target::parse(&path) else {
            return Ok(text(400, "bad request target\n".to_owned()));
        };
        Ok(match respond(&target) {
            Ok(Some(answer)) => text(200, format!("{answer}\n")),
            Ok(None) => text(404, "not found\n".to_owned()),
            Err(Error::AccessDenied | Error::NoSuchStore) => text(403, "denied\n".to_owned()),
            Err(Error::Other(reason)) => text(500, format!("{reason}\n")),
        })
    }
}

fn respond(target: &Target) -> Result<Option<String>, Error> {
    let bucket = store::open("visits")?;
    let keys = target.number("keys", 1).unwrap_or(1);
    let keys = (0..keys).map(|number| format!("key-{number}"));
    let text = match target.path.as_str() {
        "/" => increment(&bucket, "visits", 1)?.to_string(),
        "/fill" => {
            let pairs: Vec<_> = keys.map(|key| (key, b"x".to_vec())).collect();
            set_many(&bucket, &pairs)?;
            "ok".to_owned()
        }
        "/clear" => {
            let keys: Vec<_> = keys.collect();
            let found = get_many(&bucket, &keys)?;
            delete_many(&bucket, &keys)?;
            found.iter().flatten().count().to_string()
        }
        "/list" => list(&bucket)?,
        _ => return Ok(None),
    };
    Ok(Some(text))
}

fn list(bucket: &Bucket) -> Result<String, Error> {
    let mut keys = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_keys(cursor)?;
        keys.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(keys.join("\n"));
        }
    }
}

fn text(status: u16, text: String) -> Response {
    let headers = Fields::new();
    // `set` fails only for a malformed or forbidden header, and this one is neither.
    let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
    let (mut body, body_reader) = wit_stream::new();
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(body_reader), no_trailers);
    let _ = response.set_status_code(status);
    // The host reads the body only after it has the response, so the writing goes on beside it.
    wit_bindgen::spawn_local(async move {
        body.write_all(text.into_bytes()).await;
    });
    response
}
