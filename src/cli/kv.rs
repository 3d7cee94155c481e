//! `sampan kv`: what guests keep in key-value stores.

use std::{
    io::{self, Read as _},
    str::FromStr,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use sampan_core::{name::Name, quantity::ByteSize, view};
use serde_json::json;

use super::{
    End,
    api::ApiArguments,
    output::{self, Output},
    process::runtime,
};
use crate::client::{Client, quoted};

/// The largest value that is read from standard input: no node allows a larger one.
const MAX_VALUE_BYTES: u64 = 16 << 20;

/// Read and change what guests keep in key-value stores
///
/// A store belongs to an app: `shop/sessions` is what guests of `shop` open as `sessions`. A change
/// is durable when the program ends with exit code 0.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the value of a key as it is
    Get {
        /// The app and the store
        #[arg(value_name = "APP/STORE")]
        store: Store,
        /// The key
        key: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Set a key to a value, or to what is on standard input
    Put {
        /// The app and the store
        #[arg(value_name = "APP/STORE")]
        store: Store,
        /// The key
        key: String,
        /// The value; without it, it is read from standard input
        value: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// List the keys of a store, or the stores of an app
    List {
        /// The app, and perhaps the store
        #[arg(value_name = "APP[/STORE]")]
        of: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Delete a key
    Delete {
        /// The app and the store
        #[arg(value_name = "APP/STORE")]
        store: Store,
        /// The key
        key: String,
        #[command(flatten)]
        asking: Asking,
    },
}

/// How to ask, and how to print.
#[derive(Args)]
struct Asking {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    api: ApiArguments,
}

/// `APP/STORE`.
#[derive(Clone, Debug)]
struct Store {
    app: Name,
    name: Name,
}

impl FromStr for Store {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (app, name) = text.split_once('/').context("write it as `APP/STORE`")?;
        Ok(Self {
            app: Name::parse(app)?,
            name: Name::parse(name)?,
        })
    }
}

impl Store {
    fn target(&self, rest: &str) -> String {
        let (app, name) = (quoted(self.app.as_str()), quoted(self.name.as_str()));
        format!("/v1/apps/{app}/stores/{name}/{rest}")
    }

    fn value(&self, key: &str) -> String {
        self.target(&format!("value?key={}", quoted(key)))
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    runtime()?.block_on(async {
        match &arguments.verb {
            Verb::Get { store, key, asking } => get(store, key, asking, output).await,
            Verb::Put {
                store,
                key,
                value,
                asking,
            } => {
                let value = match value {
                    Some(value) => value.clone().into_bytes(),
                    None => input()?,
                };
                let client = asking.api.client()?;
                client.upload(&store.value(key), Bytes::from(value)).await?;
                done(asking, output, "put", key)
            }
            Verb::List { of, asking } => match of.contains('/') {
                true => keys(&of.parse()?, asking, output).await,
                false => stores(&Name::parse(of)?, asking, output).await,
            },
            Verb::Delete { store, key, asking } => {
                asking.api.client()?.remove(&store.value(key)).await?;
                done(asking, output, "deleted", key)
            }
        }
    })
}

fn input() -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    // One byte more is refused, as too large.
    let mut input = io::stdin().lock().take(MAX_VALUE_BYTES + 1);
    let read = input.read_to_end(&mut value);
    read.context("cannot read the value from standard input")?;
    Ok(value)
}

/// Says that something was done: as JSON if that is asked for, and else only by the exit code.
fn done(asking: &Asking, output: &Output, what: &str, key: &str) -> End {
    match asking.json {
        true => output.json(&json!({ what: key })),
        false => Ok(()),
    }
}

async fn get(store: &Store, key: &str, asking: &Asking, output: &Output) -> End {
    let value = asking.api.client()?.fetch(&store.value(key)).await?;
    if !asking.json {
        output.bytes(&value);
        return Ok(());
    }
    // What is no text cannot be in JSON as it is.
    let (name, text) = match std::str::from_utf8(&value) {
        Ok(text) => ("value", text.to_owned()),
        Err(_) => ("hex", base16ct::lower::encode_string(&value)),
    };
    output.json(&json!({ "key": key, name: text }))
}

async fn keys(store: &Store, asking: &Asking, output: &Output) -> End {
    let client = asking.api.client()?;
    let (mut after, mut all) = (None, Vec::new());
    loop {
        let page = page(&client, store, after.as_deref()).await?;
        match asking.json {
            true => all.extend(page.keys),
            // A page at a time: there may be a million.
            false => {
                let lines = page.keys.iter();
                let lines: String = lines
                    .map(|key| format!("{}\n", output::one_line(key)))
                    .collect();
                output.data(&lines);
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    match asking.json {
        true => output.json(&all),
        false => Ok(()),
    }
}

async fn page(
    client: &Client,
    store: &Store,
    after: Option<&str>,
) -> anyhow::Result<view::KeyValueKeys> {
    let query = after.map(|key| format!("?after={}", quoted(key)));
    let target = format!("keys{}", query.unwrap_or_default());
    Ok(client.get(&store.target(&target)).await?)
}

async fn stores(app: &Name, asking: &Asking, output: &Output) -> End {
    let stores = super::delete::stores(&asking.api.client()?, app.as_str()).await?;
    output.answer(asking.json, &stores, || {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["store", "keys", "size"]);
        for store in &stores {
            let size = ByteSize(store.bytes).to_string();
            table.add_row([store.name.clone(), store.keys.to_string(), size]);
        }
        format!("{}\n", table.trim_fmt())
    })
}
