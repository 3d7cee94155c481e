//! A command that works until it is told to stop: a service without requests (WASI 0.3).
//!
//! | arguments | what it does |
//! |---|---|
//! | none | takes the entries `todo/…` of the key-value store `queue`, prints `done` and their names, and moves each to `done/…` |
//! | `tick` | prints `tick 1`, `tick 2`, … |
//! | `call URL` | prints the status that the URL answers, or the name of the error |
//! | `exit 0`, `exit 1` | ends with that code, after one round |
//! | `spin` | computes, and never waits |
//! | `crash` | traps, after one round |
//!
//! A round takes `TICK_MS` milliseconds of its environment, or a second. `pre-stop` has it end after the
//! round that it is in, with code 0; with `STUBBORN=1` in its environment it goes on. The export `ready`
//! fails before the first round is over, `live` from the round on that `SICK_AFTER` names.

use std::cell::Cell;

use bindings::wasi::keyvalue::store::{self, Bucket};
use wasip3::cli::environment::{get_arguments, get_environment};
use wasip3::cli::stdout::write_via_stream;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::exports::cli::run::Guest;
use wasip3::http::client;
use wasip3::http::types::{Fields, Request, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

/// The bindings for `wit/world.wit`.
mod bindings {
    wasip3::wit_bindgen::generate!({
        path: "wit",
        generate_all,
        runtime_path: "wasip3::wit_bindgen::rt",
    });
}

/// How long a round takes if the environment does not say, in milliseconds.
const DEFAULT_TICK_MS: u64 = 1000;

thread_local! {
    static STOPS: Cell<bool> = const { Cell::new(false) };
    static ROUNDS: Cell<u64> = const { Cell::new(0) };
}

struct Worker;

wasip3::cli::command::export!(Worker);
bindings::export!(Worker with_types_in bindings);

impl bindings::exports::sampan::pod::health::Guest for Worker {
    async fn started() -> Result<(), String> {
        Ok(())
    }

    async fn ready() -> Result<(), String> {
        match ROUNDS.get() {
            0 => Err("the first round is not over".to_owned()),
            _ => Ok(()),
        }
    }

    async fn live() -> Result<(), String> {
        match number("SICK_AFTER") {
            Some(last) if ROUNDS.get() >= last => Err("sick".to_owned()),
            _ => Ok(()),
        }
    }
}

impl bindings::exports::sampan::pod::lifecycle::Guest for Worker {
    async fn pre_stop() -> Result<(), String> {
        STOPS.set(variable("STUBBORN").is_none());
        Ok(())
    }
}

impl Guest for Worker {
    async fn run() -> Result<(), ()> {
        // The first argument is the name of the program.
        let arguments: Vec<String> = get_arguments().into_iter().skip(1).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let tick = number("TICK_MS").unwrap_or(DEFAULT_TICK_MS);
        while !STOPS.get() {
            wait_for(tick.saturating_mul(1_000_000)).await;
            let round = ROUNDS.get() + 1;
            match arguments[..] {
                [] => take_all().await?,
                ["tick"] => say(format!("tick {round}")).await,
                ["call", url] => say(call(url).await).await,
                ["exit", "0"] => return Ok(()),
                ["spin"] => spin(),
                ["crash"] => panic!("as it was asked to"),
                _ => return Err(()),
            }
            ROUNDS.set(round);
        }
        say("stopping".to_owned()).await;
        Ok(())
    }
}

fn variable(name: &str) -> Option<String> {
    let mut all = get_environment().into_iter();
    all.find_map(|(key, value)| (key == name).then_some(value))
}

fn number(name: &str) -> Option<u64> {
    variable(name)?.parse().ok()
}

/// Does what there is to do.
async fn take_all() -> Result<(), ()> {
    let bucket = match store::open("queue") {
        Ok(bucket) => bucket,
        Err(error) => {
            say(format!("cannot open the queue: {error:?}")).await;
            return Err(());
        }
    };
    for key in todo(&bucket)? {
        let name = key.trim_start_matches("todo/");
        if let Some(value) = bucket.get(&key).map_err(drop)? {
            bucket.set(&format!("done/{name}"), &value).map_err(drop)?;
            bucket.delete(&key).map_err(drop)?;
            say(format!("done {name}")).await;
        }
    }
    Ok(())
}

fn todo(bucket: &Bucket) -> Result<Vec<String>, ()> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_keys(cursor).map_err(drop)?;
        found.extend(page.keys.into_iter().filter(|key| key.starts_with("todo/")));
        cursor = page.cursor;
        if cursor.is_none() {
            found.sort();
            return Ok(found);
        }
    }
}

async fn call(url: &str) -> String {
    let Some(request) = get(url) else {
        return "this is no URL".to_owned();
    };
    match client::send(request).await {
        Ok(response) => format!("status {}", response.get_status_code()),
        Err(error) => format!("{error:?}"),
    }
}

/// A GET of `url`, not sent yet. Returns `None` if that is no `http` URL.
fn get(url: &str) -> Option<Request> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers, None);
    request.set_scheme(Some(&Scheme::Http)).ok()?;
    request.set_authority(Some(authority)).ok()?;
    let path = if path.is_empty() { "/" } else { path };
    request.set_path_with_query(Some(path)).ok()?;
    Some(request)
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

/// Prints a line.
async fn say(line: String) {
    let (mut writer, reader) = wit_stream::new();
    // The host reads while it is written, so the writing goes on beside the wait for the result.
    wit_bindgen::spawn_local(async move {
        writer.write_all(format!("{line}\n").into_bytes()).await;
    });
    // A line that cannot be printed is lost.
    let _ = write_via_stream(reader).await;
}
