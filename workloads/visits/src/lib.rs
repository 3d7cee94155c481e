//! Keeps counts and texts in the key-value store `visits` of its app (WASI 0.2).
//!
//! | request | answer |
//! |---|---|
//! | `/` | how many times this path was asked for, of all pods of the app and for ever |
//! | `/add?key=k&delta=-2` | the number at a key, after so much was added to it |
//! | `/set?key=k&value=v` | `ok`, once the text is kept; with `bytes=1000` in place of `value` so many `x` |
//! | `/get?key=k` | the text at a key, or 404 |
//! | `/exists?key=k`, `/delete?key=k` | `true` or `false`; `ok` |
//! | `/append?key=k&value=v` | the text at a key with this one behind it, by compare-and-swap |
//! | `/fill?keys=1000` | `ok`, once so many keys `key-0` … are set at once |
//! | `/clear?keys=1000` | how many of them were there, once they are deleted at once |
//! | `/list` | all keys, one a line |
//! | `/open?store=s` | `ok` if the store can be opened |
//! | `/log?level=warn&context=c&text=t` | `ok`, once the text is logged |
//!
//! What the store refuses is a 403 if it cannot be opened and a 500 if not, with the error.

use plain_http::answer;
use request_target::Target;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

/// The bindings for `wit/world.wit`.
mod bindings {
    wit_bindgen::generate!({ path: "wit", generate_all });
}

use bindings::wasi::keyvalue::atomics::{Cas, CasError, increment, swap};
use bindings::wasi::keyvalue::batch::{delete_many, get_many, set_many};
use bindings::wasi::keyvalue::store::{self, Bucket, Error};
use bindings::wasi::logging::logging::{Level, log};

/// The store that all of it is kept in.
const STORE: &str = "visits";

struct Visits;

wasip2::http::proxy::export!(Visits);

impl Guest for Visits {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let Some(target) = Target::parse(&path) else {
            return answer(response_out, 400, "bad request target\n");
        };
        let (status, text) = match respond(&target) {
            Ok(Some(text)) => (200, text),
            Ok(None) => (404, "not found".to_owned()),
            Err(Error::AccessDenied | Error::NoSuchStore) => (403, "denied".to_owned()),
            Err(Error::Other(reason)) => (500, reason),
        };
        answer(response_out, status, &format!("{text}\n"));
    }
}

fn respond(target: &Target) -> Result<Option<String>, Error> {
    if target.path == "/open" {
        let opened = store::open(target.value("store").unwrap_or_default());
        return opened.map(|_| Some("ok".to_owned()));
    }
    if target.path == "/log" {
        let text = target.value("text").unwrap_or_default();
        let context = target.value("context").unwrap_or_default();
        log(level(target.value("level")), context, text);
        return Ok(Some("ok".to_owned()));
    }
    let bucket = store::open(STORE)?;
    let key = target.value("key").unwrap_or_default();
    let value = target.value("value").unwrap_or_default();
    let done = |()| "ok".to_owned();
    let text = match target.path.as_str() {
        "/" => increment(&bucket, "visits", 1)?.to_string(),
        "/add" => {
            let delta = target.value("delta").unwrap_or("1");
            increment(&bucket, key, delta.parse().unwrap_or_default())?.to_string()
        }
        "/set" => match target.number("bytes", 0).unwrap_or_default() {
            0 => bucket.set(key, value.as_bytes()).map(done)?,
            bytes => bucket.set(key, &vec![b'x'; bytes as usize]).map(done)?,
        },
        "/get" => return Ok(bucket.get(key)?.map(text_of)),
        "/exists" => bucket.exists(key)?.to_string(),
        "/delete" => bucket.delete(key).map(done)?,
        "/append" => append(&bucket, key, value)?,
        "/fill" => {
            let pairs: Vec<_> = keys(target).map(|key| (key, b"x".to_vec())).collect();
            set_many(&bucket, &pairs).map(done)?
        }
        "/clear" => {
            let keys: Vec<_> = keys(target).collect();
            let found = get_many(&bucket, &keys)?;
            delete_many(&bucket, &keys)?;
            let found = found.iter().filter(|(_, value)| value.is_some());
            found.count().to_string()
        }
        "/list" => list(&bucket)?,
        _ => return Ok(None),
    };
    Ok(Some(text))
}

fn level(name: Option<&str>) -> Level {
    match name {
        Some("trace") => Level::Trace,
        Some("debug") => Level::Debug,
        Some("warn") => Level::Warn,
        Some("error") => Level::Error,
        Some("critical") => Level::Critical,
        _ => Level::Info,
    }
}

fn text_of(value: Vec<u8>) -> String {
    String::from_utf8_lossy(&value).into_owned()
}

fn keys(target: &Target) -> impl Iterator<Item = String> {
    let keys = target.number("keys", 1).unwrap_or(1);
    (0..keys).map(|number| format!("key-{number}"))
}

/// Tries again until nothing else was written between the look and the swap.
fn append(bucket: &Bucket, key: &str, more: &str) -> Result<String, Error> {
    let mut cas = Cas::new(bucket, key)?;
    loop {
        let text = cas.current()?.map(text_of).unwrap_or_default() + more;
        match swap(cas, text.as_bytes()) {
            Ok(()) => return Ok(text),
            Err(CasError::CasFailed(again)) => cas = again,
            Err(CasError::StoreError(error)) => return Err(error),
        }
    }
}

fn list(bucket: &Bucket) -> Result<String, Error> {
    let mut keys = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_keys(cursor.as_deref())?;
        keys.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(keys.join("\n"));
        }
    }
}
